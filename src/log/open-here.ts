/**
 * Which logs this process has open, or is opening. LevelDB's lock does not hold between two opens of one process that reach the
 * folder by different names, and closing the second one's lock file would set the first one's lock free, by whatever name.
 */
import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'

const open = new Set<string>()

function nameOf(folder: string): string {
  try {
    return realpathSync(folder)
  } catch {
    return resolve(folder)
  }
}

/** Takes the folder for one opener, at once. Returns how to give it back, or undefined when it is taken. */
export function claimHere(folder: string): (() => void) | undefined {
  const name = nameOf(folder)
  if (open.has(name)) return undefined
  open.add(name)
  let held = true
  return () => {
    if (held) open.delete(name)
    held = false
  }
}

export function isOpenHere(folder: string): boolean {
  return open.has(nameOf(folder))
}
