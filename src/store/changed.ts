/**
 * What was written to a disk between any two points, whether or not a bitmap existed then (R23). Answered from the log, by
 * way of the span index: 100 M writes at 64 KiB take a tenth of a second. A lost stretch, or a base older than
 * the disk, covers the whole disk and says why (R24, R35).
 */
import type { LostStretch, Point } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { ClockStep, DiskState, ToldOf } from '../../projections/state.ts'
import { keepBits } from './answer-bits.ts'
import type { FoldWrites } from './snapshots.ts'
import type { Changed, PlanExtent } from './types.ts'

export interface ChangedRequest {
  /** The disk as it was at `until`. */
  readonly disk: DiskState
  /** What is known of it now, or was when it was removed: windows and lost stretches told after `until` may reach back before it. */
  readonly now: ToldOf | undefined
  /** What an unclean end left unknown up to this very moment, told in no event yet (R32). */
  readonly unknown: readonly LostStretch[]
  readonly since: Point
  readonly until: Point
  /** A point lay inside a window that a compaction made, and gave way to its edge (R29). */
  readonly snapped: boolean
  readonly granularity: number
  readonly clockSteps: readonly ClockStep[]
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((position: number) => void) | undefined
}

export async function changedBetween(fold: FoldWrites, request: ChangedRequest): Promise<Changed> {
  const { disk, since, until, granularity } = request
  const bits = new DirtyBitmap(disk.size, granularity)
  const windows = (request.now ?? disk).windows
  const inside = (point: Point) =>
    windows.some((window) => window.from.position < point.position && point.position < window.at.position)
  const lost = [...lostSince(request.now ?? disk, since, until), ...request.unknown]
  const older = since.position < disk.addedAt.position
  const upTo = throughWindows(windows, until)

  if (older || lost.length > 0) bits.setAll()
  else
    await fold(
      { disk, after: since.position, upTo, signal: request.signal, onProgress: request.onProgress },
      bits,
    )

  let extents: readonly PlanExtent[] | undefined
  const answer: Changed = {
    disk: disk.id,
    since,
    until,
    granularity,
    bytes: bits.dirtyBytes,
    resolution: request.snapped || inside(since) || inside(until) ? 'window' : 'exact',
    complete: !older && lost.length === 0,
    lost,
    clockSteps: request.clockSteps.filter(
      (step) => step.at.position > since.position && step.at.position <= until.position,
    ),
    digest: bits.digest(),
    reason: reasonOf(older, lost, since, until) + (request.snapped ? SNAPPED : ''),
    // Made when they are asked for: of a random span there are millions, and the bits are 2 MiB.
    get extents() {
      extents ??= extentsOf(bits)
      return extents
    },
  }
  return keepBits(answer, bits)
}

function extentsOf(bits: DirtyBitmap): PlanExtent[] {
  const extents: PlanExtent[] = []
  bits.eachExtent((offset, length) => extents.push({ offset, length }))
  return extents
}

/** A stretch matters when any of it lies in the span: it ended after the base, and began before the end. */
function lostSince(disk: ToldOf, since: Point, until: Point): readonly LostStretch[] {
  return disk.lost.filter(
    (stretch) => stretch.to.position > since.position && stretch.from.position < until.position,
  )
}

/** Where to read to for everything up to a point: windows that hold it are told behind it. Nothing else of the disk lies there (R3). */
export function throughWindows(windows: ToldOf['windows'], until: Point): number {
  return windows.reduce(
    (end, { from, at }) => (from.position < end && end < at.position ? at.position : end),
    until.position,
  )
}

const SNAPPED = '; a point lies inside a window of compacted writes, which is taken whole (R29)'

function reasonOf(older: boolean, lost: readonly LostStretch[], since: Point, until: Point): string {
  if (older) return 'the base is older than the disk itself, so the whole disk is covered (R24)'
  if (lost.length > 0) {
    const reasons = [...new Set(lost.map((stretch) => stretch.reason))].join('; ')
    return `writes may have gone unrecorded in the span (${reasons}), so the whole disk is covered (R35)`
  }
  return `every write after position ${since.position} up to position ${until.position}, from the log`
}
