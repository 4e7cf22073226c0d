/**
 * Plans: made for a begin inside the committer from what was prepared beside it, looked at without one, and made again for
 * any past backup from the log alone (R25, R26).
 */
import { isToldWrites } from '../../events/told.ts'
import type { Base, DomainEvent, LogRecord, Point } from '../../events/types.ts'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import { setExtents } from '../../projections/bits.ts'
import { planShape } from '../../projections/plan.ts'
import type { BackupState, BitmapState, DiskState } from '../../projections/state.ts'
import { NO_BASE } from '../commands/begin.ts'
import { findDisk } from '../commands/find.ts'
import type { BeginBackup, PlanMoment } from '../commands/types.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { stepsSince } from './clock-steps.ts'
import { combinedPlan } from './combined-plan.ts'
import type { Derived } from './derived.ts'
import { foldWrites } from './fold-writes.ts'
import type { Moments } from './moments.ts'
import { type FixedBits, finish, type MadePlan, type PlanSubject, prepareFixed, topUp } from './plan-bits.ts'
import { materialize, type RebuildOptions, rebuild } from './rebuild.ts'
import type { FoldWrites } from './snapshots.ts'
import type { SpanIndex } from './span-index.ts'
import { State } from './state.ts'
import type { Plan } from './types.ts'

/** Thrown out of decide when a plan is wanted that is not made yet; decide is pure, so it is simply run again. */
export class PlanWanted {
  constructor(
    readonly command: BeginBackup,
    readonly base: Base,
    readonly moment: PlanMoment,
  ) {}
}

export interface Prepared {
  readonly key: string
  readonly fixed: FixedBits
}

/** The state in which a backup began. */
export interface BackupMoment {
  readonly backup: BackupState
  readonly state: State
  readonly disk: DiskState
  readonly bitmap: BitmapState
}

export interface PlannerParts {
  readonly log: EventLog
  readonly derived: Derived
  readonly state: State
  readonly spans: Pick<SpanIndex, 'union'>
  readonly storeId: string
}

export class Planner {
  readonly #parts: PlannerParts
  readonly #moments: Moments

  /** A stretch of any length, from the span index; a replay uses nothing derived. */
  readonly #fold: FoldWrites

  constructor(parts: PlannerParts, moments: Moments) {
    this.#parts = parts
    this.#fold = (span, target) => parts.spans.union(span, target)
    this.#moments = moments
  }

