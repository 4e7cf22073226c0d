/**
 * The plan of a combined backup: nobody recorded one, so it is derived, from the plans of its members as the log gives them
 * (R26). Their union is what the combined copy holds. Cost: a replay of each member.
 */
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { BackupState, ClockStep } from '../../projections/state.ts'
import type { Plan, PlanExtent } from './types.ts'

/** `members`: plans of the backups that `backup.of` names, in that order. */
export function combinedPlan(backup: BackupState, members: readonly Plan[]): Plan {
  const { size, granularity } = backup
  const bits = new DirtyBitmap(size, granularity)
  for (const { extents } of members) {
    for (const { offset, length } of extents) {
      // The disk may have shrunk since: what lay beyond its end then is in no image of its point.
      if (offset < size) bits.setRange(offset, Math.min(length, size - offset))
    }
  }
  const extents: PlanExtent[] = bits.extentList().map(([offset, length]) => ({ offset, length }))
  return {
    disk: backup.disk,
    bitmap: backup.bitmap,
    generation: backup.generation,
    mode: backup.mode,
    base: backup.base,
    point: backup.point,
    complete: backup.complete,
    lost: members.flatMap(({ lost }) => lost),
    clockSteps: stepsOf(members),
    bytes: bits.dirtyBytes,
    granularity,
    digest: bits.digest(),
    reason: `what the copies of ${(backup.of ?? []).map((id) => `"${id}"`).join(', ')} hold together; made again from their plans`,
    merges: members.flatMap(({ merges }) => merges),
    extents,
  }
}

/** Each once, in order: members may tell the same one. */
function stepsOf(members: readonly Plan[]): readonly ClockStep[] {
  const steps = new Map(
    members.flatMap(({ clockSteps }) => clockSteps.map((step) => [step.at.position, step])),
  )
  return [...steps.values()].sort((one, other) => one.at.position - other.at.position)
}
