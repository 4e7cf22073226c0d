/** The runs of a block status as a column: what is kept, what is cut, and how it stands on the wire. */
import { expect, test } from 'vitest'
import { RUN_BYTES, Runs } from '../../src/nbd/runs.ts'

const wire = (runs: Runs): number[] => {
  const bytes = Buffer.alloc(3 + runs.count * RUN_BYTES + 3, 0xee)
  runs.writeTo(bytes, 3)
  expect([...bytes.subarray(0, 3), ...bytes.subarray(-3)], 'nothing beside them is touched').toEqual(
    Array(6).fill(0xee),
  )
  return Array.from({ length: 2 * runs.count }, (_, i) => bytes.readUInt32BE(3 + 4 * i))
}

test.each([0, 1, 63, 64, 65, 1000, 5000])('%i runs are told as they were added, in order', (count) => {
  const given = Array.from({ length: count }, (_, i) => ({ length: i * 31_337 + 1, flags: i % 3 }))
  const runs = Runs.of(given)
  expect(runs.count).toBe(count)
  expect(runs.bytesOfFirst).toBe(count === 0 ? 0 : 1)
  expect([...runs]).toEqual(given)
  expect(wire(runs)).toEqual(given.flatMap(({ length, flags }) => [length, flags]))
})

test('what 32 bits cannot say is cut, and what comes behind it is left for the next question', () => {
  const runs = Runs.of([
    { length: 2 ** 32 - 1, flags: 0 },
    { length: 2 ** 32, flags: 1 },
    { length: 5, flags: 0 },
  ])
  expect(wire(runs)).toEqual([2 ** 32 - 1, 0, 2 ** 32 - 1, 1])
})

test.each([0, -1, 0.5, Number.NaN, Number.NEGATIVE_INFINITY])('a run of %d bytes is refused', (length) => {
  expect(() => new Runs().add(length, 0)).toThrow(RangeError)
})
