/** How fine an answer over a disk may be: a power of two from 512 bytes up, and 2^32 granules at most (R23). */
import { checkGranularity } from '../../projections/bitmap.ts'
import { CheckpointError } from '../errors.ts'
import { hasTooManyGranules, limits } from '../limits.ts'

/** @throws CheckpointError GRANULARITY_INVALID */
export function checkAnswerGranularity(granularity: number): void {
  try {
    checkGranularity(granularity)
  } catch (cause) {
    throw new CheckpointError(
      'GRANULARITY_INVALID',
      `a granularity of ${String(granularity)} is not possible; give a power of two from ${limits.granularityMin} to ${limits.granularityMax} bytes`,
      { granularity: String(granularity) },
      cause,
    )
  }
}

/** @throws CheckpointError BITMAP_TOO_LARGE */
export function checkAnswerGranules(disk: string, size: number, granularity: number): void {
  if (!hasTooManyGranules(size, granularity)) return
  throw new CheckpointError(
    'BITMAP_TOO_LARGE',
    `disk "${disk}" has more than 2^32 granules of ${granularity} bytes; ask with a larger granularity`,
    { disk, size, granularity },
  )
}

/** In bytes: the default, or on a disk too large for it the finest there is. For who has to ask without being told how. */
export function usualGranularity(size: number): number {
  let granularity: number = limits.granularityDefault
  while (hasTooManyGranules(size, granularity)) granularity *= 2
  return granularity
}
