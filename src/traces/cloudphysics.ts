/**
 * The traces that CloudPhysics published of VMware guests: `time_us,op,size,lbn`, op a SCSI opcode, size in bytes, lbn in
 * sectors of 512. Copies of them are around with the opcode in hexadecimal (2a) and in decimal (42): two formats, since
 * `42` means UNMAP in one and WRITE(10) in the other, and only the file as a whole tells which.
 */
import { atLineEnd, newCursor, startLine, takeHexByte, takeHexPair, takeInteger } from './fields.ts'
import { type RowKind, setBad, shareThatFits, type TraceFormat, type TraceRow } from './format.ts'

const SECTOR = 512
const HEADER = 'time_us,op,size,lbn'
const LINE = /^\s*\d+\s*,\s*(0x)?([0-9a-f]{1,3})\s*,\s*\d+\s*,\s*\d+\s*$/i

type Meaning = Extract<RowKind, 'read' | 'flush' | 'other'> | { readonly op: number }

/** SCSI block commands (SBC-4, table of operation codes), by what they do to the medium. */
const MEANINGS = meanings([
  // WRITE 6/10/12/16, WRITE AND VERIFY 10/12/16, COMPARE AND WRITE, WRITE ATOMIC, XDWRITEREAD
  [{ op: 0 }, [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x89, 0x9c, 0x53]],
  // WRITE SAME 10/16, FORMAT UNIT is left out: it names no range
  [{ op: 1 }, [0x41, 0x93]],
  // UNMAP
  [{ op: 2 }, [0x42]],
  ['read', [0x08, 0x28, 0xa8, 0x88]],
  // SYNCHRONIZE CACHE 10/16
  ['flush', [0x35, 0x91]],
  // TEST UNIT READY, REQUEST SENSE, INQUIRY, MODE SENSE, START STOP, READ CAPACITY, VERIFY, LOG SENSE, REPORT LUNS …
  [
    'other',
    [
      0x00, 0x03, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x2f, 0x34, 0x37, 0x4d, 0x55, 0x5a, 0x5e, 0x8f, 0x90,
      0x9e, 0xa0, 0xa3, 0xaf,
    ],
  ],
])

const cursor = newCursor()

/** Opcodes in hexadecimal, as published. */
export const cloudPhysics: TraceFormat = {
  name: 'CloudPhysics CSV',
  columns: `${HEADER} (op in hexadecimal)`,
  detect: (lines) => shareOf(lines, 16) * headerBonus(lines),
  parser: () => ({ parseLine: (bytes, start, end, row) => parse(bytes, start, end, row, takeHexOp) }),
}

/** The same with opcodes in decimal. */
export const cloudPhysicsDecimal: TraceFormat = {
  name: 'CloudPhysics CSV, decimal opcodes',
  columns: `${HEADER} (op in decimal)`,
  detect: (lines) => shareOf(lines, 10) * headerBonus(lines),
  parser: () => ({ parseLine: (bytes, start, end, row) => parse(bytes, start, end, row, takeDecimalOp) }),
}

function parse(bytes: Uint8Array, start: number, end: number, row: TraceRow, takeOp: () => number): void {
  if (
    (bytes[start]! | 0x20) === 0x74 &&
    isHeader(Buffer.from(bytes.subarray(start, end)).toString('latin1'))
  ) {
    row.kind = 'skip'
    return
  }
  startLine(cursor, bytes, start, end)
  row.timeUs = takeInteger(cursor, 'time_us')
  const op = row.timeUs < 0 ? -1 : takeOp()
  if (op >= 0) row.length = takeInteger(cursor, 'size')
  const lbn = cursor.why === '' ? takeInteger(cursor, 'lbn') : -1
  if (cursor.why === '') atLineEnd(cursor, 4)
  row.offset = lbn * SECTOR
  const meaning = MEANINGS[op]
  if (cursor.why === '' && meaning === undefined)
    cursor.why = `op ${op.toString(16)} (hexadecimal) is no opcode known here`
  if (cursor.why === '' && row.offset > Number.MAX_SAFE_INTEGER)
    cursor.why = `lbn ${lbn} is beyond 2^53 bytes`
  if (cursor.why !== '') {
    setBad(row, cursor.why)
  } else if (typeof meaning === 'object') {
    row.kind = 'write'
    row.op = meaning.op
  } else {
    row.kind = meaning!
  }
}

function takeHexOp(): number {
  const pair = takeHexPair(cursor)
  return pair >= 0 ? pair : takeHexByte(cursor, 'op')
}

function takeDecimalOp(): number {
  const op = takeInteger(cursor, 'op')
  if (op > 0xff) cursor.why = `op ${op} is not a byte`
  return op > 0xff ? -1 : op
}

function isHeader(line: string): boolean {
  return line.trim().toLowerCase().replaceAll(' ', '') === HEADER
}

function headerBonus(lines: readonly string[]): number {
  return isHeader(lines[0] ?? '') ? 1 : 0.9
}

/** The share of lines whose opcode, read in `radix`, means something. */
function shareOf(lines: readonly string[], radix: 10 | 16): number {
  const surelyHex = lines.some((line) => /^\s*\d+\s*,\s*(0x|[0-9a-f]?[a-f])/i.test(line))
  if (surelyHex && radix === 10) return 0
  return shareThatFits(lines, (line) => {
    if (isHeader(line)) return true
    const digits = LINE.exec(line)?.[2]
    // A file of nothing but "42" is writes in decimal rather than a disk that is only ever trimmed.
    if (digits === undefined || (digits === '42' && radix === 16 && !surelyHex)) return false
    return MEANINGS[Number.parseInt(digits, radix)] !== undefined
  })
}

function meanings(
  groups: readonly (readonly [Meaning, readonly number[]])[],
): readonly (Meaning | undefined)[] {
  const table: (Meaning | undefined)[] = new Array(256).fill(undefined)
  for (const [meaning, codes] of groups) for (const code of codes) table[code] = meaning
  return table
}
