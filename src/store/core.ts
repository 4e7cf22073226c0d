/**
 * Where log, commands and projections meet: the live state, what may be asked of it, and the way commands take through
 * the committer. The public faces (store.ts, disk.ts, bitmap.ts, backup.ts) translate to this and add nothing.
 */
import type { EncodedRecord } from '../../events/record.ts'
import {
  type Base,
  type LogRecord,
  type LostStretch,
  type Point,
  type RecordMeta,
  WRITE_OPS,
  type WriteColumns,
} from '../../events/types.ts'
import { type Catalog, endOf } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'
import { type Answer, answersOf } from '../commands/answer.ts'
import { findDisk } from '../commands/find.ts'
import { decideCleanDetach } from '../commands/lifecycle.ts'
import { isNamedPoint } from '../commands/since.ts'
import { decideTransaction } from '../commands/transaction.ts'
import type { BeginBackup, Command, PlanMoment } from '../commands/types.ts'
import { toldBefore, uncleanStretch } from '../commands/unclean.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog, LogHead } from '../log/event-log.ts'
import { needCommand } from './arguments.ts'
import { AroundPoints } from './around-points.ts'
import { AutoCompaction, type CompactionOptions } from './auto-compact.ts'
import { causeOf } from './cause.ts'
import type { LogClock } from './clock.ts'
import { Committer, type Decided, type Landed } from './committer.ts'
import { Compactor } from './compactor.ts'
import { cursorPositions } from './cursors.ts'
import { type Derived, DerivedMissing } from './derived.ts'
import { type Recorded, toColumns } from './incoming.ts'
import { Keeper } from './keeper.ts'
import { Moments } from './moments.ts'
import type { MadePlan } from './plan-bits.ts'
import { type BackupMoment, Planner, PlanWanted, type Prepared } from './planner.ts'
import { START } from './points.ts'
import type { PolicyInput } from './policy.ts'
import { quietDisks } from './quiet.ts'
import { materialize, type RebuildOptions, rebuild, rebuildCatalog } from './rebuild.ts'
import { ServedDisks } from './served-disks.ts'
import type { FoldWrites } from './snapshots.ts'
import type { SpanIndex } from './span-index.ts'
import type { State } from './state.ts'
import { type StatsState, statsProjection } from './stats.ts'
import { Tap } from './tap.ts'
import type {
  CommandOptions,
  Durability,
  Plan,
  PlanRequest,
  PointInput,
  SinceInput,
  WriteRange,
  Writes,
} from './types.ts'

/** Moves the bytes of a recorded write: at once, or until its promise is settled. */
export type Move = () => Promise<void> | undefined

/** A begin as a caller gives it: the base as a moment, the id optional. */
export interface BeginCommand extends Omit<BeginBackup, 'base' | 'backup' | 'copiedBy'> {
  readonly backup: string
  readonly since?: SinceInput | undefined
  readonly copiedBy?: BeginBackup['copiedBy'] | undefined
}

/** Commands with a moment of the caller's, which is looked up in the store (R22): it is what their command id stands for (R13). */
export type TellCommand = { readonly since: PointInput } & (
  | Omit<Extract<Command, { type: 'record-window' }>, 'from'>
  | Omit<Extract<Command, { type: 'declare-lost' }>, 'from'>
)

/** Of the doors that serve a disk's file themselves: nobody else knows what has reached it (R35). */
export type MarkCommand = Extract<Command, { type: 'mark-disk' }>

/** What a transaction of the caller's may hold. */
export type StoreCommand = Exclude<Command, BeginBackup | MarkCommand> | BeginCommand

export type AnyCommand = StoreCommand | TellCommand | MarkCommand

export interface RunOptions extends CommandOptions {
  /** When it happened, ms, for what is told of the past. Never before the log's last event (R22). */
  readonly time?: number | undefined
  /** Runs inside the quiet point, after the commands were found legal and before they are recorded (R8). */
  readonly snapshot?: (() => unknown) | undefined
}

