/**
 * Loops over the words of a bitmap's chunk: the only places where a bitmap's bits are counted, joined or searched.
 *
 * A chunk is 65536 bits in 2048 32-bit words (8 KiB); bit b is bit `b & 31` of word `b >>> 5`. Words are signed
 * (`Int32Array`), because that is what `|` and `&` give back: nothing is converted in the hot loops. Costs are per
 * chunk: counting about 3 µs, joining four sources about 6 µs, searching skips 32 bits at a step.
 * Hot loops write 2048 and 65536 as literals: a module's constant is loaded from its cell at every use, which costs more
 * than the work itself.
 */

/** Bits of one chunk. */
export const CHUNK_BITS = 65_536
/** Words of one chunk. */
export const CHUNK_WORDS = CHUNK_BITS / 32
/** Bytes of one chunk. */
export const CHUNK_BYTES = CHUNK_BITS / 8

export type Words = Int32Array<ArrayBuffer>

/** A chunk without bits, for readers. Nobody writes to it. */
export const EMPTY: Words = new Int32Array(CHUNK_WORDS)

/**
 * A chunk with every bit, shared by all bitmaps. Setting bits in it changes nothing, so writers need not know it from a
 * chunk of their own; who clears bits must copy it first.
 */
export const FULL: Words = new Int32Array(CHUNK_WORDS).fill(-1)

