/**
 * Where a verify of what is new begins: at the cursor of the one before, if the log still has that head; on a state from the
 * nearest snapshot, whose checksum is right and whose chain hash is this log's. Cost: one snapshot and the tail after it.
 */
import { CheckpointError } from '../errors.ts'
import { sameHash } from '../log/base-log.ts'
import type { LevelEventLog } from '../log/level-log.ts'
import type { Derived } from '../store/derived.ts'
import { rebuild } from '../store/rebuild.ts'
import type { State } from '../store/state.ts'
import type { Findings } from './findings.ts'
import type { Anchor } from './head.ts'

export interface Start {
  /** The last position that is taken as verified; the next stored value begins after it. */
  readonly after: number
  readonly hash: Uint8Array
  readonly time: number | null
  readonly state: State
}

/**
 * Undefined: from the first record on. A log that no longer has the cursor's head is a finding.
 * @throws CheckpointError POINT_INVALID when no record ends at the cursor
 */
export async function startOf(
  log: LevelEventLog,
  derived: Derived,
  storeId: string,
  since: Anchor | undefined,
  findings: Findings,
): Promise<Start | undefined> {
  if (since === undefined || since.position < 0) return undefined
  if (since.position >= log.head.next) {
    findings.add(
      'ANCHOR_CUT',
      `the log ends at position ${log.head.next - 1}, before the ${since.position} of the cursor given: its tail is gone; restore the folder from a copy. Everything was walked`,
      { position: log.head.next },
    )
    return undefined
  }
  try {
    const found = await log.hashAt(since.position)
    if (found === undefined) throw noCursor(since.position)
    if (!sameHash(found, Buffer.from(since.hash, 'hex'))) {
      findings.add(
        'ANCHOR_DIFFERS',
        `at position ${since.position} the chain's hash is not the cursor's: the log up to there was rewritten; compare with a copy of the time. Everything was walked`,
        { position: since.position },
      )
      return undefined
    }
    return await startAfter(log, derived, storeId, since.position, found)
  } catch (error) {
    // Damage before the cursor is named by the walk over everything.
    if (error instanceof CheckpointError && error.code === 'LOG_DAMAGED') return undefined
    throw error
  }
}

/** Records may have been joined across the cursor since: then the walk begins with the stored value that holds it. */
async function startAfter(
  log: LevelEventLog,
  derived: Derived,
  storeId: string,
  cursor: number,
  hash: Uint8Array,
): Promise<Start | undefined> {
  const value = cursor + 1 === log.head.next ? undefined : await log.startOfValue(cursor + 1)
  const after = value === undefined ? cursor : Math.min(cursor, value - 1)
  if (after < 0) return undefined
  const before = after === cursor ? hash : await log.hashAt(after)
  if (before === undefined) return undefined
  const { state } = await rebuild(log, derived, storeId, after)
  return { after, hash: before, time: state.catalog.last.time, state }
}

function noCursor(position: number): CheckpointError {
  return new CheckpointError(
    'POINT_INVALID',
    `no record ends at position ${position}, so it is no cursor of a verify; give the head that the last verify printed`,
    { position },
  )
}
