/**
 * Folds writes older than a chosen age into windows, step by step, beside everything else (R29).
 *
 * A step reads a bounded stretch of the log beside the committer, builds runs, and hands them over as one record: the event that
 * vouches for them, and the runs in the place of what they fold, in one synced batch. So a step happened or it did not, and the next
 * one begins with the log as it is: killed anywhere, nothing has to be mended. What cannot be folded, or is not worth it, stays.
 * Cost: about 150 ns a write, one short wait of the committer a step; memory: one step.
 */
import { EMPTY_HASH, readHeader } from '../../events/record.ts'
import type { Point, RecordMeta } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { aborted, recordsOf } from '../log/entries.ts'
import type { EventLog, Swap } from '../log/event-log.ts'
import type { LogClock } from './clock.ts'
import type { Committer } from './committer.ts'
import { START } from './points.ts'
import { type CompactionPolicy, DEFAULT_POLICY, formatPolicy, type PolicyInput, policyOf } from './policy.ts'
import { protectedPositions } from './protected.ts'
import { type BuiltRun, RunBuilder, type WindowRule } from './run-builder.ts'
import type { State } from './state.ts'

/** Bytes of stored values that a step folds: what the committer waits for is reading them once more, and one sync. */
const STEP_BYTES = 2 * 1024 * 1024
const STEP_RUNS = 256
/** Replaced bytes after which LevelDB is asked to give them back. */
const RECLAIM_BYTES = 64 * 1024 * 1024

export interface CompactOptions {
  /** As `7d:1m,90d:1h`, or as rules in ms. Default: the policy that the store was opened with, else `7d:1m,90d:1h`. */
  readonly policy?: PolicyInput
  /** Ends after the step that it is in; what was folded stays folded. */
  readonly signal?: AbortSignal
  /** After each step: the last position looked at, and the last one that will be. */
  readonly onProgress?: (position: number, last: number) => void
  /** A pause after each step, so that others have the disk and the processor. Default 0. */
  readonly pauseMs?: number
  /** Bytes of stored values that one step folds: fewer are a shorter wait for others, and more steps. Default 2 MiB. */
  readonly stepBytes?: number
  /** Folds and counts, and records nothing. */
  readonly dryRun?: boolean
  /** Who asked for it: goes into the cause of each event. */
  readonly actor?: string
}

export interface Compacted {
  readonly policy: string
  /** Runs written, windows in them, write events that those stand for. */
  readonly runs: number
  readonly windows: number
  readonly events: number
  /** Of the stored values that were replaced, and of the runs in their place. */
  readonly bytesBefore: number
  readonly bytesAfter: number
  /** Everything older than the policy's youngest age lies at or before it. */
  readonly upTo: Point
}

export interface CompactorParts {
  readonly log: EventLog
  readonly state: State
  readonly clock: LogClock
  readonly committer: Pick<Committer, 'upkeep'>
  /** Positions that readers stored, and that derived values are of: runs end there (R29). */
  readonly boundaries: () => Promise<readonly number[]>
  readonly policy: PolicyInput | undefined
  readonly actor: string | undefined
}

interface Step {
  readonly runs: readonly BuiltRun[]
  /** Where the next step begins. */
  readonly next: number
  readonly cuts: ReadonlySet<number>
}

interface Stretch {
  readonly from: number
  readonly to: number
}

type Tally = { -readonly [K in 'runs' | 'windows' | 'events' | 'bytesBefore' | 'bytesAfter']: number }

/** `taken`: the run of the step before that this one took up again, and took the place of. */
function count(tally: Tally, built: BuiltRun, taken: BuiltRun | undefined): void {
  tally.runs += taken === undefined ? 1 : 0
  tally.windows += built.windows - (taken?.windows ?? 0)
  tally.events += built.events - (taken?.events ?? 0)
  tally.bytesBefore += Math.round(built.bytesBefore) - (taken?.value.length ?? 0)
  tally.bytesAfter += built.value.length - (taken?.value.length ?? 0)
}

export class Compactor {
  readonly #parts: CompactorParts
  readonly #stopped = new AbortController()
  #running: Promise<unknown> = Promise.resolve()
  /** Per policy and rule: where the last whole pass ended, so that the next one need not look again. */
  readonly #done = new Map<string, readonly number[]>()

