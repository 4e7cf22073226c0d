/**
 * Which steps of the clock an answer has to tell (R22): times are given by a clock that people read, and where the log's clock
 * stepped, a time of the one need not be the same moment of the other. Who names no time is told nothing.
 */
import type { Base, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { ClockStep } from '../../projections/state.ts'

type Steps = Pick<CatalogReader, 'clockSteps'>

/** Between a base that was given as a time and the moment that `catalog` is the state of. */
export function stepsSince(catalog: Steps, base: Base): readonly ClockStep[] {
  if (base.kind !== 'time') return []
  return catalog.clockSteps().filter(({ at }) => at.position > base.position)
}

/**
 * Between a moment that was given as `time` and the head that `catalog` is the state of: going back from now to then crosses
 * them. And those that the time itself fell into: skipped, or gone through twice.
 */
export function stepsAcross(catalog: Steps, point: Point, time: number): readonly ClockStep[] {
  return catalog
    .clockSteps()
    .filter(
      ({ at, from, to }) =>
        at.position > point.position || (Math.min(from, to) <= time && time <= Math.max(from, to)),
    )
}
