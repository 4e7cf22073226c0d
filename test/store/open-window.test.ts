import fc from 'fast-check'
import { expect, test } from 'vitest'
import { OpenWindow, ROWS_MAX } from '../../src/store/open-window.ts'
import { proof } from '../support/property.ts'

const T = 1_700_000_000_000

test('R29: a window is the union of its ranges, ascending and joined, however they came', () => {
  const range = fc.oneof(
    fc.tuple(fc.nat(300), fc.integer({ min: 1, max: 20 })),
    fc.tuple(
      fc.nat(300).map((n) => n * 512),
      fc.integer({ min: 1, max: 8 }).map((n) => n * 512),
    ),
    // Too far apart for one number: sorted as pairs.
    fc.tuple(fc.constantFrom(0, 2 ** 52, 2 ** 51 + 1), fc.constantFrom(1, 2 ** 40, 2 ** 50 + 1)),
  )
  fc.assert(
    fc.property(
      fc.array(fc.array(range, { minLength: 1, maxLength: 30 }), { minLength: 1, maxLength: 6 }),
      (calls) => {
        const window = new OpenWindow(5, T, T + 1000)
        const all = calls.flat()
        for (const rows of calls) {
          window.addWrites(
            7,
            {
              offsets: Float64Array.from(rows, ([offset]) => offset),
              lengths: Float64Array.from(rows, ([, length]) => length),
            },
            0,
            rows.length,
            T + 3,
          )
          expect(window.full).toBe(false)
          window.close() // Looked at in between: what comes later is joined with what is sorted already.
        }
        const { sections, count, first, lastTime } = window.close()
        expect({ first, count, lastTime }).toEqual({ first: 5, count: all.length, lastTime: T + 3 })
        const [{ columns, writes, bytes, last }] = sections as [(typeof sections)[0]]
        expect({ writes, last }).toEqual({
          writes: all.length,
          last: { position: 4 + all.length, time: T + 3 },
        })
        expect(bytes).toBe(all.reduce((sum, [, length]) => sum + length, 0))
        const wanted: [number, number][] = []
        for (const [offset, length] of [...all].sort((a, b) => a[0] - b[0])) {
          const before = wanted.at(-1)
          if (before !== undefined && offset <= before[1]) before[1] = Math.max(before[1], offset + length)
          else wanted.push([offset, offset + length])
        }
        expect(Array.from(columns.offsets, (offset, i) => [offset, offset + columns.lengths[i]!])).toEqual(
          wanted,
        )
      },
    ),
    proof('windows', 400, 20_000),
  )
})

test('R29: a window whose ranges do not join is full before it grows too large; one whose ranges do is not', () => {
  const fill = (step: number) => {
    const window = new OpenWindow(0, T, T + 1)
    let calls = 0
    for (; !window.full && calls < 64; calls++) {
      const offsets = Float64Array.from(
        { length: 4096 },
        (_, i) => ((calls * 4096 + i) * step) % (step * 2 ** 18),
      )
      window.addWrites(1, { offsets, lengths: new Float64Array(4096).fill(512) }, 0, 4096, T)
    }
    return calls
  }
  expect(fill(4096)).toBeLessThanOrEqual(ROWS_MAX / 4096 + 1)
  expect(fill(512)).toBe(64)
})
