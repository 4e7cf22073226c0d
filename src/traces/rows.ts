/** A trace's writes as columns: what the reader fills and its caller takes, batch by batch. */
import type { TraceRow } from './format.ts'

/** Rows of a full batch: enough for several records of the log, half a megabyte of memory. */
export const BATCH_ROWS = 16_384

/** Rows of one batch, the writes only: `count` of them, the columns are exactly that long. */
export interface TraceBatch {
  readonly count: number
  readonly offsets: Float64Array
  readonly lengths: Float64Array
  /** Indexes into `WRITE_OPS`. */
  readonly ops: Uint8Array
  /** Microseconds on the trace's own clock, never decreasing. */
  readonly timesUs: Float64Array
  /** The line that each row came from. */
  readonly lines: Float64Array
}

/** A batch being filled. Fresh arrays for each, since the taker may keep them while the next is filled. */
export class Rows {
  count = 0
  readonly #offsets = new Float64Array(BATCH_ROWS)
  readonly #lengths = new Float64Array(BATCH_ROWS)
  readonly #ops = new Uint8Array(BATCH_ROWS)
  readonly #timesUs = new Float64Array(BATCH_ROWS)
  readonly #lines = new Float64Array(BATCH_ROWS)

  push(row: TraceRow, line: number): void {
    const at = this.count++
    this.#offsets[at] = row.offset
    this.#lengths[at] = row.length
    this.#ops[at] = row.op
    this.#timesUs[at] = row.timeUs
    this.#lines[at] = line
  }

  take(): TraceBatch {
    const { count } = this
    return {
      count,
      offsets: this.#offsets.subarray(0, count),
      lengths: this.#lengths.subarray(0, count),
      ops: this.#ops.subarray(0, count),
      timesUs: this.#timesUs.subarray(0, count),
      lines: this.#lines.subarray(0, count),
    }
  }
}
