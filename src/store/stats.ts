/**
 * What was written, per disk and hour: the product's own projection, made with the same kit as a user's, and kept by a tap.
 * A row of writes costs one addition; an hour in which a disk was written costs five numbers.
 */
import { isToldWrites, writesTold } from '../../events/told.ts'
import type { DiskNumber, LogRecord, WriteColumns } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { RecordProjection } from './projection-fold.ts'

export const HOUR_MS = 3_600_000

/** One hour of one disk. `hour`: its start, ms since the epoch, UTC. Times are the log's own. */
export interface HourStats {
  readonly hour: number
  readonly writes: number
  readonly zeros: number
  readonly discards: number
  /** As written: two writes of the same bytes count twice. */
  readonly bytes: number
  /**
   * True when part of it comes from windows, whose writes all count in the hour of the last of them and as plain writes
   * (R29). An hour that was counted before its events were folded into windows stays exact.
   */
  readonly windows: boolean
}

export interface DiskStats {
  readonly disk: string
  /** Whether the disk was removed since. One that was removed and added again is two. */
  readonly removed: boolean
  /** Hours with writes in them, ascending. */
  readonly hours: readonly HourStats[]
}

interface Row {
  writes: number
  zeros: number
  discards: number
  bytes: number
  windows: boolean
}

/** By disk and then by hour, counted in hours since the epoch. */
export class StatsState {
  readonly disks = new Map<DiskNumber, Map<number, Row>>()
  /** The latest disk of each id: events name disks by id. */
  readonly numbers = new Map<string, DiskNumber>()

  row(disk: DiskNumber, time: number): Row {
    let hours = this.disks.get(disk)
    if (hours === undefined) {
      hours = new Map()
      this.disks.set(disk, hours)
    }
    const hour = Math.floor(time / HOUR_MS)
    let row = hours.get(hour)
    if (row === undefined) {
      row = { writes: 0, zeros: 0, discards: 0, bytes: 0, windows: false }
      hours.set(hour, row)
    }
    return row
  }
}

type PlainHours = readonly (readonly [number, number, number, number, number, boolean])[]
type Plain = readonly [
  numbers: readonly (readonly [id: string, disk: number])[],
  disks: readonly (readonly [disk: number, hours: PlainHours])[],
]

export const statsProjection: RecordProjection<StatsState> = {
  name: 'slicelog/stats',
  version: 1,
  per: 'record',
  seed: () => new StatsState(),
  apply(state, record) {
    switch (record.kind) {
      case 'writes':
        for (const { disk, columns } of record.sections) addColumns(state, disk, columns, record.time)
        return state
      case 'windows':
        for (const { sections } of record.windows) {
          for (const { disk, writes, bytes, last } of sections)
            addWindow(state, disk, last.time ?? record.time, writes, bytes)
        }
        return state
      case 'events':
        addTold(state, record)
        return state
      case 'gap':
        return state // Nothing is known of it.
      default:
        throw new TypeError(`there is no kind of record ${JSON.stringify(record satisfies never)}`)
    }
  },
  save: (state): Plain => [
    [...state.numbers],
    [...state.disks].map(([disk, hours]) => [
      disk,
      [...hours].map(
        ([hour, row]) => [hour, row.writes, row.zeros, row.discards, row.bytes, row.windows] as const,
      ),
    ]),
  ],
  load(saved) {
    const state = new StatsState()
    const [numbers, disks] = saved as Plain
    for (const [id, disk] of numbers) state.numbers.set(id, disk)
    for (const [disk, hours] of disks) {
      for (const [hour, writes, zeros, discards, bytes, windows] of hours)
        Object.assign(state.row(disk, hour * HOUR_MS), { writes, zeros, discards, bytes, windows })
    }
    return state
  },
}

function addColumns(state: StatsState, disk: DiskNumber, columns: WriteColumns, time: number): void {
  const { lengths, ops, times } = columns
  const rows = lengths.length
  for (let from = 0; from < rows; ) {
    const row = state.row(disk, times?.[from] ?? time)
    const to = times === undefined ? rows : endOfHour(times, from)
    let bytes = 0
    for (let i = from; i < to; i++) bytes += lengths[i]!
    row.bytes += bytes
    if (ops === undefined) row.writes += to - from
    else addOps(row, ops, from, to)
    from = to
  }
}

function addOps(row: Row, ops: Uint8Array, from: number, to: number): void {
  for (let i = from; i < to; i++) {
    if (ops[i] === 1) row.zeros++
    else if (ops[i] === 2) row.discards++
    else row.writes++
  }
}

/** The first row after `from` of a later hour; times never decrease, so most often one look at the last tells. */
function endOfHour(times: Float64Array, from: number): number {
  const end = (Math.floor(times[from]! / HOUR_MS) + 1) * HOUR_MS
  if (times[times.length - 1]! < end) return times.length
  let to = from + 1
  while (times[to]! < end) to++
  return to
}

function addWindow(state: StatsState, disk: DiskNumber, time: number, writes: number, bytes: number): void {
  const row = state.row(disk, time)
  row.writes += writes
  row.bytes += bytes
  row.windows = true
}

/** Windows that an agent told (R3) name their disk by id; its number is where the catalog says it was added. */
function addTold(state: StatsState, record: Extract<LogRecord, { kind: 'events' }>): void {
  for (const [i, event] of record.events.entries()) {
    if (event.type === 'disk-added') state.numbers.set(event.disk, record.first + i)
    if (!isToldWrites(event)) continue
    const disk = state.numbers.get(event.disk)
    if (disk === undefined) continue
    const bytes = event.extents.reduce((sum, [, length]) => sum + length, 0)
    addWindow(state, disk, record.time, writesTold(event), bytes)
  }
}

/** With names, and only what the caller asked for. */
export function statsOf(
  state: StatsState,
  catalog: CatalogReader,
  filter: { readonly disk?: string | undefined; readonly since?: number | undefined },
): DiskStats[] {
  const answer: DiskStats[] = []
  for (const [number, hours] of state.disks) {
    const name = catalog.diskByNumber(number)
    if (name === undefined || (filter.disk !== undefined && name.id !== filter.disk)) continue
    const rows = [...hours]
      .map(([hour, row]) => ({ hour: hour * HOUR_MS, ...row }))
      .filter(({ hour }) => hour + HOUR_MS > (filter.since ?? 0))
      .sort((a, b) => a.hour - b.hour)
    answer.push({ disk: name.id, removed: name.removed, hours: rows })
  }
  return answer
}
