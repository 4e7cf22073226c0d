/**
 * Whether an event could follow from the state before it: what decide would never have let happen, said about a record that is
 * there. It does not decide again (rules may change, records do not); it names what cannot be, whatever the rules.
 */
import type { CompactedRun, DiskMark, DomainEvent, Extent, LogRecord, Point } from '../../events/types.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { objectionToCombining } from '../../projections/chain.ts'
import type { BackupState, BitmapState, DiskState } from '../../projections/state.ts'
import { baseOf } from '../commands/begin.ts'
import { insideDisk } from '../commands/disks.ts'
import { messageOf } from '../errors.ts'
import { hasTooManyGranules, limits } from '../limits.ts'

/** Thrown and caught in this file only: why an event cannot be. */
class Impossible extends Error {}

function deny(condition: boolean, why: string): void {
  if (condition) throw new Impossible(why)
}

/** Why `event` cannot happen in this state, or null. `last`: the last position before its record. */
export function objectionTo(event: DomainEvent, catalog: Catalog, last: number): string | null {
  try {
    check(event, catalog, last)
    return null
  } catch (error) {
    return messageOf(error)
  }
}

/** The same for a record of writes, or of the windows that they became: a disk that is there, and ranges inside it. */
export function objectionToWrites(
  record: Extract<LogRecord, { kind: 'writes' | 'windows' }>,
  catalog: Catalog,
): string | null {
  const sections =
    record.kind === 'writes' ? record.sections : record.windows.flatMap((window) => window.sections)
  for (const { disk: number, columns } of sections) {
    const name = catalog.diskByNumber(number)
    if (name === undefined) return `it writes to disk number ${number}, which was never added`
    const disk = name.removed ? undefined : catalog.disk(name.id)
    if (disk === undefined) return `it writes to disk "${name.id}", which was removed`
    const { offsets, lengths } = columns
    for (let i = 0; i < offsets.length; i++) {
      if (offsets[i]! + lengths[i]! > disk.size) {
        return `it writes ${offsets[i]}+${lengths[i]}, outside the ${disk.size} bytes of disk "${disk.id}"`
      }
    }
  }
  return null
}

/** What a record left undone: a backup that ended and still holds its bitmap. */
export function objectionToEnd(
  record: Extract<LogRecord, { kind: 'events' }>,
  catalog: Catalog,
): string | null {
  for (const event of record.events) {
    if (event.type !== 'backup-succeeded') continue
    const backup = catalog.backup(event.backup)
    const bitmap = backup && catalog.disk(backup.disk)?.bitmaps.get(backup.bitmap)
    if (bitmap?.holder?.kind === 'backup' && bitmap.holder.id === event.backup) {
      return `backup "${event.backup}" succeeded, but what became of its bits does not follow in the record`
    }
  }
  return null
}

