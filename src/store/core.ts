/**
 * Where log, commands and projections meet: the live state, what may be asked of it, and the way commands take through
 * the committer. The public faces (store.ts, disk.ts, bitmap.ts, backup.ts) translate to this and add nothing.
 */
import type { Base, LogRecord, Point, RecordMeta, WriteColumns } from '../../events/types.ts'
import { type Catalog, endOf } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'
import { type Answer, answersOf } from '../commands/answer.ts'
import { findDisk } from '../commands/find.ts'
import { decideCleanDetach } from '../commands/lifecycle.ts'
import { decideTransaction } from '../commands/transaction.ts'
import type { BeginBackup, Command, PlanMoment } from '../commands/types.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { causeOf } from './cause.ts'
import type { LogClock } from './clock.ts'
import { Committer, type Decided, type Landed } from './committer.ts'
import { type Derived, DerivedMissing } from './derived.ts'
import { type Recorded, toColumns } from './incoming.ts'
import { Keeper } from './keeper.ts'
import { Moments } from './moments.ts'
import type { MadePlan } from './plan-bits.ts'
import { Planner, PlanWanted, type Prepared } from './planner.ts'
import { quietDisks } from './quiet.ts'
import { materialize, type RebuildOptions, rebuild } from './rebuild.ts'
import type { State } from './state.ts'
import type { CommandOptions, Durability, Plan, PlanRequest, SinceInput, Writes } from './types.ts'

/** A begin as a caller gives it: the base as a moment, the id optional. */
export interface BeginCommand extends Omit<BeginBackup, 'base' | 'backup' | 'copiedBy'> {
  readonly backup: string
  readonly since?: SinceInput | undefined
  readonly copiedBy?: BeginBackup['copiedBy'] | undefined
}

export type StoreCommand = Exclude<Command, BeginBackup> | BeginCommand

export interface RunOptions extends CommandOptions {
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
  /** Position of the newest snapshot used at open; -1 without one. */
  readonly snapshotAt: number
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
  readonly #planner: Planner
  readonly #actor: string | undefined
  /** Calls that came in and have not handed everything to the committer yet; a close waits for them. */
  readonly #entered = new Set<Promise<unknown>>()
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
    this.#planner = new Planner(parts, this.moments)
    this.#uncleanSince = new Map([...this.unclean()].map((id) => [id, findDisk(this.catalog, id).last]))
    this.committer = new Committer(parts.log, parts.state, parts.clock, parts.durability, {
      onFolded: (records) => this.#folded(records),
      materialize: (record) => this.#materialize(record),
    })
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
  run(commands: readonly StoreCommand[], options: RunOptions = {}, name?: string): Promise<Ran> {
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

  async #run(commands: readonly StoreCommand[], options: RunOptions, name?: string): Promise<Ran> {
    const meta = causeOf(commands, options, this.#actor, name)
    const prepared = await this.#prepare(commands)
    return await this.committer.execute<Ran>({
      meta,
      decide: (time, catalog) => this.#decide(commands, prepared, options, time, catalog),
      recall: (position) => this.#recall(commands, meta, position),
    })
  }

  /** R1, R8, R31. Attaches the disk first when this session has not (R32). */
  async recordWrites(id: string, writes: Writes, move?: () => unknown): Promise<Recorded> {
    let moving: Promise<unknown> | undefined
    let landed = () => {}
    const begin = (disk: number, columns: WriteColumns) => {
      if (move === undefined) return
      landed = this.committer.trackMove(disk, columns)
      moving = Promise.resolve().then(move)
      moving.catch(() => undefined) // Awaited below; a rejection before that must not count as unhandled.
    }
    const recorded = await this.#enter(() => this.#record(id, writes, begin))
    try {
      await moving
    } finally {
      landed()
    }
    return recorded
  }

  async #record(
    id: string,
    writes: Writes,
    begin: (disk: number, columns: WriteColumns) => void,
  ): Promise<Recorded> {
    const disk = findDisk(this.catalog, id)
    // Checked and copied before anything else happens: a refused call attaches nothing, and the caller may reuse its arrays.
    const columns = toColumns(disk.number, id, disk.size, writes)
    if (!this.isAttached(disk))
      await this.#run([{ type: 'attach-disk', disk: id, recorder: disk.recorder, quiet: false }], {})
    return await this.committer.recordWrites(disk.number, id, disk.size, columns, () =>
      begin(disk.number, columns),
    )
  }

  /** The hot path of recordWrites: no move, disk attached, no promise but the committer's. */
  recordNow(disk: DiskState, writes: Writes): Promise<Recorded> {
    if (this.#closing) return Promise.reject(storeClosed())
    return this.committer.recordWrites(disk.number, disk.id, disk.size, writes, null)
  }

  /** The state after `position`, from the nearest snapshot (R22) or from the log alone (R26). */
  async at(position: number, options: RebuildOptions = {}): Promise<State> {
    return (await rebuild(this.log, this.derived, this.storeId, position, options)).state
  }

  async #decide(
    commands: readonly StoreCommand[],
    prepared: ReadonlyMap<string, Prepared>,
    options: RunOptions,
    time: number,
    catalog: Catalog,
  ): Promise<Decided<Ran>> {
    const resolved = await Promise.all(commands.map((command) => this.#resolve(command)))
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
        const moving = options.snapshot === undefined ? undefined : this.committer.movesNow()
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
  async #recall(commands: readonly StoreCommand[], meta: RecordMeta, position: number): Promise<Ran> {
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
      if (command.type !== 'begin-backup') return command
      const { since: _, copiedBy = 'caller', ...rest } = command
      const event = bases.shift()
      return {
        ...rest,
        copiedBy,
        backup: event?.backup ?? rest.backup,
        base: command.since === undefined ? undefined : event?.base,
      }
    })
    const before = await this.at(record.first - 1)
    const answers = answersOf(then, record.events, before.catalog)
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

  async #resolve(command: StoreCommand): Promise<Command> {
    if (command.type !== 'begin-backup') return command
    const { since, copiedBy = 'caller', ...rest } = command
    const base =
      since === undefined ? undefined : await this.moments.base(since, command.disk, command.bitmap)
    return { ...rest, copiedBy, base }
  }

  /** What a begin would copy now (R25): prepared beside the committer, finished inside, nothing recorded. */
  async plan(request: PlanRequest, check: (base: Base | undefined) => Base): Promise<Plan> {
    const command: BeginCommand = { type: 'begin-backup', ...request, backup: '' }
    const prepared = await this.#prepare([command])
    return await this.committer.exclusive(async () => {
      const { base, ...rest } = (await this.#resolve(command)) as BeginBackup
      const moment: PlanMoment = { state: this.catalog, events: [], point: this.catalog.last }
      return await this.#plan(new PlanWanted(rest, check(base), moment), prepared.get(''))
    })
  }

  /** Beside the committer: slices and log stretches of the begins' plans, so that writes wait little (R25). */
  async #prepare(commands: readonly StoreCommand[]): Promise<ReadonlyMap<string, Prepared>> {
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
    while (this.#entered.size > 0) await Promise.allSettled(this.#entered)
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
      () => (this.committer.failure === null ? this.keeper.finish() : Promise.resolve()),
      () => this.keeper.idle(),
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
