/**
 * The recorder: a store's history, or a part of it, as one small file for a test (`player.ts` plays it). Reads the log once, or
 * twice where it begins later than the log; all of the file is in memory while it is made.
 */
import { writeFile } from 'node:fs/promises'
import { TOLD_WRITES } from '../../events/told.ts'
import type { DomainEvent, LogRecord, Point } from '../../events/types.ts'
import { Catalog, endOf } from '../../projections/catalog.ts'
import { CheckpointError } from '../errors.ts'
import { checkAborted, type StoredEntry } from '../log/entries.ts'
import { MemoryEventLog } from '../log/memory-log.ts'
import { needOptions, needPath } from '../store/arguments.ts'
import { targetExists } from '../store/publish.ts'
import { cutRecord } from '../store/state.ts'
import { needStore, type Store } from '../store/store.ts'
import type { PointInput } from '../store/types.ts'
import { Anonymiser, KEEP_NAMES } from './anonymise.ts'
import { ChosenDisks } from './chosen-disks.ts'
import { encodeIncident, type IncidentInfo, recordsIn } from './incident-file.ts'
import { IncidentWriter } from './incident-writer.ts'
import { Shift } from './shift.ts'

export interface RecordOptions {
  /**
   * Where the incident begins. Everything that is no write is kept from the very start; writes up to here are folded into
   * windows, so that the file is small and every bitmap, slice, plan and digest from here on is what it was. Default `start`.
   */
  readonly from?: PointInput
  /** Where it ends. Default `now`. */
  readonly to?: PointInput
  /** Only these disks, and those that their bitmaps were merged from. Of the others positions and times stay, and no more. */
  readonly disks?: readonly string[]
  /** Replaces names of disks, bitmaps, backups and checkpoints, ids, actors and reasons by made-up ones, for good. */
  readonly anonymise?: boolean
  /** Moves all times so that the first event happens then (ms since the epoch). */
  readonly epoch?: number
  readonly signal?: AbortSignal
  readonly onProgress?: (position: number, last: number) => void
}

export interface RecordedIncident {
  readonly info: IncidentInfo
  /** The file's content. */
  readonly bytes: Uint8Array
}

/**
 * Records an incident.
 * @throws CheckpointError POINT_ORDER, DISK_NOT_FOUND, ABORTED, STORE_CLOSED, those of points, LOG_DAMAGED
 */
export async function recordIncident(store: Store, options: RecordOptions = {}): Promise<RecordedIncident> {
  needStore(store)
  // A flag that is not understood must never mean names in clear.
  needOptions(options, { disks: 'texts', anonymise: 'flag', signal: 'signal', onProgress: 'function' })
  const from = await store.resolvePoint(options.from ?? 'start', 'at')
  const to = await store.resolvePoint(options.to ?? 'now', 'at')
  if (from.position > to.position)
    throw new CheckpointError(
      'POINT_ORDER',
      `the incident would begin at position ${from.position} and end at ${to.position}; swap them`,
      { from: from.position, to: to.position },
    )
  const chosen = options.disks === undefined ? null : await disksFor(store, options.disks, to)
  const shift = new Shift(await distance(store, options.epoch))
  const writer = new IncidentWriter({
    from: from.position,
    referred: from.position < 0 ? new Set() : await referredIn(store),
    names: options.anonymise === true ? new Anonymiser() : KEEP_NAMES,
    shift,
    disks: new ChosenDisks(chosen),
  })
  await eachRecord(store, to.position, options, (record) => writer.add(record))
  const entries = await packed(writer.end())
  checkAborted(options.signal)
  const facts = {
    from: shift.point(from),
    to: shift.point(to),
    events: to.position + 1,
    records: writer.records,
  }
  const marks = { anonymised: options.anonymise === true, shifted: shift.by !== 0 }
  const info: IncidentInfo = { ...facts, ...namesIn(entries), ...marks }
  return { info, bytes: encodeIncident({ info, entries }) }
}

