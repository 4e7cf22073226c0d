import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { Extent } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB
const TiB = 1024 * GiB
const PiB = 1024 * TiB
const EMPTY_1024 = '38723a2e5e8a17aa7950dc008209944e898f69a7bd10a23c839d341e935fd5ca'

function bitmapOf(size: number, granularity: number, ranges: readonly Extent[]): DirtyBitmap {
  const bitmap = new DirtyBitmap(size, granularity)
  bitmap.setColumns({
    offsets: Float64Array.from(ranges, (r) => r[0]),
    lengths: Float64Array.from(ranges, (r) => r[1]),
  })
  return bitmap
}

function columns(offsets: number[], lengths: number[]) {
  return { offsets: Float64Array.from(offsets), lengths: Float64Array.from(lengths) }
}

describe("R5: the digests of QEMU's test 124", () => {
  const batch1: Extent[] = [
    [0, 512],
    [16 * MiB, 256 * KiB],
    [32_736 * KiB, 64 * KiB],
  ]
  const batch2: Extent[] = [
    [0, 512],
    [8 * MiB, 352 * KiB],
    [15_872 * KiB, MiB],
  ]
  test.each([
    [32 * KiB, 'batch1', batch1, 11, 'dd51decc67bd613d3334cee40a047a2ddb3339f409259434fc2a15f3d2aa6ad8'],
    [32 * KiB, 'batch2', batch2, 44, '280101332c37177d6dd3c6fedd565cd9086f17f90f44c14eda25da64ffead52b'],
    [
      32 * KiB,
      'union',
      [...batch1, ...batch2],
      46,
      '18639ae2304f1042ac9401b57bd8699720e9260b8f91f1f719904c0615ff9e6c',
    ],
    [64 * KiB, 'batch1', batch1, 7, 'b989ff83b290b7753a3d4e47a0ac769cb190bb0949f49a873eb2f67eb254a66b'],
    [64 * KiB, 'batch2', batch2, 23, '16c61825311ecbfd61770447d5bef534b6809d8362e46a9e8a17274e92544dac'],
    [
      64 * KiB,
      'union',
      [...batch1, ...batch2],
      25,
      'b473d4864000e6707d9a0a3c7448fbd9f3f40f7a31230812454798012e8fece4',
    ],
    [128 * KiB, 'batch1', batch1, 5, 'b490e5bcb4440d10738b8b53baec59f6dd7f8eecf616f4c8e00642f03cefdad4'],
    [128 * KiB, 'batch2', batch2, 12, 'dc447b3af7839fea3993cc294c25b35245c4e48727ec244312d4aaf1cd1e86f5'],
    [
      128 * KiB,
      'union',
      [...batch1, ...batch2],
      14,
      '9516d21706972cd575f1f8457a7709c6684ee20de6484ce8034adddabd273d52',
    ],
  ] as const)(
    'R2, R5: at granularity %i, %s has the count and digest that QEMU gave',
    (granularity, _, ranges, granules, digest) => {
      const bitmap = bitmapOf(64 * MiB, granularity, ranges)
      expect(bitmap.dirtyGranules).toBe(granules)
      expect(bitmap.count).toBe(granules * granularity)
      expect(bitmap.digest()).toBe(digest)
    },
  )

  test('R4, R5: batch1 merged with batch2 is the union that QEMU gave', () => {
    const union = DirtyBitmap.union([bitmapOf(64 * MiB, 65_536, batch1), bitmapOf(64 * MiB, 65_536, batch2)])
    expect(union.digest()).toBe('b473d4864000e6707d9a0a3c7448fbd9f3f40f7a31230812454798012e8fece4')
  })
})