  get #state(): State {
    return this.#parts.state
  }

  /** A plan of `state` as it is, recording nothing (R25). */
  async #of(state: State, subject: Omit<PlanSubject, 'shape' | 'clockSteps'>): Promise<Plan> {
    const whole: PlanSubject = {
      ...subject,
      shape: planShape(subject.disk, subject.bitmap, subject.base, subject.point),
      clockSteps: stepsSince(state.catalog, subject.base),
    }
    const bits = state.bits.bitmap(subject.disk.id, subject.bitmap.name)!
    const alone: FoldWrites = (span, target) => foldWrites(this.#parts.log, span, target)
    return finish(
      await prepareFixed(whole, bits, alone, this.#parts.derived, subject.point.position),
      whole,
      bits,
    )
  }

  /** R26: the plan of a past backup, made again from the log alone. Of a combined one: the union of its members'. */
  async replay(id: string, options: RebuildOptions = {}): Promise<Plan> {
    const combined = this.#state.catalog.backup(id)
    if (combined !== undefined && combined.of !== null) {
      const members: Plan[] = []
      for (const member of combined.of) members.push(await this.replay(member, options))
      return combinedPlan(combined, members)
    }
    const { state, disk, bitmap, backup } = await this.momentOf(id, { ...options, fromLogAlone: true })
    return await this.#of(state, { disk, bitmap, mode: backup.mode, base: backup.base, point: backup.point })
  }

  /** Everything as it was when a backup began, itself left out. BACKUP_NOT_FOUND; BACKUP_STATE for a combined one. */
  async momentOf(id: string, options: RebuildOptions = {}): Promise<BackupMoment> {
    const backup = this.#state.catalog.backup(id)
    if (backup === undefined)
      throw new CheckpointError('BACKUP_NOT_FOUND', `there is no backup "${id}"; list the backups`, {
        backup: id,
      })
    if (backup.of !== null) {
      throw new CheckpointError(
        'BACKUP_STATE',
        `backup "${id}" never began: its copy was combined from ${backup.of.map((member) => `"${member}"`).join(', ')}; ask about those`,
        { backup: id, of: backup.of },
      )
    }
    const record = await this.#moments.beginOf(backup)
    const { log, derived, storeId } = this.#parts
    // The index of spans serves only who does not ask for the log alone (rebuild looks).
    const { state } = await rebuild(log, derived, storeId, record.first - 1, options, { fold: this.#fold })
    for (let i = 0; i < record.events.length; i++) {
      const event = record.events[i]!
      if (event.type === 'backup-begun' && event.backup === id) break
      const one: LogRecord = { ...record, first: record.first + i, count: 1, events: [event] }
      await materialize(state, one, derived)
      state.bits.applyEvent(event, record.first + i)
      state.catalog.applyEvent(event, record.first + i, backup.point)
    }
    const disk = state.catalog.disk(backup.disk)!
    return { backup, state, disk, bitmap: disk.bitmaps.get(backup.bitmap)! }
  }

  /** Beside the committer: slices and log stretches, so that writes wait little (R25). Undefined: no such bitmap. */
  async prepare(begin: BeginBackup): Promise<Prepared | undefined> {
    const disk = findDisk(this.#state.catalog, begin.disk)
    const bitmap = disk.bitmaps.get(begin.bitmap)
    if (bitmap === undefined) return undefined
    const point = this.#state.catalog.last
    const base = baseBeforehand(begin, bitmap.active.from)
    const subject = {
      disk,
      bitmap,
      mode: begin.mode,
      base,
      point,
      shape: planShape(disk, bitmap, base, point),
      clockSteps: [],
    }
    const bits = this.#state.bits.bitmap(disk.id, bitmap.name)!
    const key = keyOf(subject, point.position)
    return {
      key,
      fixed: await prepareFixed(subject, bits, this.#fold, this.#parts.derived, point.position),
    }
  }

  /** Inside the committer: α, and what the log gained since `ready` was prepared. Consumes `ready`. Throws DerivedMissing. */
  async make({ command, base, moment }: PlanWanted, ready: Prepared | undefined): Promise<MadePlan> {
    const disk = moment.state.disk(command.disk)!
    const bitmap = disk.bitmaps.get(command.bitmap)!
    const subject: PlanSubject = {
      disk,
      bitmap,
      mode: command.mode,
      base,
      point: moment.point,
      shape: planShape(disk, bitmap, base, moment.point),
      clockSteps: stepsSince(moment.state, base),
    }
    const bits = await this.#bitsAt(moment, disk.id, bitmap.name)
    const head = this.#state.catalog.last.position
    if (ready !== undefined && ready.key === keyOf(subject, ready.fixed.upTo)) {
      await topUp(ready.fixed, subject, this.#fold)
      return finish(ready.fixed, subject, bits)
    }
    const fixed = await prepareFixed(subject, bits, this.#fold, this.#parts.derived, head)
    addToldWindows(fixed.bits, moment, subject, head)
    return finish(fixed, subject, bits)
  }

  /** Bits as the commands before in the same transaction leave them (R20). */
  async #bitsAt(moment: PlanMoment, disk: string, bitmap: string) {
    if (moment.events.length === 0) return this.#state.bits.bitmap(disk, bitmap)!
    const disks = new Set(moment.events.flatMap((event) => disksOf(event)).concat(disk))
    const fork = new State(this.#state.catalog, this.#state.bits.forkOf(disks))
    const first = this.#state.catalog.last.position + 1
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
      await materialize(fork, one, this.#parts.derived)
      fork.bits.applyEvent(event, first + i)
    }
    return fork.bits.bitmap(disk, bitmap)!
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

/** Windows that commands before in the same transaction told are in no log yet, and may lie in a stretch (R20, R3). */
function addToldWindows(
  bits: DirtyBitmap,
  moment: PlanMoment,
  { disk, shape }: PlanSubject,
  head: number,
): void {
  moment.events.forEach((event, i) => {
    const position = head + 1 + i
    if (!isToldWrites(event) || event.disk !== disk.id || shape.whole !== null) return
    if (shape.stretches.some(({ from, to }) => from.position < position && position <= to.position))
      setExtents(bits, event.extents)
  })
}
