/**
 * A view of a store's files that LevelDB may open without changing the store: opening replays write-ahead files, deletes some and
 * begins others, so it gets a folder of its own, where tables are links and everything small is a copy. The lock is the store's.
 *
 * Only tables that the manifest names are linked: LevelDB writes none of those again, but it may reuse the number of another.
 */
import { accessSync, constants, copyFileSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { liveTables, tableFiles } from '../log/manifest.ts'
import type { FolderPaths } from '../store/folder.ts'

export interface Shadow {
  readonly log: string
  readonly derived: string
  /** For what the audit itself puts aside. */
  readonly scratch: string
  readonly aside: string
  readonly owner: string
  remove(): Promise<void>
}

export async function shadowOf(paths: FolderPaths): Promise<Shadow> {
  const root = await mkdtemp(join(tmpdir(), 'slicelog-verify-'))
  const remove = () => rm(root, { recursive: true, force: true })
  const at = (name: string) => join(root, name)
  try {
    shadowFolder(paths.log, at('log'))
    shadowFolder(paths.derived, at('derived'))
  } catch (error) {
    await remove()
    throw error
  }
  return {
    log: at('log'),
    derived: at('derived'),
    scratch: at('scratch'),
    aside: at('aside'),
    owner: at('owner.json'),
    remove,
  }
}

function shadowFolder(source: string, target: string): void {
  mkdirSync(target)
  const from = resolve(source)
  const live = liveTables(from)
  const tables = new Set(tableFiles(from).map(({ name }) => name))
  for (const name of namesIn(from)) {
    if (/^(CURRENT|MANIFEST-\d+|\d+\.log|journal)$/.test(name))
      copyFileSync(join(from, name), join(target, name))
    else if (name === 'LOCK' && writable(join(from, name))) symlinkSync(join(from, name), join(target, name))
    else if (tables.has(name) && live?.has(Number.parseInt(name, 10)) === true)
      symlinkSync(join(from, name), join(target, name))
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}
