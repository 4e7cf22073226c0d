/**
 * `disk import`: another store's disk, appended to this one with its whole history. The file is read twice: once to check it and
 * to learn what it names, once to record it. Everything is appended at once, so the disk is there whole or not at all; meanwhile
 * nothing else is committed. What could not have been recorded by a slicelog is refused, like any forged log (legal.ts).
 */
import { resolve } from 'node:path'
import { type EncodedRecord, encodeEvents, encodeWrites } from '../../events/record.ts'
import type { Base, DomainEvent, LogRecord, Point, RecordMeta } from '../../events/types.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { checkName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { aborted } from '../log/entries.ts'
import type { LogHead } from '../log/event-log.ts'
import { needOptions, needPath } from '../store/arguments.ts'
import { type DiskFileHeader, invalidFile, readDiskFile, recordOf } from '../store/disk-file.ts'
import { coreOf, needStore, type Store } from '../store/store.ts'
import { type Survey, surveyOf } from './disk-survey.ts'
import { foldOn } from './repair-fold.ts'

export interface ImportDiskOptions {
  /** The disk's id here. Default: as it was. */
  readonly as?: string
  /** Goes before the ids of its backups and groups, and the names of its checkpoints, which are one store's alone. */
  readonly prefix?: string
  /**
   * Everything gets this log's time, in place of its own: for a log that has events of later. Points by time before the import
   * are lost for this disk.
   */
  readonly collapseTimes?: boolean
  readonly actor?: string
  readonly signal?: AbortSignal
  /** Events read, of how many in both passes. */
  readonly onProgress?: (done: number, total: number) => void
}

export interface ImportedDisk {
  readonly disk: string
  /** Where it is from: id of the store, its head at the export, the disk's id there. */
  readonly source: DiskFileHeader
  /** Of `disk-imported`, and of the disk's last event. */
  readonly first: number
  readonly last: number
  readonly records: number
  readonly events: number
  readonly backups: readonly string[]
  readonly checkpoints: readonly string[]
  readonly timesCollapsed: boolean
  /** What stood where: first position in the source, how many, first position here. Ascending. */
  readonly positions: readonly (readonly [from: number, count: number, to: number])[]
}

/**
 * @throws CheckpointError DISK_FILE_INVALID, FORMAT_TOO_NEW, DISK_EXISTS, BACKUP_EXISTS, CHECKPOINT_EXISTS, TIME_INVALID,
 * IMPORT_TOO_LARGE, NAME_EMPTY, NAME_TOO_LONG, NAME_INVALID, ABORTED: then nothing was recorded
 */
export async function importDisk(
  store: Store,
  file: string,
  options: ImportDiskOptions = {},
): Promise<ImportedDisk> {
  needStore(store)
  needPath('the file', file)
  needOptions(options, {
    as: 'text',
    prefix: 'text',
    collapseTimes: 'flag',
    actor: 'text',
    signal: 'signal',
    onProgress: 'function',
  })
  const path = resolve(file)
  if (options.as !== undefined) checkName('disk', options.as)
  const survey = await surveyOf(path, options.signal)
  const core = coreOf(store)
  let done: ImportedDisk | undefined
  await core.adopt(async (head) => {
    const taking = new Taking(path, survey, options, head, core.catalog, store.now)
    const records = await taking.records()
    done = taking.answer()
    return records
  })
  return done!
}

/** The second reading: records as this log will hold them. */
class Taking {
  readonly #disk: string
  readonly #number: number
  /** Where the file's first event goes. */
  readonly #start: number
  readonly #time: number | null
  #bytes = 0

  constructor(
    readonly path: string,
    readonly survey: Survey,
    readonly options: ImportDiskOptions,
    readonly head: LogHead,
    readonly catalog: Catalog,
    now: number,
  ) {
    this.#disk = options.as ?? survey.header.disk
    this.#start = head.next + 1
    this.#number = this.#start
    this.#time = options.collapseTimes === true ? now : null
    this.#refuseClashes()
    if (this.#time === null && head.time !== null && survey.firstTime < head.time)
      throw tooEarly(survey.firstTime, head.time)
  }

  #named(name: string): string {
    return `${this.options.prefix ?? ''}${name}`
  }

