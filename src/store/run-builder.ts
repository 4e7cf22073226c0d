/**
 * Folds stored values into runs of windows (R29): which records may be folded, where windows and runs end, and whether a run is
 * worth it.
 *
 * A window ends where its time does, and after each position in `cuts`: a point there must stay one. A run holds whole records,
 * because the chain's hash is known only where one ends; so it also ends after a cut at which a record does. Events, gaps, and what
 * follows a gap (R28: only an event vouches for its hash) stay as they are. The chain is followed through everything that is
 * folded: what was edited must not vanish in a window. Cost: decode, one hash a record, and open-window.ts.
 */
import { encodeWindows, hashesOf, ownHash } from '../../events/record.ts'
import type { CompactedRun, LogRecord, LogWindow } from '../../events/types.ts'
import { logDamaged, refusalAt } from '../log/damaged.ts'
import { headerOf, recordsOf, type StoredEntry } from '../log/entries.ts'
import { OpenWindow } from './open-window.ts'

/** Writes before `before` (ms since the epoch) become windows of `window` ms. Ascending by `before`: the coarsest first. */
export interface WindowRule {
  readonly before: number
  readonly window: number
}

export interface BuiltRun {
  readonly run: CompactedRun
  readonly value: Uint8Array
  readonly windows: number
  readonly events: number
  readonly bytesBefore: number
  /** More could have joined it, had more been read. */
  readonly open: boolean
}

const RUN_BYTES_MAX = 256 * 1024
const RUN_WINDOWS_MAX = 1024
/** What a run costs besides its value: its key, and its line in the event that vouches for it. */
const RUN_COST = 128

interface OpenRun {
  readonly first: number
  readonly before: Uint8Array
  after: Uint8Array
  next: number
  bytesBefore: number
  bytes: number
  readonly windows: LogWindow[]
  /** Whether it differs from what is stored: something joined, or was no window before. */
  changed: boolean
}

export class RunBuilder {
  readonly runs: BuiltRun[] = []
  readonly #rules: readonly WindowRule[]
  readonly #cuts: readonly number[]
  #cut = 0
  #run: OpenRun | undefined
  #window: OpenWindow | undefined
  /** Of the value before: the chain's hash after it, and whether it was a gap. */
  #before: { readonly hash: Uint8Array; readonly gap: boolean }
  readonly #from: number

  /** `before`: the chain's hash before the first value that will be added; `from`: records before it are left alone. */
  constructor(
    rules: readonly WindowRule[],
    cuts: readonly number[],
    from: number,
    before: { readonly hash: Uint8Array; readonly gap: boolean },
  ) {
    this.#rules = rules
    this.#cuts = cuts
    this.#from = from
    this.#before = before
  }

