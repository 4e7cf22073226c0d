/**
 * Every transition of a bitmap, a slice, a backup, a checkpoint or a disk, with its cause (R27): also of one that is no more.
 *
 * Costs one read of the log in which records of writes are passed over undecoded (about a second for 100 M writes), and a fold
 * of the events that are no writes. A name may have been used several times: `life` keeps the bearers apart.
 */
import type { DomainEvent, LogRecord, RecordMeta } from '../../events/types.ts'
import { Catalog, endOf } from '../../projections/catalog.ts'
import type { BitmapState } from '../../projections/state.ts'
import { CheckpointError, type ErrorCode } from '../errors.ts'
import { needObject, needOptions } from '../store/arguments.ts'
import { needStore, type Store } from '../store/store.ts'
import { eventInWords } from './history-words.ts'

export type HistorySubject =
  | { readonly kind: 'disk'; readonly disk: string }
  | { readonly kind: 'bitmap'; readonly disk: string; readonly bitmap: string }
  /** Without a generation: of every one that had a slice of this number. */
  | {
      readonly kind: 'slice'
      readonly disk: string
      readonly bitmap: string
      readonly slice: number
      readonly generation?: number
    }
  | { readonly kind: 'backup'; readonly backup: string }
  | { readonly kind: 'checkpoint'; readonly checkpoint: string }

export interface Transition {
  readonly position: number
  readonly time: number
  /** The event's type. */
  readonly type: DomainEvent['type']
  /**
   * Which bearer of the name it concerns: of a bitmap and a slice the generation, of a disk the position at which it was
   * added, of a checkpoint at which it was created, of a backup at which it began.
   */
  readonly life: number
  readonly says: string
  /** The event as it is in the log. */
  readonly event: DomainEvent
  readonly cause: RecordMeta
}

export interface History {
  readonly subject: HistorySubject
  /** Bearers of the name, oldest first. */
  readonly lives: readonly number[]
  readonly transitions: readonly Transition[]
}

export interface HistoryOptions {
  readonly signal?: AbortSignal | undefined
  /** The last position read, and the log's last. */
  readonly onProgress?: ((position: number, last: number) => void) | undefined
}

type EventsRecord = Extract<LogRecord, { kind: 'events' }>

/** @throws CheckpointError DISK_NOT_FOUND, BITMAP_NOT_FOUND, SLICE_NOT_FOUND, BACKUP_NOT_FOUND, CHECKPOINT_NOT_FOUND, ABORTED, LOG_DAMAGED */
export async function history(
  store: Store,
  subject: HistorySubject,
  options: HistoryOptions = {},
): Promise<History> {
  needStore(store)
  needObject('the subject', subject)
  needOptions(options, { signal: 'signal', onProgress: 'function' })
  const catalog = new Catalog()
  const lifeOf = watcher(subject)
  const transitions: Transition[] = []
  const last = store.head.position
  const signal = options.signal === undefined ? {} : { signal: options.signal }
  for await (const records of store.records({ without: 'writes', ...signal })) {
    for (const record of records) {
      if (record.kind !== 'events') continue
      const at = endOf(record)
      record.events.forEach((event, i) => {
        const position = record.first + i
        for (const life of [lifeOf(event, position, catalog, record) ?? []].flat())
          transitions.push({
            position,
            time: record.time,
            type: event.type,
            life,
            says: eventInWords(event, position, catalog),
            event,
            cause: record.meta,
          })
        catalog.applyEvent(event, position, at)
      })
      options.onProgress?.(at.position, last)
    }
  }
  if (transitions.length === 0) throw unknown(subject)
  return { subject, lives: [...new Set(transitions.map(({ life }) => life))], transitions }
}

/** The life of the subject that the event is a transition of (two where one ends and the next begins), or null. `before`: the state. */
type Watcher = (
  event: DomainEvent,
  position: number,
  before: Catalog,
  record: EventsRecord,
) => number | readonly number[] | null

