/**
 * From the shape of a plan to its bits: slices, stretches of the log, bytes that lay outside the disk, and α (R11, R25).
 *
 * Split in two so that writes wait little: `prepareFixed` (slices, log) runs beside the committer; `finish` (α, digest)
 * inside it. What went by meanwhile in a stretch that is still open is topped up from the log's tail.
 */
import type { BackupMode, Base, Point } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { BitmapBits } from '../../projections/bits.ts'
import { type PlanShape, planReason } from '../../projections/plan.ts'
import type { BitmapState, ClockStep, DiskState } from '../../projections/state.ts'
import { keepBits } from './answer-bits.ts'
import { loadSlice } from './bits-loader.ts'
import type { Derived } from './derived.ts'
import type { FoldWrites } from './snapshots.ts'
import type { Plan, PlanExtent, PlanSource } from './types.ts'

export interface PlanSubject {
  readonly disk: DiskState
  readonly bitmap: BitmapState
  readonly mode: BackupMode
  readonly base: Base
  readonly point: Point
  readonly shape: PlanShape
  /** R22, where the base was given as a time. */
  readonly clockSteps: readonly ClockStep[]
}

/** Everything but α. `upTo`: the log's position up to which stretches were folded. */
export interface FixedBits {
  readonly bits: DirtyBitmap
  readonly upTo: number
}

export async function prepareFixed(
  subject: PlanSubject,
  bits: BitmapBits,
  fold: FoldWrites,
  derived: Derived,
  upTo: number,
): Promise<FixedBits> {
  const { disk, shape } = subject
  const target = new DirtyBitmap(disk.size, bits.granularity)
  if (shape.whole !== null) {
    target.setAll()
    return { bits: target, upTo }
  }
  const slices: DirtyBitmap[] = []
  for (const part of shape.parts) {
    if (part.kind !== 'slice') continue
    const slice = bits.slices.get(part.slice)
    if (slice !== undefined) slices.push(await loadSlice(slice, disk.size, bits.granularity, derived))
  }
  target.orAll(slices)
  for (const stretch of shape.stretches) {
    await fold({ disk, after: stretch.from.position, upTo: Math.min(stretch.to.position, upTo) }, target)
  }
  if (shape.outside !== null) target.setRange(shape.outside.from, shape.outside.to - shape.outside.from)
  return { bits: target, upTo }
}

/** Folds what stretches that reach the plan's point gained since `fixed` was prepared. */
export async function topUp(fixed: FixedBits, subject: PlanSubject, fold: FoldWrites): Promise<void> {
  if (subject.shape.whole !== null) return
  for (const stretch of subject.shape.stretches) {
    if (stretch.to.position <= fixed.upTo) continue
    await fold(
      { disk: subject.disk, after: Math.max(fixed.upTo, stretch.from.position), upTo: stretch.to.position },
      fixed.bits,
    )
  }
}

/** Adds α (with a running backup's successor, for a look at a busy bitmap) and makes the plan. Consumes `fixed`. */
export function finish(fixed: FixedBits, subject: PlanSubject, bits: BitmapBits): MadePlan {
  const target = fixed.bits
  if (subject.shape.whole === null && subject.shape.parts.some((part) => part.kind === 'active')) {
    target.or(bits.active)
    if (bits.successor !== null) target.or(bits.successor)
  }
  return new MadePlan(subject, target)
}

/** A plan over its bits. Digest and bytes are made at once; the extents (0.1 s for a million) when they are asked for. */
export class MadePlan implements Plan {
  readonly disk: string
  readonly bitmap: string
  readonly generation: number
  readonly mode: BackupMode
  readonly base: Base
  readonly point: Point
  readonly complete: boolean
  readonly lost: PlanShape['lost']
  readonly clockSteps: readonly ClockStep[]
  readonly bytes: number
  readonly granularity: number
  readonly digest: string
  readonly reason: string
  readonly merges: readonly PlanSource[]
  readonly #subject: PlanSubject
  readonly #bits: DirtyBitmap
  #extents: readonly PlanExtent[] | undefined

  constructor(
    subject: PlanSubject,
    bits: DirtyBitmap,
    known = { bytes: bits.dirtyBytes, digest: bits.digest() },
  ) {
    const { shape, disk, bitmap } = subject
    this.#subject = subject
    this.#bits = bits
    this.disk = disk.id
    this.bitmap = bitmap.name
    this.generation = bitmap.generation
    this.mode = subject.mode
    this.base = subject.base
    this.point = subject.point
    this.complete = shape.complete
    this.lost = shape.lost
    this.clockSteps = subject.clockSteps
    this.bytes = known.bytes
    this.granularity = bitmap.granularity
    this.digest = known.digest
    this.reason = planReason(shape, subject.base)
    this.merges = sourcesOf(shape, bitmap)
    keepBits(this, bits)
  }

  get extents(): readonly PlanExtent[] {
    this.#extents ??= this.#bits.extentList().map(([offset, length]) => ({ offset, length }))
    return this.#extents
  }

  /** The same plan, its point known now that its record is committed. */
  at(point: Point): MadePlan {
    return new MadePlan({ ...this.#subject, point }, this.#bits, this)
  }

  /** For JSON: with the extents. */
  toJSON(): Plan {
    return { ...this, extents: this.extents }
  }
}

function sourcesOf(shape: PlanShape, bitmap: BitmapState): PlanSource[] {
  if (shape.whole !== null) return []
  const sources: PlanSource[] = shape.stretches.map((stretch) => ({ kind: 'log', ...stretch }))
  for (const part of shape.parts) {
    if (part.kind === 'active') sources.push({ kind: 'active', from: bitmap.active.from })
    else {
      const slice = bitmap.slices.find((held) => held.number === part.slice)
      if (slice !== undefined)
        sources.push({ kind: 'slice', slice: slice.number, from: slice.from, to: slice.to })
    }
  }
  if (shape.outside !== null) sources.push({ kind: 'outside', ...shape.outside })
  return sources
}
