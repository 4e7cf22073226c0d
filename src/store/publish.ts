/**
 * Making something at a place where nothing may be: under another name first, renamed when it is whole and on disk. A kill leaves
 * only what has that other name, and the next attempt takes it away.
 */
import { closeSync, fsyncSync, openSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { CheckpointError } from '../errors.ts'

let made = 0

/** A name beside `to` that nothing else chooses. */
export function partialOf(to: string): string {
  made++
  return `${to}.partial-${process.pid}-${made}`
}

/** Removes what attempts that were killed left beside `to`. One whose process lives may still be at work. */
export async function removeStalePartials(to: string): Promise<void> {
  const prefix = `${basename(to)}.partial-`
  for (const name of await readdir(dirname(to)).catch(() => [])) {
    if (!name.startsWith(prefix)) continue
    const pid = Number(/^(\d+)-\d+$/.exec(name.slice(prefix.length))?.[1] ?? Number.NaN)
    if (Number.isSafeInteger(pid) && !isRunning(pid))
      await rm(join(dirname(to), name), { recursive: true, force: true })
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** TARGET_EXISTS unless there is nothing at `to`, or only an empty folder. */
export async function refuseUnlessVacant(to: string): Promise<void> {
  let names: string[]
  try {
    names = await readdir(to)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return
    if (code === 'ENOTDIR') throw targetExists(to, 'it is a file')
    throw new CheckpointError('IO_FAILED', `cannot look into ${to}: ${message}`, { target: to }, cause)
  }
  if (names.length > 0) throw targetExists(to, 'it is not empty')
}

export function targetExists(to: string, why: string, cause?: unknown): CheckpointError {
  return new CheckpointError(
    'TARGET_EXISTS',
    `${to} exists and ${why}; nothing was written: give a place where nothing is, or move that away`,
    { target: to, why },
    cause,
  )
}

/** Renames a finished folder into place; TARGET_EXISTS when something came there meanwhile. */
export async function publishFolder(partial: string, to: string): Promise<void> {
  syncFolder(partial)
  try {
    await rename(partial, to) // Over an empty folder too, in one step.
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR')
      throw targetExists(to, 'came there meanwhile', cause)
    throw cause
  }
  syncFolder(dirname(to))
}

export async function makeParent(to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true })
}

/** So that names in it survive a power cut. */
export function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}
