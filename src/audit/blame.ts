/**
 * Which writes touched a byte range, newest first, which backups hold each, and since when the range is covered (R27).
 *
 * Costs what the span index leaves to be decoded: a hot range a few records from the head, a cold one the spans that wrote
 * there. The log is read in pieces, newest first, and no further than the limit asks; no object is made for a row that is not
 * in the answer.
 */
import {
  type Extent,
  type LogRecord,
  type LostStretch,
  type Point,
  WRITE_OPS,
  type WriteOp,
} from '../../events/types.ts'
import type { DiskState } from '../../projections/state.ts'
import { needName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { needObject, needOptions } from '../store/arguments.ts'
import { needStore, type Store } from '../store/store.ts'
import type { PointInput } from '../store/types.ts'
import { type Holding, holdersOf } from './blame-backups.ts'

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

export type Touch =
  | { readonly kind: 'write'; readonly op: WriteOp; readonly offset: number; readonly length: number }
  /** Writes known only together, after `from` up to this position (R3, R29): `writes` and `bytes` are of all of them. */
  | {
      readonly kind: 'window'
      readonly from: Point
      /** 0 when nobody knows. */
      readonly writes: number
      readonly bytes: number | null
      /** Those that touch the range. */
      readonly extents: readonly Extent[]
    }
  /** Writes may have gone unrecorded after `from`; any of them may have touched the range (R35). */
  | { readonly kind: 'lost'; readonly from: Point; readonly reason: string }

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
  const seen = await touchesOf(
    store,
    found,
    { offset, length, after, upTo: until.position, limit },
    options.signal,
  )
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
    resolution: touches.some(({ kind }) => kind === 'window') ? 'window' : 'exact',
    covered: coverageOf(touches[0], holders.pointOf),
    read: seen.read,
  }
}

interface Wanted {
  readonly offset: number
  readonly length: number
  readonly after: number
  readonly upTo: number
  readonly limit: number
}

type Found = Touch & { readonly position: number; readonly time: number }

/** Newest first: lost stretches take their place among the writes, by the event that told of them. */
async function touchesOf(
  store: Store,
  disk: DiskState,
  wanted: Wanted,
  signal: AbortSignal | undefined,
): Promise<{ readonly touches: readonly Found[]; readonly more: boolean; readonly read: number }> {
  const lost = lostIn(disk, wanted)
  const touches: Found[] = []
  let read = 0
  const full = () => touches.length > wanted.limit
  const put = (found: Found): void => {
    while (lost.length > 0 && lost[0]!.position > found.position) touches.push(lost.shift()!)
    touches.push(found)
  }
  const { after, upTo, offset, length } = wanted
  const spans = store.touching({ disk: disk.number, offset, length, from: after + 1, to: upTo, signal })
  scan: for await (const { first, last } of spans) {
    const options = signal === undefined ? {} : { signal }
    for await (const records of store.records({ from: first, to: last, reverse: true, ...options })) {
      for (const record of records) {
        read += record.count
        for (const found of rowsOf(record, disk, {
          ...wanted,
          after: Math.max(after, first - 1),
          upTo: last,
        })) {
          put(found)
          if (full()) break scan
        }
      }
    }
  }
  if (!full()) touches.push(...lost)
  return { touches: touches.slice(0, wanted.limit), more: full(), read }
}

function lostIn(disk: DiskState, { after, upTo }: Wanted): Found[] {
  return disk.lost
    .filter(({ from, to }: LostStretch) => to.position > after && from.position < upTo)
    .map(
      ({ from, to, reason }): Found => ({
        kind: 'lost',
        position: to.position,
        time: to.time ?? 0,
        from,
        reason,
      }),
    )
    .sort((a, b) => b.position - a.position)
}

/** The record's rows that touch the range, newest first. */
function* rowsOf(record: LogRecord, disk: DiskState, wanted: Wanted): Generator<Found> {
  switch (record.kind) {
    case 'writes':
      yield* writesOf(record, disk, wanted)
      return
    case 'events':
      yield* toldOf(record, disk, wanted)
      return
    case 'windows':
      yield* windowsOf(record, disk, wanted)
      return
    case 'gap':
      return // The repair declared what it took as lost.
    default:
      throw new RangeError(`blame met ${JSON.stringify(record satisfies never)}`)
  }
}

function* writesOf(
  record: Extract<LogRecord, { kind: 'writes' }>,
  disk: DiskState,
  { offset, length, after, upTo }: Wanted,
): Generator<Found> {
  let end = record.first + record.count
  for (let at = record.sections.length - 1; at >= 0; at--) {
    const { disk: number, columns } = record.sections[at]!
    const { offsets, lengths, ops, times } = columns
    const first = end - offsets.length
    end = first
    if (number !== disk.number) continue
    for (let i = Math.min(offsets.length - 1, upTo - first); i >= Math.max(0, after + 1 - first); i--) {
      if (offsets[i]! >= offset + length || offsets[i]! + lengths[i]! <= offset) continue
      yield {
        kind: 'write',
        position: first + i,
        time: times?.[i] ?? record.time,
        op: WRITE_OPS[ops?.[i] ?? 0]!,
        offset: offsets[i]!,
        length: lengths[i]!,
      }
    }
  }
}

function* toldOf(
  record: Extract<LogRecord, { kind: 'events' }>,
  disk: DiskState,
  { offset, length, after, upTo }: Wanted,
): Generator<Found> {
  for (let i = record.events.length - 1; i >= 0; i--) {
    const event = record.events[i]!
    const position = record.first + i
    if (event.type !== 'window' || event.disk !== disk.id || position <= after || position > upTo) continue
    const extents = event.extents.filter(
      ([start, bytes]) => start < offset + length && start + bytes > offset,
    )
    if (extents.length > 0)
      yield {
        kind: 'window',
        position,
        time: record.time,
        from: event.from,
        writes: event.writes,
        bytes: null,
        extents,
      }
  }
}

/** A window is in the span if its end is (R29: a point inside it means its end, or as `since` its start). */
function* windowsOf(
  record: Extract<LogRecord, { kind: 'windows' }>,
  disk: DiskState,
  { offset, length, after, upTo }: Wanted,
): Generator<Found> {
  for (let at = record.windows.length - 1; at >= 0; at--) {
    const window = record.windows[at]!
    if (window.first + window.count - 1 <= after || window.first > upTo) continue
    for (const section of window.sections) {
      if (section.disk !== disk.number) continue
      const { offsets, lengths } = section.columns
      const extents: Extent[] = []
      for (let i = 0; i < offsets.length; i++)
        if (offsets[i]! < offset + length && offsets[i]! + lengths[i]! > offset)
          extents.push([offsets[i]!, lengths[i]!])
      if (extents.length === 0) continue
      const from = { position: window.first - 1, time: window.time }
      const { writes, bytes, last } = section
      yield {
        kind: 'window',
        position: last.position,
        time: last.time ?? window.lastTime,
        from,
        writes,
        bytes,
        extents,
      }
    }
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
