/**
 * The arithmetic of a plan: which parts of a bitmap and which stretches of the log hold what changed since a base.
 *
 * Slices and α are exact from their own start on, so those that begin at the base or later are taken as they are. What
 * they do not cover, or did not collect, is named as a stretch, and the store fills it from the log (R11). No bits here:
 * only the shape, in time linear in the number of slices and gaps.
 */
import type { Base, LostStretch, Point } from '../events/types.ts'
import type { ActiveSlice, BitmapState, DiskState, Gap, Slice } from './state.ts'

/** Writes after `from` up to and including `to` come from the log. */
export interface Stretch {
  readonly from: Point
  readonly to: Point
  readonly why: 'disabled' | 'cleared' | 'absent' | 'before-slices' | 'inside-slice'
}

/** `active` stands for α and, while a backup runs, for its successor as well. */
export type PlanPart = { readonly kind: 'slice'; readonly slice: number } | { readonly kind: 'active' }

export interface PlanShape {
  /** Why the whole disk is covered, in words; null when it is not, and then parts, stretches and `outside` make the plan. */
  readonly whole: string | null
  /** Oldest first. */
  readonly parts: readonly PlanPart[]
  readonly stretches: readonly Stretch[]
  /** R7: bytes that lay outside the disk at the base, or at any moment since. */
  readonly outside: { readonly from: number; readonly to: number } | null
  readonly lost: readonly LostStretch[]
  /** False only for a plan of α's bits as they are (R11) where those miss something. */
  readonly complete: boolean
}

/**
 * The shape of the plan of `bitmap` since `base`, at the moment `at` that `disk` and `bitmap` are the state of.
 * Source: R7, R11, R24, R35.
 */
export function planShape(disk: DiskState, bitmap: BitmapState, base: Base, at: Point): PlanShape {
  if (base.kind === 'active') return activeShape(disk, bitmap)
  const lost = lostAfter(disk, base)
  const whole = wholeReason(disk, base, lost)
  if (whole !== null) return { whole, parts: [], stretches: [], outside: null, lost, complete: true }
  const slices = bitmap.slices.filter((slice) => slice.from.position >= base.position)
  const withActive = bitmap.active.from.position >= base.position
  const parts: PlanPart[] = slices.map(({ number }) => ({ kind: 'slice', slice: number }))
  if (withActive) parts.push({ kind: 'active' })
  const first = slices[0]?.from ?? (withActive ? bitmap.active.from : at)
  const stretches = [
    ...headStretches(bitmap, base, first),
    ...slices.flatMap((slice) => gapStretches(slice.gaps, slice.to)),
    ...(withActive ? activeGaps(bitmap, at) : []),
  ]
  return { whole: null, parts, stretches, outside: outsideSince(disk, base), lost: [], complete: true }
}

/** R11: `active` takes α's bits as they are, and says when they do not hold everything since α began. */
function activeShape(disk: DiskState, bitmap: BitmapState): PlanShape {
  const collecting: readonly (ActiveSlice | null)[] = [bitmap.active, bitmap.successor]
  const gaps = collecting.flatMap((part) => part?.gaps ?? [])
  const lost = lostOf(collecting)
  return {
    whole: null,
    parts: [{ kind: 'active' }],
    stretches: [],
    outside: outsideSince(disk, bitmap.active.from),
    lost,
    complete: gaps.length === 0 && lost.length === 0,
  }
}

function lostOf(parts: readonly (ActiveSlice | null)[]): readonly LostStretch[] {
  const all = parts.flatMap((part) => part?.lost ?? [])
  return all.filter(
    (stretch, index) =>
      all.findIndex(
        (other) => other.to.position === stretch.to.position && other.reason === stretch.reason,
      ) === index,
  )
}

/** R35: stretches that a base does not have behind it. */
function lostAfter(disk: DiskState, base: Point): readonly LostStretch[] {
  return disk.lost.filter(({ to }) => to.position > base.position)
}

function wholeReason(disk: DiskState, base: Base, lost: readonly LostStretch[]): string | null {
  if (base.kind === 'none') return 'it has no base'
  if (base.position < disk.addedAt.position) {
    return `its base (position ${base.position}) is older than the disk, which was added at position ${disk.addedAt.position}`
  }
  if (lost.length === 0) return null
  const [stretch] = lost
  const more = lost.length === 1 ? '' : `, and ${lost.length - 1} more`
  return `writes after position ${stretch?.from.position} up to ${stretch?.to.position} may be lost (${stretch?.reason})${more}`
}

