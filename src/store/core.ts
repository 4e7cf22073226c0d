/**
 * Where log, commands and projections meet: the live state, what may be asked of it, and the way commands take through
 * the committer. The public faces (store.ts, disk.ts, bitmap.ts, backup.ts) translate to this and add nothing.
 */
import type { Base, DomainEvent, LogRecord, Point, RecordMeta, WriteColumns } from '../../events/types.ts'
import { type Catalog, endOf } from '../../projections/catalog.ts'
import { planShape } from '../../projections/plan.ts'
import type { DiskState } from '../../projections/state.ts'
import { type Answer, answersOf } from '../commands/answer.ts'
import { NO_BASE } from '../commands/begin.ts'
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
import { type FixedBits, finish, type MadePlan, type PlanSubject, prepareFixed, topUp } from './plan-bits.ts'
import { quietDisks } from './quiet.ts'
import { materialize, type RebuildOptions, rebuild } from './rebuild.ts'
import { State } from './state.ts'
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

/** Thrown out of decide when a plan is wanted that is not made yet; decide is pure, so it is simply run again. */
class PlanWanted {
  constructor(
    readonly command: BeginBackup,
    readonly base: Base,
    readonly moment: PlanMoment,
  ) {}
}

interface Prepared {
  readonly key: string
  readonly fixed: FixedBits
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
  readonly #actor: string | undefined
  /** Calls that came in and have not handed everything to the committer yet; a close waits for them. */
  readonly #entered = new Set<Promise<unknown>>()
  #closing = false
  /** Disks attached by this session: any other that the catalog calls attached was left so by an unclean end (R32). */
  readonly #session = new Set<number>()

  constructor(parts: CoreParts) {
    this.log = parts.log
    this.derived = parts.derived
    this.state = parts.state
    this.clock = parts.clock
    this.storeId = parts.storeId
    this.#actor = parts.actor
    this.moments = new Moments(parts.log, () => this.state.catalog)
    this.keeper = new Keeper(parts)
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

  /** A plan of `state` as it is, recording nothing (R25). */
  async planOf(state: State, subject: Omit<PlanSubject, 'shape'>): Promise<Plan> {
    const whole: PlanSubject = {
      ...subject,
      shape: planShape(subject.disk, subject.bitmap, subject.base, subject.point),
    }
    const bits = state.bits.bitmap(subject.disk.id, subject.bitmap.name)!
    return finish(
      await prepareFixed(whole, bits, this.log, this.derived, subject.point.position),
      whole,
      bits,
    )
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
        if (options.snapshot !== undefined) await takeSnapshot(options.snapshot)
        return {
          events,
          quiet: quietDisks(events, this.catalog),
          answer: (landed) => ({
            answers,
            plans: settled(plans, landed),
            point: landed === null ? null : endOf(landed.record),
          }),
        }
      } catch (wanted) {
        if (!(wanted instanceof PlanWanted)) throw wanted
        plans.set(wanted.command.backup, await this.#plan(wanted, prepared))
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

  /** R26: the plan of a past backup, made again from the log alone. */
  async replay(id: string, options: RebuildOptions = {}): Promise<Plan> {
    const backup = this.catalog.backup(id)
    if (backup === undefined)
      throw new CheckpointError('BACKUP_NOT_FOUND', `there is no backup "${id}"; list the backups`, {
        backup: id,
      })
    const record = await this.moments.beginOf(backup)
    const before = await this.at(record.first - 1, { ...options, fromLogAlone: true })
    for (let i = 0; i < record.events.length; i++) {
      const event = record.events[i]!
      if (event.type === 'backup-begun' && event.backup === id) break
      const one: LogRecord = { ...record, first: record.first + i, count: 1, events: [event] }
      await materialize(before, one, this.derived)
      before.bits.applyEvent(event, record.first + i)
      before.catalog.applyEvent(event, record.first + i, backup.point)
    }
    const disk = before.catalog.disk(backup.disk)!
    const bitmap = disk.bitmaps.get(backup.bitmap)!
    return await this.planOf(before, {
      disk,
      bitmap,
      mode: backup.mode,
      base: backup.base,
      point: backup.point,
    })
  }

  /** Stored bits of live slices were missing or damaged: makes them anew from the log (R28). Throws anything else. */
  async heal(error: unknown): Promise<void> {
    if (!(error instanceof DerivedMissing)) throw error
    await this.committer.exclusive(() => this.#rebuildSlices())
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
      return await this.#plan(new PlanWanted(rest, check(base), moment), prepared)
    })
  }

  /** Beside the committer: slices and log stretches of the begins' plans, so that writes wait little (R25). */
  async #prepare(commands: readonly StoreCommand[]): Promise<ReadonlyMap<string, Prepared>> {
    const prepared = new Map<string, Prepared>()
    for (const command of commands) {
      if (command.type !== 'begin-backup') return prepared // Decided in order, so nothing is known yet.
      try {
        const begin = (await this.#resolve(command)) as BeginBackup
        const ready = await this.#prepareOne(begin)
        if (ready !== undefined) prepared.set(begin.backup, ready)
      } catch {
        // Whatever is wrong is met again inside the committer, and refused, healed or told; here a resize may also have come between.
      }
    }
    return prepared
  }

  async #prepareOne(begin: BeginBackup): Promise<Prepared | undefined> {
    const disk = findDisk(this.catalog, begin.disk)
    const bitmap = disk.bitmaps.get(begin.bitmap)
    if (bitmap === undefined) return undefined
    const point = this.catalog.last
    const base = baseBeforehand(begin, bitmap.active.from)
    const subject = {
      disk,
      bitmap,
      mode: begin.mode,
      base,
      point,
      shape: planShape(disk, bitmap, base, point),
    }
    const bits = this.state.bits.bitmap(disk.id, bitmap.name)!
    const key = keyOf(subject, point.position)
    return { key, fixed: await prepareFixed(subject, bits, this.log, this.derived, point.position) }
  }

  async #plan(wanted: PlanWanted, prepared: ReadonlyMap<string, Prepared>): Promise<MadePlan> {
    try {
      return await this.#planOnce(wanted, prepared)
    } catch (error) {
      if (!(error instanceof DerivedMissing)) throw error
      await this.#rebuildSlices() // Inside the committer already, so nothing else changes the state.
      return await this.#planOnce(wanted, new Map())
    }
  }