function check(event: DomainEvent, catalog: Catalog, last: number): void {
  switch (event.type) {
    case 'disk-added':
      deny(catalog.disk(event.disk) !== undefined, `disk "${event.disk}" exists already`)
      checkSize(event.size)
      return
    case 'disk-resized':
      checkSize(event.size)
      for (const bitmap of disk(catalog, event.disk).bitmaps.values()) {
        free(bitmap)
        checkGranules(event.size, bitmap.granularity)
      }
      return
    case 'disk-removed':
      for (const bitmap of disk(catalog, event.disk).bitmaps.values()) free(bitmap)
      return
    case 'disk-attached':
    case 'disk-detached':
      disk(catalog, event.disk)
      return
    case 'stretch-lost':
      disk(catalog, event.disk)
      // Since the disk's last event, and that stands before it in the same record: then it begins at the record's end (R20).
      notAfter(event.from, Math.max(last, catalog.last.position), 'a lost stretch')
      return
    case 'window':
      checkExtents(event.extents, disk(catalog, event.disk))
      notAfter(event.from, last, 'a window')
      return
    case 'maybe-written':
      checkExtents(event.extents, disk(catalog, event.disk))
      notAfter(event.from, last, 'what may have been written')
      return
    case 'disk-marked':
      checkMark(event.mark, disk(catalog, event.disk))
      return
    case 'bitmap-added': {
      const owner = disk(catalog, event.disk)
      deny(owner.bitmaps.has(event.bitmap), `bitmap "${event.bitmap}" exists already`)
      const { granularity } = event
      const possible =
        granularity >= limits.granularityMin &&
        granularity <= limits.granularityMax &&
        Number.isInteger(Math.log2(granularity))
      deny(!possible, `granularity ${granularity} is not possible`)
      deny(event.retention > limits.retentionMax, `retention ${event.retention} is not possible`)
      checkGranules(owner.size, granularity)
      return
    }
    case 'bitmap-removed':
    case 'bitmap-cleared':
    case 'bitmap-enabled':
    case 'bitmap-disabled':
      free(bitmapOf(catalog, event))
      return
    case 'bitmap-merged': {
      free(bitmapOf(catalog, event))
      const { size } = disk(catalog, event.disk)
      for (const source of event.sources) {
        free(bitmapOf(catalog, source))
        deny(
          disk(catalog, source.disk).size !== size,
          `the disks of "${source.bitmap}" and "${event.bitmap}" differ in size`,
        )
      }
      return
    }
    case 'retention-set':
      deny(event.retention > limits.retentionMax, `retention ${event.retention} is not possible`)
      free(bitmapOf(catalog, event))
      return
    case 'bitmap-reset':
      heldByEnded(bitmapOf(catalog, event), event.backup, catalog)
      return
    case 'slice-frozen':
      checkFrozen(event, bitmapOf(catalog, event), catalog)
      return
    case 'slice-dropped': {
      const { slices } = bitmapOf(catalog, event)
      deny(
        slices[0]?.number !== event.slice,
        `slice ${event.slice} is not the oldest, and only the oldest can be dropped`,
      )
      return
    }
    case 'slice-merged': {
      const bitmap = bitmapOf(catalog, event)
      free(bitmap)
      const at = bitmap.slices.findIndex(({ number }) => number === event.slice)
      deny(
        at < 1 || bitmap.slices[at - 1]!.number !== event.into,
        `slice ${event.slice} cannot be merged into ${event.into}, which is not the next older one`,
      )
      return
    }
    case 'slice-reactivated': {
      const bitmap = bitmapOf(catalog, event)
      free(bitmap)
      deny(
        bitmap.slices.at(-1)?.number !== event.slice,
        `slice ${event.slice} is not the newest and cannot be active again`,
      )
      deny(
        bitmap.active.number !== event.deleted,
        `point ${event.deleted} is not where the active part began`,
      )
      return
    }
    case 'backup-begun': {
      deny(catalog.backup(event.backup) !== undefined, `backup "${event.backup}" was begun before`)
      const bitmap = bitmapOf(catalog, event)
      free(bitmap)
      baseOf(catalog, disk(catalog, event.disk), bitmap, event)
      return
    }
    case 'backup-pending':
    case 'backup-interrupted':
      inPhase(backup(catalog, event.backup), 'running')
      return
    case 'backup-resumed':
      inPhase(backup(catalog, event.backup), 'interrupted')
      return
    case 'backup-succeeded': {
      const ending = backup(catalog, event.backup)
      inPhase(ending, 'running', 'pending')
      const wanted = bitsAfter(ending, bitmapOf(catalog, ending))
      deny(event.bits !== wanted, `the bits of a backup of mode ${ending.mode} cannot be ${event.bits} here`)
      return
    }
    case 'backup-failed': {
      const ending = backup(catalog, event.backup)
      inPhase(ending, 'running', 'pending', 'interrupted')
      if (event.uncopied !== undefined) checkExtents(event.uncopied, disk(catalog, ending.disk))
      return
    }
    case 'backup-cancelled':
      inPhase(backup(catalog, event.backup), 'running', 'pending', 'interrupted')
      return
    case 'checkpoint-created':
      deny(
        catalog.checkpoint(event.checkpoint) !== undefined,
        `checkpoint "${event.checkpoint}" exists already`,
      )
      return
    case 'checkpoint-deleted':
      deny(
        catalog.checkpoint(event.checkpoint) === undefined,
        `checkpoint "${event.checkpoint}" does not exist`,
      )
      return
    case 'backup-forgotten': {
      const kept = backup(catalog, event.backup)
      inPhase(kept, 'succeeded')
      deny(kept.copy.kind === 'forgotten', `the copy of backup "${event.backup}" was forgotten before`)
      return
    }
    case 'backups-combined': {
      deny(catalog.backup(event.backup) !== undefined, `backup "${event.backup}" was there before`)
      const why = objectionToCombining(event.of.map((id) => backup(catalog, id)))
      deny(why !== null, why ?? '')
      return
    }
    case 'log-compacted':
      checkRuns(event.runs, last)
      return
    case 'log-repaired':
    case 'disk-imported':
    case 'clock-stepped':
    case 'nothing-changed':
      return
    default:
      throw new Impossible(`there is no event ${JSON.stringify(event satisfies never)}`)
  }
}

