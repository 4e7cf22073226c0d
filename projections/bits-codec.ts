/**
 * A bitmap's bits as bytes, to be kept beside the log: small when the bits are few or lie together, never more than the
 * bits themselves plus a few bytes. Decoding 2 MiB of random bits costs about 2 ms.
 *
 *   'SB' | version u8 = 1 | log2 granularity u8 | size u64le | chunks… | crc32 u32le over all before
 *   chunk: 0 count    that many chunks without bits          2 n, n × u16             set bits, ascending
 *          1 count    that many chunks with every bit        3 n, n × (u16 u16)       runs: first bit, length - 1
 *          5 mask, words         words that are not 0         4 words                  the bits as they are
 *
 * Counts are LEB128; a mask has a bit for each of the chunk's 2048 words. The last chunk's words are cut to the granules there are. A value is checked before it is believed:
 * the checksum first, then every count against what is left.
 */
import { crc32 } from 'node:zlib'
import { DirtyBitmap } from './bitmap.ts'
import { CHUNK_BITS, CHUNK_WORDS, eachRun, FULL, popcount, setBits, type Words } from './words.ts'

const VERSION = 1
const HEADER_BYTES = 12
const CHECKSUM_BYTES = 4

const EMPTY_CHUNKS = 0
const FULL_CHUNKS = 1
const SPARSE = 2
const RUNS = 3
const RAW = 4
const WORDS = 5
const MASK_BYTES = CHUNK_WORDS / 8
/** More words than this that are not 0: listing their bits one by one would take ten times as long as copying them. */
const MANY_WORDS = CHUNK_WORDS / 4

/** Encoded bits that fail a check: they are rebuilt from the log, never used (R28). */
export class BitsDamage extends Error {
  override readonly name = 'BitsDamage'
  readonly problem: 'length' | 'checksum' | 'version' | 'format'
  constructor(problem: BitsDamage['problem'], message: string) {
    super(message)
    this.problem = problem
  }
}

/** The bitmap as bytes, with its size and granularity. */
export function encodeBits(bitmap: DirtyBitmap): Uint8Array {
  // Room for every chunk as it is, at once, instead of growing to it by doubling.
  const out = new Writer(HEADER_BYTES + 64 + bitmap.wordsBytes() + bitmap.chunkCount)
  out.byte(0x53)
  out.byte(0x42)
  out.byte(VERSION)
  out.byte(Math.log2(bitmap.granularity))
  out.u32(bitmap.size % 2 ** 32)
  out.u32(Math.floor(bitmap.size / 2 ** 32))
  let repeated = 0
  let kind = EMPTY_CHUNKS
  const flush = (): void => {
    if (repeated > 0) {
      out.byte(kind)
      out.count(repeated)
    }
    repeated = 0
  }
  for (let at = 0; at < bitmap.chunkCount; at++) {
    const words = bitmap.chunkAt(at) as Words | undefined
    const many = words === undefined || words === FULL ? 0 : countWords(words)
    if (many > MANY_WORDS && many < CHUNK_WORDS) {
      flush()
      encodeMany(out, words!, many, wordsOf(bitmap, at))
      continue
    }
    const bits = words === undefined ? 0 : words === FULL ? CHUNK_BITS : popcount(words)
    if (bits === 0 || bits === CHUNK_BITS) {
      const now = bits === 0 ? EMPTY_CHUNKS : FULL_CHUNKS
      if (now !== kind) flush()
      kind = now
      repeated++
    } else {
      flush()
      encodeChunk(out, words!, bits, wordsOf(bitmap, at))
    }
  }
  flush()
  out.u32(crc32(out.bytes()))
  return out.finish()
}

/**
 * The bitmap that `encodeBits` was given.
 * @throws BitsDamage if the bytes are not exactly what it gave
 */
export function decodeBits(bytes: Uint8Array): DirtyBitmap {
  if (bytes.length < HEADER_BYTES + CHECKSUM_BYTES)
    throw new BitsDamage('length', `${bytes.length} bytes are too few`)
  const end = bytes.length - CHECKSUM_BYTES
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (crc32(bytes.subarray(0, end)) !== view.getUint32(end, true))
    throw new BitsDamage('checksum', 'the checksum differs')
  if (view.getUint16(0) !== 0x5342) throw new BitsDamage('format', 'these are not encoded bits')
  if (view.getUint8(2) !== VERSION)
    throw new BitsDamage('version', `format version ${view.getUint8(2)} is unknown`)
  const bitmap = blank(view.getUint32(4, true) + view.getUint32(8, true) * 2 ** 32, view.getUint8(3))
  const reader = new Reader(bytes, HEADER_BYTES, end)
  let at = 0
  while (at < bitmap.chunkCount) at += decodeChunks(reader, bitmap, at)
  if (!reader.done) throw new BitsDamage('length', 'bytes follow the last chunk')
  return bitmap
}

