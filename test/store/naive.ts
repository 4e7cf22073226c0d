/**
 * The store as the specification has it, in the most obvious way: every write in a list, a Set of granules for every α,
 * successor and slice, and each rule written out where it applies. Slow, and small enough to be read against the rules.
 * It predicts answers and refusals; positions (which the log gives) are told to it.
 */
import { createHash } from 'node:crypto'
import type { SinceInput, StoreCommand } from '../../src/index.ts'

export class Refusal extends Error {
  constructor(readonly code: string) {
    super(code)
  }
}

export interface NaiveStretch {
  readonly from: number
  readonly to: number
  readonly why: 'told' | 'unclean'
}

export interface Part {
  number: number
  start: number
  /** Granules; R2. */
  bits: Set<number>
  cleared: boolean
  /** Something was not collected: disabled for a while, or cleared (R11). */
  gap: boolean
  /** Not recording since this position. */
  gapFrom: number | null
  /** The lost stretches that it carries (R35). Several may end in one record: each is told, and carried, by itself. */
  lost: Set<NaiveStretch>
}

export interface NaiveSlice extends Part {
  end: number
}

export interface NaiveBitmap {
  name: string
  granularity: number
  persistent: boolean
  retention: number
  recording: boolean
  generation: number
  pastGenerations: number[]
  /** How many numbers each past generation gave. */
  numbersOf: Map<number, number>
  created: number
  holder: string | null
  active: Part
  successor: Part | null
  slices: NaiveSlice[]
  highest: number
  /** What became of numbers that are no slices any more (R18). */
  fates: Map<number, 'SLICE_DROPPED' | 'SLICE_MERGED'>
  lastBackup: { id: string; point: number } | null
  merges: number[]
}

export interface NaiveDisk {
  id: string
  size: number
  added: number
  attached: boolean
  last: number
  /** Left attached by a process that ended uncleanly: nobody says what was written since this position. Null: it is known (R32). */
  unknown: number | null
  resizes: { at: number; before: number; after: number }[]
  lost: NaiveStretch[]
  bitmaps: Map<string, NaiveBitmap>
}

export interface NaiveBackup {
  id: string
  disk: string
  bitmap: string
  mode: string
  point: number
  force: boolean
  group: string | null
  copiedBy: string
  state: 'running' | 'pending' | 'interrupted' | 'succeeded' | 'failed' | 'cancelled'
  /** Oldest position that an image under its copy may be of; -1: it needs none, or the very first (R25). */
  base: number
  copy: 'kept' | 'forgotten'
  /** Of a combined copy: what it was made of. */
  of: readonly string[] | null
}

export interface NaiveState {
  disks: Map<string, NaiveDisk>
  backups: Map<string, NaiveBackup>
  checkpoints: Map<string, { point: number; bitmaps: { disk: string; bitmap: string }[] }>
}

export interface NaiveWrite {
  readonly disk: string
  readonly position: number
  readonly offset: number
  readonly length: number
}

/** The log as the model remembers it: only grows. */
export interface NaiveLog {
  readonly writes: NaiveWrite[]
  /** Time of every event, by position. */
  readonly times: number[]
  /** End of the record of commands that holds the position; the position itself for writes (R20, R22). */
  readonly ends: number[]
  /** First and last position of each window that a compaction made, in any order (R29). */
  windows: readonly NaiveWindow[]
}

export interface NaiveWindow {
  readonly first: number
  readonly last: number
}

/** R20, R29: what a position means. Inside a window only its edges are known: its start as `since`, its end elsewhere. */
export function placeOf(log: NaiveLog, position: number, side: 'since' | 'at'): number {
  const window = windowAround(log, position)
  if (window === undefined) return log.ends[position]!
  return side === 'at' ? window.last : window.first - 1
}

/** The window whose inside the position is: its last one is an edge, and stays a point. */
export function windowAround(log: NaiveLog, position: number): NaiveWindow | undefined {
  return log.windows.find(({ first, last }) => first <= position && position < last)
}

