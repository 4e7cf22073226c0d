/**
 * What each part of a plan brought: slices, α, stretches of the log, bytes that lay outside. Costs two loads of each slice;
 * in memory are never more than three bitmaps besides those of the log's stretches.
 */
import type { Base, Point } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { type PlanShape, planShape, type Stretch } from '../../projections/plan.ts'
import type { BeginView } from '../store/begin-view.ts'
import type { SpanPart } from './explain-span.ts'
import { volume } from './explain-span.ts'
import type { ExplainedSource } from './explain-types.ts'

/** Stretches beyond so many share a bitmap: each costs its bits until the end. */
const STRETCHES_MAX = 64

/** The plan as it was, and as it would have been with a base and nothing lost. */
export interface Shapes {
  readonly actual: PlanShape
  /** Equal to `actual` unless that covers the whole disk. */
  readonly bare: PlanShape
  /** Where the bare plan's span begins. */
  readonly from: Point
}

export function shapesOf({ backup, disk, bitmap }: BeginView): Shapes {
  const { base, point } = backup
  const actual = planShape(disk, bitmap, base, point)
  if (actual.whole === null) return { actual, bare: actual, from: base }
  const from = bareBase(base, disk.addedAt, bitmap.lastBackup?.point ?? bitmap.createdAt)
  const bare = planShape({ ...disk, lost: [], resizes: [] }, bitmap, { kind: 'position', ...from }, point)
  return { actual, bare, from }
}

/** The base that a plan of the whole disk could have had. */
function bareBase(base: Base, addedAt: Point, last: Point): Point {
  if (base.kind === 'none') return last
  return base.position < addedAt.position ? addedAt : { position: base.position, time: base.time }
}

export interface Part {
  readonly kind: ExplainedSource['kind']
  readonly slice: number | null
  readonly from: Point | null
  readonly to: Point | null
  readonly why: string | null
  readonly span: SpanPart | null
  load(): Promise<DirtyBitmap>
}

/** Oldest first, as the plan merges them; those of the log get their bits by the pass over the span. */
export function partsOf(view: BeginView, shape: PlanShape): readonly Part[] {
  const { disk, bitmap, backup } = view
  const blank = () => new DirtyBitmap(disk.size, bitmap.granularity)
  const spanOf = (from: Point, to: Point, bits: DirtyBitmap | null): SpanPart => ({
    from: from.position,
    to: to.position,
    volume: volume(),
    bits,
  })
  const shared = blank()
  const stretch = ({ from, to, why }: Stretch, i: number): Part => {
    const bits = i < STRETCHES_MAX ? blank() : shared
    return {
      kind: 'log',
      slice: null,
      from,
      to,
      why,
      span: spanOf(from, to, bits),
      load: () => Promise.resolve(bits.clone()),
    }
  }
  const parts: Part[] = shape.stretches.map(stretch)
  for (const part of shape.parts) {
    if (part.kind === 'active') {
      const { from } = bitmap.active
      parts.push({
        kind: 'active',
        slice: null,
        from,
        to: backup.point,
        why: null,
        span: spanOf(from, backup.point, null),
        load: () => Promise.resolve(view.active()),
      })
      continue
    }
    const slice = bitmap.slices.find(({ number }) => number === part.slice)!
    parts.push({
      kind: 'slice',
      slice: slice.number,
      from: slice.from,
      to: slice.to,
      why: null,
      span: spanOf(slice.from, slice.to, null),
      load: () => view.slice(slice.number),
    })
  }
  if (shape.outside !== null) {
    const { from, to } = shape.outside
    parts.push({
      kind: 'outside',
      slice: null,
      from: null,
      to: null,
      why: null,
      span: null,
      load: () => {
        const bits = blank()
        bits.setRange(from, to - from)
        return Promise.resolve(bits)
      },
    })
  }
  return parts
}

/** Their union, and of each what it holds and what only it holds. */
export async function weigh(
  view: BeginView,
  parts: readonly Part[],
): Promise<{ readonly union: DirtyBitmap; readonly sources: readonly ExplainedSource[] }> {
  const union = new DirtyBitmap(view.disk.size, view.bitmap.granularity)
  const twice = new DirtyBitmap(view.disk.size, view.bitmap.granularity)
  for (const part of parts) {
    const bits = await part.load()
    const again = bits.clone()
    again.and(union)
    twice.or(again)
    union.or(bits)
  }
  const sources: ExplainedSource[] = []
  for (const { kind, slice, from, to, why, span, load } of parts) {
    const bits = await load()
    const bytes = bits.dirtyBytes
    bits.andNot(twice)
    const { writes, bytes: written } = span?.volume ?? volume()
    sources.push({ kind, slice, from, to, why, bytes, only: bits.dirtyBytes, writes, written })
  }
  return { union, sources }
}
