/**
 * Which logs this process has open, or is opening. LevelDB's lock does not hold between two opens of one process that reach the
 * folder by different names, and closing the second one's lock file would set the first one's lock free, by whatever name.
 */
import { realpathSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'

const open = new Set<string>()

/** A folder by its path, and by its lock file's inode: a link to that file, in whatever folder, holds the very same lock. */
function namesOf(folder: string): string[] {
  const names = [nameOf(folder)]
  const lock = statSync(join(folder, 'LOCK'), { bigint: true, throwIfNoEntry: false })
  if (lock !== undefined) names.push(`${lock.dev}:${lock.ino}`)
  return names
}

function nameOf(folder: string): string {
  try {
    return realpathSync(folder)
  } catch {
    return resolve(folder)
  }
}

/** Takes the folder for one opener, at once. Returns how to give it back, or undefined when it is taken. */
export function claimHere(folder: string): (() => void) | undefined {
  const names = namesOf(folder)
  if (names.some((name) => open.has(name))) return undefined
  for (const name of names) open.add(name)
  let held = true
  return () => {
    if (held) for (const name of names) open.delete(name)
    held = false
  }
}

export function isOpenHere(folder: string): boolean {
  return namesOf(folder).some((name) => open.has(name))
}
