/**
 * The exchange of a damaged log for the repaired one. A marker says that it has begun; from then on no store opens there, and a
 * repair that finds it goes on where the one before was killed. Each step can be done twice (R28).
 */
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { REPAIR_PREFIX } from '../log/aside.ts'
import { Derived } from '../store/derived.ts'
import type { FolderPaths } from '../store/folder.ts'
import { syncFolder } from '../store/publish.ts'
import { REPORT } from './repair-kept.ts'

/** Of folders that a repair works in. */
export const SCRATCH_PREFIX = '.repair-'

/** Beside the log: the one that will take its place. */
export interface NewLog {
  readonly folder: string
  readonly headFile: string
  readonly storeFile: string
}

export function newLogOf(paths: FolderPaths): NewLog {
  const at = (name: string) => join(paths.root, name)
  return {
    folder: at('log.repairing'),
    headFile: at('head.repairing'),
    storeFile: at('store.json.repairing'),
  }
}

interface Marker {
  /** Name of the folder in aside/. */
  readonly kept: string
  /** Folders in aside/ whose files the repair has read: they go along. */
  readonly asides: readonly string[]
}

/** What a repair that was killed before its exchange left. */
export async function discardUnfinished(paths: FolderPaths): Promise<void> {
  const next = newLogOf(paths)
  await rm(next.folder, { recursive: true, force: true })
  await rm(`${next.folder}.checked`, { force: true })
  await rm(next.headFile, { force: true })
  await rm(next.storeFile, { force: true })
  await rm(`${paths.repairing}.new`, { force: true })
  for (const name of await readdir(paths.root))
    if (name.startsWith(SCRATCH_PREFIX)) await rm(join(paths.root, name), { recursive: true, force: true })
  for (const name of await readdir(paths.aside).catch(() => [])) {
    // Without a report it was not told anywhere, and everything in it is in the log still.
    const kept = join(paths.aside, name)
    if (name.startsWith(REPAIR_PREFIX) && !existsSync(join(kept, REPORT)))
      await rm(kept, { recursive: true, force: true })
  }
}

/** Called before each step, by name: a test kills the process there. */
export type Step = (name: string) => void

export async function beginSwap(paths: FolderPaths, marker: Marker, step: Step): Promise<void> {
  const temporary = `${paths.repairing}.new`
  await writeFile(temporary, JSON.stringify(marker), { flush: true })
  syncFolder(paths.root)
  step('mark')
  await rename(temporary, paths.repairing)
  syncFolder(paths.root)
}

/** The folder of what was taken out, or undefined when no exchange was under way. */
export async function finishSwap(paths: FolderPaths, step: Step = () => {}): Promise<string | undefined> {
  if (!existsSync(paths.repairing)) return undefined
  const { kept, asides } = JSON.parse(readFileSync(paths.repairing, 'utf8')) as Marker
  const next = newLogOf(paths)
  const folder = join(paths.aside, kept)
  await mkdir(folder, { recursive: true })
  await exchange(next.folder, paths.log, join(folder, 'log'), step)
  await exchange(next.headFile, paths.head, join(folder, 'head'), step)
  await exchange(next.storeFile, paths.storeFile, join(folder, 'store.json'), step)
  await rm(`${next.folder}.checked`, { force: true })
  await rm(`${paths.log}.checked`, { force: true })
  for (const name of asides) await moved(join(paths.aside, basename(name)), join(folder, basename(name)))
  step('derived')
  // Snapshots and stored bits are of a log that is no more.
  const derived = await Derived.open(paths.derived)
  await derived.dropDerived()
  await derived.close()
  syncFolder(paths.root)
  step('unmark')
  await rm(paths.repairing)
  syncFolder(paths.root)
  return folder
}

/** `next` takes the place of `now`, which goes to `old`. Whatever of it was done before is not done again. */
async function exchange(next: string, now: string, old: string, step: Step): Promise<void> {
  if (!existsSync(next)) return
  if (existsSync(now)) {
    // A second time `old` is there already: then what stands at `now` was opened by nobody and is no loss.
    if (existsSync(old)) await rm(now, { recursive: true, force: true })
    else {
      step(`keep ${basename(now)}`)
      await rename(now, old)
    }
  }
  step(`place ${basename(now)}`)
  await rename(next, now)
}

async function moved(from: string, to: string): Promise<void> {
  if (existsSync(from) && !existsSync(to)) await rename(from, to)
}
