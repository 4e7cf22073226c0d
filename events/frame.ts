/**
 * The frame around every stored value: checksum, layout, chain hash. LevelDB (as classic-level opens it) serves a flipped
 * bit without a word, so nothing below this line is looked at before the checksum has passed.
 *
 *     value  = crc32:u32le | layout:u8 | hash:32 bytes | rest        crc32 over all that follows it
 *     layout = 1 record (rest = body) | 2 pack | 3 run
 *     head   = version:u8 | kind:u8 | first | time | lastTime - time | count        the start of every rest
 *     hash   = SHA-256(hash before | body); a pack carries the hash after its last record, a run that after the records it replaced
 *
 * The head's shape is fixed for ever, so that a newer record can still be named.
 */
import { hash as oneShot } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { RecordDamage, RecordTooNew } from './damage.ts'
import { Reader, type Writer } from './varint.ts'

export const HASH_BYTES = 32
/** Offset of the chain hash in a stored value; the hash before is put there while the new one is computed. */
export const HASH_AT = 5
export const BODY_AT = HASH_AT + HASH_BYTES

export const LAYOUT_RECORD = 1
export const LAYOUT_PACK = 2
export const LAYOUT_RUN = 3

/** The hash before the first record. */
export const EMPTY_HASH: Uint8Array = new Uint8Array(HASH_BYTES)

export interface Head {
  readonly version: number
  readonly kind: number
  readonly first: number
  readonly time: number
  readonly lastTime: number
  readonly count: number
}

export interface StoredHeader {
  readonly first: number
  readonly count: number
  /** How many records the value holds: 1, or more in a pack. A run counts as one. */
  readonly records: number
  readonly time: number
  readonly lastTime: number
  /** After the value's last record. */
  readonly hash: Uint8Array
  readonly version: number
  readonly layout: 'record' | 'pack' | 'run'
}

export function sha256(bytes: Uint8Array): Uint8Array {
  const digest = oneShot('sha256', bytes, 'buffer')
  return new Uint8Array(digest.buffer, digest.byteOffset, digest.byteLength)
}

/** Starts a value in `out`; the hash's place holds `previous` until `closeFrame`. */
export function openFrame(out: Writer, layout: number, hash: Uint8Array): void {
  if (hash.length !== HASH_BYTES)
    throw new RangeError(`a chain hash has ${HASH_BYTES} bytes, got ${hash.length}`)
  out.at = 0
  out.reserve(BODY_AT)
  out.bytes.fill(0, 0, 4)
  out.bytes[4] = layout
  out.bytes.set(hash, HASH_AT)
  out.at = BODY_AT
}

/** Puts the checksum in and copies the value out. */
export function closeFrame(out: Writer): Uint8Array {
  const sum = crc32(out.bytes.subarray(4, out.at))
  out.bytes[0] = sum
  out.bytes[1] = sum >>> 8
  out.bytes[2] = sum >>> 16
  out.bytes[3] = sum >>> 24
  return out.bytes.slice(0, out.at)
}

/** Refuses a value whose checksum is wrong, then one of an unknown layout. Returns the layout. */
export function checkFrame(value: Uint8Array): number {
  if (value.length < BODY_AT)
    throw new RecordDamage('length', `a value of ${value.length} bytes is too short`)
  const stored = (value[0]! | (value[1]! << 8) | (value[2]! << 16) | (value[3]! << 24)) >>> 0
  if (crc32(value.subarray(4)) !== stored) throw new RecordDamage('checksum', 'the checksum does not match')
  return layoutOf(value)
}

export function layoutOf(value: Uint8Array): number {
  if (value.length < BODY_AT)
    throw new RecordDamage('length', `a value of ${value.length} bytes is too short`)
  const layout = value[4]!
  if (layout === 0) throw new RecordDamage('format', 'layout 0')
  if (layout > LAYOUT_RUN) throw new RecordTooNew('layout', layout, LAYOUT_RUN)
  return layout
}

export function putHead(out: Writer, head: Head): void {
  out.byte(head.version)
  out.byte(head.kind)
  out.varint(head.first)
  out.varint(head.time)
  out.varint(head.lastTime - head.time)
  out.varint(head.count)
}

export function takeHead(from: Reader): Head {
  const version = from.byte()
  const kind = from.byte()
  const first = from.varint()
  const time = from.varint()
  const lastTime = time + from.varint()
  const count = from.varint()
  if (version === 0) throw new RecordDamage('format', 'version 0')
  if (count === 0) throw new RecordDamage('format', 'holds no event')
  if (first + count > Number.MAX_SAFE_INTEGER || lastTime > Number.MAX_SAFE_INTEGER) {
    throw new RecordDamage('format', 'position or time beyond 2^53')
  }
  return { version, kind, first, time, lastTime, count }
}

/** What a value is, without looking at its checksum or content: cheap enough for every step of a bisection. */
export function readHeader(value: Uint8Array): StoredHeader {
  const layout = layoutOf(value)
  const from = new Reader(value, BODY_AT)
  const head = takeHead(from)
  const records = layout === LAYOUT_PACK ? from.varint() : 1
  return {
    first: head.first,
    count: head.count,
    records,
    time: head.time,
    lastTime: head.lastTime,
    // Not slice: of a Buffer it would alias.
    hash: new Uint8Array(value.subarray(HASH_AT, BODY_AT)),
    version: head.version,
    layout: layout === LAYOUT_PACK ? 'pack' : layout === LAYOUT_RUN ? 'run' : 'record',
  }
}