export interface ExpectedPlan {
  /** The whole disk is covered (R24, R35, full). */
  whole: boolean
  /** Granules that the plan must hold. */
  bits: Set<number>
  /** Whether it may hold nothing else. */
  exact: boolean
  complete: boolean
}

export function granulesOf(offset: number, length: number, granularity: number, size: number): number[] {
  const end = Math.min(offset + length, size)
  const found: number[] = []
  if (offset >= end) return found
  for (let granule = Math.floor(offset / granularity); granule * granularity < end; granule++)
    found.push(granule)
  return found
}

/** What a write of the log sets on a disk of `size` bytes: a granule that the disk's end cuts keeps its bit, as in a bitmap (R7, R23). */
export function granulesWritten(offset: number, length: number, granularity: number, size: number): number[] {
  return granulesOf(offset, length, granularity, Math.ceil(size / granularity) * granularity)
}

/** R5, written out. */
export function digestOf(bits: Iterable<number>, size: number, granularity: number): string {
  const granules = Math.ceil(size / granularity)
  const bytes = Buffer.alloc(Math.ceil(granules / 64) * 8)
  for (const granule of bits) bytes[granule >> 3]! |= 1 << (granule & 7)
  return createHash('sha256').update(bytes).digest('hex')
}

export function allOf(size: number, granularity: number): Set<number> {
  return new Set(granulesOf(0, size, granularity, size))
}

export const emptyState = (): NaiveState => ({ disks: new Map(), backups: new Map(), checkpoints: new Map() })

type Single = Exclude<StoreCommand, { type: 'begin-backup' }>

/** Whether one of the commands began a backup of the disk. */
function begunOn(disk: string, commands: readonly StoreCommand[]): boolean {
  return commands.some((command) => command.type === 'begin-backup' && command.disk === disk)
}

function newPart(number: number, start: number, recording: boolean): Part {
  return {
    number,
    start,
    bits: new Set(),
    cleared: false,
    gap: false,
    gapFrom: recording ? null : start,
    lost: new Set(),
  }
}

/** Slices, backups and checkpoints have names; every other base is a moment of the log. */
function isName(since: SinceInput): boolean {
  return typeof since === 'object' && ('slice' in since || 'backup' in since || 'checkpoint' in since)
}

function lowestUnder(mode: string, base: number | 'active' | undefined, bitmap: NaiveBitmap): number {
  if (mode === 'full' || mode === 'copy') return -1
  return base === undefined || base === 'active' ? bitmap.active.start : base
}

function closeGap(part: Part, at: number): void {
  if (part.gapFrom !== null && part.gapFrom < at) part.gap = true
  part.gapFrom = null
}

function absorb(older: Part, boundary: number, newer: Part): void {
  closeGap(older, boundary)
  for (const granule of newer.bits) older.bits.add(granule)
  for (const stretch of newer.lost) older.lost.add(stretch)
  older.cleared ||= newer.cleared
  older.gap ||= newer.gap
  older.gapFrom = newer.gapFrom
}

/** One run of commands over a state: throws Refusal, and then the state is spoilt (work on a copy). */
export class Naive {
  readonly state: NaiveState
  readonly log: NaiveLog

  constructor(state: NaiveState, log: NaiveLog) {
    this.state = state
    this.log = log
  }

  disk(id: string): NaiveDisk {
    const disk = this.state.disks.get(id)
    if (disk === undefined) throw new Refusal('DISK_NOT_FOUND')
    return disk
  }

  bitmap(diskId: string, name: string): NaiveBitmap {
    const bitmap = this.disk(diskId).bitmaps.get(name)
    if (bitmap === undefined) throw new Refusal('BITMAP_NOT_FOUND')
    return bitmap
  }

  /** R6. */
  idle(diskId: string, name: string): NaiveBitmap {
    const bitmap = this.bitmap(diskId, name)
    if (bitmap.holder !== null) throw new Refusal('BITMAP_BUSY')
    return bitmap
  }

