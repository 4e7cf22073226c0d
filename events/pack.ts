/**
 * A pack: many small records as one stored value, because at queue depth 1 a record holds one write, and its key, hash,
 * checksum and head would weigh ten times that.
 *
 *     rest     = head | records:varint | disks | shift:u8 | shapes | sequence | gaps | lengths | offsets | ops | blobs | times
 *     disks    = n:varint | disk:varint × n
 *     shapes   = n:varint | (sections:varint | (index of disk:varint | rows × 2 + has times:varint) …) × n    0 sections: verbatim
 *     sequence = (shape:varint | run:varint) … until every record has its shape
 *     gaps     = ms since the end of the record before, one a record
 *     lengths, offsets, times as in columns.ts, over all records; an offset counts from the end before *on its disk*
 *     ops      = 0 | 1 and runs
 *     blobs    = (length:varint | body) for each verbatim record (domain events)
 *
 * Only the hash after the last record is kept. The bodies of the others are encoded again from their rows, bit for bit, when
 * the chain is walked; a pack is made only after exactly that was seen to give the same hash. Cost: one hash a record to
 * make or verify (about 1.5 µs), none to read.
 */
import { columnsOf, decodeBody, putWrites } from './body.ts'
import {
  alignmentOf,
  hasOps,
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
import {
  BODY_AT,
  checkFrame,
  closeFrame,
  HASH_AT,
  LAYOUT_PACK,
  LAYOUT_RECORD,
  LAYOUT_RUN,
  layoutOf,
  openFrame,
  putHead,
  readHeader,
  sha256,
  takeHead,
} from './frame.ts'
import { type Shape, Shapes, takeShapes } from './pack-shapes.ts'
import type { LogRecord, WriteSection } from './types.ts'
import { Reader, Writer } from './varint.ts'

const PACK_VERSION = 1
const KIND_PACK = 3

/** Bytes of key and table index that each stored value costs LevelDB besides itself; a pack must save more than nothing. */
const ENTRY_BYTES = 12

/** A record of a pack; `body` where its bytes are kept as they are. */
interface Entry {
  readonly record: LogRecord
  readonly body?: Uint8Array
}

type WritesRecord = Extract<LogRecord, { kind: 'writes' }>

const scratch = new Writer()

/**
 * One value for consecutive ones (records or packs), or undefined if it would not be smaller or not exact. `previous`: the
 * chain's hash before the first. Throws RecordDamage or RecordTooNew if one of the values is bad.
 */
export function packStored(values: readonly Uint8Array[], previous: Uint8Array): Uint8Array | undefined {
  const lastValue = values[values.length - 1]
  if (lastValue === undefined || values.length < 2) return undefined
  if (values.some((value) => layoutOf(value) === LAYOUT_RUN)) return undefined // A run stays what it is.
  const entries = values.flatMap(entriesOf)
  let next = entries[0]!.record.first
  for (const { record } of entries) {
    if (record.first !== next) return undefined
    next += record.count
  }
  const hash = readHeader(lastValue).hash
  const pack = encodePack(entries, hash)
  const before = values.reduce((sum, value) => sum + value.length + ENTRY_BYTES, 0)
  if (pack.length + ENTRY_BYTES >= before) return undefined
  return equal(chainOfPack(pack, previous), hash) ? pack : undefined
}

/**
 * The records of a value as stored values of their own, bit for bit as they were before it was packed; `[value]` when it is no
 * pack. `previous`: the chain's hash before it. Undefined: they do not give the pack's hash, so it does not follow from
 * `previous` or was edited. Throws RecordDamage or RecordTooNew.
 */
export function unpackStored(value: Uint8Array, previous: Uint8Array): Uint8Array[] | undefined {
  if (checkFrame(value) !== LAYOUT_PACK) return [value]
  const values: Uint8Array[] = []
  let hash = previous
  for (const { record, body } of takePack(value)) {
    openFrame(scratch, LAYOUT_RECORD, hash)
    if (body !== undefined) scratch.raw(body)
    else if (record.kind === 'writes') putWrites(scratch, record.first, record.time, record.sections)
    hash = sha256(scratch.bytes.subarray(HASH_AT, scratch.at))
    scratch.bytes.set(hash, HASH_AT)
    values.push(closeFrame(scratch))
  }
  return equal(hash, readHeader(value).hash) ? values : undefined
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}

function entriesOf(value: Uint8Array): Entry[] {
  if (checkFrame(value) === LAYOUT_PACK) return takePack(value)
  const body = value.subarray(BODY_AT)
  const record = decodeBody(body)
  return [record.kind === 'writes' ? { record } : { record, body }]
}

function encodePack(entries: readonly Entry[], hash: Uint8Array): Uint8Array {
  const shapes = new Shapes()
  const sections: WriteSection[] = []
  let bits = 0
  for (const { record } of entries) {
    shapes.add(record)
    if (record.kind !== 'writes') continue
    for (const section of record.sections) {
      bits = alignmentOf(section.columns.offsets, section.columns.lengths, bits)
      sections.push(section)
    }
  }
  const shift = shiftOf(bits)
  const firstRecord = entries[0]!.record
  const lastRecord = entries[entries.length - 1]!.record
  const count = lastRecord.first + lastRecord.count - firstRecord.first
  const { first, time } = firstRecord
  openFrame(scratch, LAYOUT_PACK, hash)
  putHead(scratch, {
    version: PACK_VERSION,
    kind: KIND_PACK,
    first,
    time,
    lastTime: lastRecord.lastTime,
    count,
  })
  scratch.varint(entries.length)
  shapes.put(scratch, shift)
  let last = time
  for (const { record } of entries) {
    scratch.varint(record.time - last)
    last = record.lastTime
  }
  for (const section of sections) putLengths(scratch, section.columns.lengths, shift)
  const ends = new Map<number, number>()
  for (const { disk, columns } of sections) {
    ends.set(disk, putOffsets(scratch, columns.offsets, columns.lengths, shift, ends.get(disk) ?? 0))
  }
  putAllOps(sections)
  for (const { body } of entries) {
    if (body === undefined) continue
    scratch.varint(body.length)
    scratch.raw(body)
  }
  for (const { record } of entries) if (record.kind === 'writes') putRecordTimes(record)
  return closeFrame(scratch)
}

function putAllOps(sections: readonly WriteSection[]): void {
  const rows = sections.reduce((sum, section) => sum + section.columns.offsets.length, 0)
  const ops = new Uint8Array(rows)
  let at = 0
  for (const { columns } of sections) {
    if (columns.ops !== undefined) ops.set(columns.ops, at)
    at += columns.offsets.length
  }
  const any = hasOps(ops, rows)
  scratch.byte(any ? 1 : 0)
  if (any) putOps(scratch, ops)
}

function putRecordTimes(record: WritesRecord): void {
  let last = record.time
  for (const { columns } of record.sections) {
    if (columns.times !== undefined) last = putTimes(scratch, columns.times, last)
  }
}

/** The value's checksum has been checked. */
export function decodePack(value: Uint8Array): LogRecord[] {
  return takePack(value).map((entry) => entry.record)
}

/** Where the chain stands between two records. */
export interface ChainStep {
  /** Position after the record. */
  readonly next: number
  readonly hash: Uint8Array
}

/** Walks the chain through a pack: every body as it was, hashed in turn. Throws RecordDamage or RecordTooNew. */
export function hashesInPack(value: Uint8Array, previous: Uint8Array): readonly ChainStep[] {
  let hash = previous
  return takePack(value).map(({ record, body }) => {
    openFrame(scratch, LAYOUT_RECORD, hash)
    if (body !== undefined) scratch.raw(body)
    else if (record.kind === 'writes') putWrites(scratch, record.first, record.time, record.sections)
    hash = sha256(scratch.bytes.subarray(HASH_AT, scratch.at))
    return { next: record.first + record.count, hash }
  })
}

export function chainOfPack(value: Uint8Array, previous: Uint8Array): Uint8Array {
  const steps = hashesInPack(value, previous)
  return steps[steps.length - 1]!.hash
}

function takePack(value: Uint8Array): Entry[] {
  const from = new Reader(value, BODY_AT)
  const head = takeHead(from)
  if (head.version > PACK_VERSION) throw new RecordTooNew('pack', head.version, PACK_VERSION)
  if (head.kind !== KIND_PACK) throw new RecordDamage('format', `a pack of kind ${head.kind}`)
  const records = from.count(1)
  const layout = takeShapes(from, records)
  const { shift, shapes } = layout
  if (shift > SHIFT_MAX) throw new RecordDamage('format', `shift ${shift}`)
  const gaps = new Float64Array(records)
  for (let i = 0; i < records; i++) gaps[i] = from.varint()
  if (layout.rows * 2 > from.left)
    throw new RecordDamage('length', `announces ${layout.rows} writes, has ${from.left} bytes left`)
  const sections = takeRows(from, layout.rows, shift, shapes)
  const blobs = shapes.filter((shape) => shape.length === 0).map(() => from.take(from.varint()))
  const entries = assemble(from, head.first, head.time, shapes, gaps, sections, blobs)
  from.end()
  const last = entries[entries.length - 1]?.record
  if (
    last === undefined ||
    last.first + last.count !== head.first + head.count ||
    last.lastTime !== head.lastTime
  ) {
    throw new RecordDamage('format', 'the records are not those announced')
  }
  return entries
}

/** One section's rows, without times, for every section of every record in order. */
function takeRows(from: Reader, rows: number, shift: number, shapes: readonly Shape[]): WriteSection[] {
  const lengths = new Float64Array(rows)
  const offsets = new Float64Array(rows)
  takeLengths(from, lengths)
  const ends = new Map<number, number>()
  const spans: { disk: number; offsets: Float64Array; lengths: Float64Array; at: number }[] = []
  let at = 0
  for (const shape of shapes) {
    for (const { disk, rows: count } of shape) {
      const span = {
        disk,
        offsets: offsets.subarray(at, at + count),
        lengths: lengths.subarray(at, at + count),
        at,
      }
      ends.set(disk, takeOffsets(from, span.offsets, span.lengths, shift, ends.get(disk) ?? 0))
      spans.push(span)
      at += count
    }
  }
  const flag = from.byte()
  if (flag > 1) throw new RecordDamage('format', `flag ${flag} before the ops`)
  const ops = flag === 1 ? takeOps(from, rows) : undefined
  return spans.map((span) => {
    const own = ops?.subarray(span.at, span.at + span.offsets.length)
    const needed = own?.some((op) => op !== 0) === true ? own : undefined
    return { disk: span.disk, columns: columnsOf(span.offsets, span.lengths, needed, undefined) }
  })
}

function assemble(
  from: Reader,
  first: number,
  time: number,
  shapes: readonly Shape[],
  gaps: Float64Array,
  rows: readonly WriteSection[],
  blobs: readonly Uint8Array[],
): Entry[] {
  const entries: Entry[] = []
  let next = first
  let last = time
  let section = 0
  let blob = 0
  shapes.forEach((shape, i) => {
    const start = last + gaps[i]!
    let entry: Entry
    if (shape.length === 0) {
      const body = blobs[blob++]!
      entry = { record: decodeBody(body), body }
    } else {
      entry = { record: recordOf(from, next, start, shape, rows.slice(section, section + shape.length)) }
      section += shape.length
    }
    if (entry.record.first !== next || entry.record.time !== start)
      throw new RecordDamage('format', 'a record is out of place')
    next += entry.record.count
    last = entry.record.lastTime
    entries.push(entry)
  })
  return entries
}

function recordOf(
  from: Reader,
  first: number,
  time: number,
  shape: Shape,
  rows: readonly WriteSection[],
): WritesRecord {
  let lastTime = time
  let count = 0
  const sections = rows.map((section, i) => {
    const { offsets, lengths, ops } = section.columns
    count += offsets.length
    if (!shape[i]!.times) {
      if (lastTime !== time) throw new RecordDamage('format', 'time goes back between two sections')
      return section
    }
    const times = new Float64Array(offsets.length)
    lastTime = takeTimes(from, times, lastTime)
    return { disk: section.disk, columns: columnsOf(offsets, lengths, ops, times) }
  })
  return { kind: 'writes', first, count, time, lastTime, sections }
}
