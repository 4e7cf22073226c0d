/**
 * The one way in: every write and every command becomes records here, in order, and reaches the log before anything else
 * sees it (R31). One loop, group commit, at most one append in flight.
 *
 * Writes: all calls that wait form one atomic batch of records. While a batch is being put, the next one is encoded and
 * the one before is folded, so the main thread works during the put. Cost of a row: copied once, encoded once, set in
 * each recording bitmap once.
 * Commands: the pipeline is drained, `decide` sees every earlier event, the record is synced (R30). A command that is a
 * quiet point records the moves in flight again right behind itself, in the same batch (R8).
 * After a failed append nothing is guessed: waiting calls end as OUTCOME_UNKNOWN, later ones as STORE_FAILED (R33).
 */
import { decodeStored, type EncodedRecord } from '../../events/record.ts'
import type { DomainEvent, LogRecord, RecordMeta, WriteColumns } from '../../events/types.ts'
import { slicesNeeded } from '../../projections/bits.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { assert, CheckpointError, messageOf } from '../errors.ts'
import { limits } from '../limits.ts'
import type { EventLog, LogHead, Swap } from '../log/event-log.ts'
import { Arms } from './arms.ts'
import type { ClockReading, LogClock } from './clock.ts'
import { PendingDisk, type Recorded, type RowBuffers, type Waiter } from './incoming.ts'
import { Draft, LogTail } from './log-tail.ts'
import { Moves, type Moving } from './moves.ts'
import type { State } from './state.ts'
import type { Durability, Writes } from './types.ts'

/** Row buffers kept for later batches: one is filled while one is put and one is folded. */
const SPARE_BUFFERS = 3

/** Served writes that came alone, before it is looked again whether more come together. */
const ALONE_BATCHES = 32

/** Rows after which a waiting batch is closed and the next one begun. */
const BATCH_ROWS = 16 * limits.recordWritesMax

interface WriteBatch {
  readonly kind: 'writes'
  readonly disks: Map<number, PendingDisk>
  rows: number
  /** A call with times of its own travels alone. */
  readonly sealed: boolean
}

/** What a decided command wants recorded, and how its answer is made once it is. */
export interface Decided<T> {
  readonly events: readonly DomainEvent[]
  /** Disks for which this is a quiet point: their moves in flight are recorded again behind it (R8). */
  readonly quiet: readonly string[]
  /** Moves that were in flight before the record was decided on: one that landed since is recorded again as well. */
  readonly moving?: Moving | undefined
  /** The folded record, or null when nothing had to change. */
  answer(landed: Landed | null): T | Promise<T>
}

export interface Landed {
  readonly record: Extract<LogRecord, { kind: 'events' }>
}

export interface CommandWork<T> {
  readonly meta: RecordMeta
  /** When it happened, ms, for what is told of the past; never before the log's last event. Left out: the clock's time. */
  readonly time?: number | undefined
  /** `time`: what the record will carry, unless deciding takes the clock on (then it is later). */
  decide(time: number, catalog: Catalog): Promise<Decided<T>>
  /** The first answer of this command id, from the log (R13). */
  recall(position: number): Promise<T>
}

/** Runs that take the place of records, and the events that vouch for them (R29). */
export interface Upkeep {
  readonly events: readonly DomainEvent[]
  readonly replace: readonly Swap[]
}

interface CommandEntry {
  readonly kind: 'command'
  readonly run: () => Promise<void>
  readonly reject: (error: unknown) => void
}

/** Callers to be answered: positions count from `base`, where the first row of their disk's columns went. */
interface Done {
  readonly waiters: readonly Waiter[]
  readonly base: number
}

interface Batch {
  readonly records: readonly EncodedRecord[]
  readonly folded: readonly LogRecord[]
  readonly done: readonly Done[]
  /** Whose columns `folded` looks at. */
  readonly rows: readonly PendingDisk[]
  readonly sync: boolean
}

interface InFlight {
  readonly batch: Batch
  readonly put: Promise<unknown>
}

