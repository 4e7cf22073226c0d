/**
 * Positions that a compaction must keep as points (R29): everything that a backup, a checkpoint, a slice, a lost stretch or a told
 * window refers to, and the last event of each disk, which a recovery after an unclean end will refer to (R32).
 */
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BackupState, BitmapState, DiskState } from '../../projections/state.ts'

/** Ascending, each once. A position means after its event: no window holds it and the next. */
export function protectedPositions(catalog: CatalogReader, others: Iterable<number> = []): number[] {
  const positions = new Set<number>()
  for (const backup of catalog.backups()) for (const at of ofBackup(backup)) positions.add(at)
  for (const { point } of catalog.checkpoints()) positions.add(point.position)
  for (const step of catalog.clockSteps()) positions.add(step.at.position)
  for (const disk of catalog.disks()) for (const at of ofDisk(disk)) positions.add(at)
  for (const position of others) positions.add(position)
  positions.delete(-1)
  return [...positions].sort((a, b) => a - b)
}

function* ofBackup({ base, point, phase }: BackupState): Generator<number> {
  yield base.position
  yield point.position
  if ('at' in phase) yield phase.at.position
}

function* ofDisk(disk: DiskState): Generator<number> {
  yield disk.addedAt.position
  yield disk.last.position
  for (const { at } of disk.resizes) yield at.position
  for (const { from, to } of disk.lost) {
    yield from.position
    yield to.position
  }
  for (const { from, at } of disk.windows) {
    yield from.position
    yield at.position
  }
  for (const bitmap of disk.bitmaps.values()) yield* ofBitmap(bitmap)
}

function* ofBitmap(bitmap: BitmapState): Generator<number> {
  yield bitmap.createdAt.position
  yield bitmap.active.from.position
  if (bitmap.successor !== null) yield bitmap.successor.from.position
  if (bitmap.lastBackup !== null) yield bitmap.lastBackup.point.position
  for (const { from, to } of bitmap.slices) {
    yield from.position
    yield to.position
  }
}
