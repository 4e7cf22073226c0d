/**
 * The bits of every bitmap: α, a running backup's successor, and the slices.
 *
 * One write costs one update per recording bitmap, however many slices there are (R2): slices are inert, and in a live
 * store only a reference to their stored bits stays in memory. A slice is therefore a union of stored parts and, until
 * it is stored, a bitmap of its own; merging two slices (R16) joins their lists and touches no bits.
 * Where somebody takes the bits of all writes as well (`WritesTaker`), it is one update per disk: what is set for the taker is
 * owed to the bitmaps and joined into each of them when it is looked at, or when any event but a write comes to the disk.
 *
 * The fold is pure and synchronous. Two events need a slice's bits as a bitmap (`slice-reactivated` only so far); who
 * folds asks `slicesNeeded` first and materializes them.
 */
import type { DiskNumber, DomainEvent, Extent, LogRecord, WriteColumns } from '../events/types.ts'
import { DirtyBitmap } from './bitmap.ts'
import type { BackupState } from './state.ts'

/** Names stored bits: their digest, granularity and the disk's size when they were stored. */
export type BitsRef = string

export function refOf(bitmap: DirtyBitmap): BitsRef {
  return `${bitmap.digest()}:${bitmap.granularity}:${bitmap.size}`
}

export interface StoredPart {
  readonly ref: BitsRef
  /** The smallest size the disk has had since these bits were stored: what lay beyond is dropped (R7). */
  readonly sizeMin: number
}

export class SliceBits {
  /** Bits not stored yet, or null. */
  own: DirtyBitmap | null
  parts: readonly StoredPart[]

  constructor(own: DirtyBitmap | null, parts: readonly StoredPart[] = []) {
    this.own = own
    this.parts = parts
  }

  absorb(newer: SliceBits): void {
    if (newer.own !== null) {
      if (this.own === null) this.own = newer.own
      else this.own.or(newer.own)
    }
    this.parts = [...this.parts, ...newer.parts]
  }

  resize(size: number): void {
    this.own?.resize(size)
    this.parts = this.parts.map((part) => ({ ref: part.ref, sizeMin: Math.min(part.sizeMin, size) }))
  }

  clone(): SliceBits {
    return new SliceBits(this.own?.clone() ?? null, this.parts)
  }
}

/** A stored part as it is now: what a shrink dropped stays dropped, what grew since is clean. */
export function revive(stored: DirtyBitmap, part: StoredPart, size: number): DirtyBitmap {
  if (part.sizeMin < stored.size) stored.resize(part.sizeMin)
  if (stored.size !== size) stored.resize(size)
  return stored
}

/**
 * Bits that were stored as they were at a moment: since then α and successor changed by writes alone, and only the one that
 * collects. Every other event ends it. For whoever stores them: the fold keeps it true and makes nothing of it.
 */
export interface StoredBase {
  /** Null until they are stored. */
  refs: { readonly active: BitsRef; readonly successor: BitsRef | null } | null
  /** The position of that moment … */
  readonly at: number
  /** … and one after which nothing was written to them, unless `touched` says so. */
  upTo: number
}

export class BitmapBits {
  readonly granularity: number
  /** Null: no stored bits have anything to do with these. */
  base: StoredBase | null = null
  /** Written to since somebody looked and set it back. */
  touched = false
  recording: boolean
  readonly slices = new Map<number, SliceBits>()
  #active: DirtyBitmap
  #successor: DirtyBitmap | null = null
  /**
   * Bits that are yet to be joined into what collects: of writes that this bitmap recorded since the disk's last event of
   * another kind, and perhaps some that it has already.
   */
  #owed: DirtyBitmap | null = null

  constructor(active: DirtyBitmap, recording: boolean) {
    this.granularity = active.granularity
    this.#active = active
    this.recording = recording
  }

  /** α; while a backup runs, its frozen part. */
  get active(): DirtyBitmap {
    this.settle()
    return this.#active
  }

  set active(bits: DirtyBitmap) {
    this.settle()
    this.#active = bits
  }

  get successor(): DirtyBitmap | null {
    this.settle()
    return this.#successor
  }

  set successor(bits: DirtyBitmap | null) {
    this.settle()
    this.#successor = bits
  }

  /** Where a write's bits go now. */
  get collecting(): DirtyBitmap {
    return this.successor ?? this.active
  }