export interface CommitterHooks {
  /** Right after a record was folded, before the next one is; its columns are valid during the call only. */
  onApplied(record: LogRecord): void
  /** After each fold: what it added. */
  onFolded(records: readonly LogRecord[]): void
  /** Puts bits of slices in memory before a fold that needs them. */
  materialize(record: LogRecord): Promise<void>
}

export class Committer {
  readonly #log: EventLog
  readonly #state: State
  readonly #clock: LogClock
  readonly #sync: boolean
  readonly #hooks: CommitterHooks
  readonly #queue: (WriteBatch | CommandEntry)[] = []
  /** Recorded writes whose bytes are on their way (R8). */
  readonly moves = new Moves()
  /** By disk number. */
  readonly #arms = new Map<number, Arms>()
  readonly #spare: RowBuffers[] = []
  #inFlight: InFlight | null = null
  /** What the queue holds: a log that hangs must not take all memory, whether callers await or not. */
  #waitingCalls = 0
  #waitingRows = 0
  #running = false
  /** Batches of served writes to begin at once, since the last one that was gathered was a single write. */
  #alone = 0
  #idle: Promise<void> = Promise.resolve()
  #failure: CheckpointError | null = null
  #closed = false
  #tail: LogTail

  constructor(log: EventLog, state: State, clock: LogClock, durability: Durability, hooks: CommitterHooks) {
    this.#log = log
    this.#state = state
    this.#clock = clock
    this.#sync = durability === 'power'
    this.#hooks = hooks
    this.#tail = new LogTail(log.head)
  }

  get failure(): CheckpointError | null {
    return this.#failure
  }

