import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { strip } from '../../projections/strip.ts'
import { proof } from '../support/property.ts'

test('R5: a strip shows the share of dirty bytes of each part of the disk', () => {
  const bitmap = new DirtyBitmap(8 * 512, 512)
  bitmap.setGranules(0, 2)
  expect(strip(bitmap, 4)).toEqual([1, 0.5, 0, 0])
  expect(strip(bitmap, 1)).toEqual([3 / 8])
  expect(strip(bitmap, 16)).toEqual([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
})

test('R5: a full disk is 1 throughout, an empty one and one of no bytes 0, whatever the number of cells', () => {
  for (const cells of [1, 3, 7, 80, 1000]) {
    const bitmap = new DirtyBitmap(100_001, 4096)
    expect(strip(bitmap, cells)).toEqual(new Array(cells).fill(0))
    bitmap.setAll()
    expect(strip(bitmap, cells)).toEqual(new Array(cells).fill(1))
    expect(strip(new DirtyBitmap(0, 512), cells)).toEqual(new Array(cells).fill(0))
  }
})

test('R5: a disk with fewer bytes than cells shows a byte in several cells', () => {
  const bitmap = new DirtyBitmap(3, 512)
  bitmap.setAll()
  expect(strip(bitmap, 10)).toEqual(new Array(10).fill(1))
})

test('R5: every cell agrees with counting its dirty bytes one by one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6000 }),
      fc.integer({ min: 1, max: 8000 }),
      fc.array(fc.nat(11), { maxLength: 6 }),
      (size, cells, granules) => {
        const bitmap = new DirtyBitmap(size, 512)
        for (const g of granules) if (g < bitmap.granules) bitmap.setGranules(g, g)
        const shares = strip(bitmap, cells)
        for (let cell = 0; cell < cells; cell += 1 + Math.floor(cells / 50)) {
          const start = Math.min(Math.floor(cell * (size / cells)), size - 1)
          const stop = Math.max(
            cell === cells - 1 ? size : Math.floor((cell + 1) * (size / cells)),
            start + 1,
          )
          let dirty = 0
          for (let byte = start; byte < stop; byte++) if (bitmap.has(Math.floor(byte / 512))) dirty++
          expect(shares[cell]).toBe(dirty / (stop - start))
        }
      },
    ),
    proof('strip', 200, 5000),
  )
})

test('R5: a number of cells that is no number of cells is a RangeError', () => {
  for (const cells of [0, -1, 1.5, Number.NaN])
    expect(() => strip(new DirtyBitmap(512, 512), cells)).toThrow(RangeError)
})
