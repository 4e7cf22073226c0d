/**
 * Collects what one span of the log wrote, per disk, while records go by: which granules, how many writes, how many bytes.
 * In a live store the bits of writes come from the fold (`WritesTaker`), which sets them once for this and for every bitmap; a
 * builder on its own sets them. Nothing is spent on a disk that is not written.
 *
 * Bits are kept for the largest size a disk has had: a shrink drops nothing here, since a decode of the log drops nothing
 * either. Whoever joins them into a bitmap of some size passes over what lies beyond.
 */
import { isToldWrites, writesTold } from '../../events/told.ts'
import type { DiskNumber, LogRecord, LogWindow, WriteColumns } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { BitsFold, WritesTaker } from '../../projections/bits.ts'
import type { Catalog } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'

/** Granules of a span: at most this coarse, so that `changed` at its default is answered … */
const COARSEST = 65_536
/** … and at least this: finer ones would cost more memory than what they save. */
export const FINEST = 4096

export interface SpanDisk {
  bits: DirtyBitmap
  writes: number
  bytes: number
}

export interface Span {
  /** Writes after this position … */
  readonly after: number
  /** … up to and including this one, where a record ends. */
  readonly last: number
  /** Of its first and last event, ms. */
  readonly time: number
  readonly lastTime: number
  readonly disks: ReadonlyMap<DiskNumber, SpanDisk>
}

/** What a span asks of the disks it meets. */
export interface DiskShapes {
  granularity(disk: DiskNumber): number
  /** No write of this disk so far lay beyond; undefined: unknown. */
  reach(disk: DiskNumber): number | undefined
  /** Which incarnation an event at `position` means by `id`. */
  numberAt(id: string, position: number): DiskNumber | undefined
}

/** The catalog of the moment, or of any later one. */
export function shapesOf(catalog: Catalog): DiskShapes {
  const held = (number: DiskNumber): DiskState | undefined => {
    const name = catalog.diskByNumber(number)
    const disk = name === undefined || name.removed ? undefined : catalog.disk(name.id)
    return disk?.number === number ? disk : undefined
  }
  return {
    granularity: (number) => {
      let finest = COARSEST
      for (const { granularity } of held(number)?.bitmaps.values() ?? [])
        finest = Math.min(finest, granularity)
      return Math.max(FINEST, finest)
    },
    reach: (number) => {
      const disk = held(number)
      return disk?.resizes.reduce((most, { before }) => Math.max(most, before), disk.size)
    },
    numberAt: (id, position) => catalog.numberAt(id, position),
  }
}

export class SpanBuilder implements WritesTaker {
  /** The last boundary, and the last position taken in. */
  #after: number
  #last: number
  #time = 0
  #lastTime = 0
  #disks = new Map<DiskNumber, SpanDisk>()
  /** Where the bits of writes come from from now on; null: nowhere, they are set here. */
  #source: { readonly fold: BitsFold; readonly shapes: DiskShapes } | null = null

  constructor(after: number) {
    this.#after = after
    this.#last = after
  }

  /** Whether `fold` gives the bits of writes. */
  get fed(): boolean {
    return this.#source !== null
  }

  /** Every record up to `last` is folded, and each one after it will be before it is added here. */
  feedFrom(fold: BitsFold, shapes: DiskShapes): void {
    fold.giveTo(this)
    this.#source = { fold, shapes }
  }

  /** What is left of it is taken over, and whatever comes now is set here. */
  feedNoMore(): void {
    this.#source?.fold.settle()
    this.#source?.fold.giveTo(null)
    this.#source = null
  }

  granularity(disk: DiskNumber): number {
    return this.#disks.get(disk)?.bits.granularity ?? this.#source!.shapes.granularity(disk)
  }

  take(disk: DiskNumber, bits: DirtyBitmap): void {
    const held = this.#disk(disk, this.#source!.shapes)
    if (bits.size > held.bits.size) held.bits.resize(bits.size)
    if (bits.granularity === held.bits.granularity && held.bits.isEmpty) {
      bits.resize(held.bits.size)
      held.bits = bits
    } else joinBits(bits, held.bits)
  }

