/** Turns a moment that a caller names into a point of the log (R22, R24), or refuses it. */
import type { Base, LogRecord, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BackupState } from '../../projections/state.ts'
import { findDisk, findSlice } from '../commands/find.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { timeAt } from './event-view.ts'
import { START, timeOf } from './points.ts'
import type { PointInput, SinceInput } from './types.ts'

/** Which side of a moment counts: `at` and `until` include events at that very time, `since` does not (R22). */
export type Side = 'at' | 'since'

export interface MomentContext {
  readonly disk?: string | undefined
  readonly bitmap?: string | undefined
}

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
    const catalog = this.#catalog()
    if (input === 'start') return START
    if (input === 'now') return catalog.last
    if (input === null || typeof input !== 'object')
      throw new TypeError('a point is start, now, or { position | time | slice | backup | checkpoint }')
    if ('position' in input) return await this.#position(input.position)
    if ('time' in input) return await this.#time(timeOf(input.time), side)
    if ('slice' in input) return this.#slice(input, context)
    if ('backup' in input) {
      const backup = catalog.backup(input.backup)
      if (backup === undefined)
        throw new CheckpointError(
          'BACKUP_NOT_FOUND',
          `there is no backup "${input.backup}"; list the backups`,
          { backup: input.backup },
        )
      return backup.point
    }
    if ('checkpoint' in input) {
      const checkpoint = catalog.checkpoint(input.checkpoint)
      if (checkpoint !== undefined) return checkpoint.point
      throw new CheckpointError(
        'CHECKPOINT_NOT_FOUND',
        `there is no checkpoint "${input.checkpoint}"; list the checkpoints`,
        { checkpoint: input.checkpoint },
      )
    }
    throw new TypeError('a point is start, now, or { position | time | slice | backup | checkpoint }')
  }

  /** The base of a backup or plan (R11). `active` is settled when it is decided: α may move until then. */
  async base(since: SinceInput, disk: string, bitmap: string): Promise<Base> {
    if (since === 'active') return { kind: 'active', ...START }
    const point = await this.point(since, 'since', { disk, bitmap })
    if (since === 'start') return { kind: 'start', ...point }
    if (since === 'now' || 'position' in since) return { kind: 'position', ...point }
    if ('time' in since) return { kind: 'time', ...point, name: new Date(timeOf(since.time)).toISOString() }
    if ('backup' in since) return { kind: 'backup', ...point, name: since.backup }
    if ('checkpoint' in since) return { kind: 'checkpoint', ...point, name: since.checkpoint }
    return { kind: 'slice', ...point, name: String(since.slice) }
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

  async #position(position: number): Promise<Point> {
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
    return await this.#pointAt(position)
  }

  /** After the event at `position`; inside a record of commands, after all of it (R20). */
  async #pointAt(position: number): Promise<Point> {
    if (position < 0) return START
    const record = await this.recordAt(position)
    if (record.kind === 'events') return { position: record.first + record.count - 1, time: record.lastTime }
    return { position, time: timeAt(record, position) }
  }

  async #time(time: number, side: Side): Promise<Point> {
    // Times are whole milliseconds: "≤ T" is "before the first that is ≥ the next whole one".
    const first = await this.#log.positionAtTime(side === 'since' ? Math.ceil(time) : Math.floor(time) + 1)
    return await this.#pointAt(first - 1)
  }

  #slice(
    input: { readonly slice: number; readonly generation?: number; readonly bitmap?: string },
    context: MomentContext,
  ): Point {
    const name = input.bitmap ?? context.bitmap
    if (context.disk === undefined || name === undefined) {
      throw new CheckpointError(
        'POINT_INVALID',
        'a slice is a point of one bitmap; say which disk and bitmap it belongs to, or name the point otherwise',
        { slice: input.slice },
      )
    }
    const disk = findDisk(this.#catalog(), context.disk)
    const bitmap = disk.bitmaps.get(name)
    if (bitmap === undefined)
      throw new CheckpointError(
        'BITMAP_NOT_FOUND',
        `disk "${disk.id}" has no bitmap "${name}"; list its bitmaps`,
        { disk: disk.id, bitmap: name },
      )
    return findSlice(disk.id, bitmap, input.slice, input.generation).from
  }
}
