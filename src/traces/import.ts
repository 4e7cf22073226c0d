/**
 * Importing a trace into a disk's history: every write of the trace becomes a write of the log, with the trace's own
 * distances in time. The file is read twice: first it is checked to its end, so that a bad line, a range outside the disk
 * or a cut file refuses the import before anything is recorded (R21); then it is recorded. Checking costs about 0.2 µs a
 * line. Memory does not grow with the file.
 */
import { CheckpointError } from '../errors.ts'
import type { Disk } from '../store/disk.ts'
import { timeOf } from '../store/points.ts'
import type { Store } from '../store/store.ts'
import type { TraceChoice } from './parts.ts'
import { type BadLine, badLine, openTrace, type Trace, type TraceOptions } from './reader.ts'
import type { TraceBatch } from './rows.ts'

export interface ImportOptions extends TraceChoice {
  /** When the trace's first line happened. Default: the log's clock, never before its last event. */
  readonly at?: string | number | Date
  /** Count bad lines and go on, instead of refusing the whole trace. */
  readonly skipBad?: boolean
  /**
   * Called once, after the trace was found good and before its first write is recorded; not when it has none. For
   * attaching the disk: a trace that is refused then leaves no event (R21).
   */
  readonly beforeRecording?: () => unknown
  readonly onProgress?: (progress: ImportProgress) => void
  readonly signal?: AbortSignal
}

export interface ImportProgress {
  readonly phase: 'checking' | 'recording'
  /** Bytes of the file read in this phase, and its size. */
  readonly read: number
  readonly size: number
  readonly writes: number
}

/** What an import did. Times in ms since the epoch. */
export interface Imported {
  readonly disk: string
  readonly trace: string
  readonly format: string
  /** The device, file or export whose writes were recorded; null where the trace is of one disk, or has no write. */
  readonly part: string | null
  readonly lines: number
  readonly writes: number
  /** Writes of length 0, which record nothing (R1). */
  readonly empty: number
  readonly reads: number
  readonly flushes: number
  readonly others: number
  readonly bad: number
  /** The first bad lines, when they were skipped. */
  readonly badLines: readonly BadLine[]
  /** Lines whose time lay before the line above, or before what others recorded meanwhile: recorded at that time. */
  readonly clamped: number
  readonly bytes: number
  /** Positions of the first and the last write; null when the trace has none. */
  readonly first: number | null
  readonly last: number | null
  /** What was added to the trace's times to get the log's, ms; null when no line has a time. */
  readonly shift: number | null
  /** Log times of the trace's first and last line. */
  readonly from: number | null
  readonly to: number | null
}

/**
 * Records a trace's writes on a disk. The caller has attached the disk (`ensureDisk`).
 * @throws CheckpointError TRACE_UNREADABLE, TRACE_UNKNOWN_FORMAT, TRACE_LINE_INVALID, TRACE_CHOICE_INVALID, TIME_INVALID
 * (`at` before the log's last event), DISK_NOT_FOUND: nothing is recorded. ABORTED: facts `writes` and `last` say how far
 * it got; what is recorded stays.
 */
export async function importTrace(
  store: Store,
  disk: string,
  path: string,
  options: ImportOptions = {},
): Promise<Imported> {
  const target = store.disk(disk)
  const checked = await check(target, path, options)
  let start = startTime(store, options.at)
  if (checked.counts.writes > 0 && options.beforeRecording !== undefined) {
    await options.beforeRecording()
    // What was recorded meanwhile is older than the trace.
    start = startTime(store, options.at)
  }
  const recording = await openTrace(path, { ...readerOptions(target, options), skipBad: true })
  const landed = await record(target, recording, start, options)
  const { counts } = recording
  const firstUs = counts.firstUs
  return {
    disk,
    trace: path,
    format: recording.format,
    part: recording.part,
    lines: counts.lines,
    writes: counts.writes,
    empty: counts.empty,
    reads: counts.reads,
    flushes: counts.flushes,
    others: counts.others,
    bad: counts.bad,
    badLines: checked.badLines,
    clamped: counts.clamped + landed.raised,
    bytes: counts.bytes,
    first: landed.first,
    last: landed.last,
    shift: firstUs === null ? null : start - Math.floor(firstUs / 1000),
    from: firstUs === null ? null : start,
    to: firstUs === null ? null : start + Math.floor((counts.lastUs! - firstUs) / 1000),
  }
}

