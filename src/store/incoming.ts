/**
 * Writes on their way to the committer: checked, copied into columns, and waiting for a record.
 *
 * This is the hot door. A call's ranges are validated before any of them is taken (R1) and copied at once, so a caller
 * may reuse its arrays. Many small calls share one growing set of columns per disk: a call costs its promise and a few
 * stores, no object per write.
 */
import { WRITE_OPS, type WriteColumns } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { WriteRange, Writes } from './types.ts'

export interface Recorded {
  /** Position of the call's first write; of the next event when the call recorded nothing. */
  readonly first: number
  readonly count: number
}

/** The last millisecond that a date can say (year 275760). */
const TIME_MAX = 8.64e15

/** A caller waiting for its rows: they are `from … from + count - 1` of its disk's columns. */
export interface Waiter {
  readonly from: number
  readonly count: number
  readonly resolve: (recorded: Recorded) => void
  readonly reject: (error: unknown) => void
  /** Told right after the fold, before any later command: begins the move, or registers it (R8). Must not throw. */
  readonly onRecorded: ((first: number) => void) | null
}

/** Arrays for rows, kept for the next batch: fresh ones cost more in page faults than the rows cost to copy. */
export interface RowBuffers {
  readonly offsets: Float64Array
  readonly lengths: Float64Array
}

/** Rows of one disk. Offsets and lengths grow together; `ops` and `times` exist only once a row needs them. */
export class PendingDisk {
  readonly disk: number
  readonly id: string
  /** The disk's size that the rows were checked against. */
  size: number
  offsets: Float64Array
  lengths: Float64Array
  ops: Uint8Array | null = null
  times: Float64Array | null = null
  rows = 0
  /** Whether every row came with `takeOne`, from a door that arms granules (R30). */
  armable = true
  readonly waiters: Waiter[] = []

  /** `buffers`: of rows that nobody looks at any more. */
  constructor(disk: number, id: string, size: number, buffers?: RowBuffers) {
    this.disk = disk
    this.id = id
    this.size = size
    this.offsets = buffers?.offsets ?? new Float64Array(64)
    this.lengths = buffers?.lengths ?? new Float64Array(64)
  }

  reserve(more: number): void {
    const needed = this.rows + more
    if (needed <= this.offsets.length) return
    const capacity = Math.max(needed, this.offsets.length * 2)
    this.offsets = grow(this.offsets, new Float64Array(capacity))
    this.lengths = grow(this.lengths, new Float64Array(capacity))
    if (this.ops !== null) this.ops = grow(this.ops, new Uint8Array(capacity))
    if (this.times !== null) this.times = grow(this.times, new Float64Array(capacity))
  }

  /** Rows `from … to - 1` as columns, without copying. */
  columns(from: number, to: number): WriteColumns {
    return {
      offsets: this.offsets.subarray(from, to),
      lengths: this.lengths.subarray(from, to),
      ops: this.ops?.subarray(from, to),
      times: this.times?.subarray(from, to),
    }
  }

  /**
   * Takes a call's ranges: all, or none with RANGE_INVALID, RANGE_OUTSIDE_DISK or TIME_INVALID (R1).
   * Returns how many rows it took (a length of 0 records nothing).
   */
  take(writes: Writes): number {
    const before = this.rows
    this.armable = false
    try {
      if (isColumns(writes)) this.#takeColumns(writes)
      else this.#takeRanges(writes)
    } catch (error) {
      this.rows = before
      throw error
    }
    return this.rows - before
  }

  /** One range without an object for it, not empty: the errors of `take`. `op` is a code of WRITE_OPS. */
  takeOne(offset: number, length: number, op: number): void {
    this.#check(offset, length, 0)
    this.reserve(1)
    const row = this.rows++
    this.offsets[row] = offset
    this.lengths[row] = length
    if (op !== 0) this.ops ??= new Uint8Array(this.offsets.length)
    if (this.ops !== null) this.ops[row] = op
  }

