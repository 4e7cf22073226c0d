/** Generators of records that reach the codec's corners: big and unaligned offsets, every op, times, many sections. */
import fc from 'fast-check'
import type { WriteColumns, WriteSection } from '../../events/types.ts'

export const START = 1_700_000_000_000

const offset = fc.oneof(
  fc.nat(1 << 20).map((n) => n * 4096),
  fc.nat(1000),
  fc.maxSafeNat().map((n) => Math.floor(n / 2)),
  fc.constantFrom(0, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 32 - 1, 2 ** 52),
)
const length = fc.oneof(
  fc.integer({ min: 1, max: 16 }).map((n) => n * 4096),
  fc.integer({ min: 1, max: 300 }),
  fc.constantFrom(127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32 + 1, 2 ** 51),
)

function columns(rows: number): fc.Arbitrary<WriteColumns> {
  const of = <T>(one: fc.Arbitrary<T>) => fc.array(one, { minLength: rows, maxLength: rows })
  return fc.record({ offsets: of(offset), lengths: of(length), ops: fc.option(of(fc.nat(2))) }).map((raw) => {
    const plain = { offsets: Float64Array.from(raw.offsets), lengths: Float64Array.from(raw.lengths) }
    // The codec leaves out a column that says nothing, so the expected record does as well.
    if (raw.ops === null || raw.ops.every((op) => op === 0)) return plain
    return { ...plain, ops: Uint8Array.from(raw.ops) }
  })
}

/** Sections whose times rise through all of them, or have none. */
export const sections: fc.Arbitrary<readonly WriteSection[]> = fc
  .array(
    fc.record({
      disk: fc.oneof(fc.nat(3), fc.maxSafeNat()),
      columns: fc.integer({ min: 1, max: 12 }).chain(columns),
      steps: fc.array(fc.oneof(fc.nat(3), fc.nat(100_000)), { minLength: 12, maxLength: 12 }),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .chain((raw) => fc.boolean().map((timed) => raw.map((section) => ({ ...section, timed }))))
  .map((raw) => {
    let time = START
    return raw.map(({ disk, columns: plain, steps, timed }) => {
      if (!timed) return { disk, columns: plain }
      const times = Float64Array.from(plain.offsets, (_, i) => {
        time += steps[i % steps.length]!
        return time
      })
      return times.every((at) => at === START)
        ? { disk, columns: plain }
        : { disk, columns: { ...plain, times } }
    })
  })

export function oneWrite(at: number, bytes = 4096): WriteColumns {
  return { offsets: Float64Array.of(at), lengths: Float64Array.of(bytes) }
}