/** Ascending, apart, before their record; with the chain's hashes at their edges, zeros before the first record of all. */
function checkRuns(runs: readonly CompactedRun[], last: number): void {
  deny(runs.length === 0, 'a compaction of nothing is not told')
  let next = 0
  for (const run of runs) {
    const what = `a run of positions ${run.first} to ${run.last}`
    deny(
      run.first < next || run.last < run.first || run.last > last,
      `${what} cannot have been compacted here`,
    )
    deny(
      [run.before, run.after, run.own].some((hash) => hash === ''),
      `${what} needs its hashes`,
    )
    deny(run.first === 0 && !/^0+$/.test(run.before), `${what} begins the log, so nothing was before it`)
    next = run.last + 1
  }
}

function disk(catalog: Catalog, id: string): DiskState {
  const found = catalog.disk(id)
  if (found === undefined) throw new Impossible(`disk "${id}" does not exist`)
  return found
}

function bitmapOf(catalog: Catalog, ref: { readonly disk: string; readonly bitmap: string }): BitmapState {
  const found = disk(catalog, ref.disk).bitmaps.get(ref.bitmap)
  if (found === undefined) throw new Impossible(`bitmap "${ref.bitmap}" of disk "${ref.disk}" does not exist`)
  return found
}

function backup(catalog: Catalog, id: string): BackupState {
  const found = catalog.backup(id)
  if (found === undefined) throw new Impossible(`backup "${id}" was never begun`)
  return found
}

function free(bitmap: BitmapState): void {
  deny(bitmap.holder !== null, `bitmap "${bitmap.name}" is busy`)
}

function inPhase({ id, phase }: BackupState, ...phases: readonly string[]): void {
  deny(!phases.includes(phase.kind), `backup "${id}" is ${phase.kind}`)
}

function bitsAfter({ mode }: BackupState, bitmap: BitmapState): 'banked' | 'forgotten' | 'kept' | 'reset' {
  if (mode === 'full') return 'reset'
  if (mode === 'incremental') return bitmap.retention > 0 ? 'banked' : 'forgotten'
  return 'kept'
}

function heldByEnded(bitmap: BitmapState, id: string, catalog: Catalog): void {
  deny(
    bitmap.holder?.kind !== 'backup' || bitmap.holder.id !== id,
    `backup "${id}" does not hold bitmap "${bitmap.name}"`,
  )
  inPhase(backup(catalog, id), 'succeeded')
}

function checkFrozen(
  event: Extract<DomainEvent, { type: 'slice-frozen' }>,
  bitmap: BitmapState,
  catalog: Catalog,
): void {
  deny(
    event.slice !== bitmap.active.number,
    `the active part is ${bitmap.active.number}, so it cannot become slice ${event.slice}`,
  )
  deny(
    event.next !== bitmap.highestNumber + 1,
    `the next point is ${bitmap.highestNumber + 1}, not ${event.next}`,
  )
  deny(
    bitmap.slices.length >= bitmap.retention,
    `bitmap "${bitmap.name}" keeps ${bitmap.retention} slices and has no room for another`,
  )
  if (event.cause.kind === 'backup') heldByEnded(bitmap, event.cause.id, catalog)
  else free(bitmap)
}

function checkSize(size: number): void {
  deny(!(Number.isSafeInteger(size) && size > 0 && size <= limits.diskBytesMax), `no disk has ${size} bytes`)
}

function checkGranules(size: number, granularity: number): void {
  deny(hasTooManyGranules(size, granularity), `${size} bytes at granularity ${granularity} are too many bits`)
}

function checkExtents(extents: readonly Extent[], { id, size }: DiskState): void {
  for (const extent of extents)
    deny(!insideDisk(extent, size), `range ${extent[0]}+${extent[1]} lies outside disk "${id}"`)
}

/** Only a file or device that has the disk's size is ever served. */
function checkMark(mark: DiskMark, { id, size }: DiskState): void {
  deny(mark.size !== size, `a mark of ${mark.size} bytes is none of disk "${id}", which has ${size}`)
  deny((mark.sectorsWritten ?? 0) < 0, `no kernel counts ${mark.sectorsWritten} sectors`)
}

function notAfter(from: Point, last: number, what: string): void {
  deny(from.position > last, `${what} cannot begin at ${from.position}, after position ${last}`)
}
