/** The record codec: what goes in comes out, damage never does, and version 1 stays version 1. */
import { readFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  chainOf,
  checkHeader,
  decodeStored,
  EMPTY_HASH,
  encodeEvents,
  encodeGap,
  encodeWindows,
  encodeWrites,
  RecordDamage,
  RecordTooNew,
  readHeader,
} from '../../events/record.ts'
import type { DomainEvent, LogRecord, LogWindow, WriteSection } from '../../events/types.ts'
import { proof } from '../support/property.ts'
import { EVERY_EVENT, FIRST_EVENTS } from './every-event.ts'
import { oneWrite, START, sections } from './support.ts'

type Decode = (bytes: Uint8Array) => LogRecord[]

function roundTrip(decode: Decode, first: number, given: readonly WriteSection[]): void {
  const encoded = encodeWrites(first, START, given, EMPTY_HASH)
  const [record] = decode(encoded.bytes)
  const last = given.at(-1)!.columns.times?.at(-1) ?? START
  const count = given.reduce((sum, section) => sum + section.columns.offsets.length, 0)
  expect(record).toEqual({ kind: 'writes', first, count, time: START, lastTime: last, sections: given })
}

test('R3: any sections come back as they were: offset, length, op and time of every write', () => {
  fc.assert(
    fc.property(sections, fc.nat(1e9), (given, first) => roundTrip(decodeStored, first, given)),
    proof('record round trip', 400, 20_000),
  )
})

test('a canary: a codec that loses one bit of an offset is caught by the round trip', () => {
  const broken: Decode = (bytes) =>
    decodeStored(bytes).map((record) => {
      if (record.kind !== 'writes') return record
      const [section, ...rest] = record.sections
      const offsets = section!.columns.offsets.map((offset) => (offset >= 2 ** 32 ? offset - 512 : offset))
      return { ...record, sections: [{ ...section!, columns: { ...section!.columns, offsets } }, ...rest] }
    })
  const run = () =>
    fc.assert(
      fc.property(sections, (given) => roundTrip(broken, 0, given)),
      { numRuns: 400 },
    )
  expect(run).toThrow()
})

test('a column that says nothing is left out: all ops write, all times the record time', () => {
  const rows = { offsets: Float64Array.of(0, 4096), lengths: Float64Array.of(4096, 4096) }
  const said = encodeWrites(
    0,
    START,
    [{ disk: 0, columns: { ...rows, ops: new Uint8Array(2), times: Float64Array.of(START, START) } }],
    EMPTY_HASH,
  )
  const unsaid = encodeWrites(0, START, [{ disk: 0, columns: rows }], EMPTY_HASH)
  expect(said.bytes).toEqual(unsaid.bytes)
})

test('4096 sequential writes take 2 bytes each', () => {
  const offsets = Float64Array.from({ length: 4096 }, (_, i) => i * 65_536)
  const { bytes } = encodeWrites(
    0,
    START,
    [{ disk: 0, columns: { offsets, lengths: new Float64Array(4096).fill(65_536) } }],
    EMPTY_HASH,
  )
  expect(bytes.length).toBeLessThan(4096 * 2 + 80)
})

test.each([
  ['a length of 0', { offsets: Float64Array.of(0), lengths: Float64Array.of(0) }],
  ['a negative offset', { offsets: Float64Array.of(-1), lengths: Float64Array.of(1) }],
  ['a fraction', { offsets: Float64Array.of(0.5), lengths: Float64Array.of(1) }],
  ['a NaN', { offsets: Float64Array.of(Number.NaN), lengths: Float64Array.of(1) }],
  ['an end beyond 2^53', { offsets: Float64Array.of(Number.MAX_SAFE_INTEGER), lengths: Float64Array.of(1) }],
  ['no row', { offsets: new Float64Array(0), lengths: new Float64Array(0) }],
  ['columns of different length', { offsets: Float64Array.of(0, 1), lengths: Float64Array.of(1) }],
  ['an unknown op', { ...oneWrite(0), ops: Uint8Array.of(3) }],
  ['a time before the record', { ...oneWrite(0), times: Float64Array.of(START - 1) }],
])('R1: %s is refused with RangeError by the encoder', (_, columns) => {
  expect(() => encodeWrites(0, START, [{ disk: 0, columns }], EMPTY_HASH)).toThrow(RangeError)
})

