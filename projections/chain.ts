/**
 * Which copies may be laid on which, and what a chain of them amounts to: R25's rule in one place, for the fold, for the
 * commands and for every question about restoring.
 *
 * A copy holds what changed after its base, with the content of its point. So it may be laid on an image of any point from
 * its base to its own, and makes an image of its point; one that holds the whole disk lies on nothing. No bits here.
 */
import type { Base, LostStretch, Point } from '../events/types.ts'
import type { BackupState } from './state.ts'

/** A copy as laying sees it. */
export type Link = Pick<BackupState, 'base' | 'point' | 'whole'>

/** R25: a backup may be laid on an image whose point q is base ≤ q ≤ point. */
export function mayLieOn(link: Link, q: Point): boolean {
  return lowest(link) <= q.position && q.position <= link.point.position
}

/** The oldest position that an image under it may be of. A base of no position (`none`, `start`) is before all. */
export function lowest({ base }: { readonly base: Base }): number {
  return base.kind === 'none' ? -1 : base.position
}

/** Why these copies, oldest first, cannot be combined into one; null when they can. The first may need others under it. */
export function objectionToCombining(members: readonly BackupState[]): string | null {
  if (members.length < 2) return 'it takes two copies or more to combine'
  for (const [i, member] of members.entries()) {
    if (member.phase.kind !== 'succeeded')
      return `backup "${member.id}" is ${member.phase.kind}, so it made no copy`
    if (member.copy.kind === 'forgotten')
      return `the copy of backup "${member.id}" was forgotten at position ${member.copy.at.position}`
    const below = members[i - 1]
    if (below === undefined) continue
    if (members.indexOf(member) !== i) return `backup "${member.id}" is named twice`
    if (below.diskNumber !== member.diskNumber)
      return `backups "${below.id}" and "${member.id}" are of different disks, or of one that was removed and added again`
    if (mayLieOn(member, below.point)) continue
    return (
      `backup "${member.id}" (since position ${lowest(member)}, of position ${member.point.position}) ` +
      `cannot be laid on "${below.id}", which is of position ${below.point.position}`
    )
  }
  return null
}

/** Stretches that no later backup holds either: told in the very record of its begin, after it. */
export function flawsOf({ doubt, point }: BackupState): readonly LostStretch[] {
  return doubt.filter(({ to }) => to.position <= point.position)
}

/**
 * The copy that combining `members` gives: base of the oldest, point of the newest, in the newest's place among the bitmaps.
 * What later copies miss is not made good by older ones, so it is complete only if all are, from the last whole one on.
 */
export function combinedOf(id: string, members: readonly BackupState[], at: Point): BackupState {
  const oldest = members[0]
  const newest = members.at(-1)
  if (oldest === undefined || newest === undefined) throw new RangeError(`backup "${id}" combines nothing`)
  const whole = members.some((member) => member.whole)
  const sum = members.reduce((bytes, member) => bytes + member.bytes, 0)
  // A whole copy that was combined before may miss what one of its own members missed.
  const base = members.findLastIndex((member) => member.whole)
  const fromWhole = members.slice(members[base]?.of == null ? base + 1 : base)
  return {
    ...newest,
    id,
    mode: oldest.mode,
    base: oldest.base,
    granularity: Math.min(...members.map(({ granularity }) => granularity)),
    forceCycle: false,
    group: null,
    copiedBy: 'caller',
    digest: null,
    bytes: whole ? newest.size : Math.min(sum, newest.size),
    complete: fromWhole.every(({ complete }) => complete),
    whole,
    // A later copy makes good what an older one missed, unless that was missed for good.
    doubt: [...fromWhole.slice(0, -1).flatMap(flawsOf), ...newest.doubt],
    copy: { kind: 'kept' },
    of: members.map((member) => member.id),
    phase: { kind: 'succeeded', at, slice: null, dropped: [], generation: newest.generation },
  }
}
