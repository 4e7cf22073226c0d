import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { decodeBits, encodeBits } from '../../projections/bits-codec.ts'
import { proof } from '../support/property.ts'
import { NaiveBitmap } from './naive-bitmap.ts'

/** Granules at which words and chunks begin and end. */
const EDGES = [0, 1, 31, 32, 63, 64, 65_535, 65_536]
const edge = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0, 1, 31, 32, 63, 64) },
  { weight: 1, arbitrary: fc.constantFrom(65_535, 65_536) },
)
/** A byte near the border of a granule that is near an edge. */
const place = fc.record({
  granule: edge,
  more: fc.integer({ min: -1, max: 1 }),
  bytes: fc.integer({ min: -1, max: 1 }),
})
const range = fc.record({
  from: place,
  length: fc.oneof(
    fc.constantFrom(0, 1, 511, 512, 513, 4096, 65_536),
    fc.integer({ min: 0, max: 1 << 18 }),
    fc.constant(2 ** 40),
  ),
})
const which = fc.nat(2)

type Op =
  | { op: 'range'; on: number; range: Range }
  | { op: 'columns'; on: number; ranges: Range[] }
  | { op: 'granules'; on: number; range: Range }
  | { op: 'all' | 'clear' | 'codec'; on: number }
  | { op: 'or' | 'clone'; on: number; from: number }
  | { op: 'orAll'; on: number; all: number[] }
  | { op: 'resize'; to: Place; unit: number }
type Place = { granule: number; more: number; bytes: number }
type Range = { from: Place; length: number }

const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ op: fc.constant('range' as const), on: which, range }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('columns' as const),
      on: which,
      ranges: fc.array(range, { maxLength: 8 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('granules' as const), on: which, range }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constantFrom('all' as const, 'clear' as const, 'codec' as const),
      on: which,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constantFrom('or' as const, 'clone' as const), on: which, from: which }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('orAll' as const),
      on: which,
      all: fc.array(which, { maxLength: 12 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('resize' as const), to: place, unit: which }) },
)
const granularities = fc.tuple(
  fc.constantFrom(512, 4096),
  fc.constantFrom(512, 1024),
  fc.constantFrom(512, 4096, 32_768),
)

/** A real bitmap and its oracle, told the same things. */
class Pair {
  real: DirtyBitmap
  naive: NaiveBitmap
  constructor(size: number, granularity: number) {
    this.real = new DirtyBitmap(size, granularity)
    this.naive = new NaiveBitmap(size, granularity)
  }

  byte(p: Place): number {
    return Math.max(0, (p.granule + p.more) * this.real.granularity + p.bytes)
  }

  inside(r: Range): [number, number] {
    const offset = Math.min(this.byte(r.from), this.real.size)
    return [offset, Math.min(r.length, this.real.size - offset)]
  }

  check(): void {
    const { real, naive } = this
    const extents = naive.extents()
    expect(real.dirtyGranules).toBe(naive.dirty.size)
    expect(real.count).toBe(naive.dirty.size * naive.granularity)
    expect(real.isEmpty).toBe(naive.dirty.size === 0)
    expect(real.extentList()).toEqual(extents)
    expect([...real.extents()]).toEqual(extents)
    expect(real.dirtyBytes).toBe(extents.reduce((sum, [, length]) => sum + length, 0))
    for (const e of EDGES) for (const g of [e - 1, e, e + 1]) expect(real.has(g)).toBe(naive.dirty.has(g))
  }
}

function apply(pairs: Pair[], step: Op): void {
  if (step.op === 'resize') {
    const size = pairs[step.unit]!.byte(step.to)
    for (const p of pairs) {
      p.real.resize(size)
      p.naive.resize(size)
    }
    return
  }
  const p = pairs[step.on]!
  switch (step.op) {
    case 'range': {
      const [offset, length] = p.inside(step.range)
      p.real.setRange(offset, length)
      p.naive.write(offset, length)
      return
    }
    case 'columns': {
      const rows = step.ranges.map((r) => p.inside(r)).filter(([, length]) => length > 0)
      const offsets = Float64Array.from(rows, ([offset]) => offset)
      const lengths = Float64Array.from(rows, ([, length]) => length)
      const half = rows.length >> 1
      p.real.setColumns({ offsets, lengths }, 0, half)
      p.real.setColumns({ offsets, lengths }, half)
      for (const [offset, length] of rows) p.naive.write(offset, length)
      return
    }
    case 'granules': {
      const [offset, length] = p.inside(step.range)
      if (length === 0) return
      const g = p.real.granularity
      p.real.setGranules(Math.floor(offset / g), Math.floor((offset + length - 1) / g))
      p.naive.write(offset, length)
      return
    }
    case 'all':
      p.real.setAll()
      p.naive.write(0, p.naive.size)
      return
    case 'clear':
      p.real.clear()
      p.naive.dirty.clear()
      return
    case 'codec':
      p.real = decodeBits(encodeBits(p.real))
      return
    case 'clone': {
      const source = pairs[step.from]!
      p.real = source.real.clone()
      p.naive = Object.assign(new NaiveBitmap(source.naive.size, source.naive.granularity), {
        dirty: new Set(source.naive.dirty),
      })
      expect(p.real.equals(source.real)).toBe(true)
      return
    }
    case 'or':
      p.real.or(pairs[step.from]!.real)
      p.naive.or(pairs[step.from]!.naive)
      return
    case 'orAll': {
      p.real.orAll(step.all.map((i) => pairs[i]!.real))
      for (const i of step.all) p.naive.or(pairs[i]!.naive)
      return
    }
    default:
      throw new Error(`unknown step ${JSON.stringify(step satisfies never)}`)
  }
}

test('R2, R4, R5, R7: any sequence of writes, merges and resizes leaves the bits of a plain set of granules', () => {
  fc.assert(
    fc.property(
      granularities,
      place,
      fc.array(op, { minLength: 1, maxLength: 14 }),
      ([a, b, c], end, steps) => {
        const size = Math.max(0, (end.granule + end.more) * b + end.bytes)
        const pairs = [new Pair(size, a), new Pair(size, b), new Pair(size, c)]
        for (const step of steps) {
          apply(pairs, step)
          for (const p of pairs) expect(p.real.dirtyGranules).toBe(p.naive.dirty.size)
        }
        for (const p of pairs) {
          p.check()
          expect(p.real.digest()).toBe(p.naive.digest())
        }
        for (const p of pairs)
          for (const q of pairs) {
            const same = p.naive.granularity === q.naive.granularity && p.naive.digest() === q.naive.digest()
            expect(p.real.equals(q.real)).toBe(same)
          }
      },
    ),
    proof('bitmap against a set of granules', 300, 8000),
  )
}, 1_800_000)