  write(diskId: string, position: number, offset: number, length: number): void {
    const disk = this.disk(diskId)
    disk.last = position
    for (const bitmap of disk.bitmaps.values()) {
      if (!bitmap.recording) continue
      const part = bitmap.successor ?? bitmap.active
      for (const granule of granulesOf(offset, length, bitmap.granularity, disk.size)) part.bits.add(granule)
    }
  }

  /** R32: the first attach of a session. */
  attach(diskId: string, quiet: boolean, at: number): void {
    const disk = this.disk(diskId)
    if (!quiet) this.tell(disk, at)
    disk.unknown = null
    disk.attached = true
    disk.last = at
  }

  detach(diskId: string, at: number): void {
    const disk = this.disk(diskId)
    if (!disk.attached) return
    this.tell(disk, at)
    disk.unknown = null
    for (const bitmap of [...disk.bitmaps.values()])
      if (!bitmap.persistent && bitmap.holder === null) disk.bitmaps.delete(bitmap.name)
    disk.attached = false
    disk.last = at
  }

  /** R32: a process went on with the log. What is attached now was left so by one that ended uncleanly. */
  opened(): void {
    for (const disk of this.state.disks.values()) disk.unknown = disk.attached ? disk.last : null
  }

  /** R32, R35: whoever takes a point of the disk has to know what nobody says was written up to it; from there on it is unknown anew. */
  tell(disk: NaiveDisk, at: number): void {
    if (disk.unknown === null || disk.unknown >= at) return
    this.#lose(disk, disk.unknown, at, 'unclean')
    disk.unknown = at
  }

  /** R10: what a process of ours was copying. */
  interrupt(): void {
    for (const backup of this.state.backups.values())
      if (backup.state === 'running' && backup.copiedBy === 'store') backup.state = 'interrupted'
  }

  /** R20: in order, removals at the end. `generations`: of what the answers named, by index. */
  transaction(
    commands: readonly StoreCommand[],
    at: number,
    generations: readonly (number | undefined)[],
  ): Map<string, ExpectedPlan> {
    // Moments of the log are what they are when the transaction comes in; names are what the commands before left (R20).
    const moments = commands.map((command) =>
      command.type === 'begin-backup' && command.since !== undefined && !isName(command.since)
        ? this.resolve(command.since, command.disk, command.bitmap)
        : undefined,
    )
    const plans = new Map<string, ExpectedPlan>()
    const removals: { disk: string; bitmap: string }[] = []
    commands.forEach((command, index) => {
      if (command.type === 'remove-bitmap') {
        const bitmap = this.idle(command.disk, command.bitmap)
        this.tell(this.disk(command.disk), at)
        bitmap.holder = 'removal'
        removals.push(command)
      } else if (command.type === 'begin-backup')
        plans.set(command.backup, this.#begin(command, moments[index], at))
      else {
        const meant = this.#meant(command)
        this.#tellTouched(meant, at)
        this.#one(meant, at, generations[index])
        if (command.type === 'declare-lost' && begunOn(command.disk, commands.slice(0, index)))
          throw new Refusal('TOLD_TOO_LATE')
      }
    })
    for (const { disk, bitmap } of removals) {
      this.disk(disk).bitmaps.delete(bitmap)
      this.disk(disk).last = at
    }
    return plans
  }

  /** Since the disk's last event: the last one that there was before this. */
  #meant(command: Single): Single {
    if (command.type !== 'declare-lost' || command.from !== null) return command
    return { ...command, from: { position: this.disk(command.disk).last, time: null } }
  }

