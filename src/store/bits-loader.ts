/** From inert to bits: reads a slice's stored parts and joins them (spec section 4: `merge`, cold). */
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { revive, type SliceBits } from '../../projections/bits.ts'
import type { Derived } from './derived.ts'

/**
 * The slice's bits as they are at the call, as a bitmap of their own, never shared with the state. Throws DerivedMissing.
 * Own bits are taken before the first wait: meanwhile they may be stored and let go of, and then neither list would have them.
 */
export async function loadSlice(
  slice: SliceBits,
  size: number,
  granularity: number,
  derived: Derived,
): Promise<DirtyBitmap> {
  const own = slice.own?.clone()
  const parts = await Promise.all(
    slice.parts.map(async (part) => revive(await derived.bits(part.ref), part, size)),
  )
  const first = own ?? parts.shift() ?? new DirtyBitmap(size, granularity)
  first.orAll(parts)
  return first
}
