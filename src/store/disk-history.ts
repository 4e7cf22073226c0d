/**
 * What of a log is one disk's history: its writes, and the events that concern it and nothing else (docs/operating.md, Moving a
 * disk). Records keep their order, times and causes; what a compaction left of writes becomes `window` events.
 *
 * Cost: one read of the log from the disk's first event on, its chain followed.
 */
import {
  type ChainStep,
  decodeStored,
  EMPTY_HASH,
  encodeEvents,
  encodeWrites,
  hashesOf,
} from '../../events/record.ts'
import type { DomainEvent, Extent, LogRecord, LogWindow, Point, RecordMeta } from '../../events/types.ts'
import { type Catalog, endOf } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { headerOf } from '../log/entries.ts'
import type { LogHead } from '../log/event-log.ts'
import type { LevelSource } from '../log/level-source.ts'
import type { DiskFrame } from './disk-file.ts'

export interface HistoryOf {
  readonly store: string
  readonly source: LevelSource
  readonly head: LogHead
  readonly disk: DiskState
  /** Points that the disk's events name, and where no event of its own may stand. */
  readonly named: readonly Point[]
}

/** Everything that the disk's events refer to by position, ascending. */
export function namedPoints(catalog: Catalog, disk: DiskState): Point[] {
  const points: Point[] = []
  for (const { diskNumber, base } of catalog.backups())
    if (diskNumber === disk.number && base.position > disk.number) points.push(base)
  for (const { from } of [...disk.lost, ...disk.windows]) if (from.position > disk.number) points.push(from)
  return points.sort((a, b) => a.position - b.position)
}

interface Piece {
  readonly record: LogRecord
  /** Where its events stand in the source: first position and count, in order. */
  readonly runs: readonly number[]
  /** Source position of its record's end: points of its events mean that (R20). */
  readonly end: number
}

/** A file's frames, from header to end. */
export async function* historyOf(of: HistoryOf): AsyncGenerator<DiskFrame, void, void> {
  const { source, head, disk, store } = of
  yield {
    kind: 'header',
    header: {
      store,
      disk: disk.id,
      number: disk.number,
      head: { position: head.next - 1, time: head.time, hash: Buffer.from(head.hash).toString('hex') },
    },
  }
  const part = new DiskPart(disk, of.named)
  let hash: Uint8Array | undefined
  for await (const entries of source.entries(disk.number, head.next - 1, false)) {
    for (const entry of entries) {
      const header = headerOf(entry)
      hash ??= await hashBefore(source, header.first)
      const steps = hashesOf(entry.value, hash)
      const records = decodeStored(entry.value)
      for (const [i, record] of records.entries()) yield* part.frames(record, stepOf(steps, i))
      hash = header.hash
    }
  }
  yield { kind: 'end', end: { records: part.records, events: part.events } }
}

function stepOf(steps: readonly ChainStep[], i: number): ChainStep {
  const step = steps[i]
  if (step === undefined) throw new Error('slicelog bug: a record without its place in the chain')
  return step
}

async function hashBefore(source: LevelSource, first: number): Promise<Uint8Array> {
  const before = first === 0 ? undefined : await source.floor(first - 1)
  return before === undefined ? EMPTY_HASH : headerOf(before).hash
}

class DiskPart {
  records = 0
  events = 0
  readonly #disk: DiskState
  readonly #named: Point[]
  readonly #backups = new Set<string>()
  readonly #checkpoints = new Set<string>()
  /** Source position of the last event that was taken, and its time. */
  #last = -1
  #time = 0

  constructor(disk: DiskState, named: readonly Point[]) {
    this.#disk = disk
    this.#named = [...named]
  }

  *frames(record: LogRecord, step: ChainStep): Generator<DiskFrame, void, void> {
    for (const piece of this.#piecesOf(record)) {
      yield* this.#markers(piece.runs[0]!, piece.record.time, step)
      yield this.#frame(piece, step)
    }
  }

