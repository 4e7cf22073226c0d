/**
 * The touches of a byte range: writes, windows and lost stretches, newest first, out of the log in pieces (R27). Costs what the
 * index of spans does not rule out; no object is made for a row that is not in the answer.
 */
import { isToldWrites } from '../../events/told.ts'
import {
  type Extent,
  type LogRecord,
  type LostStretch,
  type Point,
  WRITE_OPS,
  type WriteOp,
} from '../../events/types.ts'
import type { DiskState } from '../../projections/state.ts'
import { throughWindows } from '../store/changed.ts'
import type { Store } from '../store/store.ts'

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
  /** Writes of these ranges may have happened after `from`, and a power cut took their records (R30): they count as written. */
  | { readonly kind: 'maybe-written'; readonly from: Point; readonly extents: readonly Extent[] }
  /** Writes may have gone unrecorded after `from`; any of them may have touched the range (R35). */
  | { readonly kind: 'lost'; readonly from: Point; readonly reason: string }

interface Wanted {
  readonly offset: number
  readonly length: number
  /** Positions behind this one, up to `until`; windows may be told behind that and reach back before it. */
  readonly after: number
  readonly until: Point
  readonly limit: number
}

/** What of it one stretch of the log may hold. */
type Cut = Omit<Wanted, 'until' | 'limit'> & { readonly upTo: number }

type FoundTouch = Touch & { readonly position: number; readonly time: number }

/** Newest first: lost stretches take their place among the writes, by the event that told of them. */
export async function touchesOf(
  store: Store,
  disk: DiskState,
  wanted: Wanted,
  signal: AbortSignal | undefined,
): Promise<{ readonly touches: readonly FoundTouch[]; readonly more: boolean; readonly read: number }> {
  const lost = lostIn(disk, wanted)
  const touches: FoundTouch[] = []
  let read = 0
  const full = () => touches.length > wanted.limit
  const put = (found: FoundTouch): void => {
    while (lost.length > 0 && lost[0]!.position > found.position) touches.push(lost.shift()!)
    touches.push(found)
  }
  const { after, until, offset, length } = wanted
  const upTo = throughWindows(disk.windows, until)
  const spans = store.touching({ disk: disk.number, offset, length, from: after + 1, to: upTo, signal })
  scan: for await (const { first, last } of spans) {
    const options = signal === undefined ? {} : { signal }
    for await (const records of store.records({ from: first, to: last, reverse: true, ...options })) {
      for (const record of records) {
        read += record.count
        const cut = { offset, length, after: Math.max(after, first - 1), upTo: last }
        for (const found of rowsOf(record, disk, cut)) {
          put(found)
          if (full()) break scan
        }
      }
    }
  }
  if (!full()) touches.push(...lost)
  return { touches: touches.slice(0, wanted.limit), more: full(), read }
}

function lostIn(disk: DiskState, { after, until }: Wanted): FoundTouch[] {
  return disk.lost
    .filter(({ from, to }: LostStretch) => to.position > after && from.position < until.position)
    .map(
      ({ from, to, reason }): FoundTouch => ({
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
function* rowsOf(record: LogRecord, disk: DiskState, cut: Cut): Generator<FoundTouch> {
  switch (record.kind) {
    case 'writes':
      yield* writesOf(record, disk, cut)
      return
    case 'events':
      yield* toldOf(record, disk, cut)
      return
    case 'windows':
      yield* windowsOf(record, disk, cut)
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
  { offset, length, after, upTo }: Cut,
): Generator<FoundTouch> {
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
  { offset, length, after, upTo }: Cut,
): Generator<FoundTouch> {
  for (let i = record.events.length - 1; i >= 0; i--) {
    const event = record.events[i]!
    const position = record.first + i
    if (!isToldWrites(event) || event.disk !== disk.id || position <= after || position > upTo) continue
    const extents = event.extents.filter(
      ([start, bytes]) => start < offset + length && start + bytes > offset,
    )
    if (extents.length === 0) continue
    const told = { position, time: record.time, from: event.from, extents }
    yield event.type === 'window'
      ? { kind: 'window', ...told, writes: event.writes, bytes: null }
      : { kind: 'maybe-written', ...told }
  }
}

/** A window is in the span if its end is (R29: a point inside it means its end, or as `since` its start). */
function* windowsOf(
  record: Extract<LogRecord, { kind: 'windows' }>,
  disk: DiskState,
  { offset, length, after, upTo }: Cut,
): Generator<FoundTouch> {
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