  constructor(parts: CompactorParts) {
    this.#parts = parts
  }

  /** The policy in force when none is named. */
  policy(input: PolicyInput | undefined = this.#parts.policy): CompactionPolicy {
    return policyOf(input ?? DEFAULT_POLICY)
  }

  /**
   * One at a time; a second call waits for the first.
   * @throws CheckpointError POLICY_INVALID, ABORTED, LOG_DAMAGED (nothing is folded over damage), and the committer's
   */
  compact(options: CompactOptions = {}): Promise<Compacted> {
    const policy = this.policy(options.policy)
    const compacted = this.#running.then(() => this.#compact(policy, options))
    this.#running = compacted.catch(() => undefined)
    return compacted
  }

  /** Ends what is going on after its step, and refuses everything later. */
  async stop(): Promise<void> {
    this.#stopped.abort(new CheckpointError('STORE_CLOSED', 'the store is closed; open it again'))
    await this.#running
  }

  /** Stretches that a policy applies to now, the coarsest rule's first. */
  async stretches(policy: CompactionPolicy): Promise<{ rules: WindowRule[]; ends: number[] }> {
    const { log, clock } = this.#parts
    const now = Math.max(clock.now, log.head.time ?? 0)
    const rules = [...policy].reverse().map(({ olderThan, window }) => ({
      // A window is folded once all of it is old enough, so that it is folded once.
      before: Math.floor((now - olderThan) / window) * window,
      window,
    }))
    const ends: number[] = []
    for (const { before } of rules) ends.push(before <= 0 ? 0 : await log.positionAtTime(before))
    return { rules, ends }
  }

  async #compact(policy: CompactionPolicy, options: CompactOptions): Promise<Compacted> {
    const { log } = this.#parts
    const key = formatPolicy(policy)
    const { rules, ends } = await this.stretches(policy)
    const begun = this.#done.get(key) ?? []
    const tally: Tally = { runs: 0, windows: 0, events: 0, bytesBefore: 0, bytesAfter: 0 }
    const end = ends.at(-1) ?? 0
    let kept = 0
    for (const [i, to] of ends.entries()) {
      const from = Math.max(begun[i] ?? 0, ends[i - 1] ?? 0)
      kept = await this.#fold({ from, to }, rules, end, tally, kept, options)
    }
    if (options.dryRun !== true) {
      if (end > 0 && (tally.runs > 0 || begun.length === 0)) await log.reclaim(0, end)
      this.#done.set(key, ends)
    }
    return { policy: key, ...tally, upTo: await this.#pointAt(end - 1) }
  }

