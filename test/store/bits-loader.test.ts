/** Loading a slice while its upkeep goes on: what is asked for is what the slice held at the call (R16, R28). */
import { expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { SliceBits } from '../../projections/bits.ts'
import { loadSlice } from '../../src/store/bits-loader.ts'
import { Derived, DerivedMissing } from '../../src/store/derived.ts'

const SIZE = 65536
const G = 512

function bits(offset: number): DirtyBitmap {
  const made = new DirtyBitmap(SIZE, G)
  made.setRange(offset, 1)
  return made
}

test.each([false, true])(
  'R28: bits that are stored and let go of while they are loaded are not lost (with older parts: %s)',
  async (withParts) => {
    const derived = await Derived.open(null)
    const parts = withParts ? [{ ref: await derived.putBits(bits(0)), sizeMin: SIZE }] : []
    const own = bits(1024)
    const slice = new SliceBits(own, parts)
    const loading = loadSlice(slice, SIZE, G, derived)
    slice.own = null // What upkeep does once the bits are stored.
    slice.parts = [...parts, { ref: 'not there yet', sizeMin: SIZE }]
    const loaded = await loading
    expect(loaded.extentList()).toEqual(
      withParts
        ? [
            [0, 512],
            [1024, 512],
          ]
        : [[1024, 512]],
    )
    loaded.setAll()
    expect(own.dirtyGranules, 'the state is not shared').toBe(1)
  },
)

test('R16: a slice that absorbs a newer one while it is loaded is given as it was', async () => {
  const derived = await Derived.open(null)
  const slice = new SliceBits(bits(0))
  const loading = loadSlice(slice, SIZE, G, derived)
  slice.absorb(new SliceBits(bits(2048)))
  expect((await loading).extentList()).toEqual([[0, 512]])
  expect((await loadSlice(slice, SIZE, G, derived)).extentList()).toEqual([
    [0, 512],
    [2048, 512],
  ])
})

test('R7: stored bits are cut where a shrink cut them since, and grow clean', async () => {
  const derived = await Derived.open(null)
  const whole = new DirtyBitmap(SIZE, G)
  whole.setAll()
  const slice = new SliceBits(null, [{ ref: await derived.putBits(whole), sizeMin: SIZE }])
  slice.resize(4096)
  slice.resize(2 * SIZE)
  expect((await loadSlice(slice, 2 * SIZE, G, derived)).extentList()).toEqual([[0, 4096]])
})

test('R28: stored bits that are missing are told as missing', async () => {
  const derived = await Derived.open(null)
  const slice = new SliceBits(bits(0), [{ ref: 'gone', sizeMin: SIZE }])
  await expect(loadSlice(slice, SIZE, G, derived)).rejects.toThrow(DerivedMissing)
  expect(derived.rebuilt).toEqual(['bits gone were missing'])
})