test("R4, R5: QEMU's test 236: a bitmap since the beginning equals slice 0 merged with slice 1", () => {
  const early: Extent[] = [0, 0x100000, 0x2000000, 0x3ff0000].map((offset) => [offset, 65_536])
  const late: Extent[] = [0, 0xf8000, 0x2008000, 0x3fe0000].map((offset) => [offset, 65_536])
  const a = bitmapOf(64 * MiB, 65_536, [...early, ...late])
  const b = bitmapOf(64 * MiB, 65_536, early)
  const c = bitmapOf(64 * MiB, 65_536, late)
  const d = new DirtyBitmap(64 * MiB, 65_536)
  d.or(b)
  d.or(c)
  expect(a.digest()).toBe('7abe3d7e3c794cfaf9b08bc9ce599192c96a2206f07b42d9997ff78fdd7af744')
  expect(d.digest()).toBe(a.digest())
  expect(d.equals(a)).toBe(true)
  expect(b.digest()).toBe('3b7b88c192165a0a4640a3c1ef9226de9a5eb4530922c421157fb01ea35cb70a')
  expect(c.digest()).toBe('0fe44ee8099aee1ec60ac068ecd0b1f16452fd202ae8c9d96cf640ca6ce1b918')
  expect([a.count, b.count, c.count]).toEqual([458_752, 262_144, 393_216])
  expect(a.extentList()).toEqual([
    [0, 65_536],
    [983_040, 131_072],
    [33_554_432, 131_072],
    [66_977_792, 131_072],
  ])
})

test('R5: an empty bitmap of 1024 granules has the digest that QEMU gave, and again after clear', () => {
  const bitmap = new DirtyBitmap(64 * MiB, 65_536)
  expect(bitmap.digest()).toBe(EMPTY_1024)
  bitmap.setAll()
  expect(bitmap.digest()).not.toBe(EMPTY_1024)
  bitmap.clear()
  expect(bitmap.digest()).toBe(EMPTY_1024)
  expect(bitmap.isEmpty).toBe(true)
})

test('R5: the digest of a disk of no bytes is that of no bytes', () => {
  const bitmap = new DirtyBitmap(0, 65_536)
  bitmap.setAll()
  expect(bitmap.digest()).toBe(createHash('sha256').digest('hex'))
  expect([bitmap.granules, bitmap.count, bitmap.dirtyBytes, bitmap.isEmpty]).toEqual([0, 0, 0, true])
  expect(bitmap.extentList()).toEqual([])
})

test('R5: the count is not cut at the end of the disk, the extents are', () => {
  const bitmap = new DirtyBitmap(999_936, 65_536)
  bitmap.setRange(999_936 - 512, 512)
  expect(bitmap.count).toBe(65_536)
  expect(bitmap.extentList()).toEqual([[983_040, 16_896]])
  expect(bitmap.dirtyBytes).toBe(16_896)
})

test("R4: merging between granularities follows QEMU's counts: seven times 64K give 448K at 4K and 4M at 1M", () => {
  const source = bitmapOf(64 * MiB, 65_536, [
    [0, 512],
    [16 * MiB, 256 * KiB],
    [32_736 * KiB, 64 * KiB],
  ])
  const fine = new DirtyBitmap(64 * MiB, 4096)
  fine.or(source)
  expect(fine.count).toBe(458_752)
  const coarse = new DirtyBitmap(64 * MiB, MiB)
  coarse.or(source)
  expect(coarse.count).toBe(4 * MiB)
})

test('R4: a dirty last granule that reaches beyond the disk spreads only to granules that the disk has', () => {
  const coarse = new DirtyBitmap(65_536 + 512, 65_536)
  coarse.setGranules(1, 1)
  const fine = new DirtyBitmap(65_536 + 512, 512)
  fine.or(coarse)
  expect(fine.extentList()).toEqual([[65_536, 512]])
})

test('R4: merging from itself and from nothing changes nothing; another size is refused before any change', () => {
  const bitmap = bitmapOf(64 * MiB, 65_536, [[0, 1]])
  const before = bitmap.digest()
  bitmap.or(bitmap)
  bitmap.orAll([])
  const good = bitmapOf(64 * MiB, 65_536, [[MiB, 1]])
  expect(() => bitmap.orAll([good, new DirtyBitmap(MiB, 65_536)])).toThrow(RangeError)
  expect(bitmap.digest()).toBe(before)
  expect(() => DirtyBitmap.union([])).toThrow(RangeError)
})