  async #planOnce(
    { command, base, moment }: PlanWanted,
    prepared: ReadonlyMap<string, Prepared>,
  ): Promise<MadePlan> {
    const disk = moment.state.disk(command.disk)!
    const bitmap = disk.bitmaps.get(command.bitmap)!
    const subject: PlanSubject = {
      disk,
      bitmap,
      mode: command.mode,
      base,
      point: moment.point,
      shape: planShape(disk, bitmap, base, moment.point),
    }
    const bits = await this.#bitsAt(moment, disk.id, bitmap.name)
    const ready = prepared.get(command.backup)
    const head = this.catalog.last.position
    if (ready !== undefined && ready.key === keyOf(subject, ready.fixed.upTo)) {
      await topUp(ready.fixed, subject, this.log)
      return finish(ready.fixed, subject, bits)
    }
    return finish(await prepareFixed(subject, bits, this.log, this.derived, head), subject, bits)
  }

  /** Bits as the commands before in the same transaction leave them (R20). */
  async #bitsAt(moment: PlanMoment, disk: string, bitmap: string) {
    if (moment.events.length === 0) return this.state.bits.bitmap(disk, bitmap)!
    const disks = new Set(moment.events.flatMap((event) => disksOf(event)).concat(disk))
    const fork = new State(this.catalog, this.state.bits.forkOf(disks))
    const first = this.catalog.last.position + 1
    for (const [i, event] of moment.events.entries()) {
      const one: LogRecord = {
        kind: 'events',
        first: first + i,
        count: 1,
        time: 0,
        lastTime: 0,
        meta: {},
        events: [event],
      }
      await materialize(fork, one, this.derived)
      fork.bits.applyEvent(event, first + i)
    }
    return fork.bits.bitmap(disk, bitmap)!
  }

  #folded(records: readonly LogRecord[]): void {
    for (const record of records) {
      if (record.kind === 'writes') continue
      for (const event of record.events) {
        if (event.type === 'disk-attached') this.#session.add(this.catalog.disk(event.disk)!.number)
      }
    }
    this.keeper.folded(records)
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
    if (this.committer.failure === null) {
      await this.#detachAll()
    }
    await this.committer.close()
    if (this.committer.failure === null) await this.keeper.finish()
    await this.keeper.idle()
    await this.log.close()
    await this.derived.close()
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

/** The base that decide will come to; where it comes to another, the prepared bits are not used. */
function baseBeforehand(begin: BeginBackup, from: Point): Base {
  if (begin.mode === 'full' || begin.mode === 'copy') return NO_BASE
  if (begin.base === undefined) return { kind: 'point', position: from.position, time: from.time }
  return begin.base.kind === 'active'
    ? { kind: 'active', position: from.position, time: from.time }
    : begin.base
}

/** Equal keys: what was prepared up to `upTo` is still all of the plan but α and what the log gained since. */
function keyOf({ disk, bitmap, base, shape }: PlanSubject, upTo: number): string {
  const stretches = shape.stretches.map(({ from, to, why }) => [
    from.position,
    to.position >= upTo ? 'open' : to.position,
    why,
  ])
  return JSON.stringify([
    disk.number,
    disk.size,
    bitmap.generation,
    base.kind,
    base.position,
    shape.whole,
    shape.parts,
    shape.outside,
    stretches,
    bitmap.slices.map((slice) => [slice.number, slice.from.position, slice.to.position]),
  ])
}

function disksOf(event: DomainEvent): string[] {
  if (event.type === 'bitmap-merged') return [event.disk, ...event.sources.map((source) => source.disk)]
  return 'disk' in event ? [event.disk] : []
}