  #refuseClashes(): void {
    const { catalog, survey } = this
    const facts = { disk: this.#disk, file: this.path }
    if (catalog.disk(this.#disk) !== undefined)
      throw new CheckpointError(
        'DISK_EXISTS',
        `there is a disk "${this.#disk}" here already; give the imported one another id (--as)`,
        facts,
      )
    for (const id of survey.backups.map((name) => this.#named(name))) {
      checkName('backup', id)
      if (catalog.backup(id) !== undefined)
        throw new CheckpointError(
          'BACKUP_EXISTS',
          `there is a backup "${id}" here already, and its id is never used again; give a prefix (--prefix)`,
          { ...facts, backup: id },
        )
    }
    for (const name of survey.checkpoints.map((one) => this.#named(one))) {
      checkName('checkpoint', name)
      if (catalog.checkpoint(name) !== undefined)
        throw new CheckpointError(
          'CHECKPOINT_EXISTS',
          `there is a checkpoint "${name}" here already; give a prefix (--prefix)`,
          { ...facts, checkpoint: name },
        )
    }
  }

  async records(): Promise<EncodedRecord[]> {
    const { survey, options, head } = this
    const fork = this.catalog.fork()
    const taken = [this.#told(fork)]
    let events = 0
    for await (const frame of readDiskFile(this.path)) {
      if (options.signal?.aborted === true) throw aborted(options.signal)
      if (frame.kind !== 'record') continue
      const before = taken.at(-1)!
      const record = this.#here(recordOf(frame.record), before.first + before.count)
      const objection =
        record.kind === 'gap' || record.kind === 'windows' ? 'it was never appended' : foldOn(fork, record)
      if (objection !== null)
        throw invalidFile(this.path, `no slicelog would have recorded it: ${objection}`, taken.length)
      taken.push(this.#encoded(record, before.hash))
      events += record.count
      options.onProgress?.(survey.events + events, 2 * survey.events)
    }
    const last = taken.at(-1)!
    if (last.first + last.count !== head.next + 1 + survey.events)
      throw invalidFile(this.path, 'it changed while it was read')
    return taken
  }

  #told(fork: Catalog): EncodedRecord {
    const { header, events, firstTime } = this.survey
    const event: DomainEvent = {
      type: 'disk-imported',
      disk: this.#disk,
      store: header.store,
      position: header.head.position,
      hash: header.head.hash,
      last: this.head.next + events,
    }
    const meta: RecordMeta = {
      command: 'import-disk',
      ...(this.options.actor === undefined ? {} : { actor: this.options.actor }),
    }
    const time = this.#time ?? firstTime
    const record = encodeEvents(this.head.next, time, meta, [event], this.head.hash)
    foldOn(fork, {
      kind: 'events',
      first: this.head.next,
      count: 1,
      time,
      lastTime: time,
      meta,
      events: [event],
    })
    return record
  }

  #encoded(record: LogRecord, previous: Uint8Array): EncodedRecord {
    const encoded =
      record.kind === 'writes'
        ? encodeWrites(record.first, record.time, record.sections, previous)
        : encodeEvents(record.first, record.time, metaOf(record), eventsOf(record), previous)
    this.#bytes += encoded.bytes.length
    if (this.#bytes > limits.importBytesMax) throw tooLarge(this.#bytes)
    return encoded
  }

  /** The record at its place here: this disk's number, the points that it names, its names. */
  #here(record: LogRecord, first: number): LogRecord {
    const time = this.#time ?? record.time
    const lastTime = this.#time ?? record.lastTime
    if (record.kind === 'writes') {
      const sections = record.sections.map(({ columns }) => ({
        disk: this.#number,
        columns: this.#time === null ? columns : { ...columns, times: undefined },
      }))
      if (record.sections.some(({ disk }) => disk !== this.survey.header.number))
        throw invalidFile(this.path, 'it holds writes of another disk')
      return { ...record, first, time, lastTime, sections }
    }
    if (record.kind !== 'events') return record
    return { ...record, first, time, lastTime, events: record.events.map((event) => this.#event(event)) }
  }

  #event(event: DomainEvent): DomainEvent {
    if ('disk' in event && event.disk !== this.survey.header.disk)
      throw invalidFile(this.path, `it holds an event of another disk (${event.type})`)
    const here = 'disk' in event ? { ...event, disk: this.#disk } : event
    switch (here.type) {
      case 'stretch-lost':
      case 'window':
      case 'maybe-written':
        return { ...here, from: this.#point(here.from) }
      case 'bitmap-merged':
        return { ...here, sources: here.sources.map(({ bitmap }) => ({ disk: this.#disk, bitmap })) }
      case 'bitmap-reset':
      case 'backup-pending':
      case 'backup-interrupted':
      case 'backup-resumed':
      case 'backup-succeeded':
      case 'backup-failed':
      case 'backup-cancelled':
      case 'backup-forgotten':
        return { ...here, backup: this.#named(here.backup) }
      case 'backups-combined':
        return { ...here, backup: this.#named(here.backup), of: here.of.map((id) => this.#named(id)) }
      case 'backup-begun': {
        const { group } = here
        const begun = { ...here, backup: this.#named(here.backup), base: this.#base(here.base) }
        return group === undefined ? begun : { ...begun, group: this.#named(group) }
      }
      case 'checkpoint-created':
        return {
          ...here,
          checkpoint: this.#named(here.checkpoint),
          bitmaps: here.bitmaps.map(({ bitmap }) => ({ disk: this.#disk, bitmap })),
        }
      case 'checkpoint-deleted':
        return { ...here, checkpoint: this.#named(here.checkpoint) }
      case 'slice-frozen': {
        const { cause } = here
        if (cause.kind === 'backup') return { ...here, cause: { ...cause, id: this.#named(cause.id) } }
        if (cause.kind === 'checkpoint')
          return { ...here, cause: { ...cause, name: this.#named(cause.name) } }
        return here
      }
      default:
        return here
    }
  }

  #base(base: Base): Base {
    if (base.kind === 'none' || base.kind === 'start') return base
    const here = { ...base, ...this.#point(base) }
    const { name } = base
    return name !== undefined && (base.kind === 'backup' || base.kind === 'checkpoint')
      ? { ...here, name: this.#named(name) }
      : here
  }

  #point({ position, time }: Point): Point {
    if (position < 0) return { position, time }
    const index = this.survey.positions.of(position)
    // Before the disk's first event: where the import is told, which is before it here too.
    return { position: index < 0 ? this.head.next : this.#start + index, time: this.#time ?? time }
  }

  answer(): ImportedDisk {
    const { survey, head } = this
    return {
      disk: this.#disk,
      source: survey.header,
      first: head.next,
      last: head.next + survey.events,
      records: survey.records,
      events: survey.events,
      backups: survey.backups.map((id) => this.#named(id)),
      checkpoints: survey.checkpoints.map((name) => this.#named(name)),
      timesCollapsed: this.#time !== null,
      positions: survey.positions.table(this.#start),
    }
  }
}

function metaOf(record: LogRecord): RecordMeta {
  return record.kind === 'events' ? record.meta : {}
}

function eventsOf(record: LogRecord): readonly DomainEvent[] {
  return record.kind === 'events' ? record.events : []
}

function tooEarly(first: number, last: number): CheckpointError {
  const iso = (ms: number) => new Date(ms).toISOString()
  return new CheckpointError(
    'TIME_INVALID',
    `the disk's history begins at ${iso(first)}, before this log's last event at ${iso(last)}, and times never go back along a log; import it into a new store, or give it this log's time (--collapse-times), which costs its points by time`,
    { time: first, last },
  )
}

function tooLarge(bytes: number): CheckpointError {
  return new CheckpointError(
    'IMPORT_TOO_LARGE',
    `this history has more than ${limits.importBytesMax} bytes of records, which is more than one append may hold; move the store with copy, or compact the source first`,
    { bytes, max: limits.importBytesMax },
  )
}