function watcher(subject: HistorySubject): Watcher {
  switch (subject.kind) {
    case 'disk':
      return ofDisk(subject.disk)
    case 'bitmap':
      return ofBitmap(subject)
    case 'slice':
      return ofSlice(subject)
    case 'backup':
      return ofBackup(subject.backup)
    case 'checkpoint':
      return ofCheckpoint(subject.checkpoint)
    default:
      throw new TypeError(
        `there is no history of a ${String((subject satisfies never as HistorySubject).kind)}; give a disk, bitmap, slice, backup or checkpoint`,
      )
  }
}

const OF_DISKS: readonly DomainEvent['type'][] = [
  'disk-resized',
  'disk-removed',
  'disk-attached',
  'disk-detached',
  'disk-imported',
  'stretch-lost',
  'window',
  'maybe-written',
  'disk-marked',
  'bitmap-added',
  'bitmap-removed',
]

function ofDisk(disk: string): Watcher {
  return (event, position, before) => {
    if (!('disk' in event) || event.disk !== disk) return null
    if (event.type === 'disk-added') return position
    return OF_DISKS.includes(event.type) ? (before.disk(disk)?.number ?? position) : null
  }
}

function ofBitmap({ disk, bitmap }: { readonly disk: string; readonly bitmap: string }): Watcher {
  return (event, position, before) => {
    const state = before.disk(disk)?.bitmaps.get(bitmap)
    const begins = event.type === 'bitmap-added' || event.type === 'bitmap-reset'
    if (begins && event.disk === disk && event.bitmap === bitmap) return position
    if (state === undefined) return null
    return concernsBitmap(event, disk, bitmap, before) ? state.generation : null
  }
}

function concernsBitmap(event: DomainEvent, disk: string, bitmap: string, before: Catalog): boolean {
  switch (event.type) {
    case 'disk-resized':
    case 'disk-removed':
    case 'stretch-lost':
      return event.disk === disk
    case 'checkpoint-created':
      return event.bitmaps.some((ref) => ref.disk === disk && ref.bitmap === bitmap)
    case 'bitmap-merged':
      return [event, ...event.sources].some((ref) => ref.disk === disk && ref.bitmap === bitmap)
    default: {
      if ('bitmap' in event) return event.disk === disk && event.bitmap === bitmap
      if (!('backup' in event)) return false
      const backup = before.backup(event.backup)
      const { number } = before.disk(disk)!
      return backup !== undefined && backup.diskNumber === number && backup.bitmap === bitmap
    }
  }
}

function ofSlice({ disk, bitmap, slice, generation }: Extract<HistorySubject, { kind: 'slice' }>): Watcher {
  const wanted = (life: number) => (generation === undefined || generation === life ? life : null)
  return (event, position, before) => {
    const state = before.disk(disk)?.bitmaps.get(bitmap)
    const own = 'bitmap' in event && event.disk === disk && event.bitmap === bitmap
    if (own && event.type === 'bitmap-added') return slice === 0 ? wanted(position) : null
    if (state === undefined) return null
    const here = wanted(state.generation)
    if (own && event.type === 'bitmap-reset') {
      const ended = exists(state, slice) ? here : null
      const begun = slice === 0 ? wanted(position) : null
      return [ended, begun].filter((life) => life !== null)
    }
    if ('disk' in event && event.disk === disk && !('bitmap' in event))
      return CONCERNS_SLICES.includes(event.type) && exists(state, slice) ? here : null
    return own && concernsSlice(event, state, slice) ? here : null
  }
}

const CONCERNS_SLICES: readonly DomainEvent['type'][] = ['disk-resized', 'disk-removed', 'stretch-lost']

/** Held, or being collected under this number. */
function exists({ active, slices }: BitmapState, number: number): boolean {
  return active.number === number || slices.some((slice) => slice.number === number)
}