  /** R1, R31. Rejects with the codes of `PendingDisk.take`, OUTCOME_UNKNOWN, STORE_FAILED, STORE_CLOSED. */
  recordWrites(
    disk: number,
    id: string,
    size: number,
    writes: Writes,
    onRecorded: Waiter['onRecorded'],
  ): Promise<Recorded> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal()
      if (refusal !== null) {
        reject(refusal)
        return
      }
      const timed = !Array.isArray(writes) && (writes as WriteColumns)?.times !== undefined
      const batch = this.#openBatch(timed, disk, size)
      const pending = this.#pendingOf(batch, disk, id, size)
      const from = pending.rows
      let count = 0
      try {
        count = pending.take(writes)
      } catch (error) {
        reject(error)
        return
      }
      this.#takeIn(batch, pending, { from, count, resolve, reject, onRecorded })
    })
  }

  /**
   * One range, not empty, from a door that serves the disk: no object for it, and at level `power` a sync only where it touches
   * a granule that is not armed (R30). `recorded` is called once in place of a promise, inside the fold: it must not throw.
   * @throws the codes of `PendingDisk.take`, STORE_FAILED, STORE_CLOSED; later failures go to `reject`
   */
  recordServed(
    disk: { readonly number: number; readonly id: string; readonly size: number },
    offset: number,
    length: number,
    op: number,
    recorded: () => void,
    reject: (error: unknown) => void,
  ): void {
    const refusal = this.#refusal()
    if (refusal !== null) throw refusal
    const batch = this.#openBatch(false, disk.number, disk.size)
    const pending = this.#pendingOf(batch, disk.number, disk.id, disk.size)
    const from = pending.rows
    pending.takeOne(offset, length, op)
    this.#takeIn(batch, pending, { from, count: 1, resolve: nothing, reject, onRecorded: recorded }, true)
  }

  #pendingOf(batch: WriteBatch, disk: number, id: string, size: number): PendingDisk {
    let pending = batch.disks.get(disk)
    if (pending === undefined) {
      pending = new PendingDisk(disk, id, size, this.#spare.pop())
      batch.disks.set(disk, pending)
    }
    return pending
  }

  #takeIn(batch: WriteBatch, pending: PendingDisk, waiter: Waiter, gathering = false): void {
    batch.rows += waiter.count
    this.#waitingRows += waiter.count
    this.#waitingCalls++
    pending.waiters.push(waiter)
    this.#start(gathering)
  }

  execute<T>(work: CommandWork<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal()
      if (refusal !== null) {
        reject(refusal)
        return
      }
      const run = async () => resolve(await this.#command(work))
      this.#queue.push({ kind: 'command', run, reject })
      this.#start()
    })
  }

  /**
   * One synced append of upkeep's events together with the runs that they vouch for (R29). `decide` runs while nothing is
   * committed; undefined: there is nothing to do. What does not fit the log any more (POSITION_CONFLICT), or lies over damage
   * (LOG_DAMAGED), is refused and changes nothing (R21).
   */
  upkeep(meta: RecordMeta, decide: () => Promise<Upkeep | undefined>): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal()
      if (refusal !== null) {
        reject(refusal)
        return
      }
      const run = async () => {
        const upkeep = await decide()
        if (upkeep !== undefined) await this.#replace(meta, upkeep)
        resolve(upkeep !== undefined)
      }
      this.#queue.push({ kind: 'command', run, reject })
      this.#start()
    })
  }

  async #replace(meta: RecordMeta, { events, replace }: Upkeep): Promise<void> {
    // A step of the clock waits for the next record that may not be refused here: told in vain it would be forgotten.
    const { time } = this.#clock.read(this.#tail.time)
    const draft = new Draft()
    this.#tail.events(time, meta, events, draft)
    const { records, folded } = draft
    try {
      await this.#log.append(records, { expected: records[0]!.first, sync: true, replace })
    } catch (cause) {
      if (isRefusal(cause)) {
        this.#tail = new LogTail(this.#log.head)
        throw cause
      }
      this.#fail(cause)
      throw this.#unknown(cause)
    }
    for (const record of folded) {
      this.#state.apply(record)
      this.#hooks.onApplied(record)
    }
    this.#hooks.onFolded(folded)
  }

  /**
   * Takes records that were made elsewhere, as they are: one synced append, all of them or none. `make` is told where they go on
   * from; what it throws is the caller's, and nothing was recorded.
   */
  adopt(make: (head: LogHead) => Promise<readonly EncodedRecord[]>): Promise<void> {
    return this.exclusive(async () => {
      const refusal = this.#refusal()
      if (refusal !== null) throw refusal
      const records = await make(this.#log.head)
      if (records.length === 0) return
      try {
        await this.#log.append(records, { expected: records[0]!.first, sync: true })
      } catch (cause) {
        if (isRefusal(cause)) throw cause
        this.#fail(cause)
        throw this.#unknown(cause)
      }
      this.#tail = new LogTail(this.#log.head)
      try {
        for (const { bytes } of records) for (const record of decodeStored(bytes)) await this.#adopted(record)
      } catch (bug) {
        // The log has it and the state does not: only an open folds it again.
        this.#fail(bug)
        throw this.#failure
      }
    })
  }

  async #adopted(record: LogRecord): Promise<void> {
    if (slicesNeeded(record).length > 0) await this.#hooks.materialize(record)
    this.#state.apply(record)
    this.#hooks.onApplied(record)
    this.#hooks.onFolded([record])
  }

  /** Runs `work` while nothing is committed: it sees and may repair the live state. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ kind: 'command', run: async () => resolve(await work()), reject })
      this.#start()
    })
  }

  /** Everything that was acknowledged before survives a power cut afterwards (R30): one sync of the log, and no event. */
  sync(): Promise<void> {
    return this.exclusive(async () => {
      const refusal = this.#refusal()
      if (refusal !== null) throw refusal
      try {
        await this.#log.append([], { expected: this.#log.head.next, sync: true })
      } catch (cause) {
        this.#fail(cause)
        throw this.#failure
      }
    })
  }

  /** Resolves when everything handed in so far has ended. */
  async settled(): Promise<void> {
    while (this.#running) await this.#idle
  }

  /** No call is taken any more; what waits is done first. */
  async close(): Promise<void> {
    this.#closed = true
    await this.settled()
  }

  #refusal(): CheckpointError | null {
    if (this.#failure !== null) return this.#failure
    if (this.#closed) return new CheckpointError('STORE_CLOSED', 'the store is closed; open it again')
    return this.#waitingCalls < limits.queuedCallsMax && this.#waitingRows < limits.queuedRowsMax
      ? null
      : queueFull(this.#waitingCalls, this.#waitingRows)
  }

  /** The batch that waits, unless a resize came between its calls and this one: ranges are checked against one size. */
  #openBatch(timed: boolean, disk: number, size: number): WriteBatch {
    const last = this.#queue.at(-1)
    if (
      !timed &&
      last?.kind === 'writes' &&
      !last.sealed &&
      last.rows < BATCH_ROWS &&
      (last.disks.get(disk)?.size ?? size) === size
    )
      return last
    const batch: WriteBatch = { kind: 'writes', disks: new Map(), rows: 0, sealed: timed }
    this.#queue.push(batch)
    return batch
  }

  /**
   * A microtask later, so that every call of this turn joins the first batch; `gathering`: after everything that the sockets have by
   * now, since requests come one by one however many were sent. Where that found a single one it is left out for a while.
   */
  #start(gathering = false): void {
    if (this.#running) return
    this.#running = true
    const gather = gathering && --this.#alone < 0
    const turn = gather ? new Promise<void>((resolve) => setImmediate(resolve)) : Promise.resolve()
    this.#idle = turn.then(() => {
      if (gather) this.#alone = this.#waitingCalls > 1 ? 0 : ALONE_BATCHES
      return this.#drain()
    })
  }

  async #drain(): Promise<void> {
    for (;;) {
      const entry = this.#queue.shift()
      if (entry !== undefined) this.#taken(entry)
      if (entry === undefined) {
        if (this.#inFlight === null) break
        await this.#land(null)
      } else if (this.#failure !== null) {
        this.#refuse(entry, this.#failure)
      } else if (entry.kind === 'writes') {
        await this.#writes(entry)
      } else {
        await this.#land(null)
        // What was in flight may have failed just now: then the command was not tried, and nothing about it is unknown.
        if (this.#failure !== null) this.#refuse(entry, this.#failure)
        else await entry.run().catch(entry.reject)
      }
    }
    this.#running = false
  }

  #taken(entry: WriteBatch | CommandEntry): void {
    if (entry.kind === 'command') return
    this.#waitingRows -= entry.rows
    for (const pending of entry.disks.values()) this.#waitingCalls -= pending.waiters.length
  }

  async #writes(entry: WriteBatch): Promise<void> {
    let batch: Batch | null
    try {
      batch = this.#encodeBatch(entry)
    } catch (error) {
      // A bug of ours: what was half encoded must not reach the log, nor anything after it.
      this.#fail(error)
      this.#refuse(entry, this.#failure!)
      return
    }
    if (batch !== null) await this.#land(batch)
  }

  #refuse(entry: WriteBatch | CommandEntry, error: CheckpointError): void {
    if (entry.kind === 'command') entry.reject(error)
    else
      for (const pending of entry.disks.values()) for (const waiter of pending.waiters) waiter.reject(error)
  }

  /** Waits for the append in flight, launches `next`, and only then folds the one that landed. */
  async #land(next: Batch | null): Promise<void> {
    const before = this.#inFlight
    this.#inFlight = null
    if (before !== null) {
      try {
        await before.put
      } catch (cause) {
        this.#fail(cause)
        rejectAll(before.batch.done, this.#unknown(cause))
        rejectAll(next?.done ?? [], this.#failure!)
        return
      }
    }
    if (next !== null) {
      const put = this.#log.append(next.records, { expected: next.records[0]!.first, sync: next.sync })
      put.catch(() => undefined) // Seen when it is awaited above; until then it must not count as unhandled.
      this.#inFlight = { batch: next, put }
    }
    if (before !== null) this.#fold(before.batch)
  }

  #fold(batch: Batch): void {
    try {
      for (const record of batch.folded) {
        this.#state.apply(record)
        this.#hooks.onApplied(record)
      }
    } catch (bug) {
      // A bug of ours: the log has the writes and the state does not. Only an open folds them again.
      this.#fail(bug)
      rejectAll(batch.done, this.#failure!)
      return
    }
    tellRecorded(batch.done)
    this.#hooks.onFolded(batch.folded)
    resolveAll(batch.done)
    for (const pending of batch.rows) this.#keepBuffers(pending)
  }

  /** Nothing that was folded looks at these rows any more: the next batch may have their place. */
  #keepBuffers({ offsets, lengths }: PendingDisk): void {
    if (this.#spare.length < SPARE_BUFFERS && offsets.length <= 2 * BATCH_ROWS)
      this.#spare.push({ offsets, lengths })
  }

  #encodeBatch(batch: WriteBatch): Batch | null {
    // Times of the caller's own need no clock (and a step told here could overtake them).
    const reading = batch.sealed
      ? { time: this.#tail.time ?? 0, step: null }
      : this.#clock.read(this.#tail.time)
    const draft = new Draft()
    const done: Done[] = []
    this.#tellStep(reading, draft)
    const rows: PendingDisk[] = []
    let base = this.#tail.next
    for (const pending of batch.disks.values()) {
      const good = this.#recheck(pending)
      done.push({ waiters: good.waiters, base })
      if (good.rows > 0) rows.push(good)
      base += good.rows
    }
    this.#tail.rows(rows, reading.time, draft)
    if (draft.records.length > 0) return { ...draft, done, rows, sync: this.#mustSync(rows, reading.time) }
    // Only empty calls: they are answered in their turn, after what was in flight before them.
    tellRecorded(done)
    resolveAll(done)
    return null
  }

  /** At level `power` all but rows of served disks on granules that are armed (R30). */
  #mustSync(rows: readonly PendingDisk[], time: number): boolean {
    if (!this.#sync) return false
    let must = rows.length === 0
    for (const pending of rows) {
      if (!pending.armable) must = true
      else if (this.#armsOf(pending).take(pending.columns(0, pending.rows), time)) must = true
    }
    return must
  }

  #armsOf({ disk, size }: PendingDisk): Arms {
    let arms = this.#arms.get(disk)
    if (arms?.size !== size) {
      arms = new Arms(size)
      this.#arms.set(disk, arms)
    }
    return arms
  }

  /** Rows that a resize, a removal or the log's time overtook between the call and now are refused, call by call. */
  #recheck(pending: PendingDisk): PendingDisk {
    const place = this.#state.catalog.diskByNumber(pending.disk)
    const disk = place === undefined || place.removed ? undefined : this.#state.catalog.disk(place.id)
    const late =
      pending.times !== null &&
      pending.rows > 0 &&
      this.#tail.time !== null &&
      pending.times[0]! < this.#tail.time
    if (disk !== undefined && disk.size === pending.size && !late) return pending
    const kept = new PendingDisk(pending.disk, pending.id, disk?.size ?? 0)
    for (const waiter of pending.waiters) {
      try {
        if (disk === undefined)
          throw new CheckpointError(
            'DISK_NOT_FOUND',
            `disk "${pending.id}" was removed; add it again first`,
            { disk: pending.id },
          )
        if (late) throw timeBehindLog(pending.times![0]!, this.#tail.time!)
        const from = kept.rows
        const count = kept.take(pending.columns(waiter.from, waiter.from + waiter.count))
        kept.waiters.push({ ...waiter, from, count })
      } catch (error) {
        waiter.reject(error)
      }
    }
    return kept
  }

  async #command<T>(work: CommandWork<T>): Promise<T> {
    const { commandId } = work.meta
    if (commandId !== undefined) {
      const position = await this.#log.positionOfCommand(commandId)
      if (position !== undefined) return await work.recall(position)
    }
    const reading =
      work.time === undefined
        ? this.#clock.read(this.#tail.time)
        : { time: Math.max(work.time, this.#tail.time ?? 0), step: null }
    const decided = await work.decide(reading.time, this.#after(reading))
    let events = decided.events
    if (events.length === 0) {
      if (commandId === undefined) return await decided.answer(null)
      events = [{ type: 'nothing-changed' }] // So that the same id is answered the same for ever (R13).
    }
    return await decided.answer({ record: await this.#commit(reading, work.meta, events, decided) })
  }

  /** What decide is to see: a step of the clock goes into the log ahead of the command's record, if that is recorded at all (R21). */
  #after({ step, time }: ClockReading): Catalog {
    const { catalog } = this.#state
    if (step === null) return catalog
    const fork = catalog.fork()
    fork.applyEvent({ type: 'clock-stepped', ...step }, this.#tail.next, { position: this.#tail.next, time })
    return fork
  }

  /** One synced batch: the record of `events`, and behind it the moves in flight of the disks in `quiet` (R8). */
  async #commit(
    reading: ClockReading,
    meta: RecordMeta,
    events: readonly DomainEvent[],
    { quiet, moving }: Pick<Decided<unknown>, 'quiet' | 'moving'>,
  ): Promise<Landed['record']> {
    const draft = new Draft()
    this.#tellStep(reading, draft)
    this.#tail.events(reading.time, meta, events, draft)
    const { records, folded } = draft
    const landed = folded.at(-1)!
    assert(landed.kind === 'events', 'a command lands as an events record')
    this.#tail.rows(this.moves.again(quiet, events, this.#state.catalog, moving), reading.time, draft)
    this.#disarm(quiet)
    try {
      await this.#log.append(records, { expected: records[0]!.first, sync: true })
    } catch (cause) {
      this.#fail(cause)
      throw this.#unknown(cause)
    }
    try {
      for (const record of folded) {
        if (slicesNeeded(record).length > 0) await this.#hooks.materialize(record)
        this.#state.apply(record)
        this.#hooks.onApplied(record)
      }
    } catch (bug) {
      // The log has it and the state does not: only an open folds it again.
      this.#fail(bug)
      throw this.#failure
    }
    this.#hooks.onFolded(folded)
    return landed
  }

  #tellStep({ step, time }: ClockReading, draft: Draft): void {
    if (step === null) return
    this.#tail.events(time, {}, [{ type: 'clock-stepped', ...step }], draft)
    this.#clock.told()
  }

  /** Arms end at a point: what is written after it gets a record of its own after it, synced. */
  #disarm(disks: readonly string[]): void {
    for (const id of disks) {
      const disk = this.#state.catalog.disk(id)
      if (disk !== undefined) this.#arms.delete(disk.number)
    }
  }

  #fail(cause: unknown): void {
    if (this.#failure !== null) return
    this.#failure = new CheckpointError(
      'STORE_FAILED',
      'a write to the log failed, so the store takes nothing more; see the cause, put it right (free space, a healthy disk), then close and open the store again',
      { cause: messageOf(cause) },
      cause,
    )
  }

  #unknown(cause: unknown): CheckpointError {
    return new CheckpointError(
      'OUTCOME_UNKNOWN',
      'the write to the log failed, so it is unknown whether this was recorded; open the store again: its command id, or the log, tells',
      {},
      cause,
    )
  }
}

