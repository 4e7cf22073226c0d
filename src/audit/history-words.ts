/** What an event did, in a sentence for people: with the state before it, so that it can say from what to what. */
import type { Base, BitmapRef, DomainEvent, Point, SliceCause } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { bytes, count, duration, plural } from './figures.ts'

/** `position`: the event's own. */
export function eventInWords(event: DomainEvent, position: number, before: CatalogReader): string {
  switch (event.type) {
    case 'disk-added':
      return `disk added, ${bytes(event.size)}`
    case 'disk-resized':
      return `disk resized from ${bytes(before.disk(event.disk)?.size ?? 0)} to ${bytes(event.size)}`
    case 'disk-removed':
      return 'disk removed; its history stays in the log'
    case 'disk-attached':
      return `attached, recorded by ${event.recorder === 'caller' ? 'its caller' : 'this process'}`
    case 'disk-detached':
      return 'detached'
    case 'stretch-lost':
      return `writes after ${place(event.from)} may have gone unrecorded: ${event.reason}`
    case 'window':
      return `told of ${event.writes === 0 ? 'writes' : plural(event.writes, 'write')} after ${place(event.from)}, in ${plural(event.extents.length, 'range')}`
    case 'maybe-written':
      return `may have been written after ${place(event.from)}, in ${plural(event.extents.length, 'range')}, by writes whose records a power cut took: counted as written`
    case 'disk-marked':
      return `its ${event.mark.kind === 'file' ? 'file' : 'block device'} marked: what is recorded up to here has reached it`
    case 'bitmap-added':
      return (
        `bitmap "${event.bitmap}" added: ${bytes(event.granularity)} a granule, room for ${plural(event.retention, 'slice')}` +
        `${event.recording ? '' : ', disabled'}${event.persistent ? '' : ', transient'}; generation ${position} begins with point 0`
      )
    case 'bitmap-removed':
      return event.because === 'detach'
        ? 'removed at the clean detach of its disk, being transient'
        : `bitmap "${event.bitmap}" removed`
    case 'bitmap-cleared':
      return 'cleared: what it had collected since its last point comes from the log now'
    case 'bitmap-enabled':
      return 'enabled: it collects from here on'
    case 'bitmap-disabled':
      return 'disabled: from here on the log alone has the writes'
    case 'bitmap-merged':
      return `bits of ${event.sources.map((source) => nameOf(source, event.disk)).join(', ')} merged into "${event.bitmap}"`
    case 'retention-set':
      return `retention set to ${count(event.retention)}`
    case 'bitmap-reset':
      return `full backup "${event.backup}" succeeded: every slice forgotten, generation ${position} begins with point 0`
    case 'slice-frozen':
      return `slice ${event.slice} frozen by ${causeInWords(event.cause)}; point ${event.next} begins`
    case 'slice-dropped':
      return `slice ${event.slice} dropped, ${DROPPED[event.because]}`
    case 'slice-merged':
      return `point ${event.slice} forgotten: slice ${event.slice} merged into slice ${event.into}`
    case 'slice-reactivated':
      return `point ${event.deleted} forgotten: slice ${event.slice} collects again`
    case 'backup-begun':
      return `${event.mode} backup "${event.backup}" begun ${baseInWords(event.base)}: ${bytes(event.bytes)} to copy${event.complete ? '' : ', not complete'}`
    case 'backup-pending':
      return `backup "${event.backup}" is done and waits for the others of its group`
    case 'backup-interrupted':
      return `backup "${event.backup}" found interrupted: the process that copied it ended`
    case 'backup-resumed':
      return `backup "${event.backup}" resumed`
    case 'backup-succeeded':
      return `backup "${event.backup}" succeeded: ${SUCCEEDED[event.bits]}`
    case 'backup-failed':
      return `backup "${event.backup}" failed: ${event.reason}; what was collected meanwhile is merged back`
    case 'backup-cancelled':
      return `backup "${event.backup}" cancelled${event.reason === '' ? '' : `: ${event.reason}`}; what was collected meanwhile is merged back`
    case 'backup-forgotten':
      return `the copy of backup "${event.backup}" is reported gone${event.reason === '' ? '' : `: ${event.reason}`}`
    case 'backups-combined':
      return `copies of ${event.of.join(', ')} combined into "${event.backup}"`
    case 'checkpoint-created':
      return `checkpoint "${event.checkpoint}" created${event.bitmaps.length === 0 ? '' : `, banking ${event.bitmaps.map((ref) => nameOf(ref)).join(', ')}`}`
    case 'checkpoint-deleted':
      return `checkpoint "${event.checkpoint}" deleted`
    case 'clock-stepped':
      return `the clock stepped by ${event.to < event.from ? '-' : ''}${duration(Math.abs(event.to - event.from))}`
    case 'log-compacted':
      return `${plural(event.runs.length, 'run')} of writes compacted into windows`
    case 'log-repaired':
      return `damage repaired: ${plural(event.gaps.length, 'gap')} in the log; what was taken out is kept in ${event.kept}`
    case 'disk-imported':
      return `its history was imported from store ${event.store}, up to position ${event.position} there`
    case 'nothing-changed':
      return 'a command that changed nothing'
    default:
      throw new RangeError(`no words for ${JSON.stringify(event satisfies never)}`)
  }
}

const DROPPED = {
  'force-cycle': 'to make room for the next (forced)',
  retention: 'to fit the retention',
  deleted: 'being the oldest, when its point was deleted',
} as const

const SUCCEEDED = {
  banked: 'what it copied becomes a slice',
  forgotten: 'what it copied is forgotten, the retention being 0',
  kept: 'the bitmap keeps its bits',
  reset: 'the bitmap starts anew',
} as const

function causeInWords(cause: SliceCause): string {
  switch (cause.kind) {
    case 'bank':
      return 'bank'
    case 'checkpoint':
      return `checkpoint "${cause.name}"`
    case 'backup':
      return `backup "${cause.id}"`
    default:
      throw new RangeError(`no words for ${JSON.stringify(cause satisfies never)}`)
  }
}

function baseInWords(base: Base): string {
  if (base.kind === 'none') return 'of the whole disk'
  return base.name === undefined ? `since ${place(base)}` : `since ${base.kind} ${base.name} (${place(base)})`
}

function nameOf({ disk, bitmap }: BitmapRef, own?: string): string {
  return disk === own ? `"${bitmap}"` : `"${disk}:${bitmap}"`
}

function place({ position }: Point): string {
  return position < 0 ? 'the start' : `@${position}`
}
