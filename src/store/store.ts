/**
 * The store, as a program holds it: the embedded face of everything. Reading the present is the same as reading the past
 * (`StateView`); whatever changes something goes through the committer.
 */
import { randomUUID } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Observable } from 'rxjs'
import type { LogRecord, LostStretch, Point, Recorder } from '../../events/types.ts'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { DiskState, ToldOf } from '../../projections/state.ts'
import type { Answer } from '../commands/answer.ts'
import { baseOf } from '../commands/begin.ts'
import { findBitmap, findDisk } from '../commands/find.ts'
import { needName } from '../commands/names.ts'
import { makeRoom } from '../commands/slices.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { Followed, ReadOptions } from '../log/event-log.ts'
import { LevelEventLog } from '../log/level-log.ts'
import { checkAnswerGranularity, checkAnswerGranules } from './answer-granularity.ts'
import { needObject, needObjects, needOptions, needPath } from './arguments.ts'
import { Backup } from './backup.ts'
import { type BeginView, beginView } from './begin-view.ts'
import { changedBetween } from './changed.ts'
import { stepsAcross } from './clock-steps.ts'
import type { Compacted, CompactOptions } from './compactor.ts'
import { type Copied, type CopyOptions, copyStore } from './copy.ts'
import type { BeginCommand, Core, StoreCommand } from './core.ts'
import { Cursor, type CursorInfo } from './cursors.ts'
import { Disk } from './disk.ts'
import type { Span } from './fold-writes.ts'
import { FORMAT } from './folder.ts'
import { type CompactionEstimate, estimateOf, growthOf } from './growth.ts'
import { matching, wantsWrites } from './log-filter.ts'
import type { MomentContext, Side } from './moments.ts'
import { PastState } from './past.ts'
import { timeOf } from './points.ts'
import type { PolicyInput } from './policy.ts'
import type { Projection, ProjectionOptions } from './projection.ts'
import type { ProjectionDefinition } from './projection-fold.ts'
import {
  type EventsFrom,
  type FollowStoreOptions,
  Readers,
  type StoreStats,
  type StreamFrom,
} from './readers.ts'
import type { RebuildOptions } from './rebuild.ts'
import type { PositionRange, Touching } from './spans.ts'
import { fold, type Marked } from './streams.ts'
import type {
  BeginRequest,
  Changed,
  CheckpointDeleted,
  CheckpointInfo,
  CommandOptions,
  Durability,
  LogFilter,
  Plan,
  PlanRequest,
  PointInput,
  RecordedEvent,
  StoreStatus,
} from './types.ts'
import { StateView } from './view.ts'

export interface ChangedOptions extends RebuildOptions {
  readonly since: PointInput
  /** Default `now`. */
  readonly until?: PointInput
  /** Bytes per granule of the answer, from 512 up. Default 64 KiB. */
  readonly granularity?: number
  /** Whose slices `since` and `until` may name. */
  readonly bitmap?: string
}

export interface StoreFacts {
  readonly folder: string | null
  readonly durability: Durability
  readonly opened: StoreStatus['opened']
}

/** What a store is made of, for the parts of slicelog that stand beside it (the owner's door, verify); not for its users. */
export let coreOf: (store: Store) => Core

/** For those parts, which are given one by their callers. */
export function needStore(value: unknown): asserts value is Store {
  if (!(value instanceof Store)) throw new TypeError('the store must be one that openStore gave')
}

const REBUILD = { signal: 'signal', onProgress: 'function', fromLogAlone: 'flag' } as const

const FILTER = {
  disk: 'text',
  types: 'texts',
  actor: 'text',
  correlationId: 'text',
  commandId: 'text',
  reverse: 'flag',
  signal: 'signal',
} as const

export class Store extends StateView {
  readonly #core: Core
  readonly #facts: StoreFacts
  readonly #readers: Readers
  readonly #beforeClose = new Set<() => Promise<void>>()
  #closing: Promise<void> | undefined

  static {
    coreOf = (store) => store.#core
  }

  constructor(core: Core, facts: StoreFacts) {
    super(
      () => core.state,
      core.derived,
      (error) => core.heal(error),
    )
    this.#core = core
    this.#facts = facts
    this.#readers = new Readers(core)
  }