function blank(size: number, log2: number): DirtyBitmap {
  try {
    return new DirtyBitmap(size, 2 ** log2)
  } catch (cause) {
    throw new BitsDamage('format', cause instanceof Error ? cause.message : String(cause))
  }
}

/** How many words of chunk `at` the disk has. */
function wordsOf(bitmap: DirtyBitmap, at: number): number {
  return Math.min(CHUNK_WORDS, Math.ceil((bitmap.granules - at * CHUNK_BITS) / 32))
}

/** 1 for a word that is not 0: without a branch, as no processor guesses which words of a random chunk are. */
function isSome(word: number): number {
  return (word | -word) >>> 31
}

/** Words that are not 0. */
function countWords(words: Words): number {
  let count = 0
  for (let i = 0; i < CHUNK_WORDS; i++) count += isSome(words[i]!)
  return count
}

/** Writes a chunk with many words that are not 0: those alone, unless all of them take less than a third more. */
function encodeMany(out: Writer, words: Words, many: number, rawWords: number): void {
  if (rawWords * 3 <= many * 4 + MASK_BYTES) {
    out.byte(RAW)
    out.copy(new Uint8Array(words.buffer, words.byteOffset, rawWords * 4))
    return
  }
  out.byte(WORDS)
  let next = 0
  for (let at = 0; at < packedMask.length; at++) {
    let mask = 0
    for (let i = 0; i < 32; i++) {
      const word = words[at * 32 + i]!
      const some = isSome(word)
      packed[next] = word
      mask |= some << i
      next += some
    }
    packedMask[at] = mask
  }
  out.copy(new Uint8Array(packedMask.buffer))
  out.copy(new Uint8Array(packed.buffer, 0, many * 4))
}

/** Reused for every chunk. */
const packed: Words = new Int32Array(CHUNK_WORDS + 1)
const packedMask: Words = new Int32Array(CHUNK_WORDS / 32)

/** Writes a chunk with some bits as they are, unless another way saves at least a quarter: raw is 10 times as fast. */
function encodeChunk(out: Writer, words: Words, bits: number, rawWords: number): void {
  const runs = countRuns(words)
  if (rawWords * 3 <= Math.min(bits * 2, runs * 4)) {
    out.byte(RAW)
    out.copy(new Uint8Array(words.buffer, words.byteOffset, rawWords * 4))
  } else if (bits * 2 <= runs * 4) {
    out.byte(SPARSE)
    out.count(bits)
    out.positions(words, bits)
  } else {
    out.byte(RUNS)
    out.count(runs)
    eachRun([words], CHUNK_BITS, (first, stop) => {
      out.u16(first)
      out.u16(stop - first - 1)
    })
  }
}

/** Reused for every chunk. */
const runStarts: Words = new Int32Array(CHUNK_WORDS)

/** How many runs of set bits: each begins where a bit is set and the one before is not. */
function countRuns(words: Words): number {
  let carry = 0
  for (let i = 0; i < 2048; i++) {
    const w = words[i]!
    runStarts[i] = w & ~((w << 1) | carry)
    carry = w >>> 31
  }
  return popcount(runStarts)
}

/** Reads one entry into chunk `at` and those after it; gives how many chunks it was. */
function decodeChunks(reader: Reader, bitmap: DirtyBitmap, at: number): number {
  const kind = reader.byte()
  if (kind === EMPTY_CHUNKS || kind === FULL_CHUNKS) {
    const count = reader.count(bitmap.chunkCount - at)
    if (kind === FULL_CHUNKS) for (let i = 0; i < count; i++) adopt(bitmap, at + i, FULL)
    return count
  }
  const words: Words = new Int32Array(CHUNK_WORDS)
  if (kind === SPARSE) decodeSparse(reader, words)
  else if (kind === RUNS) decodeRuns(reader, words)
  else if (kind === WORDS) decodeWords(reader, words)
  else if (kind === RAW) new Uint8Array(words.buffer).set(reader.take(wordsOf(bitmap, at) * 4))
  else throw new BitsDamage('format', `chunk kind ${kind} is unknown`)
  adopt(bitmap, at, words)
  return 1
}

