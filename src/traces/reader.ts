/**
 * Reading a trace: detect what it is by its content, then hand out its writes as columns. One line costs a search for its
 * end and a walk over its bytes; no string is made unless a line is bad. A batch of 16384 rows is all that is in memory.
 *
 * Lines are numbered from 1 as an editor numbers them, headers and blank lines included.
 */
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { lineText } from './fields.ts'
import { emptyRow, type LineParser, type TraceFormat, type TraceRow } from './format.ts'
import { detectFormat, unknownFormat } from './formats.ts'
import { choiceOf, type TraceChoice, TraceParts } from './parts.ts'
import { BATCH_ROWS, Rows, type TraceBatch } from './rows.ts'
import { inspectSource, readSource, type SourceInfo, type SourceProgress } from './source.ts'

const LF = 0x0a
const CR = 0x0d
const HASH = 0x23
const SPACE = 0x20

export interface TraceOptions extends TraceChoice {
  /** The disk's size in bytes: a range beyond it makes its line bad. */
  readonly size?: number
  /** Count bad lines and go on. Default: the first one ends reading. */
  readonly skipBad?: boolean
  readonly signal?: AbortSignal
}

export interface BadLine {
  readonly line: number
  readonly text: string
  readonly why: string
}

/** What has been read so far. Every line is in exactly one of writes, empty, reads, flushes, others, bad or none of them (header, comment, blank). */
export interface TraceCounts {
  lines: number
  writes: number
  /** Writes of length 0, which record nothing (R1). */
  empty: number
  reads: number
  flushes: number
  others: number
  bad: number
  /** Lines whose time lay before the line above; they were given its time. */
  clamped: number
  /** Sum of the writes' lengths. */
  bytes: number
  /** Time of the first and of the last line that has one. */
  firstUs: number | null
  lastUs: number | null
}

export interface Trace {
  readonly path: string
  readonly format: string
  readonly gzip: boolean
  /** Bytes of the file as it lies on disk. */
  readonly fileSize: number
  /** Bytes of the file read so far. */
  readonly fileBytes: number
  /** Live: grows as batches are taken. */
  readonly counts: TraceCounts
  /** The device, file or export that the writes are of; null while none was read, or where a trace is of one disk. */
  readonly part: string | null
  /** The first bad lines, at most `limits.traceBadLinesQuoted`. */
  readonly badLines: readonly BadLine[]
  /** All of the trace's writes, once. */
  batches(): AsyncGenerator<TraceBatch>
}

/**
 * Opens a trace: detects gzip and the format from the content, never from the name.
 * @throws CheckpointError TRACE_UNREADABLE, TRACE_UNKNOWN_FORMAT, TRACE_CHOICE_INVALID (the format has no such choice);
 * while reading also TRACE_LINE_INVALID (unless `skipBad`), at the end TRACE_CHOICE_INVALID (several disks and none
 * chosen, or none of that name), and the signal's reason.
 */
export async function openTrace(path: string, options: TraceOptions = {}): Promise<Trace> {
  const source = await inspectSource(path)
  const format = detectFormat(path, await firstLines(source))
  return new TraceReader(source, format, options)
}

class TraceReader implements Trace {
  readonly path: string
  readonly format: string
  readonly gzip: boolean
  readonly fileSize: number
  readonly counts: TraceCounts = {
    lines: 0,
    writes: 0,
    empty: 0,
    reads: 0,
    flushes: 0,
    others: 0,
    bad: 0,
    clamped: 0,
    bytes: 0,
    firstUs: null,
    lastUs: null,
  }
  readonly badLines: BadLine[] = []
  readonly #progress: SourceProgress = { fileBytes: 0, textBytes: 0 }
  readonly #row: TraceRow = emptyRow()
  readonly #source: SourceInfo
  readonly #parser: LineParser
  readonly #parts: TraceParts
  readonly #options: TraceOptions
  readonly #end: number
  #batch = new Rows()
  /** Set when a bad line ends reading: rows before it are handed out first. */
  #failure: CheckpointError | null = null

  constructor(source: SourceInfo, format: TraceFormat, options: TraceOptions) {
    this.#source = source
    this.#options = options
    const choice = choiceOf(source.path, format, options)
    this.#parser = format.parser(choice.action)
    this.#parts = new TraceParts(source.path, format, choice)
    this.#end = options.size ?? Number.MAX_SAFE_INTEGER
    this.path = source.path
    this.format = format.name
    this.gzip = source.gzip
    this.fileSize = source.size
  }

  get part(): string | null {
    return this.#parts.part
  }

  get fileBytes(): number {
    return this.#progress.fileBytes
  }

