/** Where runs of equal bits end: the same as looking at every bit, whatever the stretch and however few fit an answer. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { proof } from '../support/property.ts'

const GRANULARITY = 512
const CHUNK = 65_536
/** Three chunks and a bit, so that the last one is cut. */
const GRANULES = 3 * CHUNK + 1234

interface Run {
  readonly end: number
  readonly dirty: boolean
}

function lookedAt(bits: DirtyBitmap, from: number, to: number): Run[] {
  const runs: Run[] = []
  for (let granule = from + 1; granule <= to; granule++) {
    const dirty = bits.has(granule - 1)
    if (granule === to || bits.has(granule) !== dirty) runs.push({ end: granule, dirty })
  }
  return runs
}

/** By as many questions as it takes, `room` ends at a time. */
function asked(bits: DirtyBitmap, from: number, to: number, room: number): Run[] {
  const ends = new Float64Array(room)
  const runs: Run[] = []
  for (let at = from; at < to; ) {
    let dirty = bits.has(at)
    const found = bits.runEnds(at, to, ends)
    expect(found).toBeGreaterThan(0)
    expect(found).toBeLessThanOrEqual(room)
    for (const end of ends.subarray(0, found)) {
      expect(end).toBeGreaterThan(at)
      runs.push({ end, dirty })
      at = end
      dirty = !dirty
    }
  }
  return runs
}

/** Near the borders of words and chunks, where mistakes are. */
const granule = fc
  .tuple(fc.constantFrom(0, 32, 64, CHUNK, 2 * CHUNK, 3 * CHUNK, GRANULES), fc.integer({ min: -70, max: 70 }))
  .map(([border, beside]) => Math.min(GRANULES - 1, Math.max(0, border + beside)))
const span = fc.tuple(granule, granule).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
const dirtied = fc.array(
  fc.oneof(
    span,
    granule.map((at) => [at, at] as const),
    fc.constant([CHUNK, 2 * CHUNK - 1] as const),
  ),
  { maxLength: 40 },
)

test('the ends of runs are what looking at each bit gives, any stretch, any room', () => {
  fc.assert(
    fc.property(dirtied, span, fc.constantFrom(1, 2, 3, 7, 1024), (spans, [from, last], room) => {
      const bits = new DirtyBitmap(GRANULES * GRANULARITY, GRANULARITY)
      for (const [first, to] of spans) bits.setGranules(first, to)
      expect(asked(bits, from, last + 1, room)).toEqual(lookedAt(bits, from, last + 1))
    }),
    proof('ends of runs', 60, 2000),
  )
})

test('a bitmap of 2^32 granules, all clean or all dirty, is one run', () => {
  const bits = new DirtyBitmap(2 ** 41, 512)
  expect(asked(bits, 0, bits.granules, 5)).toEqual([{ end: 2 ** 32, dirty: false }])
  bits.setAll()
  expect(asked(bits, 0, bits.granules, 5)).toEqual([{ end: 2 ** 32, dirty: true }])
  expect(asked(bits, 2 ** 32 - 33, bits.granules, 5)).toEqual([{ end: 2 ** 32, dirty: true }])
})

test.each([
  [-1, 5],
  [5, 5],
  [6, 5],
  [0, 101],
  [0.5, 5],
  [0, 5.5],
  [Number.NaN, 5],
  [0, Number.POSITIVE_INFINITY],
])('granules from %d to %d of a hundred are refused', (from, to) => {
  const bits = new DirtyBitmap(100 * 512, 512)
  expect(() => bits.runEnds(from, to, new Float64Array(4))).toThrow(RangeError)
})
