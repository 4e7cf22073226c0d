/**
 * The traces of a week of enterprise servers that Microsoft Research Cambridge published in 2008 (also at SNIA), and what
 * others wrote in the same columns. Times are Windows filetimes: 100 ns since 1601, which no double holds; they are taken
 * as microseconds since 1970.
 */
import { type LineParser, setBad, shareThatFits, type TraceFormat, type TraceRow } from './format.ts'
import { byteOf, integerAt, LastText, newWords, splitWords, takeWordInteger, wordText } from './words.ts'

const HEADER = 'timestamp,hostname,disknumber,type,offset,size,responsetime'
const LINE = /^\s*\d{15,19}\s*,[^,]*,\s*\d+\s*,\s*(read|write)\s*,\s*\d+\s*,\s*\d+\s*,\s*\d+\s*$/i
const COMMA = 0x2c
/** 1970 as a filetime is this many times 10^9, to the unit. */
const EPOCH = 116_444_736
const [R, T, W] = ['r', 't', 'w'].map((letter) => letter.charCodeAt(0))

export const msrCambridge: TraceFormat = {
  name: 'MSR Cambridge CSV',
  columns: 'Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime',
  parts: 'device',
  detect: (lines) => {
    if (isHeader(lines[0] ?? '')) return 1
    return shareThatFits(lines, (line) => LINE.test(line))
  },
  parser: () => new MsrParser(),
}

class MsrParser implements LineParser {
  readonly #words = newWords()
  readonly #pair = new LastText()
  /** The last host and disk as they stand in the line, and as they are named. */
  #seen = ''
  #named = ''

  parseLine(bytes: Uint8Array, start: number, end: number, row: TraceRow): void {
    const words = this.#words
    splitWords(words, bytes, start, end, COMMA)
    if (
      (byteOf(words, 0) | 0x20) === T &&
      isHeader(Buffer.from(bytes.subarray(start, end)).toString('latin1'))
    ) {
      row.kind = 'skip'
      return
    }
    row.timeUs = this.#takeFiletime()
    if (words.why === '') takeWordInteger(words, 2, 'DiskNumber')
    if (words.why === '') this.#takeType(row)
    if (words.why === '') row.offset = takeWordInteger(words, 4, 'Offset')
    if (words.why === '') row.length = takeWordInteger(words, 5, 'Size')
    if (words.why === '') takeWordInteger(words, 6, 'ResponseTime')
    if (words.why === '' && words.count > 7) words.why = 'has more than 7 fields'
    if (words.why !== '') setBad(row, words.why)
    else row.part = this.#device(bytes)
  }

  #takeType(row: TraceRow): void {
    const letter = byteOf(this.#words, 3) | 0x20
    const text = letter === W || letter === R ? '' : wordText(this.#words, 3)
    row.op = 0
    row.kind = letter === W ? 'write' : 'read'
    if (letter === W || letter === R) {
      const whole = wordText(this.#words, 3).toLowerCase()
      if (whole === 'write' || whole === 'read') return
      this.#words.why = `Type "${whole}" is neither Read nor Write`
    } else this.#words.why = text === '' ? 'Type is missing' : `Type "${text}" is neither Read nor Write`
  }

  /** `HOST_DISK`, as the published files are named. */
  #device(bytes: Uint8Array): string {
    const words = this.#words
    const seen = this.#pair.of(bytes, words.from[1]!, words.to[2]!)
    if (seen !== this.#seen) {
      this.#seen = seen
      this.#named = `${wordText(words, 1)}_${wordText(words, 2)}`
    }
    return this.#named
  }

  /** Split before its last nine digits, a filetime is two numbers that a double holds. */
  #takeFiletime(): number {
    const words = this.#words
    const from = words.from[0]!
    const to = words.to[0]!
    const high = to - from > 9 && to - from <= 19 ? integerAt(words.bytes, from, to - 9) : -1
    const low = high < 0 ? -1 : integerAt(words.bytes, to - 9, to)
    if (high >= EPOCH && low >= 0) return (high - EPOCH) * 100_000_000 + Math.floor(low / 10)
    const text = wordText(words, 0)
    words.why =
      text === '' ? 'Timestamp is missing' : `Timestamp "${text}" is no Windows filetime of 1970 or later`
    return -1
  }
}

function isHeader(line: string): boolean {
  return line.trim().toLowerCase().replaceAll(' ', '') === HEADER
}
