/**
 * Reading comma-separated numbers straight from bytes, since a string and a split per line cost several times the rest of
 * an import. A cursor walks one line; a field that is wrong leaves its reason in `why` and returns -1.
 */

const COMMA = 0x2c
const SPACE = 0x20

/** A walk along one line. `at` is past `end` once the last field was taken. */
export interface Cursor {
  bytes: Uint8Array
  at: number
  end: number
  why: string
}

export function newCursor(): Cursor {
  return { bytes: new Uint8Array(0), at: 0, end: 0, why: '' }
}

export function startLine(cursor: Cursor, bytes: Uint8Array, start: number, end: number): void {
  cursor.bytes = bytes
  cursor.at = start
  cursor.end = end
  cursor.why = ''
}

/** A whole number from 0 to 2^53 - 1, in decimal. -1 when it is none. */
export function takeInteger(cursor: Cursor, field: string): number {
  const { bytes, end } = cursor
  let at = skipSpaces(bytes, cursor.at, end)
  const first = at
  let value = 0
  for (; at < end; at++) {
    const digit = bytes[at]! - 0x30
    if (digit < 0 || digit > 9) break
    value = value * 10 + digit
  }
  const digits = at - first
  at = skipSpaces(bytes, at, end)
  const ends = at >= end || bytes[at] === COMMA
  if (digits > 0 && ends && value <= Number.MAX_SAFE_INTEGER) {
    cursor.at = at + 1
    return value
  }
  cursor.why = whyNoInteger(cursor, field, digits > 0 && ends)
  return -1
}

/** A byte in hexadecimal, with or without `0x`. -1 when it is none. */
export function takeHexByte(cursor: Cursor, field: string): number {
  const text = takeText(cursor)
  if (/^(0x)?[0-9a-f]{1,2}$/i.test(text)) return Number.parseInt(text.replace(/^0x/i, ''), 16)
  cursor.why = text === '' ? `${field} is missing` : `${field} "${text}" is not a byte in hexadecimal`
  return -1
}

/** The hex digit pair at the cursor, when the field is exactly that: the fast path of `takeHexByte`. -1: take the slow one. */
export function takeHexPair(cursor: Cursor): number {
  const { bytes, at, end } = cursor
  if (at + 2 > end || (at + 2 < end && bytes[at + 2] !== COMMA)) return -1
  const high = hexDigit(bytes[at]!)
  const low = hexDigit(bytes[at + 1]!)
  if (high < 0 || low < 0) return -1
  cursor.at = at + 3
  return high * 16 + low
}

/** The field as text, trimmed; empty when the line ended. */
export function takeText(cursor: Cursor): string {
  const { bytes, at, end } = cursor
  if (at > end) return ''
  const comma = bytes.indexOf(COMMA, at)
  const stop = comma < 0 || comma > end ? end : comma
  cursor.at = stop + 1
  return lineText(bytes, at, stop).trim()
}

/** True when nothing is left; otherwise says why not. */
export function atLineEnd(cursor: Cursor, fields: number): boolean {
  if (cursor.at > cursor.end) return true
  cursor.why = `has more than ${fields} fields`
  return false
}

/** A line as text for a report, cut to a length that a person reads. */
export function lineText(bytes: Uint8Array, start: number, end: number): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, Math.min(end - start, 160)).toString(
    'utf8',
  )
  return end - start > 160 ? `${text}…` : text
}

function whyNoInteger(cursor: Cursor, field: string, tooLarge: boolean): string {
  const text = takeText(cursor)
  if (text === '') return `${field} is missing`
  if (tooLarge) return `${field} ${text} is beyond 2^53`
  if (/^-\d+$/.test(text)) return `${field} ${text} is negative`
  if (/^\d*\.\d+$/.test(text)) return `${field} ${text} is not a whole number`
  return `${field} "${text}" is not a number`
}

function skipSpaces(bytes: Uint8Array, from: number, end: number): number {
  let at = from
  while (at < end && bytes[at] === SPACE) at++
  return at
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const letter = byte | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}