  async *batches(): AsyncGenerator<TraceBatch> {
    let rest: Buffer = Buffer.alloc(0)
    for await (const chunk of readSource(this.#source, this.#progress, this.#options.signal)) {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      let start = this.counts.lines === 0 ? afterByteOrderMark(bytes) : 0
      for (let end = bytes.indexOf(LF, start); end >= 0; end = bytes.indexOf(LF, start)) {
        this.#line(bytes, start, end)
        start = end + 1
        if (this.#batch.count === BATCH_ROWS || this.#failure !== null) yield* this.#flush()
      }
      rest = bytes.subarray(start)
      if (rest.length > limits.traceLineBytesMax) this.#failure = this.#tooLong(rest)
      yield* this.#flush()
    }
    if (rest.length > 0) this.#line(rest, this.counts.lines === 0 ? afterByteOrderMark(rest) : 0, rest.length)
    yield* this.#flush()
    this.#parts.finish(this.#parser.missed?.() ?? null)
  }

  #line(bytes: Buffer, start: number, newline: number): void {
    const { counts } = this
    counts.lines++
    const end = newline > start && bytes[newline - 1] === CR ? newline - 1 : newline
    if (isBlank(bytes, start, end) || bytes[start] === HASH) return
    const row = this.#row
    this.#parser.parseLine(bytes, start, end, row)
    if (row.kind === 'skip') return
    this.#parts.sort(row)
    if (row.kind === 'bad') {
      this.#bad(bytes, start, end, row.why)
    } else if (row.kind === 'write' && (row.offset > this.#end || row.length > this.#end - row.offset)) {
      this.#bad(bytes, start, end, this.#whyOutside())
    } else {
      this.#clock(row)
      this.#count(row)
    }
  }

  #clock(row: TraceRow): void {
    const { counts } = this
    counts.firstUs ??= row.timeUs
    if (counts.lastUs !== null && row.timeUs < counts.lastUs) {
      counts.clamped++
      row.timeUs = counts.lastUs
    }
    counts.lastUs = row.timeUs
  }

  #count(row: TraceRow): void {
    const { counts } = this
    switch (row.kind) {
      case 'write':
        if (row.length === 0) {
          counts.empty++
          return
        }
        counts.writes++
        counts.bytes += row.length
        this.#batch.push(row, counts.lines)
        return
      case 'read':
        counts.reads++
        return
      case 'flush':
        counts.flushes++
        return
      default:
        counts.others++
    }
  }

  #bad(bytes: Buffer, start: number, end: number, why: string): void {
    this.counts.bad++
    const bad: BadLine = { line: this.counts.lines, text: lineText(bytes, start, end), why }
    if (this.badLines.length < limits.traceBadLinesQuoted) this.badLines.push(bad)
    if (this.#options.skipBad !== true) this.#failure ??= badLine(this.path, bad)
  }

  /** Not a line that can be skipped: what follows it could not be numbered. */
  #tooLong(rest: Buffer): CheckpointError {
    const why = `is longer than ${limits.traceLineBytesMax} bytes`
    return badLine(this.path, { line: this.counts.lines + 1, text: lineText(rest, 0, rest.length), why })
  }

  #whyOutside(): string {
    const { offset, length } = this.#row
    return this.#options.size === undefined
      ? `range ${offset}+${length} ends beyond 2^53`
      : `range ${offset}+${length} lies outside the disk of ${this.#options.size} bytes`
  }

  *#flush(): Generator<TraceBatch> {
    if (this.#batch.count > 0) {
      const full = this.#batch
      this.#batch = new Rows()
      yield full.take()
    }
    if (this.#failure !== null) throw this.#failure
  }
}

/** The error for a bad line: number, text, what is wrong, what to do. */
export function badLine(path: string, bad: BadLine, count?: number): CheckpointError {
  const more = count !== undefined && count > 1 ? ` (the first of ${count} such lines)` : ''
  return new CheckpointError(
    'TRACE_LINE_INVALID',
    `${path}, line ${bad.line}${more}: ${bad.why}. Mend the line, or skip bad lines and have them counted (--skip-bad).`,
    { path, ...bad, ...(count === undefined ? {} : { bad: count }) },
  )
}

/** The first lines of the text, for detection. Refuses what no text has. */
async function firstLines(source: SourceInfo): Promise<string[]> {
  const parts: Buffer[] = []
  let length = 0
  for await (const chunk of readSource(source, { fileBytes: 0, textBytes: 0 })) {
    parts.push(chunk)
    length += chunk.length
    if (length >= limits.traceLineBytesMax) break
  }
  const bytes = Buffer.concat(parts).subarray(0, limits.traceLineBytesMax)
  if (bytes.length === 0) throw unknownFormat(source.path, 'it is empty')
  if (bytes.includes(0)) throw unknownFormat(source.path, 'it holds zero bytes, so it is binary or UTF-16')
  const lines = bytes.subarray(afterByteOrderMark(bytes)).toString('utf8').split(/\r?\n/)
  if (length > bytes.length && lines.length > 1) lines.pop()
  return lines.filter((line) => line.trim() !== '' && !line.startsWith('#'))
}

function afterByteOrderMark(bytes: Buffer): number {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0
}

function isBlank(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] !== SPACE) return false
  return true
}
