/**
 * Reading lines of words, as people's tools print them: the words of a line are found once, as borders in its bytes, and
 * numbers are taken from there. No string is made for a line that is good, unless a word is new (a device, a file).
 */

const SPACE = 0x20
const TAB = 0x09

/** The words of one line: borders `[from[i], to[i])` in `bytes`. Reused from line to line. */
export interface Words {
  bytes: Uint8Array
  /** Words of the line; those beyond `WORDS_MAX` are not looked at. */
  count: number
  readonly from: Int32Array
  readonly to: Int32Array
  /** Why the line is bad; empty while it is not. */
  why: string
}

/** No format looks at more words of a line than this. */
export const WORDS_MAX = 16

export function newWords(): Words {
  return {
    bytes: new Uint8Array(0),
    count: 0,
    from: new Int32Array(WORDS_MAX),
    to: new Int32Array(WORDS_MAX),
    why: '',
  }
}

/** Splits the line `bytes[start, end)` at `comma` (exactly) or, without one, at blanks. */
export function splitWords(
  words: Words,
  bytes: Uint8Array,
  start: number,
  end: number,
  comma?: number,
): void {
  words.bytes = bytes
  words.count = 0
  words.why = ''
  let at = start
  while (words.count < WORDS_MAX) {
    while (at < end && isBlank(bytes[at]!)) at++
    if (comma === undefined && at >= end) return
    const from = at
    while (at < end && (comma === undefined ? !isBlank(bytes[at]!) : bytes[at] !== comma)) at++
    let to = at
    while (to > from && isBlank(bytes[to - 1]!)) to--
    words.from[words.count] = from
    words.to[words.count++] = to
    if (comma === undefined) continue
    if (at >= end) return
    at++
  }
}

function isBlank(byte: number): boolean {
  return byte === SPACE || byte === TAB
}

/** A word as text; empty when the line has no such word. */
export function wordText(words: Words, index: number): string {
  if (index >= words.count) return ''
  return Buffer.from(words.bytes.subarray(words.from[index]!, words.to[index]!)).toString('utf8')
}

/** The byte at `at` of a word, or -1 beyond it. */
export function byteOf(words: Words, index: number, at = 0): number {
  if (index >= words.count) return -1
  const position = words.from[index]! + at
  return position < words.to[index]! ? words.bytes[position]! : -1
}

/** Whether a word is exactly `text` (ASCII). Makes no string. */
export function isWord(words: Words, index: number, text: string): boolean {
  if (index >= words.count) return false
  return sameBytes(words.bytes, words.from[index]!, words.to[index]!, text)
}

export function sameBytes(bytes: Uint8Array, from: number, to: number, text: string): boolean {
  if (to - from !== text.length) return false
  for (let at = 0; at < text.length; at++) if (bytes[from + at] !== text.charCodeAt(at)) return false
  return true
}

/** A word as a whole number from 0 to 2^53 - 1; -1, and `why`, when it is none. */
export function takeWordInteger(words: Words, index: number, field: string): number {
  if (index >= words.count) {
    words.why = `${field} is missing`
    return -1
  }
  const value = integerAt(words.bytes, words.from[index]!, words.to[index]!)
  if (value >= 0) return value
  words.why = whyNoInteger(wordText(words, index), field)
  return -1
}

/** The digits `bytes[from, to)` as a whole number up to 2^53 - 1, or -1. */
export function integerAt(bytes: Uint8Array, from: number, to: number): number {
  if (from >= to) return -1
  let value = 0
  for (let at = from; at < to; at++) {
    const digit = bytes[at]! - 0x30
    if (digit < 0 || digit > 9) return -1
    value = value * 10 + digit
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : -1
}

function whyNoInteger(text: string, field: string): string {
  if (text === '') return `${field} is missing`
  if (/^\d+$/.test(text)) return `${field} ${text} is beyond 2^53`
  if (/^-\d+$/.test(text)) return `${field} ${text} is negative`
  return `${field} "${text}" is not a whole number`
}

/**
 * Remembers the last text made from a place in a line, since device and file rarely change from one line to the next:
 * the same bytes give the same string again without making one.
 */
export class LastText {
  #text = ''

  of(bytes: Uint8Array, from: number, to: number): string {
    if (sameBytes(bytes, from, to, this.#text)) return this.#text
    this.#text = Buffer.from(bytes.subarray(from, to)).toString('utf8')
    return this.#text
  }
}