  /** Joins what is owed: a pass over the bits. */
  settle(): void {
    const owed = this.#owed
    this.#owed = null
    if (owed !== null) this.#raw.or(owed)
  }

  /** Rows were written, and their bits will be in `shared`, which is not coarser than this bitmap. */
  owe(shared: DirtyBitmap): void {
    this.touched = true
    this.#owed = shared
  }

  write(columns: WriteColumns, rows: number): void {
    this.touched = true
    this.#raw.setColumns(columns, 0, rows)
  }

  writeExtents(extents: readonly Extent[]): void {
    this.touched = true
    setExtents(this.#raw, extents)
  }

  /** As `collecting`, for setting bits only: they may come before or after what is owed. */
  get #raw(): DirtyBitmap {
    return this.#successor ?? this.#active
  }

  mergeSuccessor(): void {
    if (this.successor === null) return
    this.active.or(this.successor)
    this.successor = null
  }

  clone(): BitmapBits {
    const copy = new BitmapBits(this.active.clone(), this.recording)
    copy.successor = this.successor?.clone() ?? null
    for (const [number, slice] of this.slices) copy.slices.set(number, slice.clone())
    return copy
  }
}

export class DiskBits {
  size: number
  readonly bitmaps = new Map<string, BitmapBits>()
  /** Bits of every write since the disk's bits were settled, set once for all; null: none came, or nobody takes them. */
  recent: DirtyBitmap | null = null

  constructor(size: number) {
    this.size = size
  }
}

export interface SliceRef {
  readonly disk: string
  readonly bitmap: string
  readonly slice: number
}

/** Wants the bits of all writes too, whatever records: a span index. */
export interface WritesTaker {
  /** How coarse the next bits of this disk may be. */
  granularity(disk: DiskNumber): number
  /** Bits of all writes to the disk since the time before; its own from now on. */
  take(disk: DiskNumber, bits: DirtyBitmap): void
}

/** Slices whose bits this record's fold needs as bitmaps. */
export function slicesNeeded(record: LogRecord): readonly SliceRef[] {
  if (record.kind !== 'events') return []
  return record.events.flatMap((event) =>
    event.type === 'slice-reactivated'
      ? [{ disk: event.disk, bitmap: event.bitmap, slice: event.slice }]
      : [],
  )
}

/** A backup that holds a bitmap. `frozenOnly`: it copies what it froze and nothing beside. */
interface RunningBits {
  readonly disk: string
  readonly bitmap: string
  readonly frozenOnly: boolean
}

function runningBits({
  disk,
  bitmap,
  mode,
  base,
}: Pick<BackupState, 'disk' | 'bitmap' | 'mode' | 'base'>): RunningBits {
  const frozenOnly =
    (mode === 'incremental' || mode === 'differential') && (base.kind === 'point' || base.kind === 'active')
  return { disk, bitmap, frozenOnly }
}

/** R10's exception: to what was not copied, which of a backup of the frozen bits alone can be no more than those. */
function shrink(active: DirtyBitmap, uncopied: readonly Extent[], frozenOnly: boolean): void {
  const left = new DirtyBitmap(active.size, active.granularity)
  setExtents(left, uncopied)
  if (frozenOnly) {
    active.and(left)
    return
  }
  active.clear()
  active.or(left)
}

export class BitsFold {
  readonly disks = new Map<string, DiskBits>()
  readonly #byNumber = new Map<number, DiskBits>()
  readonly #numberOf = new Map<string, number>()
  /** Backups that run: which bitmap each one holds. */
  readonly #running = new Map<string, RunningBits>()
  #taker: WritesTaker | null = null
  /** Disks that have recent bits. */
  readonly #unsettled = new Map<DiskNumber, DiskBits>()

  /** Puts a disk in place as a snapshot had it. */
  restoreDisk(id: string, number: number, disk: DiskBits): void {
    this.disks.set(id, disk)
    this.#byNumber.set(number, disk)
    this.#numberOf.set(id, number)
  }

  restoreRunning(backup: string, running: Pick<BackupState, 'disk' | 'bitmap' | 'mode' | 'base'>): void {
    this.#running.set(backup, runningBits(running))
  }

  bitmap(disk: string, bitmap: string): BitmapBits | undefined {
    return this.disks.get(disk)?.bitmaps.get(bitmap)
  }

