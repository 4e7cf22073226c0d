/**
 * The bits behind an answer, for doors that tell bits and no extents: a plan or `changed` of a random span has a million extents,
 * and making them from bits only to make bits of them again would hold up everybody else for a second. Not in the public API.
 */
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { Changed, Plan } from './types.ts'

/** Held by the answer itself in any case; goes with it. */
const bitsBehind = new WeakMap<Plan | Changed, DirtyBitmap>()

/** For whoever makes an answer. */
export function keepBits<T extends Plan | Changed>(answer: T, bits: DirtyBitmap): T {
  bitsBehind.set(answer, bits)
  return answer
}

/** The answer's own bits, at its disk's size at its point. To be read only: they are its extents too. `answer` is the store's own object, not a copy. */
export function bitsOf(answer: Plan | Changed): DirtyBitmap {
  const bits = bitsBehind.get(answer)
  if (bits === undefined) throw new Error('slicelog bug: this answer was made without its bits')
  return bits
}
