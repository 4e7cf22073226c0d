/**
 * Where a verify of what is new begins: at the cursor of the one before, if the log still has that head; on a state from the
 * nearest snapshot, whose checksum is right and whose chain hash is this log's. Cost: one snapshot and the tail after it.
 *
 * Nothing protects a cursor that was saved elsewhere: a compaction may have folded its place, a repair may have found it empty.
 * Then the walk begins before what stands there now, and the report says so.
 */
import { EMPTY_HASH } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import { sameHash } from '../log/base-log.ts'
import { recordsOf } from '../log/entries.ts'
import type { AuditedLog } from '../log/frozen-log.ts'
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

export interface Begin {
  /** Undefined: from the first record on. */
  readonly start: Start | undefined
  /** Why not at the cursor given, in words; null when there was none, or the walk begins there. */
  readonly note: string | null
}

const JOINED = 'the walk can begin nowhere before the cursor, so everything was walked'
const EVERYTHING: Begin = { start: undefined, note: null }

/**
 * A log that no longer has the cursor's head is a finding.
 * @throws CheckpointError POINT_INVALID when no record ever ended at the cursor, as far as can be told
 */
export async function startOf(
  log: AuditedLog,
  derived: Derived,
  storeId: string,
  since: Anchor | undefined,
  findings: Findings,
): Promise<Begin> {
  if (since === undefined || since.position < 0) return EVERYTHING
  const { position } = since
  if (position >= log.head.next) {
    findings.add(
      'ANCHOR_CUT',
      `the log ends at position ${log.head.next - 1}, before the ${position} of the cursor given: its tail is gone; restore the folder from a copy. Everything was walked`,
      { position: log.head.next },
    )
    return { start: undefined, note: 'the log ends before the cursor, so everything was walked' }
  }
  try {
    const there = await lookAt(log, position)
    if (there.kind !== 'record') return await beginBefore(log, derived, storeId, there, position)
    if (!sameHash(there.hash, Buffer.from(since.hash, 'hex'))) {
      findings.add(
        'ANCHOR_DIFFERS',
        `at position ${position} the chain's hash is not the cursor's: the log up to there was rewritten; compare with a copy of the time. Everything was walked`,
        { position },
      )
      return { start: undefined, note: "the log no longer has the cursor's hash, so everything was walked" }
    }
    const start = await startAfter(log, derived, storeId, position, there.hash)
    return { start, note: start === undefined ? JOINED : null }
  } catch (error) {
    // Damage before the cursor is named by the walk over everything.
    if (!(error instanceof CheckpointError) || error.code !== 'LOG_DAMAGED') throw error
    return { start: undefined, note: 'something before the cursor is damaged, so everything was walked' }
  }
}

type Place =
  | { readonly kind: 'record'; readonly hash: Uint8Array }
  /** What stands there now tells no hash: it was folded, is gone, or follows what is gone. */
  | { readonly kind: 'windows' | 'gap' | 'behind-gap'; readonly first: number }

/** @throws CheckpointError POINT_INVALID */
async function lookAt(log: AuditedLog, position: number): Promise<Place> {
  for await (const [entry] of log.values({ from: position, to: position })) {
    const records = entry === undefined ? [] : recordsOf(entry)
    const record = records.find(({ first, count }) => first <= position && position < first + count)
    if (record === undefined) break
    const ends = record.first + record.count === position + 1
    const hash = await log.hashAt(position)
    // A gap that does not know the chain's hash carries zeros.
    if (hash !== undefined && !sameHash(hash, EMPTY_HASH)) return { kind: 'record', hash }
    if (record.kind === 'gap') return { kind: 'gap', first: record.first }
    if (record.kind === 'windows') return { kind: 'windows', first: record.first }
    if (ends) return { kind: 'behind-gap', first: records[0]!.first }
    break
  }
  throw noCursor(position)
}

/** Begins where the value that took the cursor's place does: from there on everything is looked at again. */
async function beginBefore(
  log: AuditedLog,
  derived: Derived,
  storeId: string,
  there: Exclude<Place, { kind: 'record' }>,
  cursor: number,
): Promise<Begin> {
  const why = {
    windows: `a compaction folded position ${cursor} since`,
    gap: `a repair found position ${cursor} lost since`,
    'behind-gap': `a repair left a gap before position ${cursor} since`,
  }[there.kind]
  const before = there.kind === 'behind-gap' ? undefined : await log.hashAt(there.first - 1)
  const start =
    before === undefined || there.first === 0
      ? undefined
      : await startAfter(log, derived, storeId, there.first - 1, before)
  const from = start === undefined ? 'everything was walked' : `the walk began after position ${start.after}`
  return { start, note: `${why}, so its hash cannot be compared, and ${from}` }
}

/** Records may have been joined across the cursor since: then the walk begins with the stored value that holds it. */
async function startAfter(
  log: AuditedLog,
  derived: Derived,
  storeId: string,
  cursor: number,
  hash: Uint8Array,
): Promise<Start | undefined> {
  const value = cursor + 1 === log.head.next ? undefined : await log.startOfValue(cursor + 1)
  const after = value === undefined ? cursor : Math.min(cursor, value - 1)
  if (after < 0) return undefined
  const before = after === cursor ? hash : await log.hashAt(after)
  if (before === undefined || sameHash(before, EMPTY_HASH)) return undefined
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
