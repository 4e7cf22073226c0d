/**
 * The JSON that scripts rely on (spec section 5): made field by field, so that a change of the library's types cannot
 * change them unseen. Extents are `[offset, length]`; words of more than one part have hyphens, as in QMP.
 */
import type {
  BackupInfo,
  BankAnswer,
  BitmapInfo,
  BitsInfo,
  Changed,
  CheckpointDeleted,
  CheckpointInfo,
  DiskInfo,
  EndAnswer,
  Plan,
  PlanExtent,
  SlicesInfo,
  StoreStatus,
  SucceedAnswer,
} from '../store/types.ts'
import type { Imported } from '../traces/import.ts'

function pairs(extents: readonly PlanExtent[]): [number, number][] {
  return extents.map(({ offset, length }) => [offset, length])
}

export function changedShape(changed: Changed) {
  return {
    disk: changed.disk,
    since: changed.since,
    until: changed.until,
    granularity: changed.granularity,
    bytes: changed.bytes,
    resolution: changed.resolution,
    complete: changed.complete,
    lost: changed.lost,
    'clock-steps': changed.clockSteps,
    digest: changed.digest,
    reason: changed.reason,
    extents: pairs(changed.extents),
  }
}

export function planShape(plan: Plan) {
  return {
    disk: plan.disk,
    bitmap: plan.bitmap,
    generation: plan.generation,
    mode: plan.mode,
    base: plan.base,
    point: plan.point,
    complete: plan.complete,
    lost: plan.lost,
    bytes: plan.bytes,
    granularity: plan.granularity,
    digest: plan.digest,
    reason: plan.reason,
    merges: plan.merges,
    extents: pairs(plan.extents),
  }
}

export function backupShape(backup: BackupInfo) {
  const { phase } = backup
  return {
    id: backup.id,
    state: phase.kind,
    disk: backup.disk,
    bitmap: backup.bitmap,
    generation: backup.generation,
    mode: backup.mode,
    base: backup.base,
    point: backup.point,
    complete: backup.complete,
    bytes: backup.bytes,
    granularity: backup.granularity,
    digest: backup.digest,
    group: backup.group,
    slice: phase.kind === 'succeeded' ? phase.slice : null,
    'dropped-slices':
      phase.kind === 'succeeded' ? phase.dropped.map((slice) => ({ [backup.bitmap]: slice })) : [],
    reason: 'reason' in phase ? phase.reason : null,
    ended: 'at' in phase && phase.kind !== 'interrupted' ? phase.at : null,
  }
}

export function endShape(answer: SucceedAnswer | EndAnswer) {
  return {
    id: answer.id,
    state: answer.state,
    slice: answer.slice,
    generation: answer.generation,
    'dropped-slices': answer.droppedSlices,
  }
}

export function bankShape(answer: BankAnswer) {
  return { slice: answer.slice, generation: answer.generation, 'dropped-slices': answer.droppedSlices }
}

export function diskShape(disk: DiskInfo) {
  const { attached, recorder, added, last, bitmaps, lost, size } = disk
  return { disk: disk.disk, size, attached, recorder, added, last, bitmaps, lost }
}

export function bitmapShape(bitmap: BitmapInfo) {
  const { disk, generation, granularity, retention, recording, busy, persistent, next, slices } = bitmap
  return {
    disk,
    bitmap: bitmap.bitmap,
    generation,
    granularity,
    retention,
    recording,
    busy,
    persistent,
    next,
    slices,
  }
}

export function bitsShape(bits: BitsInfo, slice: number | null) {
  return {
    disk: bits.disk,
    bitmap: bits.bitmap,
    generation: bits.generation,
    slice,
    granularity: bits.granularity,
    count: bits.count,
    digest: bits.digest,
    recording: bits.recording,
    busy: bits.busy,
    ...(bits.successorCount === undefined ? {} : { 'successor-count': bits.successorCount }),
    extents: bits.extents,
  }
}

export function slicesShape(slices: SlicesInfo) {
  return {
    generation: slices.generation,
    next: slices.next,
    slices: slices.slices.map(({ slice, count, digest, from, to, lost }) => ({
      slice,
      count,
      digest,
      from,
      to,
      lost,
    })),
  }
}

export function checkpointShape(checkpoint: CheckpointInfo) {
  return { checkpoint: checkpoint.name, point: checkpoint.point, bitmaps: checkpoint.bitmaps }
}

export function checkpointDeletedShape({ checkpoint, merged, kept, gone }: CheckpointDeleted) {
  return { checkpoint, merged, kept, gone }
}

export function importedShape(imported: Imported) {
  const { badLines, ...rest } = imported
  return { ...rest, 'bad-lines': badLines }
}

export function statusShape(status: StoreStatus) {
  const { folder, ...rest } = status
  return { store: folder, ...rest }
}