  /** R32: whatever touches a disk tells first what nobody knows of it. Tried on a copy, to see which disks it touches. */
  #tellTouched(command: Single, at: number): void {
    const doubtful = [...this.state.disks.values()].filter(({ unknown }) => unknown !== null)
    if (doubtful.length === 0) return
    const trial = new Naive(structuredClone(this.state), this.log)
    trial.#one(command, at, undefined)
    for (const disk of doubtful) if (trial.disk(disk.id).last !== disk.last) this.tell(disk, at)
  }

  #one(command: Single, at: number, generation: number | undefined): void {
    switch (command.type) {
      case 'add-disk':
        if (this.state.disks.has(command.disk)) throw new Refusal('DISK_EXISTS')
        this.state.disks.set(command.disk, {
          id: command.disk,
          size: command.size,
          added: at,
          attached: false,
          last: at,
          unknown: null,
          resizes: [],
          lost: [],
          bitmaps: new Map(),
        })
        return
      case 'resize-disk':
        this.#resize(this.disk(command.disk), command.size, at)
        return
      case 'declare-lost': {
        const disk = this.disk(command.disk)
        this.#lose(disk, command.from?.position ?? disk.last, at, 'told')
        return
      }
      case 'add-bitmap':
        this.#add(command, at, generation ?? at)
        return
      case 'clear-bitmap': {
        const { active } = this.idle(command.disk, command.bitmap)
        active.bits.clear()
        if (active.start !== at) active.cleared = active.gap = true
        if (active.gapFrom !== null) active.gapFrom = at
        this.disk(command.disk).last = at
        return
      }
      case 'enable-bitmap': {
        const bitmap = this.idle(command.disk, command.bitmap)
        if (bitmap.recording) return
        bitmap.recording = true
        closeGap(bitmap.active, at)
        this.disk(command.disk).last = at
        return
      }
      case 'disable-bitmap': {
        const bitmap = this.idle(command.disk, command.bitmap)
        if (!bitmap.recording) return
        bitmap.recording = false
        bitmap.active.gapFrom = at
        this.disk(command.disk).last = at
        return
      }
      case 'merge-bitmaps':
        this.#merge(command, at)
        return
      case 'set-retention': {
        const bitmap = this.idle(command.disk, command.bitmap)
        if (command.retention === bitmap.retention) return
        this.#room(bitmap, command.retention, 0, command.forceCycle === true)
        bitmap.retention = command.retention
        this.disk(command.disk).last = at
        return
      }
      case 'bank':
        this.#bank(command.disk, command.bitmap, command.forceCycle === true, at)
        return
      case 'delete-slice': {
        const bitmap = this.idle(command.disk, command.bitmap)
        const slice = this.slice(bitmap, command.slice, command.generation)
        this.#forget(bitmap, slice)
        this.disk(command.disk).last = at
        return
      }
      case 'succeed-backup':
        this.#succeed(command.backup, at, generation)
        return
      case 'fail-backup':
      case 'cancel-backup': {
        const backup = this.#living(command.backup)
        for (const member of this.#members(backup)) {
          this.#mergeBack(this.bitmap(member.disk, member.bitmap))
          member.state = command.type === 'fail-backup' ? 'failed' : 'cancelled'
          this.disk(member.disk).last = at
        }
        return
      }
      case 'resume-backup': {
        const backup = this.#living(command.backup)
        if (backup.state !== 'interrupted') throw new Refusal('BACKUP_STATE')
        backup.state = 'running'
        this.disk(backup.disk).last = at
        return
      }
      case 'create-checkpoint': {
        if (this.state.checkpoints.has(command.checkpoint)) throw new Refusal('CHECKPOINT_EXISTS')
        for (const { disk, bitmap } of command.bitmaps)
          this.#bank(disk, bitmap, command.forceCycle === true, at)
        this.state.checkpoints.set(command.checkpoint, { point: at, bitmaps: [...command.bitmaps] })
        return
      }
      case 'delete-checkpoint':
        this.#deleteCheckpoint(command.checkpoint, at)
        return
      case 'forget-backup': {
        const backup = this.#backup(command.backup)
        if (backup.state !== 'succeeded') throw new Refusal('BACKUP_STATE')
        backup.copy = 'forgotten'
        return
      }
      case 'record-combined':
        this.#combine(command.backup, command.of)
        return
      case 'abort':
        throw new Refusal('TRANSACTION_ABORTED')
      default:
        throw new Error(`the model has no ${command.type}`)
    }
  }

  #add(command: Extract<StoreCommand, { type: 'add-bitmap' }>, at: number, generation: number): void {
    const disk = this.disk(command.disk)
    if (disk.bitmaps.has(command.bitmap)) throw new Refusal('BITMAP_EXISTS')
    const recording = command.disabled !== true
    disk.bitmaps.set(command.bitmap, {
      name: command.bitmap,
      granularity: command.granularity ?? 65536,
      persistent: command.persistent !== false,
      retention: command.retention ?? 0,
      recording,
      generation,
      pastGenerations: [],
      numbersOf: new Map(),
      created: at,
      holder: null,
      active: newPart(0, at, recording),
      successor: null,
      slices: [],
      highest: 0,
      fates: new Map(),
      lastBackup: null,
      merges: [],
    })
    disk.last = at
  }

  /** R4: several sources, any granularity; a source's runs end with the disk, then they are set like writes. */
  #merge(command: Extract<StoreCommand, { type: 'merge-bitmaps' }>, at: number): void {
    // QEMU's order: the first two names exist, then whether they are free.
    this.bitmap(command.disk, command.bitmap)
    for (const ref of command.sources.slice(0, 1)) this.bitmap(ref.disk, ref.bitmap)
    const target = this.idle(command.disk, command.bitmap)
    const disk = this.disk(command.disk)
    const sources: NaiveBitmap[] = []
    for (const ref of command.sources) {
      const source = this.idle(ref.disk, ref.bitmap)
      if (this.disk(ref.disk).size !== disk.size) throw new Refusal('SIZES_DIFFER')
      if (source !== target) sources.push(source)
    }
    if (sources.length === 0) return
    for (const source of sources) {
      for (const granule of source.active.bits) {
        for (const set of granulesOf(
          granule * source.granularity,
          source.granularity,
          target.granularity,
          disk.size,
        ))
          target.active.bits.add(set)
      }
    }
    target.merges.push(at)
    disk.last = at
  }

  /** R15. */
  #room(bitmap: NaiveBitmap, retention: number, needed: number, force: boolean): number[] {
    const over = Math.max(0, bitmap.slices.length + needed - retention)
    if (over > 0 && !force) throw new Refusal('RETENTION_FULL')
    return bitmap.slices.splice(0, over).map((slice) => {
      bitmap.fates.set(slice.number, 'SLICE_DROPPED')
      return slice.number
    })
  }

  /** R17. */
  #bank(diskId: string, name: string, force: boolean, at: number): void {
    const bitmap = this.idle(diskId, name)
    this.tell(this.disk(diskId), at)
    if (bitmap.retention === 0) throw new Refusal('RETENTION_ZERO')
    this.#room(bitmap, bitmap.retention, 1, force)
    this.#freeze(bitmap, newPart(0, at, bitmap.recording))
    this.disk(diskId).last = at
  }

  #freeze(bitmap: NaiveBitmap, fresh: Part): void {
    closeGap(bitmap.active, fresh.start)
    bitmap.slices.push({ ...bitmap.active, end: fresh.start })
    bitmap.highest += 1
    fresh.number = bitmap.highest
    bitmap.active = fresh
    bitmap.successor = null
  }

  /** R18. */
  slice(bitmap: NaiveBitmap, number: number, generation?: number): NaiveSlice {
    if (generation !== undefined && generation !== bitmap.generation) {
      // A number that the older generation never gave never existed.
      const given = bitmap.numbersOf.get(generation) ?? 0
      throw new Refusal(number < given ? 'SLICE_OLD_GENERATION' : 'SLICE_NOT_FOUND')
    }
    const slice = bitmap.slices.find((candidate) => candidate.number === number)
    if (slice !== undefined) return slice
    throw new Refusal(
      number === bitmap.active.number ? 'SLICE_NOT_FOUND' : (bitmap.fates.get(number) ?? 'SLICE_NOT_FOUND'),
    )
  }

  /** R16. */
  #forget(bitmap: NaiveBitmap, slice: NaiveSlice): void {
    const index = bitmap.slices.indexOf(slice)
    const older = bitmap.slices[index - 1]
    bitmap.slices.splice(index, 1)
    bitmap.fates.set(slice.number, older === undefined ? 'SLICE_DROPPED' : 'SLICE_MERGED')
    if (older === undefined) return
    absorb(older, older.end, slice)
    older.end = slice.end
  }

  /** R19. */
  #deleteCheckpoint(name: string, at: number): void {
    const checkpoint = this.state.checkpoints.get(name)
    if (checkpoint === undefined) throw new Refusal('CHECKPOINT_NOT_FOUND')
    const { point } = checkpoint
    const touched: (() => void)[] = []
    for (const ref of checkpoint.bitmaps) {
      const bitmap = this.state.disks.get(ref.disk)?.bitmaps.get(ref.bitmap)
      if (bitmap === undefined) continue
      const slice = bitmap.slices.find((candidate) => candidate.start === point)
      if (slice === undefined && bitmap.active.start !== point) continue
      const shared = [...this.state.checkpoints].some(
        ([other, its]) =>
          other !== name &&
          its.point === point &&
          its.bitmaps.some((one) => one.disk === ref.disk && one.bitmap === ref.bitmap),
      )
      const kept = [...this.state.backups.values()].some(
        (backup) =>
          backup.disk === ref.disk &&
          backup.bitmap === ref.bitmap &&
          backup.point === point &&
          backup.state !== 'failed' &&
          backup.state !== 'cancelled' &&
          backup.copy === 'kept',
      )
      if (shared || kept) continue
      if (bitmap.holder !== null) throw new Refusal('BITMAP_BUSY')
      touched.push(() => {
        if (slice !== undefined) this.#forget(bitmap, slice)
        else {
          const newest = bitmap.slices.pop()
          if (newest === undefined) return
          bitmap.fates.set(bitmap.active.number, 'SLICE_MERGED')
          const { end, ...part } = newest
          absorb(part, end, bitmap.active)
          bitmap.active = part
        }
        this.disk(ref.disk).last = at
      })
    }
    for (const touch of touched) touch()
    this.state.checkpoints.delete(name)
  }

  #resize(disk: NaiveDisk, size: number, at: number): void {
    for (const bitmap of disk.bitmaps.values()) if (bitmap.holder !== null) throw new Refusal('BITMAP_BUSY')
    if (size === disk.size) return
    disk.resizes.push({ at, before: disk.size, after: size })
    disk.size = size
    disk.last = at
    for (const bitmap of disk.bitmaps.values()) {
      for (const part of [bitmap.active, ...bitmap.slices]) {
        for (const granule of part.bits) if (granule * bitmap.granularity >= size) part.bits.delete(granule)
      }
    }
  }

  #lose(disk: NaiveDisk, from: number, at: number, why: NaiveStretch['why']): void {
    const same = disk.lost.find((one) => one.from === from && one.to === at && one.why === why)
    const stretch = same ?? { from, to: at, why }
    disk.lost.push(stretch)
    disk.last = at
    for (const bitmap of disk.bitmaps.values()) {
      for (const slice of bitmap.slices) if (slice.end > from) slice.lost.add(stretch)
      if (bitmap.successor === null || bitmap.successor.start > from) bitmap.active.lost.add(stretch)
      bitmap.successor?.lost.add(stretch)
    }
  }

  // — backups

  /** Position that a base stands for (R11, R22). */
  resolve(since: SinceInput, diskId: string, name: string): number | 'active' {
    if (since === 'active') return 'active'
    if (since === 'start') return -1
    if (since === 'now') return this.log.times.length - 1
    if ('position' in since) {
      if (since.position >= this.log.ends.length) throw new Refusal('POINT_NOT_FOUND')
      return placeOf(this.log, since.position, 'since')
    }
    if ('time' in since) {
      const first = this.log.times.findIndex((time) => time >= (since.time as number))
      const last = (first === -1 ? this.log.times.length : first) - 1
      return last < 0 ? -1 : placeOf(this.log, last, 'since')
    }
    if ('slice' in since) return this.slice(this.bitmap(diskId, name), since.slice, since.generation).start
    if ('backup' in since) return this.#backup(since.backup).point
    const checkpoint = this.state.checkpoints.get(since.checkpoint)
    if (checkpoint === undefined) throw new Refusal('CHECKPOINT_NOT_FOUND')
    return checkpoint.point
  }

  /** What a plan must hold, or the refusal (R11, R12, R15). Does not change anything. */
  plan(
    request: {
      disk: string
      bitmap: string
      mode: string
      since?: SinceInput | undefined
      forceCycle?: boolean | undefined
    },
    base: number | 'active' | undefined,
  ): ExpectedPlan {
    const disk = this.disk(request.disk)
    const bitmap = this.bitmap(request.disk, request.bitmap)
    const { active, successor, granularity } = bitmap
    if (request.mode === 'full' || request.mode === 'copy') {
      if (base !== undefined) throw new Refusal('SINCE_NOT_ALLOWED')
      return { whole: true, bits: allOf(disk.size, granularity), exact: true, complete: true }
    }
    if (base === undefined) {
      if (active.cleared || active.start !== (bitmap.lastBackup?.point ?? bitmap.created))
        throw new Refusal('SINCE_REQUIRED')
    } else if (base !== 'active' && request.mode === 'incremental' && base > active.start) {
      const named =
        typeof request.since === 'object' && 'backup' in request.since
          ? this.state.backups.get(request.since.backup)
          : undefined
      if (named?.state !== 'succeeded' || named.copy !== 'kept' || named.disk !== request.disk)
        throw new Refusal('BASE_TOO_LATE')
    }
    if (
      request.mode === 'incremental' &&
      bitmap.retention > 0 &&
      request.forceCycle !== true &&
      bitmap.slices.length + 1 > bitmap.retention
    )
      throw new Refusal('RETENTION_FULL')
    if (base === 'active') {
      const bits = new Set([
        ...active.bits,
        ...(successor?.bits ?? []),
        ...this.#outside(disk, active.start, granularity),
      ])
      const parts = successor === null ? [active] : [active, successor]
      return {
        whole: false,
        bits,
        exact: true,
        complete: parts.every((part) => !part.gap && part.gapFrom === null && part.lost.size === 0),
      }
    }
    const from = base ?? active.start
    if (from < disk.added || disk.lost.some((stretch) => stretch.to > from)) {
      return { whole: true, bits: allOf(disk.size, granularity), exact: true, complete: true }
    }
    const bits = new Set(this.#outside(disk, from, granularity))
    for (const write of this.log.writes) {
      if (write.disk !== disk.id || write.position <= from) continue
      for (const granule of granulesWritten(write.offset, write.length, granularity, disk.size))
        bits.add(granule)
    }
    const shrunk = disk.resizes.some((resize) => resize.at > from && resize.after < resize.before)
    return { whole: false, bits, exact: !shrunk && !bitmap.merges.some((at) => at > from), complete: true }
  }

  /** R7. */
  #outside(disk: NaiveDisk, from: number, granularity: number): number[] {
    let least = disk.size
    for (const resize of disk.resizes)
      if (resize.at > from) least = Math.min(least, resize.before, resize.after)
    return granulesOf(least, disk.size - least, granularity, disk.size)
  }

  #begin(
    command: Extract<StoreCommand, { type: 'begin-backup' }>,
    moment: number | 'active' | undefined,
    at: number,
  ): ExpectedPlan {
    if (this.state.backups.has(command.backup)) throw new Refusal('BACKUP_EXISTS')
    const bitmap = this.idle(command.disk, command.bitmap)
    const base =
      command.since !== undefined && isName(command.since)
        ? this.resolve(command.since, command.disk, command.bitmap)
        : moment
    this.tell(this.disk(command.disk), at)
    const plan = this.plan(command, base)
    bitmap.holder = command.backup
    bitmap.successor = newPart(bitmap.active.number, at, bitmap.recording)
    const { backup: id, disk, mode } = command
    this.state.backups.set(id, {
      id,
      disk,
      bitmap: bitmap.name,
      mode,
      point: at,
      force: command.forceCycle === true,
      group: command.group ?? null,
      copiedBy: command.copiedBy ?? 'caller',
      state: 'running',
      base: lowestUnder(mode, base, bitmap),
      copy: 'kept',
      of: null,
    })
    this.disk(disk).last = at
    return plan
  }

  #backup(id: string): NaiveBackup {
    const backup = this.state.backups.get(id)
    if (backup === undefined) throw new Refusal('BACKUP_NOT_FOUND')
    return backup
  }

  /** R25: each copy lies on the one before: kept, of the same disk, and with a point from the next one's base to its point. */
  #combine(id: string, of: readonly string[]): void {
    if (this.state.backups.has(id)) throw new Refusal('BACKUP_EXISTS')
    const members = of.map((member) => this.#backup(member))
    const oldest = members[0]
    const newest = members.at(-1)
    if (oldest === undefined || newest === undefined || members.length < 2) throw new Refusal('BACKUP_CHAIN')
    members.forEach((member, i) => {
      if (member.state !== 'succeeded' || member.copy !== 'kept') throw new Refusal('BACKUP_CHAIN')
      const below = members[i - 1]
      if (below === undefined) return
      const lies = member.base <= below.point && below.point <= member.point
      if (below.disk !== member.disk || !lies || members.indexOf(member) !== i)
        throw new Refusal('BACKUP_CHAIN')
    })
    this.state.backups.set(id, { ...newest, id, mode: oldest.mode, base: oldest.base, group: null, of })
  }

  #living(id: string): NaiveBackup {
    const backup = this.#backup(id)
    if (backup.state === 'succeeded' || backup.state === 'failed' || backup.state === 'cancelled')
      throw new Refusal('BACKUP_ENDED')
    return backup
  }

  #members(backup: NaiveBackup): NaiveBackup[] {
    if (backup.group === null) return [backup]
    return [...this.state.backups.values()].filter(
      (member) =>
        member.group === backup.group && ['running', 'pending', 'interrupted'].includes(member.state),
    )
  }

  #mergeBack(bitmap: NaiveBitmap): void {
    if (bitmap.successor !== null) absorb(bitmap.active, bitmap.successor.start, bitmap.successor)
    bitmap.successor = null
    bitmap.holder = null
  }

  /** R9, R14. */
  #succeed(id: string, at: number, generation: number | undefined): void {
    const backup = this.#living(id)
    if (backup.state !== 'running') throw new Refusal('BACKUP_STATE')
    const members = this.#members(backup)
    this.disk(backup.disk).last = at
    if (members.some((member) => member !== backup && member.state !== 'pending')) {
      backup.state = 'pending'
      return
    }
    for (const member of members) this.#done(member, at, generation)
  }

  #done(backup: NaiveBackup, at: number, generation: number | undefined): void {
    const bitmap = this.bitmap(backup.disk, backup.bitmap)
    backup.state = 'succeeded'
    this.disk(backup.disk).last = at
    if (backup.mode === 'differential' || backup.mode === 'copy') {
      this.#mergeBack(bitmap)
      return
    }
    bitmap.holder = null
    bitmap.lastBackup = { id: backup.id, point: backup.point }
    const successor = bitmap.successor!
    if (backup.mode === 'full') {
      bitmap.pastGenerations.push(bitmap.generation)
      bitmap.numbersOf.set(bitmap.generation, bitmap.highest + 1)
      bitmap.generation = generation ?? at
      bitmap.slices = []
      bitmap.fates.clear()
      bitmap.highest = 0
      bitmap.active = { ...successor, number: 0 }
      bitmap.successor = null
    } else if (bitmap.retention === 0) {
      bitmap.active = { ...successor, number: bitmap.active.number }
      bitmap.successor = null
    } else {
      this.#room(bitmap, bitmap.retention, 1, backup.force)
      this.#freeze(bitmap, successor)
    }
  }
}
