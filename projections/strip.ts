/**
 * A bitmap as a strip of cells, for pictures: how much of each equal part of the disk is dirty. Costs one pass over the
 * dirty runs and the cells; cells may be smaller than a granule, or hold millions.
 */
import type { Extent } from '../events/types.ts'
import type { DirtyBitmap } from './bitmap.ts'

/**
 * The share of dirty bytes, 0 to 1, in each of `cells` equal parts of the disk, first to last. Exactly 0 where nothing
 * is dirty and exactly 1 where everything is. A disk of no bytes gives zeros.
 * @throws RangeError unless cells is a safe integer >= 1
 */
export function strip(bitmap: DirtyBitmap, cells: number): number[] {
  return stripOf(bitmap.extents(), bitmap.size, cells)
}

/** The same for extents that are ascending and do not overlap, on a disk of `size` bytes. */
export function stripOf(extents: Iterable<Extent>, size: number, cells: number): number[] {
  if (!Number.isSafeInteger(cells) || cells < 1)
    throw new RangeError(`cells must be an integer >= 1, got ${cells}`)
  const shares = new Array<number>(cells).fill(0)
  const reader = extents[Symbol.iterator]()
  let next = reader.next()
  for (let cell = 0; cell < cells && next.done !== true; cell++) {
    const start = Math.min(Math.floor(cell * (size / cells)), size - 1)
    const border = cell === cells - 1 ? size : Math.floor((cell + 1) * (size / cells))
    const stop = Math.max(border, start + 1) // More cells than bytes: several show the same byte.
    let dirty = 0
    while (next.done !== true && next.value[0] < stop) {
      const end = next.value[0] + next.value[1]
      dirty += Math.max(0, Math.min(end, stop) - Math.max(next.value[0], start))
      if (end > stop) break
      if (end === stop && border < stop) break // The same byte is shown again.
      next = reader.next()
    }
    shares[cell] = dirty / (stop - start)
  }
  return shares
}
