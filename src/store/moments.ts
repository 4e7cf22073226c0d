/** Turns a moment that a caller names into a point of the log (R22, R24), or refuses it. */
import type { Base, LogRecord, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BackupState } from '../../projections/state.ts'
import { isNamedPoint, namedBase, namedPoint } from '../commands/since.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { timeAt } from './event-view.ts'
import { START, timeOf } from './points.ts'
import type { PointInput, SinceInput } from './types.ts'

/** A point, and whether it gave way to the edge of a window or gap that the moment lies in (R29). */
export interface Place {
  readonly point: Point
  readonly snapped: boolean
}

/** Which side of a moment counts: `at` and `until` include events at that very time, `since` does not (R22). */
export type Side = 'at' | 'since'

export interface MomentContext {
  readonly disk?: string | undefined
  readonly bitmap?: string | undefined
}

/** Ends the name of a base that a window swallowed; projections/plan.ts puts it into the plan's reason. */
export const INSIDE_WINDOW = ' (inside a window, which is taken whole)'

type EventsRecord = Extract<LogRecord, { kind: 'events' }>

export class Moments {
  readonly #log: EventLog
  readonly #catalog: () => CatalogReader

  constructor(log: EventLog, catalog: () => CatalogReader) {
    this.#log = log
    this.#catalog = catalog
  }

  /** @throws CheckpointError POINT_NOT_FOUND, POINT_INVALID, BACKUP_NOT_FOUND, CHECKPOINT_NOT_FOUND, and R18's four */
  async point(input: PointInput, side: Side, context: MomentContext = {}): Promise<Point> {
    return (await this.place(input, side, context)).point
  }

  /** The same, saying whether it is the very moment: inside a window only its edges are known (R29). */
  async place(input: PointInput, side: Side, context: MomentContext = {}): Promise<Place> {
    if (input !== null && typeof input === 'object') {
      if ('position' in input) return await this.#position(input.position, side)
      if ('time' in input) return await this.#time(timeOf(input.time), side)
    }
    return { point: this.#named(input, context), snapped: false }
  }

  /** Moments that no compaction folds across. */
  #named(
    input: Exclude<PointInput, { position: number } | { time: unknown }>,
    context: MomentContext,
  ): Point {
    const catalog = this.#catalog()
    if (input === 'start') return START
    if (input === 'now') return catalog.last
    if (input === null || typeof input !== 'object')
      throw new TypeError('a point is start, now, or { position | time | slice | backup | checkpoint }')
    if (isNamedPoint(input)) return namedPoint(catalog, input, context)
    throw new TypeError('a point is start, now, or { position | time | slice | backup | checkpoint }')
  }

  /** The base of a backup or plan (R11). `active` is settled when it is decided: α may move until then. */
  async base(since: SinceInput, disk: string, bitmap: string): Promise<Base> {
    if (since === 'active') return { kind: 'active', ...START }
    const { point, snapped } = await this.place(since, 'since', { disk, bitmap })
    if (since === 'start') return { kind: 'start', ...point }
    if (since === 'now') return { kind: 'position', ...point }
    // What was asked for, where it is not what the plan begins at: its reason says so (R29).
    const inside = snapped ? INSIDE_WINDOW : ''
    if ('position' in since)
      return snapped
        ? { kind: 'position', ...point, name: `${since.position}${inside}` }
        : { kind: 'position', ...point }
    if ('time' in since)
      return { kind: 'time', ...point, name: `${new Date(timeOf(since.time)).toISOString()}${inside}` }
    return namedBase(this.#catalog(), since, disk, bitmap)
  }

  /** The whole record that holds `position`, which the log has. */
  async recordAt(position: number): Promise<LogRecord> {
    for await (const records of this.#log.read({ from: position, to: position })) {
      const record = records.find(
        (candidate) => candidate.first <= position && position < candidate.first + candidate.count,
      )
      if (record !== undefined) return record
    }
    throw new CheckpointError('LOG_DAMAGED', `the log has no record at position ${position}; run verify`, {
      position,
    })
  }

  /** The record in which a backup began. */
  async beginOf(backup: BackupState): Promise<EventsRecord> {
    const record = await this.recordAt(backup.point.position)
    if (record.kind !== 'events')
      throw new CheckpointError(
        'LOG_DAMAGED',
        `position ${backup.point.position} does not hold the begin of backup "${backup.id}"; run verify`,
        { position: backup.point.position },
      )
    return record
  }

  async #position(position: number, side: Side): Promise<Place> {
    if (!Number.isSafeInteger(position) || position < 0) {
      throw new CheckpointError(
        'POINT_INVALID',
        `${String(position)} is no position; positions are whole numbers from 0`,
        { position: String(position) },
      )
    }
    const { next } = this.#log.head
    if (position >= next) {
      throw new CheckpointError(
        'POINT_NOT_FOUND',
        `position ${position} is not in the log yet, whose last is ${next - 1}; give an earlier one, or now`,
        { position, head: next - 1 },
      )
    }
    return await this.#placeAt(position, side)
  }

  /**
   * After the event at `position`; inside a record of commands, after all of it (R20). Inside a window (or what a repair left of
   * lost records) its start as `since` and its end elsewhere, so that what is asked for is covered (R29).
   */
  async #placeAt(position: number, side: Side): Promise<Place> {
    if (position < 0) return { point: START, snapped: false }
    const record = await this.recordAt(position)
    if (record.kind === 'events')
      return { point: { position: record.first + record.count - 1, time: record.lastTime }, snapped: false }
    const whole =
      record.kind === 'windows'
        ? record.windows.find((window) => position < window.first + window.count)
        : record.kind === 'gap'
          ? record
          : undefined
    const end = whole === undefined ? position : whole.first + whole.count - 1
    if (whole === undefined || end === position)
      return { point: { position, time: timeAt(record, position) }, snapped: false }
    if (side === 'at') return { point: { position: end, time: whole.lastTime }, snapped: true }
    return { point: (await this.#placeAt(whole.first - 1, 'at')).point, snapped: true }
  }

  async #time(time: number, side: Side): Promise<Place> {
    // Times are whole milliseconds: "≤ T" is "before the first that is ≥ the next whole one".
    const first = await this.#log.positionAtTime(side === 'since' ? Math.ceil(time) : Math.floor(time) + 1)
    return await this.#placeAt(first - 1, side)
  }
}