/** How many bits are set. */
export function popcount(words: Words): number {
  let total = 0
  for (let i = 0; i < words.length; i++) {
    let w = words[i]!
    if (w === 0) continue
    w -= (w >>> 1) & 0x55555555
    w = (w & 0x33333333) + ((w >>> 2) & 0x33333333)
    total += Math.imul((w + (w >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
  }
  return total
}

export function isZero(words: Words): boolean {
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false
  return true
}

export function sameWords(a: Words, b: Words): boolean {
  if (a === b) return true
  for (let i = 0; i < CHUNK_WORDS; i++) if (a[i] !== b[i]) return false
  return true
}

/** The mask of bits from `first & 31` to 31. */
export function maskFrom(first: number): number {
  return -1 << (first & 31)
}

/** The mask of bits from 0 to `last & 31`, inclusive. */
export function maskTo(last: number): number {
  return -1 >>> (31 - (last & 31))
}

/** Sets the bits first…last (inclusive, inside the chunk). */
export function setBits(words: Words, first: number, last: number): void {
  const from = first >>> 5
  const to = last >>> 5
  if (from === to) {
    words[from]! |= maskFrom(first) & maskTo(last)
    return
  }
  words[from]! |= maskFrom(first)
  words.fill(-1, from + 1, to)
  words[to]! |= maskTo(last)
}

/** Clears every bit from `first` on. */
export function clearFrom(words: Words, first: number): void {
  const word = first >>> 5
  words[word]! &= ~maskFrom(first)
  words.fill(0, word + 1)
}

/** The first set bit at or after `from`, or CHUNK_BITS. */
export function nextSet(words: Words, from: number): number {
  let i = from >>> 5
  let w = words[i]! & maskFrom(from)
  while (w === 0) {
    if (++i === 2048) return 65_536
    w = words[i]!
  }
  return (i << 5) + 31 - Math.clz32(w & -w)
}

/** The first clear bit at or after `from`, or CHUNK_BITS. */
export function nextClear(words: Words, from: number): number {
  let i = from >>> 5
  let w = ~words[i]! & maskFrom(from)
  while (w === 0) {
    if (++i === 2048) return 65_536
    w = ~words[i]!
  }
  return (i << 5) + 31 - Math.clz32(w & -w)
}

/**
 * Calls `visit(first, stop)` for each run of set bits in `chunks`, ascending, touching runs joined also across chunks;
 * a run that is open at the end stops at `end`. About 15 ns a run.
 */
export function eachRun(
  chunks: readonly (Words | undefined)[],
  end: number,
  visit: (first: number, stop: number) => void,
): void {
  let open = -1
  for (let at = 0; at < chunks.length; at++) {
    const words = chunks[at] ?? EMPTY
    const base = at * CHUNK_BITS
    if (words === EMPTY && open < 0) continue
    if (words === FULL) {
      if (open < 0) open = base
      continue
    }
    for (let i = 0; i < 2048; i++) {
      const w = words[i]!
      if (w === (open < 0 ? 0 : -1)) continue
      let from = -1 // Mask of the bits of this word not looked at yet.
      for (;;) {
        const rest = (open < 0 ? w : ~w) & from
        if (rest === 0) break
        const bit = 31 - Math.clz32(rest & -rest)
        from = -1 << bit
        const granule = base + i * 32 + bit
        if (open < 0) open = granule
        else {
          visit(open, granule)
          open = -1
        }
      }
    }
  }
  if (open >= 0) visit(open, end)
}

/**
 * Where bits change: puts the number of each bit behind `from` that differs from the one before it into `ends`, ascending, until
 * that is full or bit `to` lies behind (some of its chunk may be told all the same). Returns how many. About 10 ns each.
 */
export function findEdges(
  chunks: readonly (Words | undefined)[],
  from: number,
  to: number,
  ends: Float64Array<ArrayBuffer>,
): number {
  let found = 0
  let before = 0
  let mask = (-1 << from) & ~(1 << from) // Of the first word: only what lies behind `from`.
  let i = (from >>> 5) & 2047
  for (let at = Math.floor(from / CHUNK_BITS); at < chunks.length && at * CHUNK_BITS < to; at++, i = 0) {
    const words = chunks[at] ?? EMPTY
    if (mask === -1 && words === (before === 0 ? EMPTY : FULL)) continue
    const base = at * CHUNK_BITS
    for (; i < 2048; i++) {
      const w = words[i]!
      let edges = (w ^ ((w << 1) | before)) & mask
      before = w >>> 31
      mask = -1
      while (edges !== 0) {
        ends[found++] = base + i * 32 + 31 - Math.clz32(edges & -edges)
        if (found === ends.length) return found
        edges &= edges - 1
      }
    }
  }
  return found
}

/**
 * Joins `sources[0…count)` into `target`. Several sources share a pass over the target, and each step takes four words:
 * together twice as fast as a plain loop per source.
 */
export function orWords(target: Words, sources: readonly Words[], count: number): void {
  let i = 0
  for (; i + 4 <= count; i += 4) or4(target, sources[i]!, sources[i + 1]!, sources[i + 2]!, sources[i + 3]!)
  if (i + 2 <= count) {
    or2(target, sources[i]!, sources[i + 1]!)
    i += 2
  }
  if (i < count) or1(target, sources[i]!)
}

function or1(t: Words, a: Words): void {
  for (let i = 0; i < 2048; i++) t[i]! |= a[i]!
}

function or2(t: Words, a: Words, b: Words): void {
  for (let i = 0; i < 2048; i += 4) {
    t[i]! |= a[i]! | b[i]!
    t[i + 1]! |= a[i + 1]! | b[i + 1]!
    t[i + 2]! |= a[i + 2]! | b[i + 2]!
    t[i + 3]! |= a[i + 3]! | b[i + 3]!
  }
}

function or4(t: Words, a: Words, b: Words, c: Words, d: Words): void {
  for (let i = 0; i < 2048; i += 4) {
    t[i]! |= a[i]! | b[i]! | c[i]! | d[i]!
    t[i + 1]! |= a[i + 1]! | b[i + 1]! | c[i + 1]! | d[i + 1]!
    t[i + 2]! |= a[i + 2]! | b[i + 2]! | c[i + 2]! | d[i + 2]!
    t[i + 3]! |= a[i + 3]! | b[i + 3]! | c[i + 3]! | d[i + 3]!
  }
}

/** Keeps in `t` what `a` has too. */
export function andWords(t: Words, a: Words): void {
  for (let i = 0; i < 2048; i++) t[i]! &= a[i]!
}

/** Takes from `t` what `a` has. */
export function andNotWords(t: Words, a: Words): void {
  for (let i = 0; i < 2048; i++) t[i]! &= ~a[i]!
}
