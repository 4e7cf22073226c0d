/**
 * The store, as a program holds it: the embedded face of everything. Reading the present is the same as reading the past
 * (`StateView`); whatever changes something goes through the committer.
 */
import { randomUUID } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Observable } from 'rxjs'
import type { Point, Recorder } from '../../events/types.ts'
import { checkGranularity } from '../../projections/bitmap.ts'
import type { Answer } from '../commands/answer.ts'
import { baseOf } from '../commands/begin.ts'
import { findBitmap, findDisk } from '../commands/find.ts'
import { makeRoom } from '../commands/slices.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { Followed } from '../log/event-log.ts'
import { Backup } from './backup.ts'
import { changedBetween } from './changed.ts'
import type { BeginCommand, Core, StoreCommand } from './core.ts'
import { Disk } from './disk.ts'
import { eventsOf } from './event-view.ts'
import { FORMAT } from './folder.ts'
import type { MomentContext, Side } from './moments.ts'
import { PastState } from './past.ts'
import type { RebuildOptions } from './rebuild.ts'
import { events, fold } from './streams.ts'
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

export class Store extends StateView {
  readonly #core: Core
  readonly #facts: StoreFacts
  #closing: Promise<void> | undefined

  constructor(core: Core, facts: StoreFacts) {
    super(
      () => core.state,
      core.derived,
      (error) => core.heal(error),
    )
    this.#core = core
    this.#facts = facts
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
    disk: { readonly size: number; readonly quiet?: boolean; readonly recorder?: Recorder },
    options: CommandOptions = {},
  ): Promise<Disk> {
    const held = this.#core.catalog.disk(id)
    const recorder = disk.recorder ?? held?.recorder ?? 'caller'
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
      if (!this.#core.isAttached(held)) await this.#core.run([attach], cause)
    }
    return this.disk(id)
  }

