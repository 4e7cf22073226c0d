/**
 * Who has the store open, for the one that is refused (R34). LevelDB's lock decides; this file only explains, so it may be
 * stale or missing and nothing breaks.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { CheckpointError } from '../errors.ts'

export interface Owner {
  readonly pid: number
  readonly host: string
  readonly bootId: string
  /** When the process began, in the system's own ticks since its start: another process may get the same pid. Null where unknown. */
  readonly started: string | null
  /** ISO 8601. */
  readonly since: string
  readonly command: string
}

function thisOwner(bootId: Uint8Array): Owner {
  return {
    pid: process.pid,
    host: hostname(),
    bootId: Buffer.from(bootId).toString('hex'),
    started: startOf(process.pid),
    since: new Date().toISOString(),
    command: process.argv.slice(0, 6).join(' '),
  }
}

/** As well as it can be: a store must not stay closed because a file that explains could not be written. */
export function writeOwner(path: string, bootId: Uint8Array): void {
  try {
    writeFileSync(path, JSON.stringify(thisOwner(bootId)))
  } catch {
    // The one that is refused is told that the owner is unknown.
  }
}

/** It is this process that has the folder open, or is opening it and has not written who it is yet. */
export function inUseHere(path: string, folder: string, bootId: Uint8Array): CheckpointError {
  const written = readOwner(path)
  const owner = written?.pid === process.pid && written.host === hostname() ? written : thisOwner(bootId)
  return new CheckpointError(
    'STORE_IN_USE',
    `${folder} is open in this process already (${owner.pid}), perhaps by another path; use the store that is open, or close it first`,
    { folder, heldBy: { ...owner, life: 'running' } },
  )
}

/** Removes the file if it still names this process. */
export function removeOwner(path: string): void {
  if (readOwner(path)?.pid !== process.pid) return
  try {
    rmSync(path, { force: true })
  } catch {
    // Stale then, which its reader is told.
  }
}

export function readOwner(path: string): Owner | undefined {
  try {
    const raw: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (typeof raw !== 'object' || raw === null) return undefined
    const owner = raw as Partial<Owner>
    return Number.isSafeInteger(owner.pid) ? (owner as Owner) : undefined
  } catch {
    return undefined
  }
}

type Life = 'running' | 'gone' | 'unknown'

function lifeOf(owner: Owner): Life {
  if (owner.host !== hostname()) return 'unknown'
  try {
    process.kill(owner.pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return 'gone'
  }
  const started = startOf(owner.pid)
  return started === null || owner.started == null || started === owner.started ? 'running' : 'gone'
}

/** Linux: the 22nd field of a process's stat; the second is its name in parentheses, which may hold anything. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null
  } catch {
    return null
  }
}

export function storeInUse(path: string, folder: string, cause: unknown): CheckpointError {
  const owner = readOwner(path)
  if (owner === undefined) {
    return new CheckpointError(
      'STORE_IN_USE',
      `${folder} is open elsewhere; by whom is unknown`,
      { folder, heldBy: null },
      cause,
    )
  }
  const life = lifeOf(owner)
  const who =
    owner.pid === process.pid && life === 'running' ? 'this process' : `process ${owner.pid} on ${owner.host}`
  const hint = life === 'gone' ? '; that process is gone, so another one holds it now' : '; end it, or ask it'
  return new CheckpointError(
    'STORE_IN_USE',
    `${folder} is open in ${who} since ${owner.since} (${owner.command})${hint}`,
    { folder, heldBy: { ...owner, life } },
    cause,
  )
}
