/** Runs: windows or a gap as one stored value in the place of records. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  chainOf,
  decodeStored,
  EMPTY_HASH,
  encodeEvents,
  encodeGap,
  encodeWindows,
  encodeWrites,
  hashesOf,
  ownHash,
  packStored,
  RecordDamage,
  readHeader,
  unpackStored,
} from '../../events/record.ts'
import type { LogWindow, WindowSection } from '../../events/types.ts'
import { resealed } from '../audit/support.ts'
import { proof } from '../support/property.ts'
import { oneWrite, START, sections } from './support.ts'

const HASH = new Uint8Array(32).fill(7)

/** Ranges that ascend and do not touch, at any alignment. */
const ranges = fc
  .tuple(
    fc.constantFrom(1, 512, 4096, 2 ** 20),
    fc.array(fc.tuple(fc.nat(1000), fc.integer({ min: 1, max: 300 })), { minLength: 1, maxLength: 20 }),
    fc.boolean(),
  )
  .map(([unit, steps, zero]) => {
    let end = zero ? 0 : unit
    const rows = steps.map(([gap, length], i) => {
      const offset = end + (i === 0 ? gap : gap + 1) * unit
      end = offset + length * unit
      return [offset, length * unit] as const
    })
    return {
      offsets: Float64Array.from(rows, ([offset]) => offset),
      lengths: Float64Array.from(rows, ([, length]) => length),
    }
  })

const window = fc.record({
  more: fc.nat(100),
  pause: fc.nat(5000),
  span: fc.nat(60_000),
  disks: fc.uniqueArray(fc.oneof(fc.nat(5), fc.maxSafeNat()), { maxLength: 3 }),
  columns: fc.array(ranges, { minLength: 3, maxLength: 3 }),
  bytes: fc.maxSafeNat(),
  back: fc.nat(1000),
})

const windows = fc
  .tuple(fc.nat(1e9), fc.array(window, { minLength: 1, maxLength: 8 }))
  .map(([first, list]) => {
    let next = first
    let time = START
    return list.map(({ more, pause, span, disks, columns, bytes, back }, i): LogWindow => {
      time += i === 0 ? 0 : pause
      const begin = time
      time += span
      const rows = disks.map((_, d) => columns[d]!.offsets.length)
      const count = Math.max(1, ...rows) + more
      const made = {
        first: next,
        count,
        time: begin,
        lastTime: time,
        sections: [...disks]
          .sort((a, b) => a - b)
          .map(
            (disk, d): WindowSection => ({
              disk,
              writes: count - Math.min(more, back),
              bytes,
              last: {
                position: next + count - 1 - Math.min(count - 1, back),
                time: time - Math.min(span, back),
              },
              columns: columns[d]!,
            }),
          ),
      }
      next += count
      return made
    })
  })

test('R29: a run holds the very windows that went in, and carries the hash that it was given', () => {
  fc.assert(
    fc.property(windows, (given) => {
      const { first, time } = given[0]!
      const end = given.at(-1)!
      const count = end.first + end.count - first
      const value = encodeWindows(first, given, HASH)
      const record = { kind: 'windows', first, count, time, lastTime: end.lastTime, windows: given }
      expect(decodeStored(value)).toEqual([record])
      expect(readHeader(value)).toMatchObject({ first, count, records: 1, time, hash: HASH, layout: 'run' })
      expect(chainOf(value, EMPTY_HASH)).toEqual(HASH)
      expect(hashesOf(value, EMPTY_HASH)).toEqual([{ next: first + count, hash: HASH }])
      // Its own hash is of its content alone.
      expect(ownHash(encodeWindows(first, given, EMPTY_HASH))).toEqual(ownHash(value))
    }),
    proof('runs', 400, 20_000),
  )
})

test('R28: a gap holds its positions and times, and nothing else', () => {
  const value = encodeGap(10, 5, START, START + 9, HASH)
  expect(decodeStored(value)).toEqual([
    { kind: 'gap', first: 10, count: 5, time: START, lastTime: START + 9 },
  ])
  expect(readHeader(value)).toMatchObject({ layout: 'run', hash: HASH })
  expect(() => encodeGap(10, 0, START, START, HASH)).toThrow(RangeError)
})