function concernsSlice(event: DomainEvent, state: BitmapState, number: number): boolean {
  switch (event.type) {
    case 'slice-frozen':
      return event.slice === number || event.next === number
    case 'slice-dropped':
      return event.slice === number
    case 'slice-merged':
      return event.slice === number || event.into === number
    case 'slice-reactivated':
      return event.slice === number || event.deleted === number
    case 'bitmap-removed':
      return exists(state, number)
    case 'bitmap-cleared':
    case 'bitmap-enabled':
    case 'bitmap-disabled':
    case 'bitmap-merged':
      return state.active.number === number
    default:
      return false
  }
}

function ofBackup(id: string): Watcher {
  let life = -1
  return (event, position, before, record) => {
    if (event.type === 'backup-begun' || event.type === 'backups-combined') {
      if (event.backup === id) life = position
      else if (event.type === 'backup-begun' || !event.of.includes(id)) return null
      return life
    }
    if ('backup' in event && event.backup === id) return life
    if (event.type === 'slice-frozen')
      return event.cause.kind === 'backup' && event.cause.id === id ? life : null
    if (event.type !== 'slice-dropped') return null
    // Dropped by its success: in the same record, from its bitmap.
    const backup = before.backup(id)
    const succeeds = record.events.some((other) => other.type === 'backup-succeeded' && other.backup === id)
    return succeeds && backup?.disk === event.disk && backup.bitmap === event.bitmap ? life : null
  }
}

function ofCheckpoint(name: string): Watcher {
  let life = -1
  let bitmaps: readonly { readonly disk: string; readonly bitmap: string }[] = []
  return (event, position, _before, record) => {
    if (event.type === 'checkpoint-created' && event.checkpoint === name) {
      life = position
      bitmaps = event.bitmaps
      return life
    }
    if (event.type === 'checkpoint-deleted') return event.checkpoint === name ? life : null
    if (event.type === 'slice-frozen')
      return event.cause.kind === 'checkpoint' && event.cause.name === name
        ? (bornIn(record, name) ?? life)
        : null
    if (event.type !== 'slice-merged' && event.type !== 'slice-dropped' && event.type !== 'slice-reactivated')
      return null
    const deleted = record.events.some(
      (other) => other.type === 'checkpoint-deleted' && other.checkpoint === name,
    )
    return deleted && bitmaps.some((ref) => ref.disk === event.disk && ref.bitmap === event.bitmap)
      ? life
      : null
  }
}

/** Its slices may be frozen before the event that names it. */
function bornIn(record: EventsRecord, name: string): number | undefined {
  const at = record.events.findIndex(
    (event) => event.type === 'checkpoint-created' && event.checkpoint === name,
  )
  return at < 0 ? undefined : record.first + at
}

const CODES: Readonly<Record<HistorySubject['kind'], ErrorCode>> = {
  disk: 'DISK_NOT_FOUND',
  bitmap: 'BITMAP_NOT_FOUND',
  slice: 'SLICE_NOT_FOUND',
  backup: 'BACKUP_NOT_FOUND',
  checkpoint: 'CHECKPOINT_NOT_FOUND',
}

/** As it is typed: `guest/vda daily 46.1`. */
function named({ kind: _, ...facts }: HistorySubject): string {
  if (!('slice' in facts)) return Object.values(facts).join(' ')
  const { disk, bitmap, slice, generation } = facts
  return `${disk} ${bitmap} ${generation === undefined ? '' : `${generation}.`}${slice}`
}

function unknown(subject: HistorySubject): CheckpointError {
  const { kind, ...facts } = subject
  return new CheckpointError(
    CODES[kind],
    `the log has never had this ${kind} (${named(subject)}); see what there is with ${kind} ls, or log --type ${kind === 'slice' ? 'slice-frozen' : kind === 'backup' ? 'backup-begun' : kind === 'checkpoint' ? 'checkpoint-created' : `${kind}-added`}`,
    facts,
  )
}