  get folder(): string | null {
    return this.#facts.folder
  }

  /** The last committed event and the chain's hash after it (R28). */
  get head(): Point & { readonly hash: string } {
    const { next, time, hash } = this.#core.log.head
    return { position: next - 1, time, hash: Buffer.from(hash).toString('hex') }
  }

  /** The log's clock, ms: what an event recorded now would carry. Never before the last event (R22). */
  get now(): number {
    return Math.max(this.#core.clock.now, this.head.time ?? 0)
  }

  // — disks

  /**
   * The same on every start: adds the disk if it is not there, and attaches it. After an unclean end the stretch since its
   * last event is declared lost, unless `quiet` says that nothing was written meanwhile (R32).
   * @throws CheckpointError DISK_SIZE_MISMATCH when it is there with another size
   */
  async ensureDisk(
    id: string,
    disk: {
      readonly size: number
      readonly quiet?: boolean
      readonly recorder?: Recorder
      /** When it is attached, ms: for writes of the past that follow. Never before the log's last event. Default: now. */
      readonly time?: number
    },
    options: CommandOptions = {},
  ): Promise<Disk> {
    needName('disk', id)
    needObject('the disk', disk)
    needObject('the options', options)
    const held = this.#core.catalog.disk(id)
    // One that we served and let go of cleanly is the caller's from now on, unless it says otherwise (R32).
    const recorder = disk.recorder ?? (held?.attached === true ? held.recorder : 'caller')
    const attach = { type: 'attach-disk', disk: id, recorder, quiet: disk.quiet === true } as const
    if (held === undefined) {
      await this.#core.run([{ type: 'add-disk', disk: id, size: disk.size }, attach], options, 'ensure-disk')
    } else {
      if (held.size !== disk.size) {
        throw new CheckpointError(
          'DISK_SIZE_MISMATCH',
          `disk "${id}" has ${held.size} bytes in the store, not ${String(disk.size)}; resize it if it changed`,
          { disk: id, size: held.size, wanted: disk.size },
        )
      }
      // Attaching is this session's business: the command id stands for the adding, and may have been used for it before.
      const { commandId: _, ...cause } = options
      if (!this.#core.isAttached(held)) await this.#core.run([attach], { ...cause, time: disk.time })
    }
    return this.disk(id)
  }

  /** DISK_EXISTS, SIZE_INVALID. The disk is not attached by this. */
  async addDisk(id: string, disk: { readonly size: number }, options: CommandOptions = {}): Promise<Disk> {
    needObject('the disk', disk)
    await this.#core.run([{ type: 'add-disk', disk: id, size: disk.size }], options)
    return new Disk(this.#core, this, id)
  }

  /** By id: whether it is there is looked up at every call of the handle, since a command id may come back after it went (R13). */
  disk(id: string): Disk {
    needName('disk', id)
    return new Disk(this.#core, this, id)
  }

  /** DISK_BUSY while a backup runs on it. Its history stays in the log. */
  async removeDisk(id: string, options: CommandOptions = {}): Promise<void> {
    await this.#core.run([{ type: 'remove-disk', disk: id }], options)
  }

  // — several at once

  /** Decided in order, one record or nothing (R20). Answers in the order of the commands. */
  async transaction(
    commands: readonly StoreCommand[],
    options: CommandOptions = {},
  ): Promise<readonly Answer[]> {
    needObjects('the commands', commands)
    return (await this.#core.run(commands, options, 'transaction')).answers
  }

  /** Begins several backups in one record and at one point (R14). `grouped`: all succeed together, or none. */
  async beginBackups(
    requests: readonly ({ readonly disk: string } & BeginRequest)[],
    options: CommandOptions & { readonly completion?: 'individual' | 'grouped' } = {},
  ): Promise<Backup[]> {
    needObjects('the requests', requests)
    needObject('the options', options)
    const { completion = 'individual', ...cause } = options
    if (completion !== 'individual' && completion !== 'grouped')
      throw new TypeError(`there is no completion ${JSON.stringify(completion)}; give individual or grouped`)
    const group = completion === 'grouped' && requests.length > 0 ? madeUpId('group') : undefined
    const commands = requests.map((request): BeginCommand & { madeUp: readonly string[] } => ({
      type: 'begin-backup',
      disk: request.disk,
      bitmap: request.bitmap,
      mode: checkMode(request.mode),
      backup: request.id ?? madeUpId(request.bitmap),
      since: request.since,
      forceCycle: request.forceCycle,
      group,
      copiedBy: request.copiedBy,
      madeUp: request.id === undefined ? ['backup', 'group'] : ['group'],
    }))
    const snapshots = requests.flatMap((request) =>
      request.snapshot === undefined ? [] : [request.snapshot],
    )
    const snapshot = snapshots.length === 0 ? undefined : () => Promise.all(snapshots.map((take) => take()))
    const { answers, plans } = await this.#core.run(commands, { ...cause, snapshot })
    return answers.map((answer) => {
      if (answer.kind !== 'begun') throw new Error('slicelog bug: the answer of a begin is a begin')
      return new Backup(this.#core, answer.id, plans.get(answer.id))
    })
  }

  // — backups and checkpoints

  /** After a restart of the agent, the way back to what was begun (R10). By id, like `disk`; its `info` tells BACKUP_NOT_FOUND. */
  backup(id: string): Backup {
    needName('backup', id)
    return new Backup(this.#core, id)
  }

  /**
   * Copies of a chain were combined offline into one: from now on it is a backup of its own, with the base of the oldest and the
   * point of the newest. `of`: oldest first, each of them kept, and such that it may be laid on the one before (R25).
   * @throws CheckpointError BACKUP_EXISTS, BACKUP_NOT_FOUND, BACKUP_CHAIN
   */
  async recordCombined(id: string, of: readonly string[], options: CommandOptions = {}): Promise<Backup> {
    await this.#core.run([{ type: 'record-combined', backup: id, of }], options)
    return this.backup(id)
  }

  /** A name for this moment, which can be answered for ever. With bitmaps, each is banked there as well (R19). */
  async createCheckpoint(
    name: string,
    checkpoint: {
      readonly bitmaps?: readonly { readonly disk: string; readonly bitmap: string }[]
      readonly forceCycle?: boolean
    } = {},
    options: CommandOptions = {},
  ): Promise<CheckpointInfo> {
    needObject('the checkpoint', checkpoint)
    if (checkpoint.bitmaps !== undefined) needObjects('the bitmaps', checkpoint.bitmaps)
    const { answers, point } = await this.#core.run(
      [
        {
          type: 'create-checkpoint',
          checkpoint: name,
          bitmaps: checkpoint.bitmaps ?? [],
          forceCycle: checkpoint.forceCycle,
        },
      ],
      options,
    )
    const answer = answers[0]
    if (answer?.kind !== 'checkpoint' || point === null)
      throw new Error('slicelog bug: the answer of a checkpoint is one')
    // Not from the catalog: a command id may come back after the checkpoint went (R13).
    return { name, point, bitmaps: answer.slices.map(({ disk, bitmap }) => ({ disk, bitmap })) }
  }

  async deleteCheckpoint(name: string, options: CommandOptions = {}): Promise<CheckpointDeleted> {
    const { answers } = await this.#core.run([{ type: 'delete-checkpoint', checkpoint: name }], options)
    const answer = answers[0]
    if (answer?.kind !== 'checkpoint-deleted')
      throw new Error('slicelog bug: the answer of a checkpoint deletion is one')
    const { kind: _, ...deleted } = answer
    return deleted
  }

  // — time

  /** The whole state as it was at any moment (R22). */
  async at(point: PointInput, options: RebuildOptions = {}): Promise<PastState> {
    needOptions(options, REBUILD)
    const found = await this.resolvePoint(point, 'at')
    const steps =
      typeof point === 'object' && 'time' in point
        ? stepsAcross(this.#core.catalog, found, timeOf(point.time))
        : []
    return new PastState(this.#core, await this.#core.at(found.position, options), steps)
  }

  /** What was written to a disk between two points, whether or not a bitmap existed then (R23). */
  async changed(disk: string, options: ChangedOptions): Promise<Changed> {
    needName('disk', disk)
    needOptions(options, { bitmap: 'text', signal: 'signal', onProgress: 'function' })
    const granularity = options.granularity ?? limits.granularityDefault
    checkAnswerGranularity(granularity)
    const context = { disk, bitmap: options.bitmap }
    const { moments } = this.#core
    const { point: since, snapped: sinceSnapped } = await moments.place(options.since, 'since', context)
    const { point: until, snapped } = await moments.place(options.until ?? 'now', 'at', context)
    if (since.position > until.position) {
      throw new CheckpointError(
        'POINT_ORDER',
        `since (position ${since.position}) lies after until (position ${until.position}); swap them`,
        { since: since.position, until: until.position },
      )
    }
    const then =
      until.position === this.#core.catalog.last.position
        ? this.#core.catalog
        : await this.#core.catalogAt(until.position, options.signal)
    const found = findDisk(then, disk)
    checkAnswerGranules(disk, found.size, granularity)
    return await changedBetween((span, bits) => this.#core.spans.union(span, bits), {
      disk: found,
      now: this.#toldOf(found),
      // It goes on up to this very moment, and reaches into every span that ends behind its start.
      unknown: this.#unknownOf(found).filter(
        ({ from }) => (options.until ?? 'now') === 'now' || from.position < until.position,
      ),
      since,
      until,
      snapped: snapped || sinceSnapped,
      granularity,
      clockSteps: this.#core.catalog.clockSteps(),
      signal: options.signal,
      onProgress: options.onProgress,
    })
  }

  /** What is known by now of a disk as it was: of itself, when it is still there, or until it was removed (R23, R35). */
  #toldOf({ id, number }: DiskState): ToldOf | undefined {
    const now = this.#core.catalog.disk(id)
    if (now?.number !== number) return this.#core.catalog.diskByNumber(number)?.told
    return { windows: now.windows, lost: now.lost }
  }

  /** What an unclean end left unknown up to this moment and no event tells yet (R32). */
  #unknownOf({ id, number }: DiskState): readonly LostStretch[] {
    const now = this.#core.catalog.disk(id)
    return now?.number === number ? this.#core.unknownOf(now) : []
  }

  /** What a begin would copy now, or why it would be refused. Records nothing (R25). A busy bitmap can be looked at. */
  async plan(request: PlanRequest): Promise<Plan> {
    needObject('the request', request)
    const mode = checkMode(request.mode)
    const { catalog } = this.#core
    return await this.#core.plan(request, (base) => {
      const { disk, bitmap } = findLook(catalog, request.disk, request.bitmap)
      const resolved = baseOf(catalog, disk, bitmap, { mode, base })
      if (mode === 'incremental' && bitmap.retention > 0) {
        makeRoom(disk.id, bitmap, bitmap.retention, 1, request.forceCycle === true, 'force-cycle')
      }
      return resolved
    })
  }

  /** The plan of a past backup, made again from the log alone: nothing derived is used (R26). */
  async replayPlan(backup: string, options: RebuildOptions = {}): Promise<Plan> {
    needName('backup', backup)
    needOptions(options, REBUILD)
    return await this.#core.replay(backup, options)
  }

  /** What a backup was planned from: the state at its begin, for `explain`. BACKUP_NOT_FOUND. */
  async beginOf(backup: string, options: RebuildOptions = {}): Promise<BeginView> {
    needName('backup', backup)
    needOptions(options, REBUILD)
    const moment = await this.#core.momentOf(backup, options)
    return beginView(moment, this.#core.derived, () =>
      this.#core.momentOf(backup, { ...options, fromLogAlone: true }),
    )
  }

  /** Where a moment lies in the log. */
  async resolvePoint(point: PointInput, side: Side, context: MomentContext = {}): Promise<Point> {
    needObject('the context', context)
    return await this.#core.moments.point(point, side, context)
  }

  // — the log

  /** Events with filters, forwards or backwards. POINT_ORDER when `from` lies after `to`. */
  async *log(filter: LogFilter = {}): AsyncGenerator<RecordedEvent> {
    needOptions(filter, FILTER)
    if (filter.range !== undefined) needObject('the range', filter.range)
    if (filter.limit !== undefined && !(filter.limit >= 0))
      throw new RangeError(`a limit is a number from 0, not ${String(filter.limit)}`)
    const context = { disk: filter.disk }
    const from = filter.from === undefined ? 0 : await this.#firstOf(filter.from, context)
    const to =
      filter.to === undefined
        ? this.head.position
        : (await this.resolvePoint(filter.to, 'at', context)).position
    // What begins right behind its end is empty, and no mistake.
    if (filter.to !== undefined && from > to + (beginsThere(filter.from) ? 0 : 1))
      throw new CheckpointError(
        'POINT_ORDER',
        `from (position ${from}) lies after to (position ${to}); swap them`,
        { from, to },
      )
    let left = filter.limit ?? Number.POSITIVE_INFINITY
    const read = await this.#spanOf(filter.commandId, Math.max(0, from), to)
    const signal = filter.signal === undefined ? {} : { signal: filter.signal }
    if (read === null || left <= 0) return
    for await (const records of this.#core.log.read({
      ...read,
      reverse: filter.reverse === true,
      ...(wantsWrites(filter) ? {} : { without: 'writes' as const }),
      ...signal,
    })) {
      for (const record of records) {
        for (const event of matching(record, filter, this.#core.catalog, from, to)) {
          yield event
          if (--left <= 0) return
        }
      }
    }
  }

  /** The span that a command id narrows down to its one record; null when it is not there. */
  async #spanOf(commandId: string | undefined, from: number, to: number) {
    if (commandId === undefined) return { from, to }
    const position = await this.#core.log.positionOfCommand(commandId)
    if (position === undefined) return null
    const { first, count } = await this.#core.moments.recordAt(position)
    const span = { from: Math.max(from, first), to: Math.min(to, first + count - 1) }
    return span.from > span.to ? null : span
  }