  /** DISK_EXISTS, SIZE_INVALID. The disk is not attached by this. */
  async addDisk(id: string, disk: { readonly size: number }, options: CommandOptions = {}): Promise<Disk> {
    await this.#core.run([{ type: 'add-disk', disk: id, size: disk.size }], options)
    return new Disk(this.#core, this, id)
  }

  /** DISK_NOT_FOUND. */
  disk(id: string): Disk {
    findDisk(this.#core.catalog, id)
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
    return (await this.#core.run(commands, options, 'transaction')).answers
  }

  /** Begins several backups in one record and at one point (R14). `grouped`: all succeed together, or none. */
  async beginBackups(
    requests: readonly ({ readonly disk: string } & BeginRequest)[],
    options: CommandOptions & { readonly completion?: 'individual' | 'grouped' } = {},
  ): Promise<Backup[]> {
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

  /** BACKUP_NOT_FOUND. After a restart of the agent, the way back to what was begun (R10). */
  backup(id: string): Backup {
    const backup = new Backup(this.#core, id)
    void backup.info
    return backup
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
    const { position } = await this.resolvePoint(point, 'at')
    return new PastState(this.#core, await this.#core.at(position, options))
  }

  /** What was written to a disk between two points, whether or not a bitmap existed then (R23). */
  async changed(disk: string, options: ChangedOptions): Promise<Changed> {
    const granularity = options.granularity ?? limits.granularityDefault
    checkAnswerGranularity(granularity)
    const context = { disk, bitmap: options.bitmap }
    const since = await this.resolvePoint(options.since, 'since', context)
    const until = await this.resolvePoint(options.until ?? 'now', 'at', context)
    if (since.position > until.position) {
      throw new CheckpointError(
        'POINT_ORDER',
        `since (position ${since.position}) lies after until (position ${until.position}); swap them`,
        { since: since.position, until: until.position },
      )
    }
    const now = this.#core.catalog.disk(disk)
    const then =
      until.position === this.#core.catalog.last.position
        ? this.#core.catalog
        : (await this.#core.at(until.position, options)).catalog
    const found = findDisk(then, disk)
    checkGranules(disk, found.size, granularity)
    return await changedBetween(this.#core.log, {
      disk: found,
      now: now?.number === found.number ? now : undefined,
      since,
      until,
      granularity,
      clockSteps: this.#core.catalog.clockSteps(),
      signal: options.signal,
      onProgress: options.onProgress,
    })
  }

  /** What a begin would copy now, or why it would be refused. Records nothing (R25). A busy bitmap can be looked at. */
  async plan(request: PlanRequest): Promise<Plan> {
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
    return await this.#core.replay(backup, options)
  }

  /** Where a moment lies in the log. */
  async resolvePoint(point: PointInput, side: Side, context: MomentContext = {}): Promise<Point> {
    return await this.#core.moments.point(point, side, context)
  }

  // — the log

  /** Events with filters, forwards or backwards. */
  async *log(filter: LogFilter = {}): AsyncGenerator<RecordedEvent> {
    const context = { disk: filter.disk }
    const from = filter.from === undefined ? 0 : await this.#firstOf(filter.from, context)
    const to =
      filter.to === undefined
        ? this.head.position
        : (await this.resolvePoint(filter.to, 'at', context)).position
    let left = filter.limit ?? Number.POSITIVE_INFINITY
    const signal = filter.signal === undefined ? {} : { signal: filter.signal }
    for await (const records of this.#core.log.read({
      from: Math.max(0, from),
      to,
      reverse: filter.reverse === true,
      ...signal,
    })) {
      for (const record of records) {
        const all = eventsOf(record, this.#core.catalog)
        for (const event of filter.reverse === true ? [...all].reverse() : all) {
          if (event.position < from || event.position > to || !passes(event, filter)) continue
          if (left-- <= 0) return
          yield event
        }
      }
    }
  }

  /** Records from a point on: catch-up, then live, without gap or double. Says `caughtUp` and `fellBehind`. */
  async *follow(
    options: { readonly from?: PointInput; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Followed> {
    const from = await this.#fromOf(options.from)
    yield* this.#core.log.follow({
      from,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    })
  }

  /** Events as an Observable: catch-up from a position (default: from now on), then live. */
  events$(
    options: { readonly from?: 'start' | 'now' | { readonly position: number } } = {},
  ): Observable<RecordedEvent> {
    const { from = 'now' } = options
    const position = from === 'start' ? 0 : from === 'now' ? this.head.position + 1 : from.position
    return events(this.#core.log, this.#core.catalog, position)
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
      memory: { bits },
      opened: { ...this.#facts.opened, rebuilt: [...derived.rebuilt] },
    }
  }

  /** Takes a snapshot of the projections now; otherwise one is taken every so many events. */
  async snapshot(): Promise<void> {
    await this.#core.committer.settled()
    await this.#core.keeper.snapshot()
  }

  /** Joins small records now; otherwise it happens by itself, and at close. */
  async repack(): Promise<{ readonly before: number; readonly after: number }> {
    return await this.#core.log.repack()
  }

  /** Detaches this session's disks, waits for everything handed in, and lets go of the folder. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#core.close()
    await this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #fromOf(from: PointInput | undefined): Promise<number> {
    if (from === undefined || from === 'now') return this.head.position + 1
    return await this.#firstOf(from, {})
  }

  /** `log --from @5` begins with event 5, also inside a record; every other point begins with the first event after it. */
  async #firstOf(from: PointInput, context: MomentContext): Promise<number> {
    const { position } = await this.resolvePoint(from, 'since', context)
    return typeof from === 'object' && 'position' in from ? from.position : position + 1
  }
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

function checkAnswerGranularity(granularity: number): void {
  try {
    checkGranularity(granularity)
  } catch (cause) {
    throw new CheckpointError(
      'GRANULARITY_INVALID',
      `a granularity of ${String(granularity)} is not possible; give a power of two from ${limits.granularityMin} to ${limits.granularityMax} bytes`,
      { granularity: String(granularity) },
      cause,
    )
  }
}

function checkGranules(disk: string, size: number, granularity: number): void {
  if (Math.ceil(size / granularity) <= limits.granulesMax) return
  throw new CheckpointError(
    'BITMAP_TOO_LARGE',
    `disk "${disk}" has more than 2^32 granules of ${granularity} bytes; ask with a larger granularity`,
    { disk, size, granularity },
  )
}

function passes(event: RecordedEvent, filter: LogFilter): boolean {
  if (filter.disk !== undefined && event.disk !== filter.disk) return false
  if (filter.types !== undefined && !filter.types.includes(event.type)) return false
  if (filter.actor !== undefined && event.cause.actor !== filter.actor) return false
  if (filter.range === undefined) return true
  const { offset, length } = event.data as { offset?: number; length?: number }
  return (
    event.type === 'write' &&
    offset! < filter.range.offset + filter.range.length &&
    offset! + length! > filter.range.offset
  )
}

async function bytesIn(folder: string | null, name: string): Promise<number> {
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