/** The log wrote nothing and goes on. */
function isRefusal(cause: unknown): boolean {
  return (
    cause instanceof CheckpointError && (cause.code === 'POSITION_CONFLICT' || cause.code === 'LOG_DAMAGED')
  )
}

function tellRecorded(done: readonly Done[]): void {
  for (const { waiters, base } of done) {
    for (const { from, onRecorded } of waiters) if (onRecorded !== null) onRecorded(base + from)
  }
}

function resolveAll(done: readonly Done[]): void {
  for (const { waiters, base } of done) {
    for (const { from, count, resolve } of waiters) resolve({ first: base + from, count })
  }
}

function rejectAll(done: readonly Done[], error: CheckpointError): void {
  for (const { waiters } of done) for (const { reject } of waiters) reject(error)
}

function queueFull(calls: number, rows: number): CheckpointError {
  return new CheckpointError(
    'QUEUE_FULL',
    `${calls} calls with ${rows} writes wait for the log, and the queue holds no more; await them, then call again`,
    { calls, rows },
  )
}

function timeBehindLog(time: number, last: number): CheckpointError {
  return new CheckpointError(
    'TIME_INVALID',
    `the first time (${new Date(time).toISOString()}) is before the log's last (${new Date(last).toISOString()}); shift the times so that they go on from there`,
    { time, last },
  )
}

function nothing(): void {}