/** Reads the whole trace without recording. One report names the first bad line and counts them all. */
async function check(disk: Disk, path: string, options: ImportOptions): Promise<Trace> {
  const trace = await openTrace(path, { ...readerOptions(disk, options), skipBad: true })
  try {
    for await (const _ of trace.batches()) tell(trace, 'checking', options)
  } catch (error) {
    throw options.signal?.aborted ? aborted(path, 0, null) : error
  }
  const first = trace.badLines[0]
  if (first !== undefined && options.skipBad !== true) throw badLine(path, first, trace.counts.bad)
  return trace
}

interface Landed {
  first: number | null
  last: number | null
  writes: number
  /** Rows whose time had to be raised. */
  raised: number
}

async function record(disk: Disk, trace: Trace, start: number, options: ImportOptions): Promise<Landed> {
  const landed: Landed = { first: null, last: null, writes: 0, raised: 0 }
  try {
    for await (const batch of trace.batches()) {
      const { first, count, raised } = await recordBatch(disk, columns(batch, start, trace.counts.firstUs!))
      landed.raised += raised
      landed.first ??= first
      landed.last = first + count - 1
      landed.writes += count
      tell(trace, 'recording', options)
    }
  } catch (error) {
    throw options.signal?.aborted ? aborted(trace.path, landed.writes, landed.last) : error
  }
  return landed
}

/** Others may write to an open store meanwhile: what they recorded is later than rows that lay before it (R22). */
async function recordBatch(disk: Disk, writes: ReturnType<typeof columns>) {
  let raised = 0
  for (;;) {
    try {
      return { ...(await disk.recordWrites(writes)), raised }
    } catch (error) {
      const last = error instanceof CheckpointError && error.code === 'TIME_INVALID' && error.facts.last
      if (typeof last !== 'number') throw error
      raised = Math.max(raised, raise(writes.times, last))
    }
  }
}

/** How many times were before `last`, and are `last` now. */
function raise(times: Float64Array, last: number): number {
  let row = 0
  for (; row < times.length && times[row]! < last; row++) times[row] = last
  return row
}

function columns(batch: TraceBatch, start: number, firstUs: number) {
  const times = new Float64Array(batch.count)
  for (let row = 0; row < batch.count; row++)
    times[row] = start + Math.floor((batch.timesUs[row]! - firstUs) / 1000)
  return { offsets: batch.offsets, lengths: batch.lengths, ops: batch.ops, times }
}

/** The log's clock, or the time asked for: a log's time never goes back, so an earlier one is refused. */
function startTime(store: Store, at: ImportOptions['at']): number {
  const last = store.head.time
  if (at === undefined) return store.now
  const time = Math.floor(timeOf(at))
  if (last === null || time >= last) return time
  const lastText = new Date(last).toISOString()
  throw new CheckpointError(
    'TIME_INVALID',
    `The trace cannot begin at ${new Date(time).toISOString()}: the log's last event is of ${lastText}, and time never goes back along it. ` +
      'Give that time or a later one, leave it out, or import into a fresh store.',
    { at: time, last },
  )
}

function readerOptions(disk: Disk, options: ImportOptions): TraceOptions {
  const { device, file, export: exported, action, signal } = options
  return {
    size: disk.size,
    ...(device === undefined ? {} : { device }),
    ...(file === undefined ? {} : { file }),
    ...(exported === undefined ? {} : { export: exported }),
    ...(action === undefined ? {} : { action }),
    ...(signal === undefined ? {} : { signal }),
  }
}

function tell(trace: Trace, phase: ImportProgress['phase'], options: ImportOptions): void {
  options.onProgress?.({ phase, read: trace.fileBytes, size: trace.fileSize, writes: trace.counts.writes })
}

function aborted(path: string, writes: number, last: number | null): CheckpointError {
  const far =
    last === null
      ? 'Nothing of it was recorded'
      : `Its first ${writes} writes are recorded, the last at position ${last}, and stay`
  return new CheckpointError('ABORTED', `The import of ${path} was stopped. ${far}.`, { path, writes, last })
}
