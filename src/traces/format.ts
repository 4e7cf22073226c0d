/**
 * What a trace format is: one object that knows its own lines and nothing else. The reader does files, gzip, line ends,
 * numbering and batches; a format is asked once whether the first lines are its own, then once for every line.
 *
 * `parseLine` runs for millions of lines: it reads bytes and fills one reused row. The formats of plain columns make no
 * object and no string unless the line is bad.
 */

/**
 * What a line is. `write` fills op, offset, length; `read`, `flush` and `other` (an operation that moves no data) are
 * counted and recorded nowhere; `skip` is a header or a comment; `bad` fills `why`.
 */
export type RowKind = 'write' | 'read' | 'flush' | 'other' | 'skip' | 'bad'

/** One line as parsed. Reused from line to line: copy what you keep. Offsets and lengths in bytes. */
export interface TraceRow {
  kind: RowKind
  /** Index into `WRITE_OPS`. */
  op: number
  offset: number
  length: number
  /** Microseconds on the trace's own clock. */
  timeUs: number
  /** What is wrong with a bad line, in words that follow "line 17:". */
  why: string
  /** The disk that the line is of, where a trace may be of several (`TraceFormat.parts`); otherwise empty. */
  part: string
}

/** What one trace may be of several of: the name of the choice that picks one, as in `--device 8,0`. */
export type PartKind = 'device' | 'file' | 'export'

/** Steps of a request that blktrace sees: queued, issued to the driver, completed. */
export const TRACE_ACTIONS = ['Q', 'D', 'C'] as const
export type TraceAction = (typeof TRACE_ACTIONS)[number]

export interface TraceFormat {
  readonly name: string
  /** The columns, for help and for the refusal of an unknown file. */
  readonly columns: string
  /** What a trace of this format may hold several of; left out where it is of one disk. */
  readonly parts?: PartKind
  /** The format tells the steps of a request apart, and `action` chooses one. */
  readonly actions?: true
  /** How sure the format is that these first lines are its own: 0 (no) to 1. No trailing line ends. */
  detect(firstLines: readonly string[]): number
  /** A parser for one reading of one file: it may remember what earlier lines said. */
  parser(action: TraceAction): LineParser
}

export interface LineParser {
  /** Parses the line `bytes[start, end)`, without its line end, into `row`. */
  parseLine(bytes: Uint8Array, start: number, end: number, row: TraceRow): void
  /** Asked at the file's end: why writes that are in the file were not taken; null when none was passed over. */
  missed?(): string | null
}

export function emptyRow(): TraceRow {
  return { kind: 'skip', op: 0, offset: 0, length: 0, timeUs: 0, why: '', part: '' }
}

/** Leaves a line as bad, in words that a person reads: a line may quote itself. */
export function setBad(row: TraceRow, why: string): void {
  row.kind = 'bad'
  row.why = why.length > 200 ? `${why.slice(0, 200)}…` : why
}

/** The share of `lines` that fit, for `detect`. A file's last, cut line or a few bad ones must not hide its format. */
export function shareThatFits(lines: readonly string[], fits: (line: string) => boolean): number {
  const worth = lines.filter((line) => line.trim() !== '' && !line.startsWith('#'))
  if (worth.length === 0) return 0
  return worth.filter(fits).length / worth.length
}