function decodeWords(reader: Reader, words: Words): void {
  new Uint8Array(packedMask.buffer).set(reader.take(MASK_BYTES))
  const many = popcount(packedMask)
  new Uint8Array(packed.buffer).set(reader.take(many * 4))
  let next = 0
  for (let at = 0; at < packedMask.length; at++) {
    const mask = packedMask[at]!
    for (let i = 0; i < 32; i++) {
      const some = (mask >>> i) & 1
      words[at * 32 + i] = packed[next]! & -some
      next += some
    }
  }
}

function decodeSparse(reader: Reader, words: Words): void {
  const count = reader.count(CHUNK_BITS)
  let previous = -1
  for (let i = 0; i < count; i++) {
    const bit = reader.u16()
    if (bit <= previous) throw new BitsDamage('format', 'set bits are out of order')
    words[bit >>> 5]! |= 1 << bit
    previous = bit
  }
}

function decodeRuns(reader: Reader, words: Words): void {
  const count = reader.count(CHUNK_BITS / 2)
  let previous = -1
  for (let i = 0; i < count; i++) {
    const first = reader.u16()
    const last = first + reader.u16()
    if (first <= previous || last >= CHUNK_BITS) throw new BitsDamage('format', 'runs are out of order')
    setBits(words, first, last)
    previous = last
  }
}

function adopt(bitmap: DirtyBitmap, at: number, words: Words): void {
  try {
    bitmap.adoptChunk(at, words)
  } catch {
    throw new BitsDamage('format', 'bits lie beyond the end of the disk')
  }
}

/** Bytes that grow as they are written. */
class Writer {
  #bytes: Uint8Array
  #length = 0

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity)
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** What was written, without a copy unless that would hold on to much more memory than it needs. */
  finish(): Uint8Array {
    const bytes = this.bytes()
    return bytes.length * 4 < this.#bytes.length * 3 ? bytes.slice() : bytes
  }

  byte(value: number): void {
    this.#room(1)
    this.#bytes[this.#length++] = value
  }

  u16(value: number): void {
    this.#room(2)
    this.#bytes[this.#length++] = value
    this.#bytes[this.#length++] = value >>> 8
  }

  /** The positions of a chunk's set bits, of which there are `count`, as u16. One check for all. */
  positions(words: Words, count: number): void {
    this.#room(count * 2)
    const bytes = this.#bytes
    let at = this.#length
    for (let i = 0; i < 2048; i++) {
      for (let rest = words[i]!; rest !== 0; rest &= rest - 1) {
        const bit = i * 32 + 31 - Math.clz32(rest & -rest)
        bytes[at++] = bit
        bytes[at++] = bit >>> 8
      }
    }
    this.#length = at
  }

  u32(value: number): void {
    this.u16(value & 0xffff)
    this.u16(value >>> 16)
  }

  /** LEB128, below 2^28. */
  count(value: number): void {
    let rest = value
    for (; rest > 127; rest >>>= 7) this.byte((rest & 127) | 128)
    this.byte(rest)
  }

  copy(bytes: Uint8Array): void {
    this.#room(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  #room(more: number): void {
    if (this.#length + more <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + more))
    grown.set(this.bytes())
    this.#bytes = grown
  }
}

/** Bytes that refuse to be read past their end. */
class Reader {
  readonly #bytes: Uint8Array
  readonly #end: number
  #at: number

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes
    this.#at = at
    this.#end = end
  }

  get done(): boolean {
    return this.#at === this.#end
  }

  byte(): number {
    this.#need(1)
    return this.#bytes[this.#at++]!
  }

  u16(): number {
    this.#need(2)
    this.#at += 2
    return this.#bytes[this.#at - 2]! | (this.#bytes[this.#at - 1]! << 8)
  }

  take(bytes: number): Uint8Array {
    this.#need(bytes)
    this.#at += bytes
    return this.#bytes.subarray(this.#at - bytes, this.#at)
  }

  /** LEB128 from 1 to `most`. */
  count(most: number): number {
    let value = 0
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte()
      value |= (byte & 127) << shift
      if (byte < 128) {
        if (value >= 1 && value <= most) return value
        break
      }
    }
    throw new BitsDamage('format', `a count is not from 1 to ${most}`)
  }

  #need(bytes: number): void {
    if (this.#at + bytes > this.#end) throw new BitsDamage('length', 'the bytes end inside a chunk')
  }
}
