/**
 * slicelog's own trace: `offset,length,t_us,op`, bytes and microseconds, op `w` write, `z` write-zeroes, `t` trim,
 * `f` flush. What an NBD server's log gives with a line of awk, and small enough to gzip to eight bytes a write.
 */
import { atLineEnd, newCursor, startLine, takeInteger, takeText } from './fields.ts'
import { setBad, shareThatFits, type TraceFormat, type TraceRow } from './format.ts'

const HEADER = 'offset,length,t_us,op'
const LINE = /^\s*\d+\s*,\s*\d+\s*,\s*\d+\s*,\s*[wztf]\s*$/
const OPS = { w: 0, z: 1, t: 2 } as const
const [W, Z, T, F, O] = ['w', 'z', 't', 'f', 'o'].map((letter) => letter.charCodeAt(0))

const cursor = newCursor()

export const ownCsv: TraceFormat = {
  name: 'slicelog CSV',
  columns: HEADER,
  detect(firstLines) {
    if (isHeader(firstLines[0] ?? '')) return 1
    return shareThatFits(firstLines, (line) => LINE.test(line))
  },
  parser: () => ({ parseLine }),
}

function parseLine(bytes: Uint8Array, start: number, end: number, row: TraceRow): void {
  if ((bytes[start]! | 0x20) === O && isHeader(Buffer.from(bytes.subarray(start, end)).toString('latin1'))) {
    row.kind = 'skip'
    return
  }
  startLine(cursor, bytes, start, end)
  row.offset = takeInteger(cursor, 'offset')
  if (row.offset >= 0) row.length = takeInteger(cursor, 'length')
  if (row.offset >= 0 && row.length >= 0) row.timeUs = takeInteger(cursor, 't_us')
  if (cursor.why === '') takeOp(row)
  if (cursor.why === '') atLineEnd(cursor, 4)
  if (cursor.why !== '') setBad(row, cursor.why)
}

function isHeader(line: string): boolean {
  return line.trim().toLowerCase().replaceAll(' ', '') === HEADER
}

function takeOp(row: TraceRow): void {
  // The letter is nearly always the last byte of the line; anything else goes the slow way and gets its reason there.
  const single = cursor.at === cursor.end - 1
  const letter = single ? cursor.bytes[cursor.at++] : undefined
  if (single) cursor.at++
  if (letter === W) setWrite(row, OPS.w)
  else if (letter === Z) setWrite(row, OPS.z)
  else if (letter === T) setWrite(row, OPS.t)
  else if (letter === F) row.kind = 'flush'
  else takeOddOp(row, single ? String.fromCharCode(letter!) : takeText(cursor))
}

function takeOddOp(row: TraceRow, text: string): void {
  const op = text.toLowerCase()
  if (op === 'w' || op === 'z' || op === 't') setWrite(row, OPS[op])
  else if (op === 'f') row.kind = 'flush'
  else cursor.why = op === '' ? 'op is missing' : `op "${text}" is none of w, z, t, f`
}

function setWrite(row: TraceRow, op: number): void {
  row.kind = 'write'
  row.op = op
}