/** From the base to the first part that begins there or later: before the bitmap was, before its oldest slice, or inside one. */
function headStretches(bitmap: BitmapState, base: Point, first: Point): Stretch[] {
  if (base.position >= first.position) return []
  const from = pointOf(base)
  const { createdAt } = bitmap
  if (base.position < createdAt.position) {
    const absent: Stretch = { from, to: createdAt, why: 'absent' }
    if (createdAt.position >= first.position) return [{ ...absent, to: first }]
    return [absent, { from: createdAt, to: first, why: 'before-slices' }]
  }
  const older: readonly (Slice | ActiveSlice)[] = [...bitmap.slices, bitmap.active]
  const inside = older.some((part) => part.from.position < base.position)
  return [{ from, to: first, why: inside ? 'inside-slice' : 'before-slices' }]
}

function pointOf({ position, time }: Point): Point {
  return { position, time }
}

function activeGaps({ active, successor }: BitmapState, at: Point): Stretch[] {
  if (successor === null) return gapStretches(active.gaps, at)
  return [...gapStretches(active.gaps, successor.from), ...gapStretches(successor.gaps, at)]
}

function gapStretches(gaps: readonly Gap[], end: Point): Stretch[] {
  return gaps
    .map(({ kind, from, to }): Stretch => ({ from, to: to ?? end, why: kind }))
    .filter(({ from, to }) => from.position < to.position)
}

/** R7. The lowest size that the disk had at the base or since, up to the size that it has. */
function outsideSince(disk: DiskState, base: Point): { from: number; to: number } | null {
  const since = disk.resizes.filter(({ at }) => at.position > base.position)
  const least = since.reduce((low, { before, after }) => Math.min(low, before, after), disk.size)
  return least < disk.size ? { from: least, to: disk.size } : null
}

/** What `planReason` says of each kind of stretch. */
const WHY: Readonly<Record<Stretch['why'], string>> = {
  disabled: 'the bitmap was disabled',
  cleared: 'the bitmap was cleared',
  absent: 'the bitmap did not exist yet',
  'before-slices': 'its slices are gone',
  'inside-slice': 'the base lies inside a slice',
}

/** The reason of a plan in words (R25): what it is relative to, what it merges, what it adds, what it misses. */
export function planReason(shape: PlanShape, base: Base): string {
  if (shape.whole !== null)
    return base.kind === 'none' ? 'the whole disk: it has no base' : `the whole disk, because ${shape.whole}`
  const sentences = [`what changed since ${baseInWords(base)}`]
  const slices = shape.parts.filter((part) => part.kind === 'slice').map(({ slice }) => slice)
  const active = shape.parts.some((part) => part.kind === 'active')
  const merged = [
    ...(slices.length === 0 ? [] : [`slice${slices.length === 1 ? '' : 's'} ${slices.join(', ')}`]),
    ...(active ? ['the active part'] : []),
  ]
  if (merged.length > 0) sentences.push(`from ${merged.join(' and ')}`)
  for (const { from, to, why } of shape.stretches) {
    sentences.push(`from the log after position ${from.position} up to ${to.position}, when ${WHY[why]}`)
  }
  if (shape.outside !== null) {
    sentences.push(
      `bytes ${shape.outside.from} to ${shape.outside.to}, which lay outside the disk at the base or since`,
    )
  }
  if (!shape.complete) sentences.push('not complete: the active part was disabled, cleared or missed writes')
  return sentences.join('; ')
}

/** A base as a person would say it. */
function baseInWords(base: Base): string {
  switch (base.kind) {
    case 'none':
      return 'nothing'
    case 'point':
    case 'active':
      return `the active part began (position ${base.position})`
    case 'slice':
      return `slice ${base.name} began (position ${base.position})`
    case 'checkpoint':
      return `checkpoint "${base.name}" (position ${base.position})`
    case 'backup':
      return `backup "${base.name}" (position ${base.position})`
    case 'position':
      // A name: the position that was asked for lies inside a window, whose start was taken (R29).
      return base.name === undefined
        ? `position ${base.position}`
        : `position ${base.position}, for ${base.name}`
    case 'time':
      if (base.name?.includes('window') === true) return `${base.name} (position ${base.position})`
      return `${base.time === null ? 'a time' : new Date(base.time).toISOString()} (position ${base.position})`
    case 'start':
      return 'the start of the log'
  }
}