/** What became of a run: an answer per command, and the plans of its begins by backup id. */
export interface Ran {
  readonly answers: readonly Answer[]
  readonly plans: ReadonlyMap<string, Plan>
  /** The end of the record that holds it; null when nothing had to change. */
  readonly point: Point | null
}

export interface CoreParts {
  readonly log: EventLog
  readonly derived: Derived
  readonly clock: LogClock
  readonly state: State
  readonly storeId: string
  readonly durability: Durability
  readonly actor: string | undefined
  readonly snapshotEvery: number
  /** How old writes become windows when nothing else is said (R29). */
  readonly compaction?: PolicyInput | undefined
  readonly spans: SpanIndex
  /** Position of the newest snapshot used at open; -1 without one. */
  readonly snapshotAt: number
  /** The session that the log's end belongs to goes on: its disks are attached. Only a played incident can say so. */
  readonly stillRunning?: boolean
}

export class Core {
  readonly log: EventLog
  readonly derived: Derived
  readonly state: State
  readonly clock: LogClock
  readonly storeId: string
  readonly moments: Moments
  readonly committer: Committer
  readonly keeper: Keeper
  readonly spans: SpanIndex
  readonly stats: Tap<StatsState>
  readonly compactor: Compactor
  /** What doors do around points of the disks that they serve. */
  readonly aroundPoints = new AroundPoints()
  /** Whose clients write through a door of this process. */
  readonly served = new ServedDisks()
  /** Disks, by number, whose writes go on without a log (R33): all of them are unknown since then. */
  readonly unrecorded = new Map<number, { readonly from: Point; readonly reason: string }>()
  #autoCompaction: AutoCompaction | null = null
  /** What must end once nothing is committed any more, and while log and derived values can still be used. */
  readonly endings: (() => Promise<void>)[] = []
  readonly #planner: Planner
  readonly #actor: string | undefined
  /** Calls that came in and have not handed everything to the committer yet; a close waits for them. */
  readonly #entered = new Set<Promise<unknown>>()
  /** Bytes on their way, by callers' moves: the detach at a close is a clean one only when they have landed (R8). */
  readonly #moving = new Set<Promise<void>>()
  #closing = false
  /** Disks attached by this session: any other that the catalog calls attached was left so by an unclean end (R32). */
  readonly #session = new Set<number>()
  /** The last event of each disk that an unclean end left attached, as found at open: administrative events come later. */
  readonly #uncleanSince: ReadonlyMap<string, Point>

  constructor(parts: CoreParts) {
    this.log = parts.log
    this.derived = parts.derived
    this.state = parts.state
    this.clock = parts.clock
    this.storeId = parts.storeId
    this.#actor = parts.actor
    this.moments = new Moments(parts.log, () => this.state.catalog)
    this.keeper = new Keeper(parts)
    this.spans = parts.spans
    this.stats = new Tap(statsProjection, {
      log: parts.log,
      derived: parts.derived,
      catalog: parts.state.catalog,
    })
    this.#planner = new Planner(parts, this.moments)
    if (parts.stillRunning === true)
      for (const disk of this.catalog.disks()) if (disk.attached) this.#session.add(disk.number)
    this.#uncleanSince = new Map([...this.unclean()].map((id) => [id, findDisk(this.catalog, id).last]))
    this.committer = new Committer(parts.log, parts.state, parts.clock, parts.durability, {
      onApplied: (record) => this.keeper.applied(record),
      onFolded: (records) => this.#folded(records),
      materialize: (record) => this.#materialize(record),
    })
    this.compactor = new Compactor({
      ...parts,
      policy: parts.compaction,
      committer: this.committer,
      boundaries: () => this.#boundaries(),
    })
  }

  /** Until the close. */
  compactByItself(options: CompactionOptions): void {
    this.#autoCompaction = new AutoCompaction(this.compactor, options, () => this.clock.now)
  }

  get autoCompaction(): AutoCompaction | null {
    return this.#autoCompaction
  }