test('every kind of domain event comes back as it was, with its cause', () => {
  const meta = {
    command: 'transaction',
    commandId: 'c-1',
    argumentsHash: 'f'.repeat(64),
    correlationId: 'k',
    causationId: 'z',
    actor: 'ä',
  }
  const encoded = encodeEvents(7, START, meta, EVERY_EVENT, EMPTY_HASH)
  expect(encoded.commandId).toBe('c-1')
  expect(decodeStored(encoded.bytes)).toEqual([
    {
      kind: 'events',
      first: 7,
      count: EVERY_EVENT.length,
      time: START,
      lastTime: START,
      meta,
      events: EVERY_EVENT,
    },
  ])
})

test('text that cannot be stored as it is, and numbers that are not whole, are refused with RangeError', () => {
  const encode = (event: DomainEvent) => () => encodeEvents(0, START, {}, [event], EMPTY_HASH)
  expect(encode({ type: 'disk-removed', disk: 'a\ud800' })).toThrow(RangeError)
  expect(encode({ type: 'disk-added', disk: 'a', size: 1.5 })).toThrow(RangeError)
})

test('decoded columns and extents do not alias the memory they came from', () => {
  const stored = encodeEvents(0, START, {}, EVERY_EVENT, EMPTY_HASH).bytes
  const records = decodeStored(stored)
  stored.fill(0)
  expect(records[0]).toMatchObject({ events: EVERY_EVENT })
})

const sample = () =>
  encodeWrites(
    5,
    START,
    [
      { disk: 1, columns: { ...oneWrite(4096), ops: Uint8Array.of(2) } },
      {
        disk: 300,
        columns: {
          offsets: Float64Array.of(8192, 2 ** 40),
          lengths: Float64Array.of(512, 4096),
          times: Float64Array.of(START, START + 300),
        },
      },
    ],
    EMPTY_HASH,
  ).bytes

const samples: readonly (readonly [string, () => Uint8Array])[] = [
  ['a writes record', sample],
  [
    'an events record',
    () => encodeEvents(0, START, { commandId: 'c' }, EVERY_EVENT.slice(0, 9), EMPTY_HASH).bytes,
  ],
]

test.each(samples)('R28: every single flipped bit of %s is refused', (_, make) => {
  const bytes = make()
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Uint8Array.from(bytes)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    expect(() => decodeStored(flipped), `bit ${bit}`).toThrow(RecordDamage)
  }
})

test.each(samples)('R28: every truncation of %s is refused, and so is a byte too many', (_, make) => {
  const bytes = make()
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeStored(bytes.subarray(0, length)), `length ${length}`).toThrow(RecordDamage)
  }
  expect(() => decodeStored(Uint8Array.of(...bytes, 0))).toThrow(RecordDamage)
})

/** Puts a right checksum on edited bytes, as somebody would who knows the format. */
function resealed(bytes: Uint8Array): Uint8Array {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, crc32(bytes.subarray(4)), true)
  return bytes
}

test.each(samples)(
  'under a right checksum, an edited byte of %s gives a refusal or whole records, never a crash, and another chain',
  (_, make) => {
    const bytes = make()
    const chain = chainOf(bytes, EMPTY_HASH)
    for (let at = 37; at < bytes.length; at++) {
      for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
        if (bytes[at] === value) continue
        const edited = Uint8Array.from(bytes)
        edited[at] = value
        resealed(edited)
        expect(chainOf(edited, EMPTY_HASH)).not.toEqual(chain)
        try {
          decodeStored(edited)
        } catch (error) {
          expect(
            error instanceof RecordDamage || error instanceof RecordTooNew,
            `${at}=${value}: ${String(error)}`,
          ).toBe(true)
        }
      }
    }
  },
)

test('a truncated record under a right checksum is refused: no count is believed', () => {
  const bytes = sample()
  for (let length = 37; length < bytes.length; length++) {
    expect(() => decodeStored(resealed(bytes.slice(0, length))), `length ${length}`).toThrow(RecordDamage)
  }
})

test('R34: a newer layout or record version is refused as too new, not as damage', () => {
  const layout = sample()
  layout[4] = 9
  expect(() => decodeStored(resealed(layout))).toThrow(RecordTooNew)
  const version = sample()
  version[37] = 2
  expect(() => decodeStored(resealed(version))).toThrow(RecordTooNew)
  expect(readHeader(version)).toMatchObject({ version: 2, first: 5, count: 3 })
})

test('R28: the chain links each record to the one before', () => {
  const first = encodeWrites(0, START, [{ disk: 0, columns: oneWrite(0) }], EMPTY_HASH)
  const second = encodeWrites(1, START, [{ disk: 0, columns: oneWrite(0) }], first.hash)
  expect(chainOf(first.bytes, EMPTY_HASH)).toEqual(first.hash)
  expect(chainOf(second.bytes, first.hash)).toEqual(second.hash)
  expect(chainOf(second.bytes, EMPTY_HASH)).not.toEqual(second.hash)
})