test('R28: every flipped bit and every cut of a run is refused, also under a right checksum', () => {
  const [given] = fc.sample(windows, { numRuns: 1, seed: 42 }) as [LogWindow[]]
  const value = encodeWindows(given[0]!.first, given, HASH)
  for (let bit = 0; bit < value.length * 8; bit++) {
    const flipped = value.slice()
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    expect(() => decodeStored(flipped), `bit ${bit}`).toThrow(RecordDamage)
    // With a checksum made to fit: refused, or other windows, never the same and never a crash.
    if (bit >= 37 * 8) {
      const own = ownHash(value)
      try {
        decodeStored(resealed(flipped))
      } catch (error) {
        expect((error as Error).name).toMatch(/^Record(Damage|TooNew)$/)
      }
      expect(ownHash(flipped)).not.toEqual(own)
    }
  }
  for (let length = 0; length < value.length; length++)
    expect(() => decodeStored(resealed(value.slice(0, Math.max(5, length))))).toThrow(RecordDamage)
})

test('R29: windows that do not fit together are refused when they are written', () => {
  const columns = { offsets: Float64Array.of(4096, 8192), lengths: Float64Array.of(4096, 4096) }
  const section = { disk: 1, writes: 2, bytes: 8192, last: { position: 1, time: START }, columns }
  const one = { first: 0, count: 2, time: START, lastTime: START, sections: [section] }
  const bad: [string, LogWindow[]][] = [
    ['no window', []],
    ['ranges that touch', [one]],
    [
      'a hole',
      [
        { ...one, sections: [] },
        { ...one, first: 3, sections: [] },
      ],
    ],
    [
      'time goes back',
      [
        { ...one, sections: [] },
        { ...one, first: 2, time: START - 1, lastTime: START, sections: [] },
      ],
    ],
    [
      'disks that do not ascend',
      [{ ...one, sections: [0, 0].map(() => ({ ...section, columns: oneWrite(0) })) }],
    ],
    ['more writes than events', [{ ...one, sections: [{ ...section, writes: 3, columns: oneWrite(0) }] }]],
    [
      'a last write outside',
      [{ ...one, sections: [{ ...section, last: { position: 2, time: START }, columns: oneWrite(0) }] }],
    ],
  ]
  for (const [why, list] of bad) expect(() => encodeWindows(0, list, HASH), why).toThrow(RangeError)
})

test('R28: a pack gives its records back bit for bit, proven by its hash, and a run is never packed', () => {
  fc.assert(
    fc.property(fc.array(sections, { minLength: 2, maxLength: 12 }), (list) => {
      const values: Uint8Array[] = []
      let hash: Uint8Array = EMPTY_HASH
      let next = 3
      let base = START
      for (const one of list) {
        const moved = one.map(({ disk, columns }) => {
          const times = columns.times?.map((time) => time - START + base)
          return { disk, columns: times === undefined ? columns : { ...columns, times } }
        })
        const record = encodeWrites(next, base, moved, hash)
        const event = encodeEvents(
          next + record.count,
          record.lastTime,
          {},
          [{ type: 'nothing-changed' }],
          record.hash,
        )
        values.push(record.bytes, event.bytes)
        next = event.first + 1
        base = event.lastTime
        hash = event.hash
      }
      const pack = packStored(values, EMPTY_HASH)
      if (pack === undefined) return
      expect(unpackStored(pack, EMPTY_HASH)).toEqual(values)
      expect(unpackStored(pack, HASH), 'after another history').toBeUndefined()
      expect(unpackStored(values[0]!, EMPTY_HASH)).toEqual([values[0]])
      const run = encodeGap(next, 4, base, base, hash)
      expect(packStored([...values, run], EMPTY_HASH)).toBeUndefined()
    }),
    proof('unpacking', 150, 5000),
  )
})