  /** Sets what the span's writes touched, as `changed` and plans do. */
  async foldWrites(span: Span, target: DirtyBitmap): Promise<void> {
    await this.#core.spans.union(span, target)
  }

  /** Ranges of positions that may hold writes touching the bytes, newest first, from the index of spans. */
  touching(wanted: Touching): AsyncIterable<PositionRange> {
    return this.#core.spans.touching(wanted)
  }

  /** A disk as it was, with the windows and lost stretches that were told of it until now, or until it was removed (R35). DISK_NOT_FOUND. */
  async diskAt(disk: string, point: Point, options: RebuildOptions = {}): Promise<DiskState> {
    const { catalog } = this.#core
    if (point.position >= catalog.last.position) return findDisk(catalog, disk)
    const then = findDisk(await this.#core.catalogAt(point.position, options.signal), disk)
    return { ...then, ...this.#toldOf(then) }
  }

  /** The log's records as they are, in batches: for audits, which count columns and never objects. */
  records(options: ReadOptions = {}): AsyncIterable<readonly LogRecord[]> {
    return this.#core.log.read(options)
  }

  /**
   * Records from a point or behind a cursor: catch-up, then live, without gap or double, with bounded memory however slow the
   * reader is. Says `caughtUp` and `fellBehind`. Ends when aborted, and when the store closes.
   */
  follow(options: FollowStoreOptions = {}): AsyncGenerator<Followed> {
    needOptions(options, { signal: 'signal', bufferRecords: 'count', bufferBytes: 'count' })
    const now = this.head.position + 1
    return this.#follow(now, options)
  }

  async *#follow(now: number, options: FollowStoreOptions): AsyncGenerator<Followed> {
    const { from = 'now' } = options
    yield* this.#readers.follow(from === 'now' ? now : await this.#firstOf(from, {}), options)
  }

  /**
   * Events as an Observable: catch-up from a place (default: from now on), then live. With `markers` also what `follow` says:
   * each item has a `kind`, `event`, `caughtUp` or `fellBehind`.
   */
  events$(options?: { readonly from?: EventsFrom; readonly markers?: false }): Observable<RecordedEvent>
  events$(options: { readonly from?: EventsFrom; readonly markers: true }): Observable<Marked>
  events$(options: { readonly from?: EventsFrom; readonly markers?: boolean } = {}): Observable<unknown> {
    needOptions(options, { markers: 'flag' })
    const { from = 'now', markers = false } = options
    return markers ? this.#readers.marked(from) : this.#readers.events(from)
  }

  /** A reader's own place in the log, kept across opens. New ones stand before the first event. */
  async cursor(name: string): Promise<Cursor> {
    return await this.#readers.cursor(name)
  }

  async cursors(): Promise<CursorInfo[]> {
    return await this.#readers.cursors()
  }

  /**
   * Runs a fold of yours beside the store: live, its state stored with its cursor, folded anew when its version changes. Its
   * errors stop it alone (PROJECTION_FAILED), never the store.
   * @throws RangeError when one of that name runs already
   */
  async project<S>(
    definition: ProjectionDefinition<S>,
    options: ProjectionOptions = {},
  ): Promise<Projection<S>> {
    needObject('the projection', definition)
    needOptions(options, { stored: 'flag', onProgress: 'function' })
    return await this.#readers.project(definition, options)
  }

  /** What was written, per disk and hour. The first question to a log that was never asked reads it once. */
  async stats(options: { readonly disk?: string; readonly since?: number } = {}): Promise<StoreStats> {
    needOptions(options, { disk: 'text', since: 'ms' })
    return await this.#readers.stats(options)
  }

  /** A stream of state: a fold over every event from the start on. */
  fold<S>(seed: S, step: (state: S, event: RecordedEvent) => S): Observable<S> {
    return fold(this.events$({ from: 'start' }), seed, step)
  }

  // — upkeep

  async status(): Promise<StoreStatus> {
    const { catalog, log, derived, state } = this.#core
    const backups = [...catalog.backups()]
    const inState = (...kinds: string[]) =>
      backups.filter((backup) => kinds.includes(backup.phase.kind)).length
    const bitmaps = [...catalog.disks()].flatMap((disk) => [...disk.bitmaps.values()])
    let bits = 0
    for (const disk of state.bits.disks.values()) {
      for (const bitmap of disk.bitmaps.values())
        bits += bitmap.active.wordsBytes() + (bitmap.successor?.wordsBytes() ?? 0)
    }
    const synced = log.syncedHead
    return {
      folder: this.folder,
      format: FORMAT,
      events: log.head.next,
      head: this.head,
      synced: { position: synced.next - 1, time: synced.time },
      durability: this.#facts.durability,
      disks: [...catalog.disks()].length,
      bitmaps: bitmaps.length,
      slices: bitmaps.reduce((sum, bitmap) => sum + bitmap.slices.length, 0),
      backups: {
        running: inState('running', 'pending', 'interrupted'),
        succeeded: inState('succeeded'),
        failed: inState('failed'),
        cancelled: inState('cancelled'),
      },
      checkpoints: [...catalog.checkpoints()].length,
      bytes: { log: await bytesIn(this.folder, 'log'), derived: await bytesIn(this.folder, 'derived') },
      growth: await growthOf(log),
      compaction: {
        ...(await this.compactionEstimate()),
        last: this.#core.autoCompaction?.last ?? null,
      },
      memory: { bits },
      opened: { ...this.#facts.opened, rebuilt: [...derived.rebuilt] },
    }
  }

  /**
   * Everything that was acknowledged before the call survives a power cut once this resolves, at either level (R30). Records
   * nothing. What a served disk's flush needs of the log.
   * @throws CheckpointError STORE_FAILED, STORE_CLOSED
   */
  async sync(): Promise<void> {
    await this.#core.sync()
  }

  /** Takes a snapshot of the projections now; otherwise one is taken every so many events. */
  async snapshot(): Promise<void> {
    await this.#core.snapshot()
  }

  /**
   * Folds writes older than the policy's ages into windows: never across a point that anything refers to, so every bitmap, slice
   * and plan of the past stays as it is, and gives the space back (R29). What was folded is never whole again.
   * @throws CheckpointError POLICY_INVALID, ABORTED, LOG_DAMAGED, OUTCOME_UNKNOWN, STORE_FAILED, STORE_CLOSED
   */
  async compact(options: CompactOptions = {}): Promise<Compacted> {
    // What is folded by mistake is never whole again.
    needOptions(options, {
      signal: 'signal',
      onProgress: 'function',
      pauseMs: 'ms',
      stepBytes: 'count',
      dryRun: 'flag',
      actor: 'text',
    })
    return await this.#core.compactor.compact(options)
  }

  /** What `compact` would give back now; records nothing. Exact up to half a million foldable events, else from a sample. */
  async compactionEstimate(policy?: PolicyInput): Promise<CompactionEstimate> {
    return await estimateOf(this.#core.log, this.#core.compactor, policy)
  }

  /** Joins small records now; otherwise it happens by itself, and at close. */
  async repack(): Promise<{ readonly before: number; readonly after: number }> {
    return await this.#core.log.repack()
  }

  /**
   * A consistent copy of the store as it is now, while it goes on: `folder` must not exist, or be empty. Nothing is there until
   * all is (R28).
   * @throws CheckpointError TARGET_EXISTS, TARGET_INVALID, ABORTED, STORE_CLOSED, IO_FAILED
   */
  async copyTo(folder: string, options: CopyOptions = {}): Promise<Copied> {
    needPath('the folder', folder)
    needOptions(options, { signal: 'signal', onProgress: 'function' })
    const { log, derived } = this.#core
    if (this.folder === null || !(log instanceof LevelEventLog))
      throw new TypeError('a store in memory has no files to copy; open it in a folder')
    return await copyStore({ root: this.folder, log, derived }, folder, options)
  }

  /**
   * Waits for everything handed in, bytes that a `move` still carries included (R8), detaches this session's disks, and lets go
   * of the folder. Idempotent. A move that never settles keeps the store open: its caller has to end it.
   */
  async close(): Promise<void> {
    this.#closing ??= this.#close()
    await this.#closing
  }

  /** Whoever works on the store by itself (the owner's socket) ends before the store does. Returns how to take it back. */
  beforeClose(end: () => Promise<void>): () => void {
    this.#beforeClose.add(end)
    return () => void this.#beforeClose.delete(end)
  }

  async #close(): Promise<void> {
    // Without anybody to wait for, what is called from now on is refused at once.
    if (this.#beforeClose.size > 0) await Promise.allSettled([...this.#beforeClose].map((end) => end()))
    await this.#core.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** `log --from @5` begins with event 5, also inside a record; every other point begins with the first event after it. */
  async #firstOf(from: StreamFrom, context: MomentContext): Promise<number> {
    if (from instanceof Cursor) return from.position + 1
    const { position } = await this.resolvePoint(from, 'since', context)
    return beginsThere(from) ? from.position : position + 1
  }
}

/** `{ position }` begins with that event, every other point behind it. */
function beginsThere(from: StreamFrom | undefined): from is { readonly position: number } {
  return typeof from === 'object' && !(from instanceof Cursor) && 'position' in from
}

function findLook(catalog: Core['catalog'], diskId: string, name: string) {
  const disk = findDisk(catalog, diskId)
  return { disk, bitmap: findBitmap(catalog, diskId, name) }
}

function madeUpId(of: string): string {
  return `${[...of].slice(0, 64).join('')}-${randomUUID().slice(0, 13)}`
}

const MODES = ['full', 'incremental', 'differential', 'copy'] as const

function checkMode<M>(mode: M): M {
  if ((MODES as readonly unknown[]).includes(mode)) return mode
  throw new TypeError(
    `there is no mode ${JSON.stringify(mode)}; give full, incremental, differential or copy`,
  )
}

/** Bytes of the files of one part of a store's folder, as they are now. */
export async function bytesIn(folder: string | null, name: 'log' | 'derived'): Promise<number> {
  if (folder === null) return 0
  const path = join(folder, name)
  const names = await readdir(path).catch(() => [])
  const sizes = await Promise.all(
    names.map((file) =>
      stat(join(path, file)).then(
        (info) => info.size,
        () => 0,
      ),
    ),
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}
