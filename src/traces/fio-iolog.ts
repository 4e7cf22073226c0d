/**
 * fio's own log of its I/O (`write_iolog`). Version 2, from fio before 3.31, has no times: lines happen when the one above
 * happened, and only a `wait` lets microseconds pass. Version 3 begins each line with microseconds since the job's start.
 */
import { type LineParser, type RowKind, setBad, type TraceFormat, type TraceRow } from './format.ts'
import { isWord, LastText, newWords, splitWords, takeWordInteger, wordText } from './words.ts'

const HEADER_2 = 'fio version 2 iolog'
const HEADER_3 = 'fio version 3 iolog'
const TRIM = 2

/** What a line's action is, by its word. `wait` exists in version 2 only. */
const ACTIONS: readonly (readonly [string, RowKind | 'trim' | 'wait'])[] = [
  ['write', 'write'],
  ['read', 'read'],
  ['trim', 'trim'],
  ['wait', 'wait'],
  ['sync', 'flush'],
  ['datasync', 'flush'],
  ['syncfs', 'flush'],
  ['sync_file_range', 'flush'],
  ['open', 'other'],
  ['close', 'other'],
  ['add', 'other'],
]

export const fioLog2: TraceFormat = {
  name: 'fio iolog version 2',
  columns: `"${HEADER_2}", then: file action [offset length]`,
  parts: 'file',
  detect: (lines) => (lines[0]?.trim() === HEADER_2 ? 1 : 0),
  parser: () => new FioParser(HEADER_2, 0),
}

export const fioLog3: TraceFormat = {
  name: 'fio iolog version 3',
  columns: `"${HEADER_3}", then: microseconds file action [offset length]`,
  parts: 'file',
  detect: (lines) => (lines[0]?.trim() === HEADER_3 ? 1 : 0),
  parser: () => new FioParser(HEADER_3, 1),
}

class FioParser implements LineParser {
  readonly #words = newWords()
  readonly #file = new LastText()
  readonly #header: string
  /** Words before the file's name: the time, or none. */
  readonly #skip: 0 | 1
  #headed = false
  #waitedUs = 0

  constructor(header: string, skip: 0 | 1) {
    this.#header = header
    this.#skip = skip
  }

  parseLine(bytes: Uint8Array, start: number, end: number, row: TraceRow): void {
    const words = this.#words
    splitWords(words, bytes, start, end)
    if (!this.#headed) {
      // The format was found by this line, so the first one with words is it.
      this.#headed = true
      row.kind = 'skip'
      return
    }
    row.timeUs = this.#skip === 1 ? takeWordInteger(words, 0, 'time') : this.#waitedUs
    if (row.timeUs < 0) {
      setBad(row, `${words.why} (${this.#header})`)
      return
    }
    const at = this.#skip
    row.part = words.count > at ? this.#file.of(bytes, words.from[at]!, words.to[at]!) : ''
    const action = ACTIONS.find(([word]) => isWord(words, at + 1, word))?.[1]
    if (action === undefined) setBad(row, this.#whyNoAction())
    else this.#act(action, row)
  }

  #act(action: RowKind | 'trim' | 'wait', row: TraceRow): void {
    const at = this.#skip + 2
    switch (action) {
      case 'write':
      case 'read':
      case 'trim':
        this.#takeRange(at, row)
        if (row.kind !== 'bad') row.kind = action === 'trim' ? 'write' : action
        row.op = action === 'trim' ? TRIM : 0
        return
      case 'wait':
        this.#wait(at, row)
        return
      default:
        row.kind = action
    }
  }

  #takeRange(at: number, row: TraceRow): void {
    const words = this.#words
    row.kind = 'other'
    row.offset = takeWordInteger(words, at, 'offset')
    row.length = row.offset < 0 ? -1 : takeWordInteger(words, at + 1, 'length')
    if (row.length < 0) setBad(row, words.why)
    else if (words.count > at + 2) setBad(row, `has more than ${at + 2} words`)
  }

  #wait(at: number, row: TraceRow): void {
    const us = takeWordInteger(this.#words, at, 'microseconds to wait')
    row.kind = 'other'
    if (this.#skip === 1) setBad(row, 'wait does not exist in version 3')
    else if (us < 0) setBad(row, this.#words.why)
    else if (this.#waitedUs + us > Number.MAX_SAFE_INTEGER) setBad(row, 'waits beyond 2^53 microseconds')
    else this.#waitedUs += us
  }

  #whyNoAction(): string {
    const text = wordText(this.#words, this.#skip + 1)
    if (text === '') return 'action is missing'
    return `action "${text}" is none of ${ACTIONS.map(([word]) => word).join(', ')}`
  }
}