test('R4: a union of many bitmaps leaves its sources as they were', () => {
  const sources = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((n) =>
    bitmapOf(16 * GiB, 65_536, [[n * GiB, n * MiB]]),
  )
  const digests = sources.map((s) => s.digest())
  const all = DirtyBitmap.union(sources)
  all.setAll()
  expect(sources.map((s) => s.digest())).toEqual(digests)
  expect(DirtyBitmap.union(sources).dirtyBytes).toBe(66 * MiB)
})

test('R7: shrinking 100K to 96K keeps a cut granule, to 64K drops it; growing shows its full length again', () => {
  const bitmap = new DirtyBitmap(100 * KiB, 65_536)
  bitmap.setRange(70 * KiB, 512)
  expect(bitmap.extentList()).toEqual([[64 * KiB, 36 * KiB]])
  bitmap.resize(96 * KiB)
  expect(bitmap.extentList()).toEqual([[64 * KiB, 32 * KiB]])
  bitmap.resize(256 * KiB)
  expect(bitmap.extentList()).toEqual([[64 * KiB, 64 * KiB]])
  bitmap.resize(64 * KiB)
  bitmap.resize(256 * KiB)
  expect(bitmap.isEmpty).toBe(true)
})

test('R7: 64M to 128M keeps bits and takes writes beyond the old end; 32M leaves one granule', () => {
  const bitmap = bitmapOf(64 * MiB, 65_536, [[0, 1]])
  bitmap.resize(128 * MiB)
  bitmap.setRange(127 * MiB, MiB)
  expect(bitmap.dirtyGranules).toBe(17)
  bitmap.resize(32 * MiB)
  expect(bitmap.dirtyGranules).toBe(1)
})

test.each([31, 32, 33, 63, 64, 65, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073])(
  'R7: a full bitmap cut to %i granules is full, and growth beside it is clean',
  (granules) => {
    const bitmap = new DirtyBitmap(200_000 * 512, 512)
    bitmap.setAll()
    const twin = bitmap.clone()
    bitmap.resize(granules * 512)
    expect(bitmap.dirtyGranules).toBe(granules)
    bitmap.resize(200_000 * 512)
    expect(bitmap.extentList()).toEqual([[0, granules * 512]])
    expect(bitmap.nextClean(0)).toBe(granules)
    expect(bitmap.nextDirty(granules)).toBe(200_000)
    expect(twin.dirtyGranules).toBe(200_000)
  },
)

test('R7: a size of more than 2^32 granules is refused before any change', () => {
  const bitmap = bitmapOf(MiB, 512, [[0, 1]])
  for (const bad of [2 ** 41 + 1, -1, 0.5, Number.NaN]) expect(() => bitmap.resize(bad)).toThrow(RangeError)
  expect([bitmap.size, bitmap.dirtyGranules]).toEqual([MiB, 1])
})

test('R2: 8 PiB at 2 MiB has 2^32 granules, of which the last is as good as the first', () => {
  const size = 8 * PiB - 1
  const bitmap = bitmapOf(size, 2 * MiB, [
    [0, 1],
    [size - 1, 1],
    [4 * PiB - 1, 2],
    [6 * PiB, 4 * MiB],
  ])
  expect(bitmap.granules).toBe(2 ** 32)
  expect(bitmap.has(2 ** 32 - 1)).toBe(true)
  expect(bitmap.has(2 ** 31)).toBe(true)
  expect(bitmap.has(2 ** 32)).toBe(false)
  const expected: Extent[] = [
    [0, 2 * MiB],
    [4 * PiB - 2 * MiB, 4 * MiB],
    [6 * PiB, 4 * MiB],
    [8 * PiB - 2 * MiB, 2 * MiB - 1],
  ]
  expect(bitmap.extentList()).toEqual(expected)
  expect([...bitmap.extents()]).toEqual(expected)
  expect(bitmap.dirtyGranules).toBe(6)
  bitmap.setRange(0, size)
  expect(bitmap.dirtyGranules).toBe(2 ** 32)
  expect(bitmap.dirtyBytes).toBe(size)
  expect(bitmap.extentList()).toEqual([[0, size]])
  expect(bitmap.wordsBytes()).toBeLessThanOrEqual(4 * 8192)
})