  /** A point between two of the disk's events gets an event that says nothing, so that it stays between them. */
  *#markers(next: number, time: number, step: ChainStep): Generator<DiskFrame, void, void> {
    while (this.#named[0] !== undefined && this.#named[0].position < next) {
      const point = this.#named.shift()!
      if (point.position <= this.#last) continue
      const at = Math.min(time, Math.max(this.#time, point.time ?? 0))
      const record: LogRecord = {
        kind: 'events',
        first: 0,
        count: 1,
        time: at,
        lastTime: at,
        meta: {},
        events: [{ type: 'nothing-changed' }],
      }
      yield this.#frame({ record, runs: [point.position, 1], end: point.position }, step)
    }
  }

  #frame({ record, runs, end }: Piece, step: ChainStep): DiskFrame {
    const { time } = record
    const encoded =
      record.kind === 'writes'
        ? encodeWrites(this.events, time, record.sections, EMPTY_HASH)
        : encodeEvents(this.events, time, metaOf(record), eventsOf(record), EMPTY_HASH)
    this.records++
    this.events += encoded.count
    this.#last = end
    this.#time = encoded.lastTime
    return { kind: 'record', record: { end: step.next - 1, hash: step.hash, runs, value: encoded.bytes } }
  }

  #piecesOf(record: LogRecord): Piece[] {
    switch (record.kind) {
      case 'gap': // What it took is told by a lost stretch of its own.
        return []
      case 'writes':
        return this.#writes(record)
      case 'windows':
        return record.windows.flatMap((window) => this.#window(window))
      case 'events':
        return this.#events(record)
      default:
        throw new RangeError(`no record: ${JSON.stringify(record satisfies never)}`)
    }
  }

  #writes(record: Extract<LogRecord, { kind: 'writes' }>): Piece[] {
    const runs: number[] = []
    let position = record.first
    const sections = record.sections.filter(({ disk, columns }) => {
      const rows = columns.offsets.length
      const mine = disk === this.#disk.number
      if (mine) runs.push(position, rows)
      position += rows
      return mine
    })
    if (sections.length === 0) return []
    const first = sections[0]!.columns.times?.[0] ?? record.time
    return [{ record: { ...record, time: first, sections }, runs, end: endOf(record).position }]
  }

  #window(window: LogWindow): Piece[] {
    const section = window.sections.find(({ disk }) => disk === this.#disk.number)
    if (section === undefined) return []
    const { offsets, lengths } = section.columns
    const extents = Array.from(offsets, (offset, i): Extent => [offset, lengths[i]!])
    const from: Point = { position: window.first - 1, time: window.time }
    const { id } = this.#disk
    const event: DomainEvent = { type: 'window', disk: id, from, writes: section.writes, extents }
    const time = window.lastTime
    const record: LogRecord = {
      kind: 'events',
      first: 0,
      count: 1,
      time,
      lastTime: time,
      meta: {},
      events: [event],
    }
    return [{ record, runs: [window.first, window.count], end: window.first + window.count - 1 }]
  }

  #events(record: Extract<LogRecord, { kind: 'events' }>): Piece[] {
    const runs: number[] = []
    const events = record.events.flatMap((event, i): DomainEvent[] => {
      const position = record.first + i
      const own = position < this.#disk.number ? null : this.#own(event, position)
      if (own === null) return []
      if (runs.length > 0 && runs.at(-2)! + runs.at(-1)! === position) runs[runs.length - 1]!++
      else runs.push(position, 1)
      return [own]
    })
    return events.length === 0 ? [] : [{ record: { ...record, events }, runs, end: endOf(record).position }]
  }

  /** The event as far as it is of this disk; null when it is not. */
  #own(event: DomainEvent, position: number): DomainEvent | null {
    switch (event.type) {
      case 'backup-begun':
        if (event.disk !== this.#disk.id) return null
        this.#backups.add(event.backup)
        return event
      case 'backup-pending':
      case 'backup-interrupted':
      case 'backup-resumed':
      case 'backup-succeeded':
      case 'backup-failed':
      case 'backup-cancelled':
      case 'backup-forgotten':
        return this.#backups.has(event.backup) ? event : null
      case 'backups-combined':
        if (!event.of.every((id) => this.#backups.has(id))) return null
        this.#backups.add(event.backup)
        return event
      case 'checkpoint-created': {
        const bitmaps = event.bitmaps.filter(({ disk }) => disk === this.#disk.id)
        if (bitmaps.length === 0) return null
        this.#checkpoints.add(event.checkpoint)
        return { ...event, bitmaps }
      }
      case 'checkpoint-deleted':
        return this.#checkpoints.delete(event.checkpoint) ? event : null
      case 'bitmap-merged':
        if (event.disk !== this.#disk.id) return null
        refuseForeign(event, position)
        return event
      case 'clock-stepped':
      case 'log-compacted':
      case 'log-repaired':
      case 'disk-imported':
      case 'nothing-changed':
        return null
      default:
        return event.disk === this.#disk.id ? event : null
    }
  }
}

function refuseForeign(event: Extract<DomainEvent, { type: 'bitmap-merged' }>, position: number): void {
  const foreign = event.sources.find(({ disk }) => disk !== event.disk)
  if (foreign === undefined) return
  throw new CheckpointError(
    'DISK_ENTANGLED',
    `at position ${position} bits of disk "${foreign.disk}" were merged into bitmap "${event.bitmap}" of "${event.disk}", so its history cannot be told without the other disk; copy the whole store instead`,
    { disk: event.disk, bitmap: event.bitmap, position, source: foreign },
  )
}

function eventsOf(record: LogRecord): readonly DomainEvent[] {
  return record.kind === 'events' ? record.events : []
}

/** Who and why stay. The id of a command is the source's: there it answers for ever, here it would answer for nothing. */
function metaOf(record: LogRecord): RecordMeta {
  if (record.kind !== 'events') return {}
  const { commandId: _, argumentsHash: __, ...cause } = record.meta
  return cause
}
