/**
 * How one bitmap's shape follows from its events: pure functions from state to state, each named for what happened.
 *
 * They know nothing of what is allowed (src/commands does) and nothing of bits (projections/bits.ts does the same steps
 * on those). Points are ends of records (R20); generation ids and tombstones carry the exact position of their event.
 */
import type { LostStretch, Point } from '../events/types.ts'
import { clearedGaps, closeGaps, gapsFromStart, joinGaps, joinLost } from './gaps.ts'
import type { ActiveSlice, BitmapState, Holder, Slice, Tombstone } from './state.ts'

/** Tombstones kept per bitmap for exact refusals (R18); the oldest go first. */
const TOMBSTONES_MAX = 1024
/** Former generations kept per bitmap, for SLICE_OLD_GENERATION (R18); the oldest go first. */
const PAST_GENERATIONS_MAX = 1024

export interface NewBitmap {
  readonly name: string
  readonly granularity: number
  readonly persistent: boolean
  readonly retention: number
  readonly recording: boolean
}

export function added(bitmap: NewBitmap, position: number, at: Point): BitmapState {
  return {
    ...bitmap,
    generation: position,
    createdAt: at,
    holder: null,
    active: { number: 0, from: at, gaps: gapsFromStart(bitmap.recording, at), lost: [] },
    successor: null,
    slices: [],
    highestNumber: 0,
    tombstones: [],
    pastGenerations: [],
    lastBackup: null,
  }
}

export function enabled(bitmap: BitmapState, at: Point): BitmapState {
  return { ...onCollecting(bitmap, (part) => ({ ...part, gaps: closeGaps(part.gaps, at) })), recording: true }
}

export function disabled(bitmap: BitmapState, at: Point): BitmapState {
  if (!bitmap.recording) return bitmap
  const opened = gapsFromStart(false, at)
  return {
    ...onCollecting(bitmap, (part) => ({ ...part, gaps: joinGaps(part.gaps, at, opened) })),
    recording: false,
  }
}

export function cleared(bitmap: BitmapState, at: Point): BitmapState {
  return onCollecting(bitmap, (part) => ({ ...part, gaps: clearedGaps(part, bitmap.recording, at) }))
}

/** Changes the part that writes go to: the successor while a backup runs, else α. */
function onCollecting(bitmap: BitmapState, change: (part: ActiveSlice) => ActiveSlice): BitmapState {
  if (bitmap.successor !== null) return { ...bitmap, successor: change(bitmap.successor) }
  return { ...bitmap, active: change(bitmap.active) }
}

/** A backup began: α is frozen, a successor collects, and records exactly if the bitmap did (R8). */
export function begun(bitmap: BitmapState, holder: Holder, at: Point): BitmapState {
  const successor = {
    number: bitmap.active.number,
    from: at,
    gaps: gapsFromStart(bitmap.recording, at),
    lost: [],
  }
  return { ...bitmap, holder, successor }
}

/** R10: the successor goes back into α. What was before the begin is as it was. */
export function mergedBack(bitmap: BitmapState): BitmapState {
  const { active, successor } = bitmap
  if (successor === null) return { ...bitmap, holder: null }
  const gaps = joinGaps(active.gaps, successor.from, successor.gaps)
  const lost = joinLost(active.lost, successor.lost)
  return { ...bitmap, holder: null, successor: null, active: { ...active, gaps, lost } }
}

/** R10's exception: only what was not copied stays of the frozen bits, so α's span up to the begin counts as cleared. */
export function mergedBackUncopied(bitmap: BitmapState): BitmapState {
  if (bitmap.successor === null) return mergedBack(bitmap)
  const gaps = clearedGaps(bitmap.active, true, bitmap.successor.from)
  return mergedBack({ ...bitmap, active: { ...bitmap.active, gaps } })
}

/** R9 at retention 0: the frozen bits are forgotten, the successor is α, under the number α had. */
export function abdicated(bitmap: BitmapState, lastBackup: BitmapState['lastBackup']): BitmapState {
  const { active, successor } = bitmap
  if (successor === null) return { ...bitmap, holder: null, lastBackup }
  return {
    ...bitmap,
    holder: null,
    lastBackup,
    successor: null,
    active: { ...successor, number: active.number },
  }
}

