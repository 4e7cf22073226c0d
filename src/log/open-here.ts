/**
 * Which logs this process has open. LevelDB's lock does not hold between two opens of one process that reach the folder by
 * different names, and closing the second would set the first one's lock free.
 */
import { realpathSync } from 'node:fs'

const open = new Set<string>()

function nameOf(folder: string): string {
  try {
    return realpathSync(folder)
  } catch {
    return folder
  }
}

/** Returns how to note that it is closed again. */
export function noteOpen(folder: string): () => void {
  const name = nameOf(folder)
  open.add(name)
  return () => open.delete(name)
}

export function isOpenHere(folder: string): boolean {
  return open.has(nameOf(folder))
}
