/**
 * A record's body: what the chain hashes. Everything that makes a record is in it: position, time, content.
 *
 *     body    = head | writes or events                                     head: frame.ts
 *     writes  = sections:varint | section …
 *     section = disk:varint | rows:varint | flags:u8 | lengths | offsets | ops? | times?      columns.ts
 *     flags   = shift (bits 0-4) | 32 ops present | 64 times present
 *     events  = msgpack [cause, event, …]                                   domain-codec.ts
 *
 * The same record always gives the same bytes; packs depend on that (pack.ts).
 */
import {
  alignmentOf,
  hasOps,
  hasTimes,
  putLengths,
  putOffsets,
  putOps,
  putTimes,
  SHIFT_MAX,
  shiftOf,
  takeLengths,
  takeOffsets,
  takeOps,
  takeTimes,
} from './columns.ts'
import { RecordDamage, RecordTooNew } from './damage.ts'
import { decodeDomain, encodeDomain } from './domain-codec.ts'
import { type Head, putHead, takeHead } from './frame.ts'
import type { DomainEvent, LogRecord, RecordMeta, WriteSection } from './types.ts'
import { Reader, type Writer } from './varint.ts'

/** Of the body's layout; events inside carry versions of their own. */
export const BODY_VERSION = 1
export const KIND_WRITES = 1
export const KIND_EVENTS = 2

const FLAG_OPS = 32
const FLAG_TIMES = 64

export interface Span {
  readonly count: number
  readonly lastTime: number
}

export function checkStart(first: number, time: number): void {
  if (!(Number.isSafeInteger(first) && first >= 0))
    throw new RangeError(`position ${first} is no whole number ≥ 0`)
  if (!(Number.isSafeInteger(time) && time >= 0))
    throw new RangeError(`time ${time} is no whole number of ms ≥ 0`)
}

function spanOf(time: number, sections: readonly WriteSection[]): Span {
  if (sections.length === 0) throw new RangeError('a record needs a section')
  let count = 0
  let lastTime = time
  for (const { columns } of sections) {
    const rows = columns.offsets.length
    if (rows === 0 || columns.lengths.length !== rows) {
      throw new RangeError(`a section has ${rows} offsets and ${columns.lengths.length} lengths`)
    }
    count += rows
    lastTime = columns.times === undefined ? time : (columns.times[rows - 1] ?? time)
  }
  return { count, lastTime }
}

export function putWrites(out: Writer, first: number, time: number, sections: readonly WriteSection[]): Span {
  checkStart(first, time)
  const span = spanOf(time, sections)
  putHead(out, { version: BODY_VERSION, kind: KIND_WRITES, first, time, ...span })
  out.varint(sections.length)
  let last = time
  for (const section of sections) last = putSection(out, section, time, last)
  return span
}

function putSection(out: Writer, section: WriteSection, time: number, before: number): number {
  const { offsets, lengths, ops, times } = section.columns
  const rows = offsets.length
  const shift = shiftOf(alignmentOf(offsets, lengths))
  const withOps = hasOps(ops, rows)
  const withTimes = hasTimes(times, rows, time)
  if (!withTimes && before !== time) throw new RangeError('time goes back between two sections')
  out.varint(section.disk)
  out.varint(rows)
  out.byte(shift | (withOps ? FLAG_OPS : 0) | (withTimes ? FLAG_TIMES : 0))
  putLengths(out, lengths, shift)
  putOffsets(out, offsets, lengths, shift, 0)
  if (withOps) putOps(out, ops)
  return withTimes ? putTimes(out, times, before) : before
}

export function putEvents(
  out: Writer,
  first: number,
  time: number,
  meta: RecordMeta,
  events: readonly DomainEvent[],
): Span {
  checkStart(first, time)
  if (events.length === 0) throw new RangeError('a record needs an event')
  const span = { count: events.length, lastTime: time }
  putHead(out, { version: BODY_VERSION, kind: KIND_EVENTS, first, time, ...span })
  out.raw(encodeDomain(meta, events))
  return span
}

/** `bytes` is exactly one body. Throws RecordDamage or RecordTooNew. */
export function decodeBody(bytes: Uint8Array): LogRecord {
  const from = new Reader(bytes)
  const head = takeHead(from)
  if (head.version > BODY_VERSION) throw new RecordTooNew('record', head.version, BODY_VERSION)
  if (head.kind === KIND_WRITES) return decodeWrites(from, head)
  if (head.kind === KIND_EVENTS) return decodeEvents(from, head)
  throw new RecordDamage('format', `unknown kind ${head.kind} of record`)
}

function decodeWrites(from: Reader, head: Head): LogRecord {
  const { first, count, time, lastTime } = head
  const sections: WriteSection[] = []
  let rows = 0
  let last = time
  for (let left = from.count(5); left > 0; left--) {
    const { section, lastTime: sectionLast } = takeSection(from, time, last)
    sections.push(section)
    rows += section.columns.offsets.length
    last = sectionLast
  }
  from.end()
  if (rows !== count) throw new RecordDamage('format', `announces ${count} writes, holds ${rows}`)
  if (last !== lastTime) throw new RecordDamage('format', 'the last time is not the one announced')
  return { kind: 'writes', first, count, time, lastTime, sections }
}

function takeSection(
  from: Reader,
  time: number,
  before: number,
): { section: WriteSection; lastTime: number } {
  const disk = from.varint()
  const rows = from.varint()
  const flags = from.byte()
  const shift = flags & SHIFT_MAX
  if (rows === 0 || flags > 127)
    throw new RecordDamage('format', `a section of ${rows} writes with flags ${flags}`)
  if (rows * 2 > from.left)
    throw new RecordDamage('length', `announces ${rows} writes, has ${from.left} bytes left`)
  const lengths = new Float64Array(rows)
  const offsets = new Float64Array(rows)
  takeLengths(from, lengths)
  takeOffsets(from, offsets, lengths, shift, 0)
  const ops = (flags & FLAG_OPS) === 0 ? undefined : takeOps(from, rows)
  if ((flags & FLAG_TIMES) === 0) {
    if (before !== time) throw new RecordDamage('format', 'time goes back between two sections')
    return { section: { disk, columns: columnsOf(offsets, lengths, ops, undefined) }, lastTime: time }
  }
  const times = new Float64Array(rows)
  const lastTime = takeTimes(from, times, before)
  return { section: { disk, columns: columnsOf(offsets, lengths, ops, times) }, lastTime }
}

/** Absent columns are absent keys, so that a decoded record equals the one that was encoded. */
export function columnsOf(
  offsets: Float64Array,
  lengths: Float64Array,
  ops: Uint8Array | undefined,
  times: Float64Array | undefined,
): WriteSection['columns'] {
  if (ops === undefined) return times === undefined ? { offsets, lengths } : { offsets, lengths, times }
  return times === undefined ? { offsets, lengths, ops } : { offsets, lengths, ops, times }
}

function decodeEvents(from: Reader, head: Head): LogRecord {
  const { first, count, time, lastTime } = head
  const { meta, events } = decodeDomain(from.take(from.left))
  if (events.length !== count)
    throw new RecordDamage('format', `announces ${count} events, holds ${events.length}`)
  if (lastTime !== time) throw new RecordDamage('format', 'events of one record have one time')
  return { kind: 'events', first, count, time, lastTime, meta, events }
}
