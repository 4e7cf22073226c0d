/**
 * What `blkparse` prints of a Linux kernel's block trace, in its default layout: device, CPU, sequence, seconds, process,
 * action, RWBS, `sector + sectors`. One request passes several steps and has a line for each; one step is taken, the
 * others are only counted.
 *
 * That step is Q (queued) unless another is asked for: every kind of device has it (a device mapper volume has no D), and
 * it comes before the first byte can change, so that what is recorded is a superset of what was written (R31), also when
 * the trace was cut before the request was done. fio replays the same step.
 */
import {
  type LineParser,
  setBad,
  shareThatFits,
  TRACE_ACTIONS,
  type TraceAction,
  type TraceFormat,
  type TraceRow,
} from './format.ts'
import {
  byteOf,
  integerAt,
  isWord,
  LastText,
  newWords,
  splitWords,
  takeWordInteger,
  wordText,
} from './words.ts'

const SECTOR = 512
const DISCARD = 2
const LINE = /^\s*\d+,\d+\s+\d+\s+\d+\s+\d+\.\d{9}\s+\d+\s+[A-Zm]{1,2}\s/
/** What begins the statistics below the events, and what else blkparse says about its input. */
const SUMMARY = /^\s*(CPU\d+ \(|Total \(|Throughput \(|Events \(|Skips: |Input file |.* \(\d+\)\s*$)/
const [D, F, R, W] = ['D', 'F', 'R', 'W'].map((letter) => letter.charCodeAt(0))
const DOT = 0x2e
const COMMA = 0x2c

export const blkparse: TraceFormat = {
  name: 'blkparse text',
  columns: 'device cpu sequence seconds pid action rwbs sector + sectors [process]',
  parts: 'device',
  actions: true,
  detect: (lines) => {
    const events = lines.filter((line) => !SUMMARY.test(line))
    return events.some((line) => LINE.test(line)) ? shareThatFits(events, (line) => LINE.test(line)) : 0
  },
  parser: (action) => new BlkparseParser(action),
}

class BlkparseParser implements LineParser {
  readonly #action: TraceAction
  readonly #words = newWords()
  readonly #device = new LastText()
  /** Writes by step, so that a trace without the step that was asked for is no empty trace. */
  readonly #writes = new Map<string, number>()
  #inSummary = false

  constructor(action: TraceAction) {
    this.#action = action
  }

  parseLine(bytes: Uint8Array, start: number, end: number, row: TraceRow): void {
    const words = this.#words
    splitWords(words, bytes, start, end)
    if (!isDevice(bytes, words.from[0]!, words.to[0]!)) {
      this.#noEvent(bytes, start, end, row)
      return
    }
    this.#inSummary = false
    row.part = this.#device.of(bytes, words.from[0]!, words.to[0]!)
    row.timeUs = this.#takeTime()
    if (words.why !== '') setBad(row, words.why)
    else if (words.count < 6) setBad(row, 'action is missing')
    else this.#event(row)
  }

  missed(): string | null {
    if (this.#writes.has(this.#action) || this.#writes.size === 0) return null
    const there = TRACE_ACTIONS.filter((action) => this.#writes.has(action))
    return `no write has a line of action ${this.#action}; writes have lines of ${there.join(', ')}`
  }

  #noEvent(bytes: Uint8Array, start: number, end: number, row: TraceRow): void {
    // Statistics hold program names, which may look like anything; only an event ends them (two outputs in one file).
    this.#inSummary ||= SUMMARY.test(Buffer.from(bytes.subarray(start, end)).toString('latin1'))
    if (this.#inSummary) row.kind = 'skip'
    else setBad(row, `"${wordText(this.#words, 0)}" is no device like 8,0`)
  }

  #event(row: TraceRow): void {
    const words = this.#words
    const step = TRACE_ACTIONS.find((action) => isWord(words, 5, action))
    if (step === undefined) {
      row.kind = 'other'
      return
    }
    const kind = this.#kindOf(row)
    if (kind === 'write' || kind === 'read') this.#takeRange(row)
    if (row.kind === 'write') this.#writes.set(step, (this.#writes.get(step) ?? 0) + 1)
    if (step !== this.#action && row.kind !== 'bad') row.kind = 'other'
  }

  /** From RWBS: perhaps F (flush first), then D discard, W write, R read or N nothing, then F, A, S, M in any mixture. */
  #kindOf(row: TraceRow): TraceRow['kind'] {
    const words = this.#words
    const first = byteOf(words, 6)
    const letter = first === F ? byteOf(words, 6, 1) : first
    // A request without a range is a bare flush, or a command's payload: it names no sector.
    const ranged = isWord(words, 8, '+')
    row.op = letter === D ? DISCARD : 0
    if ((letter === W || letter === D) && ranged) row.kind = 'write'
    else if (letter === R && ranged) row.kind = 'read'
    else if (first === F) row.kind = 'flush'
    else row.kind = 'other'
    return row.kind
  }

  #takeRange(row: TraceRow): void {
    const words = this.#words
    const sector = takeWordInteger(words, 7, 'sector')
    const sectors = sector < 0 ? -1 : takeWordInteger(words, 9, 'number of sectors')
    if (sectors < 0) setBad(row, words.why)
    else if (sector * SECTOR > Number.MAX_SAFE_INTEGER) setBad(row, `sector ${sector} is beyond 2^53 bytes`)
    row.offset = sector * SECTOR
    row.length = sectors * SECTOR
  }

  /** `seconds.nanoseconds` as microseconds. */
  #takeTime(): number {
    const words = this.#words
    const { bytes } = words
    const from = words.from[3]!
    const to = words.to[3]!
    const dot = words.count > 3 ? bytes.indexOf(DOT, from) : -1
    const seconds = dot < 0 || dot >= to ? -1 : integerAt(bytes, from, dot)
    const nanoseconds = dot === to - 10 ? integerAt(bytes, dot + 1, to) : -1
    const us = seconds * 1_000_000 + Math.floor(nanoseconds / 1000)
    if (seconds >= 0 && nanoseconds >= 0 && us <= Number.MAX_SAFE_INTEGER) return us
    words.why =
      words.count > 3 ? `time "${wordText(words, 3)}" is not seconds.nanoseconds` : 'time is missing'
    return -1
  }
}

/** `MAJOR,MINOR` in digits. */
function isDevice(bytes: Uint8Array, from: number, to: number): boolean {
  const comma = bytes.indexOf(COMMA, from)
  if (comma < 0 || comma >= to) return false
  return integerAt(bytes, from, comma) >= 0 && integerAt(bytes, comma + 1, to) >= 0
}
