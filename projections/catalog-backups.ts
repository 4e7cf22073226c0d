/** The catalog's fold of backup events: what phase a backup is in, and what its end did to its bitmap's shape (R9, R10). */
import type { BackupEvent, Point } from '../events/types.ts'
import { abdicated, begun, mergedBack, mergedBackUncopied } from './bitmap-state.ts'
import type { CatalogWriter } from './catalog.ts'
import type { BackupPhase, BackupState, BitmapState, DiskState } from './state.ts'

type Begun = Extract<BackupEvent, { type: 'backup-begun' }>
type Succeeded = Extract<BackupEvent, { type: 'backup-succeeded' }>

export function applyBackupEvent(catalog: CatalogWriter, event: BackupEvent, at: Point): void {
  if (event.type === 'backup-begun') {
    begin(catalog, event, at)
    return
  }
  const backup = catalog.backup(event.backup)
  if (backup === undefined)
    throw new RangeError(`event ${event.type} names backup "${event.backup}", which was never begun`)
  const { disk, bitmap } = held(catalog, backup)
  const become = (phase: BackupPhase, shape: BitmapState = bitmap): void => {
    catalog.setBackup({ ...backup, phase })
    touch(catalog, disk, shape, at)
  }
  switch (event.type) {
    case 'backup-pending':
      become({ kind: 'pending' })
      break
    case 'backup-interrupted':
      // Found at open, about a process and not about the disk: were it the disk's last event, an unclean end would count from it (R32).
      catalog.setBackup({ ...backup, phase: { kind: 'interrupted', at } })
      break
    case 'backup-resumed':
      become({ kind: 'running' })
      break
    case 'backup-succeeded':
      become(
        { kind: 'succeeded', at, slice: null, dropped: [], generation: bitmap.generation },
        afterSuccess(event, backup, bitmap),
      )
      break
    case 'backup-failed':
      become(
        { kind: 'failed', at, reason: event.reason },
        event.uncopied === undefined ? mergedBack(bitmap) : mergedBackUncopied(bitmap),
      )
      break
    case 'backup-cancelled':
      become({ kind: 'cancelled', at, reason: event.reason }, mergedBack(bitmap))
      break
  }
}

function begin(catalog: CatalogWriter, event: Begun, at: Point): void {
  const disk = catalog.disk(event.disk)
  const bitmap = disk?.bitmaps.get(event.bitmap)
  if (disk === undefined || bitmap === undefined) {
    throw new RangeError(
      `backup "${event.backup}" names bitmap "${event.bitmap}" of disk "${event.disk}", which does not exist`,
    )
  }
  catalog.setBackup({
    id: event.backup,
    disk: event.disk,
    diskNumber: disk.number,
    bitmap: event.bitmap,
    generation: bitmap.generation,
    granularity: bitmap.granularity,
    mode: event.mode,
    base: event.base,
    point: at,
    forceCycle: event.forceCycle,
    group: event.group ?? null,
    copiedBy: event.copiedBy,
    digest: event.digest,
    bytes: event.bytes,
    complete: event.complete,
    size: disk.size,
    whole: event.base.kind === 'none' || event.bytes === disk.size,
    doubt: [],
    copy: { kind: 'kept' },
    of: null,
    phase: { kind: 'running' },
  })
  touch(catalog, disk, begun(bitmap, { kind: 'backup', id: event.backup }, at), at)
}

/** `banked` and `reset` only say what follows: the bitmap stays held until its slice-frozen or bitmap-reset, in the same record. */
function afterSuccess(event: Succeeded, backup: BackupState, bitmap: BitmapState): BitmapState {
  switch (event.bits) {
    case 'banked':
    case 'reset':
      return bitmap
    case 'forgotten':
      return abdicated(bitmap, { id: backup.id, point: backup.point })
    case 'kept':
      return mergedBack(bitmap)
  }
}

function held(catalog: CatalogWriter, backup: BackupState): { disk: DiskState; bitmap: BitmapState } {
  const disk = catalog.disk(backup.disk)
  const bitmap = disk?.bitmaps.get(backup.bitmap)
  if (
    disk === undefined ||
    bitmap === undefined ||
    bitmap.holder?.kind !== 'backup' ||
    bitmap.holder.id !== backup.id
  ) {
    throw new RangeError(
      `backup "${backup.id}" does not hold bitmap "${backup.bitmap}" of disk "${backup.disk}"`,
    )
  }
  return { disk, bitmap }
}

function touch(catalog: CatalogWriter, disk: DiskState, bitmap: BitmapState, at: Point): void {
  catalog.setDisk({ ...disk, bitmaps: new Map(disk.bitmaps).set(bitmap.name, bitmap), last: at })
}