  /** Throws LOG_DAMAGED or FORMAT_TOO_NEW. */
  add(entry: StoredEntry): void {
    const { hash, layout } = headerOf(entry)
    const records = recordsOf(entry)
    const before = this.#before
    this.#before = { hash, gap: records[0]!.kind === 'gap' }
    if (before.gap) {
      this.#endRun(false)
      return
    }
    const steps = stepsOf(entry, before.hash)
    if (Buffer.compare(steps[steps.length - 1]!.hash, hash) !== 0)
      throw logDamaged('chain', { position: entry.position })
    const bytes = entry.value.length / records.length
    records.forEach((record, i) => {
      this.#record(
        record,
        i === 0 ? before.hash : steps[i - 1]!.hash,
        steps[i]!.hash,
        bytes,
        layout === 'run',
      )
    })
  }

  /** `open`: only what was read ends here, not what could be folded. */
  finish(open: boolean): void {
    this.#endRun(open)
  }

  #record(record: LogRecord, before: Uint8Array, after: Uint8Array, bytes: number, folded: boolean): void {
    if (record.first < this.#from) return
    const foldable =
      (record.kind === 'writes' || record.kind === 'windows') && this.#ruleOf(record.lastTime) !== undefined
    if (!foldable || this.#cutBefore(record.first)) this.#endRun(false)
    if (!foldable) return
    if (this.#run !== undefined && this.#apart(this.#run, record, folded, bytes)) this.#endRun(false)
    this.#run ??= {
      first: record.first,
      before,
      after,
      next: record.first,
      bytesBefore: 0,
      bytes: 0,
      windows: [],
      changed: !folded,
    }
    const run = this.#run
    if (record.kind === 'windows') for (const window of record.windows) this.#addWindow(run, window)
    else this.#addWrites(run, record)
    if (!folded) run.changed = true
    run.after = after
    run.next = record.first + record.count
    run.bytesBefore += bytes
    if (run.bytes + (this.#window?.bytes ?? 0) > RUN_BYTES_MAX || run.windows.length >= RUN_WINDOWS_MAX)
      this.#endRun(false)
  }

  /** A run that would grow too large ends; one that is stored already is left alone unless windows of two values join. */
  #apart(run: OpenRun, record: LogRecord, folded: boolean, bytes: number): boolean {
    if (run.bytes + (this.#window?.bytes ?? 0) + bytes > RUN_BYTES_MAX) return true
    const joins = this.#window !== undefined && record.time < this.#window.until
    return (folded || !run.changed) && !joins
  }

  #addWindow(run: OpenRun, window: LogWindow): void {
    const open = this.#windowFor(run, window.first, window.time)
    if (open.first !== window.first) run.changed = true
    open.addWindow(window)
  }

  #addWrites(run: OpenRun, record: Extract<LogRecord, { kind: 'writes' }>): void {
    let position = record.first
    for (const { disk, columns } of record.sections) {
      const { times } = columns
      const rows = columns.offsets.length
      for (let from = 0; from < rows; ) {
        const open = this.#windowFor(run, position, times?.[from] ?? record.time)
        const cut = this.#cuts[this.#cut] ?? Number.POSITIVE_INFINITY
        let to = Math.min(rows, from + (cut - position) + 1)
        if (times !== undefined) to = firstAtOrAfter(times, open.until, from, to)
        open.addWrites(disk, columns, from, to, times?.[to - 1] ?? record.time)
        position += to - from
        from = to
      }
    }
  }

  /** The window that takes the event at `position`: the open one, unless its time is over, it is full, or a cut lies between. */
  #windowFor(run: OpenRun, position: number, time: number): OpenWindow {
    const cut = this.#cutBefore(position)
    if (this.#window !== undefined && !cut && time < this.#window.until && !this.#window.full)
      return this.#window
    this.#closeWindow(run)
    this.#window = new OpenWindow(position, time, this.#untilOf(time))
    return this.#window
  }

  #closeWindow(run: OpenRun): void {
    if (this.#window === undefined) return
    run.bytes += this.#window.bytes
    run.windows.push(this.#window.close())
    this.#window = undefined
  }

  #ruleOf(time: number): WindowRule | undefined {
    return this.#rules.find(({ before }) => time < before)
  }

  #untilOf(time: number): number {
    const { before, window } = this.#ruleOf(time)!
    return Math.min(before, (Math.floor(time / window) + 1) * window)
  }

  /** Whether a point lies between `position` and the one before it. Positions are asked in order. */
  #cutBefore(position: number): boolean {
    while (this.#cut < this.#cuts.length && this.#cuts[this.#cut]! < position - 1) this.#cut++
    const found = this.#cuts[this.#cut] === position - 1
    if (found) this.#cut++
    if (found) this.#lastCut = position
    return found || this.#lastCut === position
  }

  #lastCut = -1

  #endRun(open: boolean): void {
    const run = this.#run
    if (run === undefined) return
    this.#closeWindow(run)
    this.#run = undefined
    if (!run.changed) return
    const value = encodeWindows(run.first, run.windows, run.after)
    if (value.length + RUN_COST >= run.bytesBefore) return
    this.runs.push({
      run: {
        first: run.first,
        last: run.next - 1,
        before: hex(run.before),
        after: hex(run.after),
        own: hex(ownHash(value)),
      },
      value,
      windows: run.windows.length,
      events: run.next - run.first,
      bytesBefore: run.bytesBefore,
      open,
    })
  }
}

/** The first row in [from, to) whose time is ≥ `until`, at least one row on. */
function firstAtOrAfter(times: Float64Array, until: number, from: number, to: number): number {
  if (times[to - 1]! < until) return to
  let low = from + 1
  let high = to
  while (low < high) {
    const middle = (low + high) >>> 1
    if (times[middle]! < until) low = middle + 1
    else high = middle
  }
  return low
}

function stepsOf({ position, value }: StoredEntry, previous: Uint8Array): ReturnType<typeof hashesOf> {
  try {
    return hashesOf(value, previous)
  } catch (error) {
    throw refusalAt(position, error)
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}