  /** All steps of one stretch. `kept`: replaced bytes that are not given back yet; returned as they are then. */
  async #fold(
    { from, to }: Stretch,
    rules: readonly WindowRule[],
    end: number,
    tally: Tally,
    kept: number,
    options: CompactOptions,
  ): Promise<number> {
    let waiting = kept
    let reclaimed = from
    let taken: BuiltRun | undefined
    for (let at = from; at < to; ) {
      this.#refuseIfStopped(options.signal)
      const step = await this.plan({ from: at, to }, rules, options.stepBytes)
      const runs = options.dryRun === true ? step.runs : await this.#commit(step, options)
      for (const run of runs) {
        count(tally, run, run.run.first === taken?.run.first ? taken : undefined)
        waiting += run.bytesBefore
      }
      const last = runs.at(-1)
      // A run that what follows may still join is taken up again by the next step; it is small by now.
      taken =
        options.dryRun !== true && last?.open === true && last.run.last + 1 === step.next ? last : undefined
      at = taken?.run.first ?? step.next
      if (waiting > RECLAIM_BYTES && options.dryRun !== true) {
        await this.#parts.log.reclaim(reclaimed, step.next)
        reclaimed = step.next
        waiting = 0
      }
      options.onProgress?.(step.next - 1, end - 1)
      if (options.pauseMs !== undefined && options.pauseMs > 0)
        await this.#pause(options.pauseMs, options.signal)
    }
    return waiting
  }

  /** Reads on from `from` until a step is full, and folds it. Records nothing. */
  async plan({ from, to }: Stretch, rules: readonly WindowRule[], stepBytes = STEP_BYTES): Promise<Step> {
    const { log } = this.#parts
    const boundaries = await this.#boundaries()
    const cuts = [...boundaries]
    let builder: RunBuilder | undefined
    let bytes = 0
    let next = from
    let full = false
    // The value before comes along: its hash is where the chain goes on, and what follows a gap is left alone.
    for await (const entries of log.values({ from: Math.max(0, from - 1), to: to - 1 })) {
      for (const entry of entries) {
        const { first, count, hash, layout } = readHeader(entry.value)
        if (builder === undefined) {
          const context = first + count <= from
          const before = context
            ? { hash, gap: recordsOf(entry)[0]!.kind === 'gap' }
            : await this.#before(first)
          builder = new RunBuilder(rules, cuts, from, before)
          if (context) continue
        }
        builder.add(entry)
        next = Math.min(to, first + count)
        if (layout !== 'run') bytes += entry.value.length
        full = bytes >= stepBytes || builder.runs.length >= STEP_RUNS
        if (full) break
      }
      if (full) break
    }
    builder?.finish(full)
    return { runs: builder?.runs ?? [], next: full ? next : to, cuts: new Set(boundaries) }
  }

  /** The chain's hash before the value at `position`, and whether a gap lies there: `from` may lie inside a pack behind one. */
  async #before(position: number): Promise<{ readonly hash: Uint8Array; readonly gap: boolean }> {
    if (position === 0) return { hash: EMPTY_HASH, gap: false }
    for await (const [entry] of this.#parts.log.values({ from: position - 1, to: position - 1 })) {
      if (entry === undefined) break
      const { first, count, hash } = readHeader(entry.value)
      if (first + count === position) return { hash, gap: recordsOf(entry)[0]!.kind === 'gap' }
    }
    throw new CheckpointError('LOG_DAMAGED', `no record ends at position ${position - 1}; run verify`, {
      position,
    })
  }

  async #boundaries(): Promise<number[]> {
    const { log, state, boundaries } = this.#parts
    // Heads as the head file may know them: an open must find them on the chain (R28).
    const heads = [log.head.next - 1, log.syncedHead.next - 1]
    return protectedPositions(state.catalog, [...heads, ...(await boundaries())])
  }

  /** Inside the committer: what became a point since the step was planned must not end up inside a run. */
  async #commit(step: Step, { actor }: CompactOptions): Promise<readonly BuiltRun[]> {
    if (step.runs.length === 0) return []
    let written: readonly BuiltRun[] = []
    const by = actor ?? this.#parts.actor
    const meta: RecordMeta = { command: 'compact', ...(by === undefined ? {} : { actor: by }) }
    await this.#parts.committer.upkeep(meta, async () => {
      const fresh = (await this.#boundaries()).filter((position) => !step.cuts.has(position))
      written = step.runs.filter(
        ({ run }) => !fresh.some((position) => run.first <= position && position < run.last),
      )
      if (written.length === 0) return undefined
      const replace = written.map(({ run, value }): Swap => ({ first: run.first, last: run.last, value }))
      return { events: [{ type: 'log-compacted', runs: written.map(({ run }) => run) }], replace }
    })
    return written
  }

  async #pointAt(position: number): Promise<Point> {
    if (position < 0) return START
    for await (const entries of this.#parts.log.values({ from: position, to: position })) {
      const last = entries.at(-1)
      const record = last && recordsOf(last).findLast(({ first }) => first <= position)
      if (record !== undefined) return { position, time: record.lastTime }
    }
    return { position, time: null }
  }

  #refuseIfStopped(signal: AbortSignal | undefined): void {
    if (this.#stopped.signal.aborted) throw this.#stopped.signal.reason
    if (signal?.aborted === true) throw aborted(signal)
  }

  async #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const signals = [this.#stopped.signal, ...(signal === undefined ? [] : [signal])]
    await new Promise<void>((resolve) => {
      const any = AbortSignal.any(signals)
      const timer = setTimeout(done, ms)
      any.addEventListener('abort', done)
      function done() {
        clearTimeout(timer)
        any.removeEventListener('abort', done)
        resolve()
      }
    })
  }
}
