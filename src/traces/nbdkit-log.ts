/**
 * What nbdkit's log filter writes (`--filter=log … logfile=FILE`). A request has a line when it comes in and one when it is
 * answered; the first is taken, since it is the one before any byte changes (R31), whatever the answer was: a write that
 * failed may have changed part of its range.
 */
import { type LineParser, setBad, shareThatFits, type TraceFormat, type TraceRow } from './format.ts'
import { byteOf, isWord, newWords, splitWords, type Words, wordText } from './words.ts'

const LINE =
  /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} (connection=\d+ )?(\.\.\.)?(ListExports|DefaultExport|Ready|Fork|Preconnect|Connect|Disconnect|Read|Write|Zero|Trim|Extents|Cache|Flush)\b/
const TIME = /^(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6})$/
const CONNECTION = 'connection='
const DOT = 0x2e

/** Requests that carry a range and change it, by nbdkit's word, as indexes into `WRITE_OPS`. */
const WRITES = [
  ['Write', 0],
  ['Zero', 1],
  ['Trim', 2],
] as const
/** Requests that change nothing. */
const OTHERS = ['Extents', 'Cache'] as const
/** What is told about the server and its clients. */
const TOLD = ['Ready', 'Fork', 'Preconnect', 'ListExports', 'DefaultExport', 'Connect', 'Disconnect'] as const

export const nbdkitLog: TraceFormat = {
  name: 'nbdkit log filter',
  columns: 'date time connection=N Write|Zero|Trim|… id=N offset=0x… count=0x… …',
  parts: 'export',
  detect: (lines) => shareThatFits(lines, (line) => LINE.test(line)),
  parser: () => new NbdkitParser(),
}

class NbdkitParser implements LineParser {
  readonly #words = newWords()
  /** Connection → the export that it asked for. */
  readonly #exports = new Map<string, string>()
  /** The last second that was worked out, as text and in microseconds: most lines share it with the line above. */
  #second = ''
  #secondUs = -1

  parseLine(bytes: Uint8Array, start: number, end: number, row: TraceRow): void {
    const words = this.#words
    splitWords(words, bytes, start, end)
    row.part = ''
    row.timeUs = this.#takeTime()
    if (row.timeUs < 0) {
      setBad(row, `"${wordText(words, 0)} ${wordText(words, 1)}" is no date and time`)
      return
    }
    const connection = wordText(words, 2)
    const act = connection.startsWith(CONNECTION) ? 3 : 2
    if (byteOf(words, act) === DOT) row.kind = 'skip'
    else this.#act(act, act === 3 ? connection : '', end, row)
  }

  #act(act: number, connection: string, end: number, row: TraceRow): void {
    const words = this.#words
    row.part = this.#exports.get(connection) ?? ''
    const write = WRITES.find(([word]) => isWord(words, act, word))
    if (write !== undefined) {
      this.#takeRange(act, row)
      row.op = write[1]
    } else if (isWord(words, act, 'Read')) row.kind = 'read'
    else if (isWord(words, act, 'Flush')) row.kind = 'flush'
    else if (OTHERS.some((word) => isWord(words, act, word))) row.kind = 'other'
    else if (TOLD.some((word) => isWord(words, act, word))) {
      this.#told(
        act,
        connection,
        Buffer.from(words.bytes.subarray(words.from[0]!, end)).toString('utf8'),
        row,
      )
    } else setBad(row, `action "${wordText(words, act)}" is none that nbdkit's log filter writes`)
  }

  #told(act: number, connection: string, line: string, row: TraceRow): void {
    row.kind = 'skip'
    if (isWord(this.#words, act, 'Connect')) this.#exports.set(connection, exportOf(line))
    else if (isWord(this.#words, act, 'Disconnect')) this.#exports.delete(connection)
  }

  #takeRange(act: number, row: TraceRow): void {
    row.kind = 'write'
    const offset = this.#takeNumber(act, 'offset', row)
    const count = row.kind === 'write' ? this.#takeNumber(act, 'count', row) : -1
    row.offset = offset
    row.length = count
  }

  #takeNumber(act: number, field: string, row: TraceRow): number {
    const text = fieldOf(this.#words, act, `${field}=`)
    const value = text !== undefined && /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : -1
    if (text === undefined) setBad(row, `${field} is missing`)
    else if (value < 0) setBad(row, `${field} "${text}" is not a number`)
    else if (value > Number.MAX_SAFE_INTEGER) setBad(row, `${field} ${text} is beyond 2^53`)
    return value
  }

  /** Microseconds since 1970, the clock of the machine taken for UTC: only distances are used. */
  #takeTime(): number {
    const text = `${wordText(this.#words, 0)} ${wordText(this.#words, 1)}`
    const second = text.slice(0, 19)
    if (second !== this.#second || text.length !== 26) {
      const parts = TIME.exec(text)
      if (parts === null) return -1
      const ms = utcOf(parts.slice(1, 7).map(Number))
      if (Number.isNaN(ms)) return -1
      this.#second = second
      this.#secondUs = ms * 1000
    }
    const micro = Number(text.slice(20))
    return text[19] === '.' && Number.isInteger(micro) ? this.#secondUs + micro : -1
  }
}

/** The value of `key` among the words behind the action. */
function fieldOf(words: Words, act: number, key: string): string | undefined {
  for (let index = act + 1; index < words.count; index++) {
    const text = wordText(words, index)
    if (text.startsWith(key)) return text.slice(key.length)
  }
  return undefined
}

/** Milliseconds since 1970, or NaN where the calendar has no such moment: Date would take April 31st for May 1st. */
function utcOf([year, month, day, hour, minute, second]: readonly number[]): number {
  const days = month! >= 1 && month! <= 12 ? new Date(Date.UTC(year!, month!, 0)).getUTCDate() : 0
  const exists = day! >= 1 && day! <= days && hour! <= 23 && minute! <= 59 && second! <= 60
  return exists ? Date.UTC(year!, month! - 1, day, hour, minute, second) : Number.NaN
}

/** The name in `export="…"`, which may hold blanks and quoted quotes; the default export has the empty one. */
function exportOf(line: string): string {
  const quoted = /\bexport=("(?:[^"\\]|\\.)*"|'[^']*'|\S*)/.exec(line)?.[1] ?? ''
  return quoted.replace(/^(["'])(.*)\1$/, '$2')
}