  /** From now on `taker` is given the bits of all records of writes that are folded; null: nobody. One before gets nothing more. */
  giveTo(taker: WritesTaker | null): void {
    this.#taker = null
    this.settle()
    this.#taker = taker
  }

  /** Whether writes to this disk are folded, and so their bits given to a taker. */
  collects(disk: DiskNumber): boolean {
    return this.#byNumber.has(disk)
  }

  /** Every bitmap has what is owed to it, and the taker all there is. */
  settle(): void {
    for (const number of this.#unsettled.keys()) this.#settle(number)
  }

  #settle(number: DiskNumber | undefined): void {
    const disk = number === undefined ? undefined : this.#unsettled.get(number)
    if (number === undefined || disk === undefined) return
    const { recent } = disk
    // Before the bits are let go of: whoever has them may change them.
    for (const bitmap of disk.bitmaps.values()) bitmap.settle()
    disk.recent = null
    this.#unsettled.delete(number)
    if (recent !== null) this.#taker?.take(number, recent)
  }

  /** An independent copy of some disks, for trying events out (R20). */
  forkOf(disks: Iterable<string>): BitsFold {
    const fork = new BitsFold()
    for (const id of disks) {
      const disk = this.disks.get(id)
      if (disk === undefined) continue
      const copy = new DiskBits(disk.size)
      for (const [name, bits] of disk.bitmaps) copy.bitmaps.set(name, bits.clone())
      fork.restoreDisk(id, this.#numberOf.get(id)!, copy)
    }
    for (const [id, place] of this.#running) fork.#running.set(id, place)
    return fork
  }

  apply(record: LogRecord): void {
    if (record.kind === 'events') {
      record.events.forEach((event, i) => {
        this.applyEvent(event, record.first + i)
      })
      return
    }
    if (record.kind === 'windows') {
      // A window is never cut: a point inside it means its end (R29).
      for (const { sections } of record.windows)
        for (const { disk, columns } of sections) this.applyColumns(disk, columns, columns.offsets.length)
      return
    }
    if (record.kind === 'gap') return
    for (const { disk, columns } of record.sections) {
      if (this.#taker === null) this.applyColumns(disk, columns, columns.offsets.length)
      else this.#share(disk, columns, this.#taker)
    }
  }

  applyColumns(disk: number, columns: WriteColumns, rows: number): void {
    const bits = this.#byNumber.get(disk)
    if (bits === undefined) return
    for (const bitmap of bits.bitmaps.values()) if (bitmap.recording) bitmap.write(columns, rows)
  }

  /** One update for the taker and all bitmaps that are not finer than what it wants. */
  #share(disk: DiskNumber, columns: WriteColumns, taker: WritesTaker): void {
    const bits = this.#byNumber.get(disk)
    if (bits === undefined) return
    if (bits.recent === null) {
      bits.recent = new DirtyBitmap(bits.size, taker.granularity(disk))
      this.#unsettled.set(disk, bits)
    }
    const { recent } = bits
    recent.setColumns(columns)
    for (const bitmap of bits.bitmaps.values()) {
      if (!bitmap.recording) continue
      if (bitmap.granularity >= recent.granularity) bitmap.owe(recent)
      else bitmap.write(columns, columns.offsets.length)
    }
  }

  applyEvent(event: DomainEvent, position: number): void {
    switch (event.type) {
      case 'disk-added':
        this.restoreDisk(event.disk, position, new DiskBits(event.size))
        return
      case 'disk-resized':
        this.#resize(event.disk, event.size)
        return
      case 'disk-removed': {
        this.#settle(this.#numberOf.get(event.disk))
        this.disks.delete(event.disk)
        const number = this.#numberOf.get(event.disk)
        if (number !== undefined) this.#byNumber.delete(number)
        this.#numberOf.delete(event.disk)
        return
      }
      case 'window':
      case 'maybe-written': {
        const disk = this.disks.get(event.disk)
        if (disk !== undefined)
          for (const bits of disk.bitmaps.values()) if (bits.recording) bits.writeExtents(event.extents)
        return
      }
      case 'bitmap-added': {
        const disk = this.#disk(event.disk)
        disk.bitmaps.set(
          event.bitmap,
          new BitmapBits(new DirtyBitmap(disk.size, event.granularity), event.recording),
        )
        return
      }
      case 'bitmap-removed':
        this.#settle(this.#numberOf.get(event.disk))
        this.disks.get(event.disk)?.bitmaps.delete(event.bitmap)
        return
      case 'bitmap-cleared':
        this.#bits(event).active.clear()
        return
      case 'bitmap-enabled':
        this.#bits(event).recording = true
        return
      case 'bitmap-disabled':
        this.#bits(event).recording = false
        return
      case 'bitmap-merged':
        for (const source of event.sources) {
          const bits = this.#bits(source)
          if (bits !== this.#bits(event)) this.#bits(event).active.or(bits.active)
        }
        return
      case 'bitmap-reset': {
        const bits = this.#bits(event)
        bits.slices.clear()
        this.#takeSuccessor(bits)
        return
      }
      case 'slice-frozen': {
        const bits = this.#bits(event)
        bits.slices.set(event.slice, new SliceBits(bits.active))
        if (event.cause.kind === 'backup') this.#takeSuccessor(bits)
        else bits.active = new DirtyBitmap(bits.active.size, bits.granularity)
        return
      }
      case 'slice-dropped':
        this.#bits(event).slices.delete(event.slice)
        return
      case 'slice-merged': {
        const slices = this.#bits(event).slices
        slices.get(event.into)?.absorb(need(slices.get(event.slice), 'the merged slice'))
        slices.delete(event.slice)
        return
      }
      case 'slice-reactivated': {
        const bits = this.#bits(event)
        const slice = need(bits.slices.get(event.slice), 'the slice that becomes α again')
        if (slice.parts.length > 0)
          throw new Error('slicelog bug: slice-reactivated needs a materialized slice')
        if (slice.own !== null) bits.active.or(slice.own)
        bits.slices.delete(event.slice)
        return
      }
      case 'backup-begun': {
        const bits = this.#bits(event)
        bits.successor = new DirtyBitmap(bits.active.size, bits.granularity)
        this.#running.set(event.backup, runningBits(event))
        return
      }
      case 'backup-succeeded': {
        const bits = this.#ended(event.backup)
        if (bits === undefined) return
        if (event.bits === 'kept') bits.mergeSuccessor()
        if (event.bits === 'forgotten') this.#takeSuccessor(bits)
        return
      }
      case 'backup-failed': {
        const frozenOnly = this.#running.get(event.backup)?.frozenOnly === true
        const bits = this.#ended(event.backup)
        if (bits !== undefined && event.uncopied !== undefined)
          shrink(bits.active, event.uncopied, frozenOnly)
        bits?.mergeSuccessor()
        return
      }
      case 'backup-cancelled':
        this.#ended(event.backup)?.mergeSuccessor()
        return
      default:
        return // every other event changes the catalog alone
    }
  }

  #ended(backup: string): BitmapBits | undefined {
    const place = this.#running.get(backup)
    this.#running.delete(backup)
    this.#settle(place === undefined ? undefined : this.#numberOf.get(place.disk))
    const bits = place === undefined ? undefined : this.bitmap(place.disk, place.bitmap)
    if (bits !== undefined) bits.base = null
    return bits
  }

  #takeSuccessor(bits: BitmapBits): void {
    bits.active = need(bits.successor, 'a successor')
    bits.successor = null
  }

  #resize(id: string, size: number): void {
    const disk = this.#disk(id)
    disk.size = size
    for (const bits of disk.bitmaps.values()) {
      bits.base = null
      bits.active.resize(size)
      bits.successor?.resize(size)
      for (const slice of bits.slices.values()) slice.resize(size)
    }
  }

  /** For an event that is no write: what was written before it is what it meets. */
  #disk(id: string): DiskBits {
    this.#settle(this.#numberOf.get(id))
    return need(this.disks.get(id), `disk ${id}`)
  }

  /** For an event of a bitmap, so what was stored of it says nothing about what it will be. */
  #bits(ref: { disk: string; bitmap: string }): BitmapBits {
    const bits = need(this.#disk(ref.disk).bitmaps.get(ref.bitmap), `bitmap ${ref.bitmap} of ${ref.disk}`)
    bits.base = null
    return bits
  }
}

export function setExtents(bitmap: DirtyBitmap, extents: readonly Extent[]): void {
  for (const [offset, length] of extents) {
    bitmap.setRange(offset, length)
  }
}

function need<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null)
    throw new Error(`slicelog bug: the bits' fold met an event without ${what}`)
  return value
}