  #takeRanges(ranges: readonly WriteRange[]): void {
    if (!Array.isArray(ranges))
      throw new TypeError('writes must be an array of { offset, length } or columns of Float64Array')
    if (ranges.length > limits.callWritesMax) throw tooMany(ranges.length)
    this.reserve(ranges.length)
    for (let i = 0; i < ranges.length; i++) {
      const range = ranges[i]
      if (range === null || typeof range !== 'object')
        throw new TypeError(`write ${i} must be { offset, length }`)
      const { offset, length } = range
      this.#check(offset, length, i)
      if (length === 0) continue
      const row = this.rows++
      this.offsets[row] = offset
      this.lengths[row] = length
      if (range.op !== undefined && range.op !== 'write') this.#setOp(row, range.op, i)
      else if (this.ops !== null) this.ops[row] = 0
    }
  }

  #takeColumns(columns: WriteColumns): void {
    const { offsets, lengths, ops, times } = columns
    if (!(offsets instanceof Float64Array && lengths instanceof Float64Array))
      throw new TypeError('columns must be Float64Array')
    const n = offsets.length
    if (lengths.length !== n)
      throw new RangeError(`columns differ in length: ${n} offsets, ${lengths.length} lengths`)
    if (ops !== undefined && (!(ops instanceof Uint8Array) || ops.length !== n))
      throw new RangeError('ops must be a Uint8Array with one code per offset')
    if (times !== undefined && (!(times instanceof Float64Array) || times.length !== n))
      throw new RangeError('times must be a Float64Array with one time per offset')
    if (n > limits.callWritesMax) throw tooMany(n)
    const hasEmpty = this.#checkColumns(offsets, lengths)
    if (times !== undefined) checkTimes(times)
    this.reserve(n)
    if (ops !== undefined) this.#checkOps(ops)
    if (times !== undefined) this.times ??= new Float64Array(this.offsets.length)
    if (!hasEmpty) {
      this.offsets.set(offsets, this.rows)
      this.lengths.set(lengths, this.rows)
      if (this.ops !== null) {
        if (ops === undefined) this.ops.fill(0, this.rows, this.rows + n)
        else this.ops.set(ops, this.rows)
      }
      this.times?.set(times!, this.rows)
      this.rows += n
      return
    }
    for (let i = 0; i < n; i++) {
      if (lengths[i] === 0) continue
      const row = this.rows++
      this.offsets[row] = offsets[i]!
      this.lengths[row] = lengths[i]!
      if (this.ops !== null) this.ops[row] = ops?.[i] ?? 0
      if (this.times !== null) this.times[row] = times![i]!
    }
  }

  /** One pass, no allocation; the slow path names the first bad range. Returns whether a length is 0. */
  #checkColumns(offsets: Float64Array, lengths: Float64Array): boolean {
    const size = this.size
    let good = true
    let empty = false
    for (let i = 0; i < offsets.length; i++) {
      const offset = offsets[i]!
      const length = lengths[i]!
      // Math.floor(x) === x is false for NaN; the sum is compared with a safe size, so no overflow can hide.
      good &&=
        offset >= 0 &&
        length >= 0 &&
        offset + length <= size &&
        Math.floor(offset) === offset &&
        Math.floor(length) === length
      empty ||= length === 0
    }
    if (!good) for (let i = 0; i < offsets.length; i++) this.#check(offsets[i]!, lengths[i]!, i)
    return empty
  }

  #check(offset: number, length: number, index: number): void {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
      throw new CheckpointError(
        'RANGE_INVALID',
        `write ${index} (offset ${String(offset)}, length ${String(length)}) is no byte range; give whole numbers of bytes, 0 or more, below 2^53`,
        { disk: this.id, index, offset: String(offset), length: String(length) },
      )
    }
    if (offset + length > this.size) {
      throw new CheckpointError(
        'RANGE_OUTSIDE_DISK',
        `write ${index} (offset ${offset}, length ${length}) ends beyond "${this.id}", which has ${this.size} bytes; resize the disk first if it grew`,
        { disk: this.id, index, offset, length, size: this.size },
      )
    }
  }

  #setOp(row: number, op: WriteRange['op'], index: number): void {
    const code = WRITE_OPS.indexOf(op as (typeof WRITE_OPS)[number])
    if (code < 0) throw new RangeError(`write ${index} has op "${String(op)}"; give write, zero or discard`)
    this.ops ??= new Uint8Array(this.offsets.length)
    this.ops[row] = code
  }

  #checkOps(ops: Uint8Array): void {
    let any = 0
    for (let i = 0; i < ops.length; i++) {
      const op = ops[i]!
      if (op >= WRITE_OPS.length)
        throw new RangeError(`ops[${i}] is ${op}; give 0 (write), 1 (zero) or 2 (discard)`)
      any |= op
    }
    if (any !== 0) this.ops ??= new Uint8Array(this.offsets.length)
  }
}

/** A call's ranges as columns of their own, checked; without the rows that record nothing. */
export function toColumns(disk: number, id: string, size: number, writes: Writes): WriteColumns {
  const pending = new PendingDisk(disk, id, size)
  const rows = pending.take(writes)
  return pending.columns(0, rows)
}

function isColumns(writes: Writes): writes is WriteColumns {
  return writes !== null && typeof writes === 'object' && 'offsets' in writes
}

function checkTimes(times: Float64Array): void {
  let last = 0
  for (let i = 0; i < times.length; i++) {
    const time = times[i]!
    if (!Number.isSafeInteger(time) || time < last || time > TIME_MAX) {
      throw new CheckpointError(
        'TIME_INVALID',
        `times[${i}] is ${time}; times are whole milliseconds since the epoch and never decrease`,
        { index: i, time: String(time) },
      )
    }
    last = time
  }
}

function tooMany(n: number): RangeError {
  return new RangeError(`one call takes at most ${limits.callWritesMax} writes, not ${n}; split it`)
}

function grow<T extends Float64Array | Uint8Array>(from: T, to: T): T {
  to.set(from)
  return to
}