test('a header says what a value is, without decoding it', () => {
  const { bytes, hash } = encodeWrites(
    9,
    START,
    [{ disk: 0, columns: { ...oneWrite(0), times: Float64Array.of(START + 7) } }],
    EMPTY_HASH,
  )
  expect(checkHeader(bytes)).toEqual({
    first: 9,
    count: 1,
    records: 1,
    time: START,
    lastTime: START + 7,
    hash,
    version: 1,
    layout: 'record',
  })
})

interface Golden {
  readonly writes: string
  readonly events: string
  readonly windows: string
  readonly gap: string
}
const golden = JSON.parse(
  readFileSync(new URL('../fixtures/v1/records.json', import.meta.url), 'utf8'),
) as Golden

/** The worked example of docs/format.md. */
function workedWrites(): Uint8Array {
  const columns = {
    offsets: Float64Array.of(4096, 12_288, 8192),
    lengths: Float64Array.of(8192, 4096, 4096),
    ops: Uint8Array.of(0, 0, 2),
    times: Float64Array.of(START, START + 2, START + 130),
  }
  return encodeWrites(2, START, [{ disk: 0, columns }], EMPTY_HASH).bytes
}

test('format 1 is stable for ever: the worked records have the bytes they always had', () => {
  const events = encodeEvents(0, START, { command: 'worked' }, FIRST_EVENTS, EMPTY_HASH).bytes
  expect(Buffer.from(workedWrites()).toString('hex')).toBe(golden.writes)
  expect(Buffer.from(events).toString('hex')).toBe(golden.events)
  expect(decodeStored(Buffer.from(golden.events, 'hex'))).toMatchObject([{ events: FIRST_EVENTS }])
})

/** Two windows over two disks, behind which the chain had a hash that nothing can compute any more. */
const CARRIED = Uint8Array.from({ length: 32 }, (_, i) => i + 1)
const WORKED_WINDOWS: readonly LogWindow[] = [
  {
    first: 40,
    count: 300,
    time: START,
    lastTime: START + 59_999,
    sections: [
      {
        disk: 0,
        writes: 200,
        bytes: 1_638_400,
        last: { position: 338, time: START + 59_000 },
        columns: { offsets: Float64Array.of(0, 65_536), lengths: Float64Array.of(4096, 1_048_576) },
      },
      {
        disk: 7,
        writes: 100,
        bytes: 51_200,
        last: { position: 339, time: START + 59_999 },
        columns: { offsets: Float64Array.of(512), lengths: Float64Array.of(512) },
      },
    ],
  },
  {
    first: 340,
    count: 1,
    time: START + 60_000,
    lastTime: START + 60_000,
    sections: [
      {
        disk: 0,
        writes: 1,
        bytes: 3,
        last: { position: 340, time: START + 60_000 },
        columns: { offsets: Float64Array.of(2 ** 40 + 1), lengths: Float64Array.of(3) },
      },
    ],
  },
]

test('R29: format 1 of a run is stable for ever: the worked windows have the bytes they always had', () => {
  const bytes = encodeWindows(40, WORKED_WINDOWS, CARRIED)
  expect(Buffer.from(bytes).toString('hex')).toBe(golden.windows)
  const stored = Buffer.from(golden.windows, 'hex')
  expect(decodeStored(stored)).toEqual([
    {
      kind: 'windows',
      first: 40,
      count: 301,
      time: START,
      lastTime: START + 60_000,
      windows: WORKED_WINDOWS,
    },
  ])
  expect(checkHeader(stored)).toMatchObject({ layout: 'run', first: 40, count: 301, version: 1 })
  expect(Buffer.compare(checkHeader(stored).hash, CARRIED)).toBe(0)
})

test('R28: format 1 of a gap is stable for ever: the worked gap has the bytes it always had', () => {
  const bytes = encodeGap(341, 4096, START + 60_000, START + 61_000, CARRIED)
  expect(Buffer.from(bytes).toString('hex')).toBe(golden.gap)
  const stored = Buffer.from(golden.gap, 'hex')
  expect(decodeStored(stored)).toEqual([
    { kind: 'gap', first: 341, count: 4096, time: START + 60_000, lastTime: START + 61_000 },
  ])
  expect(checkHeader(stored)).toMatchObject({ layout: 'run', first: 341, count: 4096, version: 1 })
  expect(Buffer.compare(checkHeader(stored).hash, CARRIED)).toBe(0)
})
