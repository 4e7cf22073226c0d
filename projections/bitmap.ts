/**
 * The dirty bitmap: one bit per granule of a disk, set where a write touched (R2). The fold everything else rests on.
 *
 *   chunks:  [ 8 KiB ][ none ][ FULL ][ 8 KiB ]   one per 65536 granules, made when first touched
 *
 * A chunk that is absent holds no bit; FULL is one shared chunk for stretches that are dirty throughout. So a bitmap
 * costs 8 KiB per touched 65536 granules (at 64 KiB granularity: per 4 GiB of disk), at most 2 MiB for 1 TiB.
 * Setting a bit costs some ns, whatever the disk's size; counting, joining and digesting cost a pass over the chunks.
 * Invariant: no bit at or beyond `granules` is ever set, so counts and digests need no masking.
 *
 * Granule numbers go up to 2^32 - 1: they are kept as doubles or unsigned (`>>>`). Bytes become granules by multiplying
 * with 1/granularity, which is exact because it is a power of two.
 */
import { createHash } from 'node:crypto'
import type { Extent, WriteColumns } from '../events/types.ts'
import {
  andNotWords,
  andWords,
  CHUNK_BITS,
  CHUNK_BYTES,
  CHUNK_WORDS,
  clearFrom,
  EMPTY,
  eachRun,
  FULL,
  findEdges,
  isZero,
  nextClear,
  nextSet,
  orWords,
  popcount,
  sameWords,
  setBits,
  type Words,
} from './words.ts'

const GRANULARITY_MIN = 512
const GRANULARITY_MAX = 2 ** 31
const GRANULES_MAX = 2 ** 32

/** The digest is defined on bytes in little-endian order, and chunks are hashed as they lie in memory. */
if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1)
  throw new Error('slicelog needs a little-endian machine')

/** Throws RangeError unless `granularity` is a power of two from 512 to 2 GiB. */
export function checkGranularity(granularity: number): void {
  const inRange = granularity >= GRANULARITY_MIN && granularity <= GRANULARITY_MAX
  if (!inRange || !Number.isInteger(Math.log2(granularity))) {
    throw new RangeError(
      `granularity must be a power of two from 512 to 2147483648 bytes, got ${granularity}`,
    )
  }
}

/** How many granules a disk of `size` bytes has. RangeError: no size, or more than 2^32 granules. */
export function granulesOf(size: number, granularity: number): number {
  if (!Number.isSafeInteger(size) || size < 0)
    throw new RangeError(`size must be a safe integer >= 0, got ${size}`)
  const granules = Math.ceil(size / granularity)
  if (granules > GRANULES_MAX) {
    throw new RangeError(`${size} bytes at granularity ${granularity} are more than 2^32 granules`)
  }
  return granules
}

export class DirtyBitmap {
  /** Bytes per granule. */
  readonly granularity: number
  #size: number
  #granules: number
  /** One entry per 65536 granules; `undefined` has no bit set. */
  #chunks: (Words | undefined)[]
  /** Dirty granules, or -1 when a change made it unknown. */
  #dirty = 0

  /**
   * An empty bitmap.
   * @param size the disk's, in bytes: a safe integer >= 0
   * @param granularity bytes per granule: a power of two from 512 to 2 GiB
   * @throws RangeError for anything else, or more than 2^32 granules
   */
  constructor(size: number, granularity: number) {
    checkGranularity(granularity)
    this.#granules = granulesOf(size, granularity)
    this.granularity = granularity
    this.#size = size
    this.#chunks = noChunks(this.#granules)
  }

  /** A new bitmap with the bits of all given ones (at least one); size and granularity are the first one's. */
  static union(bitmaps: readonly DirtyBitmap[]): DirtyBitmap {
    const first = bitmaps[0]
    if (first === undefined) throw new RangeError('a union needs at least one bitmap')
    const all = new DirtyBitmap(first.size, first.granularity)
    all.orAll(bitmaps)
    return all
  }