  /** How many events came since the last boundary. */
  get events(): number {
    return this.#last - this.#after
  }

  get last(): number {
    return this.#last
  }

  /** Takes in a record, or what of it is new. */
  add(record: LogRecord, shapes: DiskShapes): void {
    const end = record.first + record.count - 1
    if (end <= this.#last) return
    const after = this.#last
    if (this.#last === this.#after) this.#time = record.time
    this.#last = end
    this.#lastTime = record.lastTime
    switch (record.kind) {
      case 'writes': {
        let next = record.first
        for (const { disk, columns } of record.sections) {
          const rows = columns.offsets.length
          const from = Math.min(rows, Math.max(0, after + 1 - next))
          if (from < rows) this.#rows(disk, columns, from, shapes)
          next += rows
        }
        return
      }
      case 'windows':
        for (const window of record.windows) this.#window(window, after, shapes)
        return
      case 'events':
        record.events.forEach((event, i) => {
          const position = record.first + i
          if (!isToldWrites(event) || position <= after) return
          const disk = shapes.numberAt(event.disk, position)
          if (disk === undefined) return
          const held = this.#disk(disk, shapes)
          held.writes += writesTold(event)
          for (const [offset, length] of event.extents) {
            if (offset + length > held.bits.size) held.bits.resize(offset + length)
            held.bits.setRange(offset, length)
            held.bytes += length
          }
        })
        return
      case 'gap':
        return // Nothing is known of it.
      default:
        record satisfies never
    }
  }

  /** Ends the span here and begins the next one; null when no event came. */
  cut(): Span | null {
    if (this.#last === this.#after) return null
    this.#source?.fold.settle()
    const span = {
      after: this.#after,
      last: this.#last,
      time: this.#time,
      lastTime: this.#lastTime,
      disks: this.#disks,
    }
    this.#after = this.#last
    this.#disks = new Map()
    return span
  }

  /** One that a compaction made across a boundary has its bits on both sides, and is counted where it ends. */
  #window({ first, count, sections }: LogWindow, after: number, shapes: DiskShapes): void {
    if (first + count - 1 <= after) return
    for (const { disk, columns, writes, bytes } of sections) {
      const held = this.#disk(disk, shapes)
      this.#set(held, columns, 0, shapes.reach(disk))
      held.writes += writes
      held.bytes += bytes
    }
  }

  #rows(disk: DiskNumber, columns: WriteColumns, from: number, shapes: DiskShapes): void {
    const held = this.#disk(disk, shapes)
    if (this.#source?.fold.collects(disk) !== true) this.#set(held, columns, from, shapes.reach(disk))
    const { lengths } = columns
    let bytes = 0
    for (let i = from; i < lengths.length; i++) bytes += lengths[i]!
    held.bytes += bytes
    held.writes += lengths.length - from
  }

  #set({ bits }: SpanDisk, columns: WriteColumns, from: number, reach: number | undefined): void {
    const end = reach ?? endOf(columns)
    if (end > bits.size) bits.resize(end)
    bits.setColumns(columns, from)
  }

  #disk(disk: DiskNumber, shapes: DiskShapes): SpanDisk {
    let held = this.#disks.get(disk)
    if (held === undefined) {
      held = {
        bits: new DirtyBitmap(shapes.reach(disk) ?? 0, shapes.granularity(disk)),
        writes: 0,
        bytes: 0,
      }
      this.#disks.set(disk, held)
    }
    return held
  }
}

function endOf({ offsets, lengths }: WriteColumns): number {
  let end = 0
  for (let i = 0; i < offsets.length; i++) end = Math.max(end, offsets[i]! + lengths[i]!)
  return end
}

/** Joins bits of any size and granularity not coarser than the target's: what a fold of the same writes would set. Consumes them. */
export function joinBits(bits: DirtyBitmap, target: DirtyBitmap): void {
  if (bits.granularity === target.granularity) {
    if (bits.size !== target.size) bits.resize(target.size)
    target.or(bits)
    return
  }
  bits.eachExtent((offset, length) => target.setRange(offset, length))
}