  /** Positions that stored cursors stand at, and that derived values are of: a compaction keeps them as points (R29). */
  async #boundaries(): Promise<number[]> {
    const { storing } = this.keeper
    return [
      ...(await cursorPositions(this.derived)),
      ...(await this.derived.snapshots()),
      ...this.spans.boundaries,
      ...(storing === null ? [] : [storing]),
      ...[...this.#uncleanSince.values()].map(({ position }) => position),
      // Whoever reads along goes on at a window's edge, and is given nothing twice.
      ...this.log.followers.next.map((next) => next - 1),
    ]
  }

  /** The record is in the log by now, so its fold must not fail over stored bits: those can be made anew (R28). */
  async #materialize(record: LogRecord): Promise<void> {
    try {
      await materialize(this.state, record, this.derived)
    } catch (error) {
      if (!(error instanceof DerivedMissing)) throw error
      await this.#rebuildSlices()
      await materialize(this.state, record, this.derived)
    }
  }

  /** Whether `close` was called. */
  get closing(): boolean {
    return this.#closing
  }

  get catalog(): Catalog {
    return this.state.catalog
  }

  isAttached(disk: DiskState): boolean {
    return disk.attached && this.#session.has(disk.number)
  }

  /** Disks that were attached when the process before ended uncleanly, and not since. */
  unclean(): ReadonlySet<string> {
    const ids = [...this.catalog.disks()]
      .filter((disk) => disk.attached && !this.#session.has(disk.number))
      .map((disk) => disk.id)
    return new Set(ids)
  }

  /** Runs one command, or several as a transaction (R20), under one cause (R13). */
  run(commands: readonly AnyCommand[], options: RunOptions = {}, name?: string): Promise<Ran> {
    return this.#enter(() => this.#run(commands, options, name))
  }

  /** After `close` was called nothing is taken any more; what was called before it is done first. */
  #enter<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing) return Promise.reject(storeClosed())
    const entered = work()
    this.#entered.add(entered)
    const left = () => this.#entered.delete(entered)
    entered.then(left, left)
    return entered
  }

  async #run(commands: readonly AnyCommand[], options: RunOptions, name?: string): Promise<Ran> {
    for (const command of commands) needCommand(command)
    const meta = causeOf(commands, options, this.#actor, name)
    const hooked = this.aroundPoints.of(commands)
    if (hooked.size === 0) return await this.#execute(commands, await this.#prepare(commands), options, meta)
    return await this.aroundPoints.take(hooked, meta.command ?? 'transaction', async (around) => {
      const asked = await this.committer.exclusive(() => this.#foresee(commands, meta))
      const prepared = await this.#prepare(commands)
      const execute = () => this.#execute(commands, prepared, options, meta)
      return asked === 'before' ? await execute() : await around(execute)
    })
  }

  #execute(
    commands: readonly AnyCommand[],
    prepared: ReadonlyMap<string, Prepared>,
    options: RunOptions,
    meta: RecordMeta,
  ): Promise<Ran> {
    return this.committer.execute<Ran>({
      meta,
      time: options.time,
      decide: (time, catalog) => this.#decide(commands, prepared, options, time, catalog),
      recall: (position) => this.#recall(commands, meta, position),
    })
  }

  /** Nobody is to be frozen for a command that was answered before (R13), nor for one that would be refused as things are. */
  async #foresee(commands: readonly AnyCommand[], { commandId }: RecordMeta): Promise<'before' | 'now'> {
    if (commandId !== undefined && (await this.log.positionOfCommand(commandId)) !== undefined)
      return 'before'
    this.served.refuse(commands)
    const resolved: Command[] = []
    for (const command of commands) resolved.push(await this.#resolveFor(command))
    decideTransaction(this.catalog, resolved, {
      unclean: this.unclean(),
      uncleanSince: this.#uncleanSince,
      plan: () => ({ digest: '', bytes: 0, complete: true }),
    })
    return 'now'
  }

  /** Records made elsewhere: a disk's history that was imported. One append, all or nothing; nothing else is committed meanwhile. */
  adopt(make: (head: LogHead) => Promise<readonly EncodedRecord[]>): Promise<void> {
    return this.#enter(async () => {
      let from = Number.POSITIVE_INFINITY
      await this.committer.adopt((head) => {
        from = head.next
        return make(head)
      })
      // Attached by its records is not attached by this session: what was written since, nobody here knows (R32).
      for (const { number } of this.catalog.disks()) if (number >= from) this.#session.delete(number)
    })
  }

  /** R1, R8, R31. Attaches the disk first when this session has not (R32). */
  async recordWrites(id: string, writes: Writes, move?: () => unknown): Promise<Recorded> {
    let moving: Promise<unknown> | undefined
    let landed = () => {}
    const begin = (disk: number, columns: WriteColumns) => {
      if (move === undefined) return
      landed = this.committer.moves.track(disk, columns)
      moving = Promise.resolve().then(move)
      this.#remember(moving)
    }
    const recorded = await this.#enter(() => this.#record(id, writes, begin))
    try {
      await moving
    } finally {
      landed()
    }
    return recorded
  }

  /** A move under way: awaited by whoever began it; a rejection before that must not count as unhandled. */
  #remember(moving: Promise<unknown>): void {
    const settled = moving.then(nothing, nothing)
    this.#moving.add(settled)
    void settled.then(() => this.#moving.delete(settled))
  }

  /**
   * R8, R30, R31: one range, not empty, of a disk that a door of ours serves, with the move of its bytes: called as soon as the
   * range is recorded, and over at once when it returns nothing. Rejects with the errors of `recordWrites`, or the move's.
   */
  recordServed(id: string, { offset, length, op }: WriteRange, move: Move): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closing) throw storeClosed()
      const disk = findDisk(this.catalog, id)
      if (!this.isAttached(disk)) throw new Error(`slicelog bug: disk ${id} is served and not attached`)
      const code = op === undefined ? 0 : WRITE_OPS.indexOf(op)
      const recorded = (): void => {
        try {
          const moving = move()
          if (moving === undefined) resolve()
          else this.#landing(disk.number, offset, length, code, moving).then(resolve, reject)
        } catch (error) {
          reject(error)
        }
      }
      this.committer.recordServed(disk, offset, length, code, recorded, reject)
    })
  }

  async #landing(
    disk: number,
    offset: number,
    length: number,
    op: number,
    moving: Promise<void>,
  ): Promise<void> {
    this.#remember(moving)
    const landed = this.committer.moves.track(disk, {
      offsets: Float64Array.of(offset),
      lengths: Float64Array.of(length),
      ops: Uint8Array.of(op),
    })
    try {
      await moving
    } finally {
      landed()
    }
  }

  async #record(
    id: string,
    writes: Writes,
    begin: (disk: number, columns: WriteColumns) => void,
  ): Promise<Recorded> {
    const disk = findDisk(this.catalog, id)
    // Checked and copied before anything else happens: a refused call attaches nothing, and the caller may reuse its arrays.
    const columns = toColumns(disk.number, id, disk.size, writes)
    if (!this.isAttached(disk)) {
      // As in ensureDisk: whoever records now is not who served it until its clean end.
      const recorder = disk.attached ? disk.recorder : 'caller'
      await this.#run([{ type: 'attach-disk', disk: id, recorder, quiet: false }], {})
    }
    return await this.committer.recordWrites(disk.number, id, disk.size, columns, () =>
      begin(disk.number, columns),
    )
  }

  /** The hot path of recordWrites: no move, disk attached, no promise but the committer's. */
  recordNow(disk: DiskState, writes: Writes): Promise<Recorded> {
    if (this.#closing) return Promise.reject(storeClosed())
    return this.committer.recordWrites(disk.number, disk.id, disk.size, writes, null)
  }

  /** R30: what was acknowledged so far survives a power cut. */
  sync(): Promise<void> {
    return this.#enter(() => this.committer.sync())
  }

  /** Entered like a command: a close drops bits that nothing refers to, and must not meet a snapshot half stored. */
  snapshot(): Promise<void> {
    return this.#enter(async () => {
      await this.committer.settled()
      await this.keeper.snapshot()
    })
  }

  /** The state after `position`, from the nearest snapshot (R22) or from the log alone (R26). */
  async at(position: number, options: RebuildOptions = {}): Promise<State> {
    const fold: FoldWrites = (span, target) => this.spans.union(span, target)
    return (await rebuild(this.log, this.derived, this.storeId, position, options, { fold })).state
  }

  /** As `at`, and only what there was, without its bits. */
  catalogAt(position: number, signal?: AbortSignal): Promise<Catalog> {
    return rebuildCatalog(this.log, this.derived, this.storeId, position, signal)
  }

  async #decide(
    commands: readonly AnyCommand[],
    prepared: ReadonlyMap<string, Prepared>,
    options: RunOptions,
    time: number,
    catalog: Catalog,
  ): Promise<Decided<Ran>> {
    this.served.refuse(commands)
    const resolved: Command[] = []
    for (const command of commands) resolved.push(await this.#resolveFor(command))
    const plans = new Map<string, MadePlan>()
    const context = {
      unclean: this.unclean(),
      uncleanSince: this.#uncleanSince,
      time,
      plan: (command: BeginBackup, base: Base, moment: PlanMoment) => {
        const plan = plans.get(command.backup)
        if (plan === undefined) throw new PlanWanted(command, base, moment)
        return { digest: plan.digest, bytes: plan.bytes, complete: plan.complete }
      },
    }
    for (;;) {
      try {
        const { events, answers } = decideTransaction(catalog, resolved, context)
        // A move that lands while the snapshot is taken may be in it or not: it has to be on both sides (R8).
        const moving = options.snapshot === undefined ? undefined : this.committer.moves.now()
        if (options.snapshot !== undefined) await takeSnapshot(options.snapshot)
        return {
          events,
          quiet: quietDisks(events, this.catalog),
          moving,
          answer: (landed) => ({
            answers,
            plans: settled(plans, landed),
            point: landed === null ? null : endOf(landed.record),
          }),
        }
      } catch (wanted) {
        if (!(wanted instanceof PlanWanted)) throw wanted
        plans.set(wanted.command.backup, await this.#plan(wanted, prepared.get(wanted.command.backup)))
      }
    }
  }

  /** The first answer of a command id, from the log (R13). */
  async #recall(commands: readonly AnyCommand[], meta: RecordMeta, position: number): Promise<Ran> {
    const record = await this.moments.recordAt(position)
    if (record.kind !== 'events' || record.meta.argumentsHash !== meta.argumentsHash) {
      throw new CheckpointError(
        'COMMAND_ID_REUSED',
        `command id "${meta.commandId}" was used at position ${position} for something else; take a new id`,
        { commandId: meta.commandId, position },
      )
    }
    const begun = record.events.filter((event) => event.type === 'backup-begun')
    const bases = [...begun]
    // Ids that the store made up this time give way to those that it made then.
    const then = commands.map((command): Command => {
      if (command.type !== 'begin-backup') return 'since' in command ? { ...command, from: START } : command
      const { since: _, copiedBy = 'caller', ...rest } = command
      const event = bases.shift()
      return {
        ...rest,
        copiedBy,
        backup: event?.backup ?? rest.backup,
        base: command.since === undefined ? undefined : event?.base,
      }
    })
    const before = await this.catalogAt(record.first - 1)
    const answers = answersOf(then, record.events, before)
    const plans = new Map<string, Plan>()
    for (const event of begun) plans.set(event.backup, await this.replay(event.backup))
    return { answers, plans, point: endOf(record) }
  }

  /** Stored bits of live slices were missing or damaged: makes them anew from the log (R28). Throws anything else. */
  async heal(error: unknown): Promise<void> {
    if (!(error instanceof DerivedMissing)) throw error
    await this.committer.exclusive(() => this.#rebuildSlices())
  }

  /** R26: the plan of a past backup, made again from the log alone. */
  replay(id: string, options: RebuildOptions = {}): Promise<Plan> {
    return this.#planner.replay(id, options)
  }

  /** Everything as it was when a backup began. */
  momentOf(id: string, options: RebuildOptions = {}): Promise<BackupMoment> {
    return this.#planner.momentOf(id, options)
  }

  async #rebuildSlices(): Promise<void> {
    const rebuilt = await this.at(this.catalog.last.position, { fromLogAlone: true })
    for (const [disk, bits] of this.state.bits.disks) {
      for (const [name, bitmap] of bits.bitmaps) {
        for (const number of bitmap.slices.keys()) {
          const fresh = rebuilt.bits.bitmap(disk, name)?.slices.get(number)
          if (fresh !== undefined) bitmap.slices.set(number, fresh)
        }
      }
    }
    this.keeper.settleAll()
  }

  /** For deciding: names are left to it, since a command before in the same transaction may have made or removed one (R20). */
  async #resolveFor(command: AnyCommand): Promise<Command> {
    if (command.type !== 'begin-backup' || !isNamedPoint(command.since)) return await this.#resolve(command)
    const { since: named, copiedBy = 'caller', ...rest } = command
    return { ...rest, copiedBy, named }
  }

  async #resolve(command: AnyCommand): Promise<Command> {
    if (command.type !== 'begin-backup') return await this.#resolveTold(command)
    const { since, copiedBy = 'caller', ...rest } = command
    const base =
      since === undefined ? undefined : await this.moments.base(since, command.disk, command.bitmap)
    return { ...rest, copiedBy, base }
  }

  async #resolveTold(command: Exclude<AnyCommand, BeginCommand>): Promise<Command> {
    if (!('since' in command)) return command
    const { since, ...rest } = command
    return { ...rest, from: await this.moments.point(since, 'since', { disk: command.disk }) }
  }

  /** What a begin would copy now (R25): prepared beside the committer, finished inside, nothing recorded. */
  async plan(request: PlanRequest, check: (base: Base | undefined) => Base): Promise<Plan> {
    const command: BeginCommand = { type: 'begin-backup', ...request, backup: '' }
    const prepared = await this.#prepare([command])
    return await this.committer.exclusive(async () => {
      const { base, ...rest } = (await this.#resolve(command)) as BeginBackup
      const state = this.#withUnclean(rest)
      const moment: PlanMoment = { state, events: [], point: this.catalog.last }
      return await this.#plan(new PlanWanted(rest, check(base), moment), prepared.get(''))
    })
  }

  /** What a begin would see: with the stretch that it would tell first (R32). */
  #withUnclean(begin: BeginBackup): Catalog {
    const fork = this.catalog.fork()
    const at = { position: fork.last.position + 1, time: null }
    const context = { unclean: this.unclean(), uncleanSince: this.#uncleanSince }
    for (const event of toldBefore(begin, fork, context, at)) fork.applyEvent(event, at.position, at)
    return fork
  }

  /** The stretch of a disk that is unknown and that nobody could tell yet, up to now: after an unclean end, or a failed log (R32, R33, R35). */
  unknownOf(disk: DiskState): readonly LostStretch[] {
    const to = { position: this.catalog.last.position + 1, time: null }
    const unrecorded = this.unrecorded.get(disk.number)
    if (unrecorded !== undefined) return [{ ...unrecorded, to }]
    if (disk.recorder !== 'caller') return []
    const context = { unclean: this.unclean(), uncleanSince: this.#uncleanSince }
    return uncleanStretch(disk, context, to).flatMap((event) =>
      event.type === 'stretch-lost' ? [{ from: event.from, to, reason: event.reason }] : [],
    )
  }

  /** Beside the committer: slices and log stretches of the begins' plans, so that writes wait little (R25). */
  async #prepare(commands: readonly AnyCommand[]): Promise<ReadonlyMap<string, Prepared>> {
    const prepared = new Map<string, Prepared>()
    for (const command of commands) {
      if (command.type !== 'begin-backup') return prepared // Decided in order, so nothing is known yet.
      try {
        const begin = (await this.#resolve(command)) as BeginBackup
        const ready = await this.#planner.prepare(begin)
        if (ready !== undefined) prepared.set(begin.backup, ready)
      } catch {
        // Whatever is wrong is met again inside the committer, and refused, healed or told; here a resize may also have come between.
      }
    }
    return prepared
  }

  /** Inside the committer: stored bits that are missing or damaged are made anew on the spot. */
  async #plan(wanted: PlanWanted, prepared: Prepared | undefined): Promise<MadePlan> {
    try {
      return await this.#planner.make(wanted, prepared)
    } catch (error) {
      if (!(error instanceof DerivedMissing)) throw error
      await this.#rebuildSlices()
      return await this.#planner.make(wanted, undefined)
    }
  }

  #folded(records: readonly LogRecord[]): void {
    for (const record of records) {
      if (record.kind !== 'events') continue
      for (const event of record.events) {
        if (event.type === 'disk-attached') this.#attached(event.disk)
      }
    }
    this.keeper.folded(records)
    this.stats.folded(records)
  }

  /** A transaction may have removed it again by the end of its record. */
  #attached(id: string): void {
    const disk = this.catalog.disk(id)
    if (disk !== undefined) this.#session.add(disk.number)
  }

  async #detachAll(): Promise<void> {
    const attached = [...this.catalog.disks()].filter((disk) => this.isAttached(disk)).map((disk) => disk.id)
    if (attached.length === 0) return
    await this.committer.execute({
      meta: causeOf([], {}, this.#actor, 'close'),
      decide: async () => ({
        events: decideCleanDetach(this.catalog, attached),
        quiet: [],
        answer: () => undefined,
      }),
      recall: async () => undefined,
    })
  }

  /** Does what was asked before, detaches what this session attached (R4), then lets everything end. */
  async close(): Promise<void> {
    this.#closing = true
    while (this.#entered.size + this.#moving.size > 0)
      await Promise.allSettled([...this.#entered, ...this.#moving])
    this.#autoCompaction?.stop()
    await this.compactor.stop()
    await this.committer.settled()
    try {
      if (this.committer.failure === null) await this.#detachAll()
    } finally {
      // Whatever failed above, and it is told, the folder is let go of.
      await this.#letGo()
    }
  }

  /** Every step is tried whatever became of those before; the first failure is told. */
  async #letGo(): Promise<void> {
    const steps = [
      () => this.committer.close(),
      ...this.endings,
      () => this.stats.end(),
      () => (this.committer.failure === null ? this.keeper.finish() : Promise.resolve()),
      () => this.keeper.idle(),
      () => this.spans.close(),
      () => this.log.close(),
      () => this.derived.close(),
    ]
    const failures: unknown[] = []
    for (const step of steps) await step().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
}

/** Times of a plan's point are known once its record is. */
function settled(plans: ReadonlyMap<string, MadePlan>, landed: Landed | null): ReadonlyMap<string, Plan> {
  if (landed === null) return plans
  const point = endOf(landed.record)
  return new Map([...plans].map(([id, plan]) => [id, plan.at(point)]))
}

function nothing(): void {}

function storeClosed(): CheckpointError {
  return new CheckpointError('STORE_CLOSED', 'the store is closed; open it again')
}

async function takeSnapshot(snapshot: () => unknown): Promise<void> {
  try {
    await snapshot()
  } catch (cause) {
    throw new CheckpointError(
      'SNAPSHOT_FAILED',
      `the snapshot for the backup failed (${(cause as Error)?.message ?? String(cause)}); nothing was begun, put it right and begin again`,
      {},
      cause,
    )
  }
}
