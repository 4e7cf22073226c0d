/**
 * The JSON that scripts rely on (spec section 5): made field by field, so that a change of the library's types cannot
 * change them unseen. Extents are `[offset, length]`; words of more than one part have hyphens, as in QMP.
 */
import type { CoverageReport } from '../audit/coverage.ts'
import type { Explanation } from '../audit/explain-types.ts'
import type { Repair } from '../audit/repairs.ts'
import type { WouldBreak } from '../audit/restore-points.ts'
import type { Compacted } from '../store/compactor.ts'
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
  ForgetAnswer,
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
    'clock-steps': plan.clockSteps,
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
    ...copyShape(backup),
  }
}

/** `copy` is null where none was made. */
function copyShape({ phase, copy, of }: BackupInfo) {
  return {
    copy: phase.kind === 'succeeded' ? copy.kind : null,
    forgotten: copy.kind === 'forgotten' ? { at: copy.at, reason: copy.reason } : null,
    of,
  }
}

export function forgetShape(answer: ForgetAnswer, broken: WouldBreak) {
  return { ...answer, ...wouldBreakShape(broken) }
}

export function wouldBreakShape({ loses, breaks, combine }: WouldBreak) {
  const point = ({ point: at, copies }: WouldBreak['breaks'][number]) => ({
    point: at,
    copies: copies.filter(({ kept }) => kept).map(({ id }) => id),
  })
  return { loses: loses.map(point), breaks: breaks.map(point), combine }
}

export function coverageShape(coverage: CoverageReport) {
  const repairShape = ({ liesOn, ...repair }: Repair) => ({ ...repair, 'lies-on': liesOn })
  return {
    disk: coverage.disk,
    at: coverage.at,
    covered: coverage.covered,
    newest: coverage.newest,
    points: coverage.points,
    gaps: coverage.gaps.map(({ recreate, ...gap }) => ({ ...gap, recreate: recreate.map(repairShape) })),
    repairs: coverage.repairs.map(repairShape),
    hindered: coverage.hindered,
    next: coverage.next,
    merges: coverage.merges.map(({ bytesAtMost, ...merge }) => ({ ...merge, 'bytes-at-most': bytesAtMost })),
    lost: coverage.lost,
    former: coverage.former,
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

/** `owner`: the process that answered, when that is not the one that was called (R34). */
export function compactShape(
  compacted: Compacted,
  dryRun: boolean,
  log: { readonly before: number; readonly after: number },
) {
  return {
    policy: compacted.policy,
    'dry-run': dryRun,
    runs: compacted.runs,
    windows: compacted.windows,
    events: compacted.events,
    bytes: { before: compacted.bytesBefore, after: compacted.bytesAfter },
    log,
    'up-to': compacted.upTo,
  }
}

function growthShape({ growth, compaction }: StoreStatus) {
  const { last, ...estimate } = compaction
  return {
    growth: { 'events-per-day': growth.eventsPerDay, 'bytes-per-day': growth.bytesPerDay, days: growth.days },
    compaction: { ...estimate, last: last === null ? null : lastPassShape(last) },
  }
}

function lastPassShape(last: NonNullable<StoreStatus['compaction']['last']>) {
  return last.kind === 'failed'
    ? { at: last.at, error: last.error }
    : { at: last.at, runs: last.compacted.runs, events: last.compacted.events }
}

export function statusShape(status: StoreStatus, owner: { readonly pid: number } | null) {
  const { folder, ...rest } = status
  return { store: folder, ...rest, ...growthShape(status), owner }
}

export function explainShape(explained: Explanation) {
  const { written, hot } = explained
  return {
    backup: backupShape(explained.backup),
    size: explained.size,
    base: explained.base,
    reason: explained.reason,
    equal: explained.equal,
    whole: explained.whole,
    lost: explained.lost,
    sources: explained.sources,
    between: explained.between,
    'since-last': explained.sinceLast,
    span: explained.span,
    written: {
      writes: written.writes,
      bytes: written.bytes,
      ops: written.ops,
      rewrites: written.rewrites,
      'only-discarded': written.onlyDiscarded,
      sizes: written.sizes,
    },
    timeline: explained.timeline,
    hot: { region: hot.region, 'by-writes': hot.byWrites, 'by-bytes': hot.byBytes },
    granularities: explained.granularities,
    previous: explained.previous,
    unexplained: explained.unexplained,
    merged: explained.merged,
    findings: explained.findings,
  }
}