/**
 * The same, into a file.
 * @throws CheckpointError TARGET_EXISTS, IO_FAILED, and what recordIncident throws
 */
export async function recordIncidentFile(
  store: Store,
  file: string,
  options: RecordOptions = {},
): Promise<RecordedIncident> {
  needPath('the file', file)
  const incident = await recordIncident(store, options)
  try {
    await writeFile(file, incident.bytes, { flag: 'wx', mode: 0o640 })
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST') throw targetExists(file, 'is not written over', cause)
    throw new CheckpointError('IO_FAILED', `cannot write ${file}: ${message}`, { file }, cause)
  }
  return incident
}

/** Records up to `last`, the final one cut there; all of them, or it throws. */
async function eachRecord(
  store: Store,
  last: number,
  { signal, onProgress }: RecordOptions,
  take: (record: LogRecord) => void,
): Promise<void> {
  if (last < 0) return
  for await (const records of store.records({ to: last, ...(signal === undefined ? {} : { signal }) })) {
    for (const record of records) take(cutRecord(record, last))
    onProgress?.(Math.min(endOf(records.at(-1)!).position, last), last)
  }
}

/** Events of a type, as they were recorded. */
async function* eventsOfTypes(store: Store, types: readonly DomainEvent['type'][]) {
  for await (const { type, disk, data } of store.log({ types })) yield { type, disk, data }
}

/** Positions that later answers count from: bases of backups, lost stretches, windows that were told. */
async function referredIn(store: Store): Promise<Set<number>> {
  const referred = new Set<number>()
  for await (const { data } of eventsOfTypes(store, ['backup-begun', 'stretch-lost', ...TOLD_WRITES])) {
    const { base, from } = data as { base?: Point; from?: Point }
    for (const point of [base, from]) if (point !== undefined) referred.add(point.position)
  }
  return referred
}

/** With the disks whose bitmaps went into theirs: without them the bits would not be the same. */
async function disksFor(store: Store, disks: readonly string[], to: Point): Promise<ReadonlySet<string>> {
  const known = new Set<string>()
  const merges: { into: string; from: string }[] = []
  for await (const { type, disk, data } of eventsOfTypes(store, ['disk-added', 'bitmap-merged'])) {
    if (disk === null) continue
    if (type === 'disk-added') known.add(disk)
    const { sources = [] } = data as { sources?: readonly { readonly disk: string }[] }
    for (const source of sources) merges.push({ into: disk, from: source.disk })
  }
  for (const disk of disks) {
    if (!known.has(disk))
      throw new CheckpointError(
        'DISK_NOT_FOUND',
        `there was no disk "${disk}" up to position ${to.position}; list the disks`,
        { disk },
      )
  }
  const chosen = new Set(disks)
  for (let size = -1; size !== chosen.size; ) {
    size = chosen.size
    for (const { into, from } of merges) if (chosen.has(into)) chosen.add(from)
  }
  return chosen
}

async function distance(store: Store, epoch: number | undefined): Promise<number> {
  if (epoch === undefined) return 0
  if (!Number.isSafeInteger(epoch) || epoch < 0) throw new RangeError('epoch is a time in ms since 1970')
  for await (const { time } of store.log({ limit: 1 })) return epoch - time
  return 0
}

/** Small records joined, as a log does with its own. */
async function packed(entries: readonly StoredEntry[]): Promise<readonly StoredEntry[]> {
  const log = new MemoryEventLog({ entries: [...entries], commands: new Map() })
  await log.repack()
  await log.close()
  return log.storage.entries
}

/** Of what went into the file, so under the names that are in it. */
function namesIn(entries: readonly StoredEntry[]): Pick<IncidentInfo, 'disks' | 'backups' | 'checkpoints'> {
  const catalog = new Catalog()
  for (const record of recordsIn(entries)) catalog.apply(record)
  return {
    disks: [...catalog.disks()].map(({ id }) => id),
    backups: [...catalog.backups()].map(({ id }) => id),
    checkpoints: [...catalog.checkpoints()].map(({ name }) => name),
  }
}