  /** The disk's size in bytes. */
  get size(): number {
    return this.#size
  }

  /** How many granules the disk has; the last one may reach beyond its end. */
  get granules(): number {
    return this.#granules
  }

  /**
   * Sets every granule that the bytes touch (R2). A length of 0 sets nothing. Bytes beyond the end have no granule: they
   * are passed over, as callers refuse them before (R1).
   * @throws RangeError unless offset and length are safe integers >= 0
   */
  setRange(offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
      throw new RangeError(`offset and length must be safe integers >= 0, got ${offset}+${length}`)
    }
    if (length > 0) this.#setBytes(offset, length)
  }

  /**
   * Sets every granule that rows from…to (exclusive) touch: the hot path of recording and rebuilding. Rows are valid
   * (R1); one that is not, or lies beyond the end, sets what granules it has and never anything else's memory.
   */
  setColumns(columns: WriteColumns, from = 0, to: number = columns.offsets.length): void {
    const { offsets, lengths } = columns
    const chunks = this.#chunks
    const perByte = 1 / this.granularity
    const limit = this.#granules * this.granularity
    const stop = Math.min(to, offsets.length, lengths.length)
    let at = -1
    let words = EMPTY
    this.#dirty = -1
    for (let i = from; i < stop; i++) {
      const offset = offsets[i]!
      const end = offset + lengths[i]!
      if (!(offset >= 0 && offset < end && end <= limit)) {
        this.#setBytes(offset, end - offset)
        at = -1
        continue
      }
      const first = (offset * perByte) >>> 0
      const last = ((end - 1) * perByte) >>> 0
      if (first >>> 16 !== at) {
        at = first >>> 16
        words = chunks[at] ?? this.#make(at)
      }
      const word = (first >>> 5) & 2047
      // No branch for a single granule: half of all writes would be guessed wrong.
      if (first >>> 5 === last >>> 5) {
        words[word]! |= (-1 << first) & (-1 >>> (31 - (last & 31)))
      } else {
        this.#setRun(first, last)
        at = -1 // The run may have replaced the chunk.
      }
    }
  }

  /**
   * As `setColumns`, and counts what was new: granules that got dirty, and rows that found all of theirs dirty already (or
   * have none). About three times as slow.
   */
  setColumnsNew(
    columns: WriteColumns,
    from: number,
    to: number,
    counted: { granules: number; rows: number },
  ): void {
    const perByte = 1 / this.granularity
    for (let i = from; i < to; i++) {
      const offset = columns.offsets[i]!
      const first = Math.floor(offset * perByte)
      const last = Math.min(this.#granules - 1, Math.floor((offset + columns.lengths[i]! - 1) * perByte))
      let fresh = 0
      if (first === last) fresh = this.has(first) ? 0 : 1
      else {
        for (let clean = this.nextClean(first); clean <= last; ) {
          const stop = Math.min(this.nextDirty(clean), last + 1)
          fresh += stop - clean
          clean = this.nextClean(stop)
        }
      }
      if (fresh === 0) counted.rows++
      else {
        counted.granules += fresh
        this.#setRun(first, last)
      }
    }
  }

  /** Sets granules first…last, inclusive. RangeError unless 0 <= first <= last < granules. */
  setGranules(first: number, last: number): void {
    const whole = Number.isInteger(first) && Number.isInteger(last)
    if (!whole || first < 0 || first > last || last >= this.#granules) {
      throw new RangeError(`granules ${first}…${last} are not among 0…${this.#granules - 1}`)
    }
    this.#setRun(first, last)
  }

  /** Sets every granule of the disk. */
  setAll(): void {
    if (this.#granules > 0) this.#setRun(0, this.#granules - 1)
  }

  /** Clears every granule. */
  clear(): void {
    this.#chunks = noChunks(this.#granules)
    this.#dirty = 0
  }

  /** Whether the granule is dirty; one outside the disk is not. */
  has(granule: number): boolean {
    if (!(granule >= 0 && granule < this.#granules)) return false
    const words = this.#chunks[granule >>> 16]
    return words !== undefined && ((words[(granule >>> 5) & 2047]! >>> granule) & 1) === 1
  }

  get isEmpty(): boolean {
    if (this.#dirty >= 0) return this.#dirty === 0
    for (const words of this.#chunks) if (words !== undefined && !isZero(words)) return false
    return true
  }

  /** How many granules are dirty. Counted when asked after a change (1 ms for 1 TiB at 64 KiB), then remembered. */
  get dirtyGranules(): number {
    if (this.#dirty < 0) {
      let total = 0
      for (const words of this.#chunks) {
        if (words === FULL) total += CHUNK_BITS
        else if (words !== undefined) total += popcount(words)
      }
      this.#dirty = total
    }
    return this.#dirty
  }

  /** Dirty granules × granularity, in bytes (R5): not cut at the end of the disk, so it may exceed the disk. */
  get count(): number {
    return this.dirtyGranules * this.granularity
  }

  /** Bytes of all extents: the count, cut at the end of the disk. */
  get dirtyBytes(): number {
    const beyond = this.#granules * this.granularity - this.#size
    return this.has(this.#granules - 1) ? this.count - beyond : this.count
  }

  /** Joins `other` into this one, as QEMU's merge does: see `orAll`. */
  or(other: DirtyBitmap): void {
    this.orAll([other])
  }

  /**
   * Joins all others into this one, in one pass (R4). With another granularity, each dirty run of the source, cut at the
   * end of the disk, is set like a write. Itself and nothing change nothing.
   * @throws RangeError, before any change, if one is of another size
   */
  orAll(others: readonly DirtyBitmap[]): void {
    const alike: DirtyBitmap[] = []
    for (const other of others) {
      if (other.#size !== this.#size) {
        throw new RangeError(
          `bitmaps are of different sizes (${this.#size} and ${other.#size} bytes) and can't be merged`,
        )
      }
      if (other !== this && other.granularity === this.granularity) alike.push(other)
    }
    if (alike.length > 0) this.#orAlike(alike)
    for (const other of others) if (other.granularity !== this.granularity) this.#orUnlike(other)
  }

  /** Keeps only what `other` has too. RangeError unless it is of the same size and granularity. */
  and(other: DirtyBitmap): void {
    this.#sameShape(other)
    for (let at = 0; at < this.#chunks.length; at++) {
      const words = this.#chunks[at]
      const mask = other.#chunks[at]
      if (words === undefined || mask === FULL) continue
      if (mask === undefined) this.#chunks[at] = undefined
      else andWords(words === FULL ? this.#own(at) : words, mask)
    }
    this.#dirty = -1
  }

  /** Takes away what `other` has. RangeError unless it is of the same size and granularity. */
  andNot(other: DirtyBitmap): void {
    this.#sameShape(other)
    for (let at = 0; at < this.#chunks.length; at++) {
      const words = this.#chunks[at]
      const mask = other.#chunks[at]
      if (words === undefined || mask === undefined) continue
      if (mask === FULL) this.#chunks[at] = undefined
      else andNotWords(words === FULL ? this.#own(at) : words, mask)
    }
    this.#dirty = -1
  }

  #sameShape(other: DirtyBitmap): void {
    if (other.#size !== this.#size || other.granularity !== this.granularity)
      throw new RangeError('bitmaps of different sizes or granularities have no bits in common to name')
  }

  /**
   * Follows a resize of the disk (R7): granules wholly beyond the new end are dropped, one that is cut keeps its bit (and
   * shows its full length again when the disk grows), growth is clean.
   * @throws RangeError for a bad size, before any change
   */
  resize(size: number): void {
    const granules = granulesOf(size, this.granularity)
    const before = this.#granules
    this.#size = size
    this.#granules = granules
    if (granules === before) return
    const count = Math.ceil(granules / CHUNK_BITS)
    if (granules < before) {
      this.#dirty = -1
      this.#chunks.length = count
      const words = this.#chunks[count - 1]
      const rest = granules % CHUNK_BITS
      if (rest !== 0 && words !== undefined) clearFrom(words === FULL ? this.#own(count - 1) : words, rest)
    }
    while (this.#chunks.length < count) this.#chunks.push(undefined)
  }

  /** A bitmap of its own with the same bits. Costs a copy of the touched chunks. */
  clone(): DirtyBitmap {
    const copy = new DirtyBitmap(this.#size, this.granularity)
    copy.#chunks = this.#chunks.map((words) =>
      words === undefined || words === FULL ? words : words.slice(),
    )
    copy.#dirty = this.#dirty
    return copy
  }

  /** The first dirty granule at or after `from`, or `granules` if there is none. */
  nextDirty(from: number): number {
    let bit = from % CHUNK_BITS
    for (let at = Math.floor(from / CHUNK_BITS); at < this.#chunks.length; at++, bit = 0) {
      const words = this.#chunks[at]
      const found = words === undefined ? CHUNK_BITS : nextSet(words, bit)
      if (found < CHUNK_BITS) return at * CHUNK_BITS + found
    }
    return this.#granules
  }

  /** The first clean granule at or after `from`, or `granules` if there is none. */
  nextClean(from: number): number {
    let bit = from % CHUNK_BITS
    for (let at = Math.floor(from / CHUNK_BITS); at < this.#chunks.length; at++, bit = 0) {
      const words = this.#chunks[at]
      if (words === FULL) continue
      const found = words === undefined ? bit : nextClear(words, bit)
      if (found < CHUNK_BITS) return Math.min(at * CHUNK_BITS + found, this.#granules)
    }
    return this.#granules
  }

  /**
   * The granule behind each run of equal bits in granules from…to (exclusive): fills `ends`, and returns how many. The first run is as
   * granule `from` is, then they take turns; the last one is cut at `to`. The cheapest way to a million of them, clean ones too.
   * @throws RangeError unless 0 <= from < to <= granules
   */
  runEnds(from: number, to: number, ends: Float64Array<ArrayBuffer>): number {
    const whole = Number.isInteger(from) && Number.isInteger(to)
    if (!whole || from < 0 || from >= to || to > this.#granules)
      throw new RangeError(`granules from ${from} to ${to} are no stretch of ${this.#granules}`)
    let found = findEdges(this.#chunks, from, to, ends)
    while (found > 0 && ends[found - 1]! >= to) found--
    if (found < ends.length) ends[found++] = to
    return found
  }

  /** The dirty runs in bytes: ascending, touching runs joined, cut at the end of the disk. */
  *extents(): Generator<Extent> {
    for (let first = this.nextDirty(0); first < this.#granules; ) {
      const stop = this.nextClean(first)
      yield this.#extent(first, stop)
      first = this.nextDirty(stop)
    }
  }

  /** Calls `visit` with every extent, ascending: the cheapest way to a million of them. */
  eachExtent(visit: (offset: number, length: number) => void): void {
    eachRun(this.#chunks, this.#granules, (first, stop) => {
      const offset = first * this.granularity
      visit(offset, Math.min(stop * this.granularity, this.#size) - offset)
    })
  }

  /** All of `extents()` at once. */
  extentList(): Extent[] {
    const list: Extent[] = []
    eachRun(this.#chunks, this.#granules, (first, stop) => list.push(this.#extent(first, stop)))
    return list
  }

  /**
   * QEMU's digest (R5), in hex: SHA-256 over the bit array, granule 0 = lowest bit of byte 0, padded with zeros to a
   * multiple of 8 bytes. Costs about 1.5 ms per TiB at 64 KiB.
   */
  digest(): string {
    const hash = createHash('sha256')
    let left = Math.ceil(this.#granules / 64) * 8
    for (const words of this.#chunks) {
      const bytes = Math.min(left, CHUNK_BYTES)
      hash.update(new Uint8Array((words ?? EMPTY).buffer, 0, bytes))
      left -= bytes
    }
    return hash.digest('hex')
  }

  /** Same size, granularity and bits. */
  equals(other: DirtyBitmap): boolean {
    if (this.#size !== other.#size || this.granularity !== other.granularity) return false
    return this.#chunks.every((words, at) => sameWords(words ?? EMPTY, other.#chunks[at] ?? EMPTY))
  }

  /** Bytes of memory that the bits hold. */
  wordsBytes(): number {
    let own = 0
    for (const words of this.#chunks) if (words !== undefined && words !== FULL) own++
    return own * CHUNK_BYTES
  }

  /** How many chunks of 65536 granules there are, touched or not. For the codec. */
  get chunkCount(): number {
    return this.#chunks.length
  }

  /** The words of a chunk, to be read only; undefined if no bit was ever set in it. For the codec. */
  chunkAt(at: number): Readonly<Words> | undefined {
    return this.#chunks[at]
  }

  /** Makes `words` the chunk `at`, without a copy. RangeError if a bit lies beyond the disk's end. For the codec. */
  adoptChunk(at: number, words: Words): void {
    const last = this.#granules - at * CHUNK_BITS
    const fits = words.length === CHUNK_WORDS && words.byteOffset === 0 && at < this.#chunks.length
    if (!fits || (last < CHUNK_BITS && nextSet(words, last) < CHUNK_BITS)) {
      throw new RangeError(`chunk ${at} does not fit a bitmap of ${this.#granules} granules`)
    }
    this.#chunks[at] = words
    this.#dirty = -1
  }

  #extent(first: number, stop: number): Extent {
    const offset = first * this.granularity
    return [offset, Math.min(stop * this.granularity, this.#size) - offset]
  }

  /** Bytes from anywhere, cut to the granules there are. */
  #setBytes(offset: number, length: number): void {
    const first = Math.max(0, Math.floor(offset / this.granularity))
    const last = Math.min(this.#granules - 1, Math.floor((offset + length - 1) / this.granularity))
    if (length > 0 && first <= last) this.#setRun(first, last)
  }

  /** Sets granules first…last, which exist. */
  #setRun(first: number, last: number): void {
    this.#dirty = -1
    const lastChunk = last >>> 16
    for (let at = first >>> 16; at <= lastChunk; at++) {
      const base = at * CHUNK_BITS
      const from = Math.max(first - base, 0)
      const to = Math.min(last - base, CHUNK_BITS - 1)
      if (from === 0 && to === CHUNK_BITS - 1) this.#chunks[at] = FULL
      else setBits(this.#chunks[at] ?? this.#make(at), from, to)
    }
  }

  #make(at: number): Words {
    const words = new Int32Array(CHUNK_WORDS)
    this.#chunks[at] = words
    return words
  }

  /** The chunk as one that may be changed in any way. */
  #own(at: number): Words {
    const words = (this.#chunks[at] ?? EMPTY).slice()
    this.#chunks[at] = words
    return words
  }

  #orAlike(others: readonly DirtyBitmap[]): void {
    const sources: Words[] = []
    for (let at = 0; at < this.#chunks.length; at++) {
      let target = this.#chunks[at]
      if (target === FULL) continue
      let count = 0
      let full = false
      for (const other of others) {
        const words = other.#chunks[at]
        if (words === FULL) full = true
        else if (words !== undefined) sources[count++] = words
      }
      if (full) this.#chunks[at] = FULL
      else if (count > 0) {
        target ??= this.#make(at)
        orWords(target, sources, count)
      }
    }
    this.#dirty = -1
  }

  #orUnlike(other: DirtyBitmap): void {
    eachRun(other.#chunks, other.#granules, (first, stop) => {
      const offset = first * other.granularity
      this.#setBytes(offset, Math.min(stop * other.granularity, other.#size) - offset)
    })
  }
}

function noChunks(granules: number): undefined[] {
  return new Array<undefined>(Math.ceil(granules / CHUNK_BITS)).fill(undefined)
}
