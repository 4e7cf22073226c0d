/** The catalog's fold of bitmap and slice events. The transitions themselves are in bitmap-state.ts; here they find their bitmap. */
import type { BitmapEvent, Point, SliceEvent } from '../events/types.ts'
import {
  added,
  cleared,
  disabled,
  enabled,
  frozen,
  reset,
  sliceDropped,
  sliceMerged,
  sliceReactivated,
} from './bitmap-state.ts'
import type { CatalogWriter } from './catalog.ts'
import type { BackupState, BitmapState, DiskState } from './state.ts'

export function applyBitmapEvent(
  catalog: CatalogWriter,
  event: BitmapEvent | SliceEvent,
  position: number,
  at: Point,
): void {
  const disk = catalog.disk(event.disk)
  if (disk === undefined)
    throw new RangeError(
      `event ${event.type} at ${position} names disk "${event.disk}", which does not exist`,
    )
  const bitmaps = new Map(disk.bitmaps)
  if (event.type === 'bitmap-removed') {
    bitmaps.delete(event.bitmap)
  } else {
    bitmaps.set(event.bitmap, next(catalog, disk, event, position, at))
  }
  catalog.setDisk({ ...disk, bitmaps, last: at })
}

type Changing = Exclude<BitmapEvent, { type: 'bitmap-removed' }> | SliceEvent

function next(
  catalog: CatalogWriter,
  disk: DiskState,
  event: Changing,
  position: number,
  at: Point,
): BitmapState {
  if (event.type === 'bitmap-added') {
    const { bitmap: name, granularity, persistent, retention, recording } = event
    return added({ name, granularity, persistent, retention, recording }, position, at)
  }
  const bitmap = disk.bitmaps.get(event.bitmap)
  if (bitmap === undefined) {
    throw new RangeError(
      `event ${event.type} at ${position} names bitmap "${event.bitmap}" of disk "${event.disk}", which does not exist`,
    )
  }
  switch (event.type) {
    case 'bitmap-cleared':
      return cleared(bitmap, at)
    case 'bitmap-enabled':
      return enabled(bitmap, at)
    case 'bitmap-disabled':
      return disabled(bitmap, at)
    case 'bitmap-merged':
      return bitmap // Bits only: the shape of a bitmap says when it collected, and a merge does not change that.
    case 'retention-set':
      return { ...bitmap, retention: event.retention }
    case 'bitmap-reset': {
      noteOutcome(catalog, event.backup, (outcome) => ({ ...outcome, generation: position }))
      return reset(bitmap, lastBackupOf(catalog, event.backup), position, at)
    }
    case 'slice-frozen': {
      const shape = frozen(bitmap, event.slice, event.next, at)
      if (event.cause.kind !== 'backup') return shape
      noteOutcome(catalog, event.cause.id, (outcome) => ({ ...outcome, slice: event.slice }))
      return { ...shape, lastBackup: lastBackupOf(catalog, event.cause.id) }
    }
    case 'slice-dropped':
      // While a backup holds the bitmap only its own success drops slices, so they belong in its answer (R15).
      if (bitmap.holder?.kind === 'backup') {
        noteOutcome(catalog, bitmap.holder.id, (outcome) => ({
          ...outcome,
          dropped: [...outcome.dropped, event.slice],
        }))
      }
      return sliceDropped(bitmap, event.slice, event.because, position)
    case 'slice-merged':
      return sliceMerged(bitmap, event.slice, event.into, position)
    case 'slice-reactivated':
      return sliceReactivated(bitmap, event.slice, event.deleted, position)
  }
}

type Outcome = Extract<BackupState['phase'], { kind: 'succeeded' }>

function noteOutcome(catalog: CatalogWriter, id: string, change: (outcome: Outcome) => Outcome): void {
  const backup = catalog.backup(id)
  if (backup?.phase.kind === 'succeeded') catalog.setBackup({ ...backup, phase: change(backup.phase) })
}

function lastBackupOf(catalog: CatalogWriter, id: string): BitmapState['lastBackup'] {
  const backup = catalog.backup(id)
  if (backup === undefined) throw new RangeError(`backup "${id}" does not exist`)
  return { id, point: backup.point }
}
