/**
 * Which writes touched a byte range, newest first, which backups hold each, and since when the range is covered (R27).
 *
 * Costs what the span index leaves to be decoded: a hot range a few records from the head, a cold one the spans that wrote
 * there. The log is read in pieces, newest first, and no further than the limit asks; no object is made for a row that is not
 * in the answer.
 */
import type { Point } from '../../events/types.ts'
import type { DiskState } from '../../projections/state.ts'
import { needName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { needObject, needOptions } from '../store/arguments.ts'
import { needStore, type Store } from '../store/store.ts'
import type { PointInput } from '../store/types.ts'
import { type Holding, holdersOf } from './blame-backups.ts'
import { type Touch, touchesOf } from './blame-touches.ts'

export type { Touch } from './blame-touches.ts'

export interface BlameOptions {
  /** Writes in the answer, at most. Default 20. */
  readonly limit?: number
  /** Only writes after this point. */
  readonly since?: PointInput
  /** Only writes up to this point; also the moment of which the disk, and its size, is asked. Default `now`. */
  readonly until?: PointInput
  /** Whose slices `since` and `until` may name. */
  readonly bitmap?: string
  readonly signal?: AbortSignal | undefined
}

export type BlamedTouch = Touch & {
  readonly position: number
  readonly time: number
  readonly backups: Holding
}

export type Coverage =
  /** Every touch is in a copy: this backup was the first that held the newest one. */
  | { readonly kind: 'covered'; readonly backup: string; readonly point: Point }
  /** A backup that would hold the newest one has not ended yet. */
  | { readonly kind: 'pending'; readonly backup: string }
  | { readonly kind: 'not-covered' }
  /** Nothing touched the range in the span. */
  | { readonly kind: 'untouched' }

export interface Blame {
  readonly disk: string
  readonly offset: number
  readonly length: number
  readonly since: Point
  readonly until: Point
  /** Newest first. */
  readonly touches: readonly BlamedTouch[]
  /** The limit was reached: older ones were not looked for. */
  readonly more: boolean
  /** `window`: some of them are known only together. */
  readonly resolution: 'exact' | 'window'
  readonly covered: Coverage
  /** Events that were decoded to find them. */
  readonly read: number
}

const LIMIT = 20

/**
 * @throws CheckpointError RANGE_INVALID (also for a length of 0), RANGE_OUTSIDE_DISK, DISK_NOT_FOUND, POINT_ORDER,
 * POINT_NOT_FOUND, ABORTED, LOG_DAMAGED
 */
export async function blame(
  store: Store,
  disk: string,
  range: { readonly offset: number; readonly length: number },
  options: BlameOptions = {},
): Promise<Blame> {
  needStore(store)
  needName('disk', disk)
  needObject('the range', range)
  needOptions(options, { bitmap: 'text', signal: 'signal' })
  const { offset, length } = range
  const limit = checkLimit(options.limit ?? LIMIT)
  checkRange(disk, offset, length)
  const context = { disk, bitmap: options.bitmap }
  const until = await store.resolvePoint(options.until ?? 'now', 'at', context)
  const since = await store.resolvePoint(options.since ?? 'start', 'since', context)
  if (since.position > until.position)
    throw new CheckpointError(
      'POINT_ORDER',
      `since (position ${since.position}) lies after until (position ${until.position}); swap them`,
      { since: since.position, until: until.position },
    )
  const found = await store.diskAt(disk, until, { signal: options.signal })
  checkInside(found, offset, length)
  const after = Math.max(since.position, found.addedAt.position)
  const seen = await touchesOf(store, found, { offset, length, after, until, limit }, options.signal)
  const holders = holdersOf(store, found, { offset, length })
  const touches = seen.touches.map((touch) => ({ ...touch, backups: holders.of(touch) }))
  return {
    disk,
    offset,
    length,
    since,
    until,
    touches,
    more: seen.more,
    resolution: touches.some(({ kind }) => kind === 'window' || kind === 'maybe-written')
      ? 'window'
      : 'exact',
    covered: coverageOf(touches[0], holders.pointOf),
    read: seen.read,
  }
}

function coverageOf(newest: BlamedTouch | undefined, pointOf: (backup: string) => Point): Coverage {
  if (newest === undefined) return { kind: 'untouched' }
  const [first] = newest.backups.in
  if (first !== undefined) return { kind: 'covered', backup: first, point: pointOf(first) }
  const [pending] = newest.backups.pending
  return pending === undefined ? { kind: 'not-covered' } : { kind: 'pending', backup: pending }
}

function checkLimit(limit: number): number {
  if (Number.isSafeInteger(limit) && limit >= 1) return limit
  throw new RangeError(`a limit is a whole number of 1 or more, got ${String(limit)}`)
}

function checkRange(disk: string, offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(length) && length > 0) return
  throw new CheckpointError(
    'RANGE_INVALID',
    `${String(offset)}+${String(length)} is no range to ask about; give an offset of 0 or more and a length of 1 or more, in bytes`,
    { disk, offset: String(offset), length: String(length) },
  )
}

function checkInside({ id, size }: DiskState, offset: number, length: number): void {
  if (offset + length <= size) return
  throw new CheckpointError(
    'RANGE_OUTSIDE_DISK',
    `${offset}+${length} reaches beyond disk "${id}", which has ${size} bytes at that moment; ask for less`,
    { disk: id, offset, length, size },
  )
}