/** α (or what a backup froze of it) became slice `number`; the new α begins at point `next`. */
export function frozen(bitmap: BitmapState, number: number, next: number, at: Point): BitmapState {
  const fresh = bitmap.successor ?? {
    number: next,
    from: at,
    gaps: gapsFromStart(bitmap.recording, at),
    lost: [],
  }
  const { from, gaps, lost } = bitmap.active
  const slice: Slice = { number, from, to: fresh.from, gaps: closeGaps(gaps, fresh.from), lost }
  return {
    ...bitmap,
    holder: bitmap.successor === null ? bitmap.holder : null,
    active: { ...fresh, number: next },
    successor: null,
    slices: [...bitmap.slices, slice],
    highestNumber: Math.max(bitmap.highestNumber, next),
  }
}

/** R9: a full reset. Every slice is forgotten, numbers restart, and a generation with an id of its own begins. */
export function reset(
  bitmap: BitmapState,
  lastBackup: BitmapState['lastBackup'],
  position: number,
  at: Point,
): BitmapState {
  const fresh = bitmap.successor ?? {
    number: 0,
    from: at,
    gaps: gapsFromStart(bitmap.recording, at),
    lost: [],
  }
  const past = { generation: bitmap.generation, endedAt: position, numbers: bitmap.highestNumber + 1 }
  return {
    ...bitmap,
    generation: position,
    holder: null,
    active: { ...fresh, number: 0 },
    successor: null,
    slices: [],
    highestNumber: 0,
    tombstones: [],
    pastGenerations: [...bitmap.pastGenerations, past].slice(-PAST_GENERATIONS_MAX),
    lastBackup,
  }
}

function buried(bitmap: BitmapState, tombstone: Tombstone): readonly Tombstone[] {
  return [...bitmap.tombstones, tombstone].slice(-TOMBSTONES_MAX)
}

export function sliceDropped(
  bitmap: BitmapState,
  number: number,
  because: string,
  position: number,
): BitmapState {
  return {
    ...bitmap,
    slices: bitmap.slices.filter((slice) => slice.number !== number),
    tombstones: buried(bitmap, { kind: 'dropped', slice: number, at: position, because }),
  }
}

/** R16: point `number` is forgotten; slice `into` now reaches as far as slice `number` did. */
export function sliceMerged(
  bitmap: BitmapState,
  number: number,
  into: number,
  position: number,
): BitmapState {
  const gone = bitmap.slices.find((slice) => slice.number === number)
  if (gone === undefined)
    throw new RangeError(`slice ${number} of bitmap "${bitmap.name}" is not there to be merged`)
  const slices = bitmap.slices
    .filter((slice) => slice.number !== number)
    .map((slice) =>
      slice.number === into
        ? {
            ...slice,
            to: gone.to,
            gaps: joinGaps(slice.gaps, slice.to, gone.gaps),
            lost: joinLost(slice.lost, gone.lost),
          }
        : slice,
    )
  return {
    ...bitmap,
    slices,
    tombstones: buried(bitmap, { kind: 'merged', slice: number, at: position, into }),
  }
}

/** R16: the point where α began is forgotten; the newest slice is α again, under its old number. */
export function sliceReactivated(
  bitmap: BitmapState,
  number: number,
  deleted: number,
  position: number,
): BitmapState {
  const slice = bitmap.slices.at(-1)
  if (slice === undefined || slice.number !== number) {
    throw new RangeError(
      `slice ${number} of bitmap "${bitmap.name}" is not its newest and cannot be active again`,
    )
  }
  const { active } = bitmap
  return {
    ...bitmap,
    slices: bitmap.slices.slice(0, -1),
    active: {
      number,
      from: slice.from,
      gaps: joinGaps(slice.gaps, slice.to, active.gaps),
      lost: joinLost(slice.lost, active.lost),
    },
    tombstones: buried(bitmap, { kind: 'unmarked', slice: deleted, at: position }),
  }
}

/** R35: every part whose span the stretch touches carries it; the collecting part always does. */
export function lostStretch(bitmap: BitmapState, stretch: LostStretch): BitmapState {
  const carry = <T extends ActiveSlice | Slice>(part: T, end: Point | null): T =>
    end === null || end.position > stretch.from.position
      ? { ...part, lost: joinLost(part.lost, [stretch]) }
      : part
  const { successor } = bitmap
  return {
    ...bitmap,
    slices: bitmap.slices.map((slice) => carry(slice, slice.to)),
    active: carry(bitmap.active, successor?.from ?? null),
    successor: successor === null ? null : carry(successor, null),
  }
}