test('R2: offsets beyond 2^43 on a disk of 16 TiB set their own granules, and no others', () => {
  const offset = 2 ** 43 + 3 * 65_536 + 5
  const bitmap = bitmapOf(16 * TiB, 65_536, [
    [offset, 512],
    [offset + TiB, 70_000],
  ])
  expect(bitmap.extentList()).toEqual([
    [2 ** 43 + 3 * 65_536, 65_536],
    [2 ** 43 + 3 * 65_536 + TiB, 2 * 65_536],
  ])
})

test('R1, R2: rows of length 0, or outside the disk, touch no granule that is not theirs', () => {
  const bitmap = new DirtyBitmap(100_000, 512)
  bitmap.setColumns(columns([0, 512, 100_352, 2 ** 52, -512, Number.NaN], [0, 0, 512, 512, 512, 512]))
  expect(bitmap.isEmpty).toBe(true)
  expect(bitmap.dirtyGranules).toBe(0)
  bitmap.setColumns(columns([99_840, 1024], [2 ** 40, 1]))
  expect(bitmap.extentList()).toEqual([
    [1024, 512],
    [99_840, 160],
  ])
  bitmap.setRange(5000, 0)
  expect(bitmap.dirtyGranules).toBe(2)
})

test('R2: only the rows from…to are set', () => {
  const bitmap = new DirtyBitmap(MiB, 512)
  bitmap.setColumns(columns([0, 1024, 2048, 4096], [1, 1, 1, 1]), 1, 3)
  expect(bitmap.extentList()).toEqual([
    [1024, 512],
    [2048, 512],
  ])
})

test('R2: a row over whole chunks and one into the same chunk, one after the other, both count', () => {
  const bitmap = bitmapOf(4 * 65_536 * 512, 512, [
    [512, 512],
    [0, 2 * 65_536 * 512],
    [1024, 512],
    [3 * 65_536 * 512, 512],
  ])
  expect(bitmap.extentList()).toEqual([
    [0, 2 * 65_536 * 512],
    [3 * 65_536 * 512, 512],
  ])
})

test('R4: the constructor refuses a bad granularity or size with a RangeError', () => {
  for (const g of [0, 256, 511, 64_000, 2 ** 32, -512, Number.NaN, Number.POSITIVE_INFINITY, 512.5]) {
    expect(() => new DirtyBitmap(MiB, g)).toThrow(RangeError)
  }
  for (const size of [-1, 0.5, Number.NaN, 2 ** 53])
    expect(() => new DirtyBitmap(size, 65_536)).toThrow(RangeError)
  expect(() => new DirtyBitmap(2 ** 41 + 1, 512)).toThrow(RangeError)
  for (const g of [512, 2 ** 31]) expect(new DirtyBitmap(MiB, g).isEmpty).toBe(true)
  expect(new DirtyBitmap(2 ** 41, 512).granules).toBe(2 ** 32)
})

test('R1, R2: ranges and granules that are no such thing are refused with a RangeError and set nothing', () => {
  const bitmap = new DirtyBitmap(MiB, 65_536)
  for (const [offset, length] of [
    [-1, 1],
    [0.5, 1],
    [0, -1],
    [0, Number.NaN],
    [2 ** 53, 1],
  ] as const) {
    expect(() => bitmap.setRange(offset, length)).toThrow(RangeError)
  }
  for (const [first, last] of [
    [-1, 0],
    [0, 16],
    [3, 2],
    [0.5, 1],
  ] as const) {
    expect(() => bitmap.setGranules(first, last)).toThrow(RangeError)
  }
  expect(bitmap.isEmpty).toBe(true)
})

test('R2: a bitmap holds memory only for what was touched', () => {
  const bitmap = new DirtyBitmap(TiB, 65_536)
  expect(bitmap.wordsBytes()).toBe(0)
  bitmap.setRange(0, 1)
  bitmap.setRange(TiB - 1, 1)
  expect(bitmap.wordsBytes()).toBe(2 * 8192)
  bitmap.setAll()
  expect(bitmap.wordsBytes()).toBe(0)
})
