/**
 * The span index: which granules every span of the log wrote, per disk. It lets `changed`, plans, snapshots and `blame` pass
 * over what they need not decode: 100 M writes are a few dozen joins of bits instead of 6 s of decoding.
 *
 *   log      |··········|··········|····…····|··········|····      spans of about 262144 events; boundaries where records end
 *   level 0   A B C       A          A         B C                  per span: the disks it wrote, and which granules of each
 *   level 1  |___________ 8 spans _____________|                    per block: the same, joined
 *
 * Derived from the log, may be deleted at any time, never trusted by verify. What is missing or damaged is decoded from the log
 * and made anew. A disk that is not written costs nothing. Every answer is the one that a decode of the log would give.
 */
import type { DiskNumber } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { checkAborted } from '../log/entries.ts'
import type { EventLog } from '../log/event-log.ts'
import type { Derived } from './derived.ts'
import { foldWrites, type Span as LogSpan } from './fold-writes.ts'
import { type DiskShapes, joinBits, type Span, SpanBuilder, type SpanDisk } from './span-builder.ts'
import { decodedBits, FANOUT, type SpanEnd, type SpanPart, SpanStore } from './span-store.ts'

/** Events of a span: a decode of one costs 15 ms. */
export const SPAN_EVENTS = 262_144

/** Positions `first … last` of the log, both included. */
export interface PositionRange {
  readonly first: number
  readonly last: number
}

/** Which writes are looked for: those of `disk` that touch these bytes, at positions `from … to`, both included. */
export interface Touching {
  readonly disk: DiskNumber
  readonly offset: number
  readonly length: number
  readonly from: number
  readonly to: number
  readonly signal?: AbortSignal | undefined
}

/** One span as a whole: what was written to each disk in it, for growth over time. */
export interface SpanSummary extends PositionRange {
  /** Of its first and last event, ms. */
  readonly time: number
  readonly lastTime: number
  readonly disks: readonly SpanPart[]
}

export interface SpanParts {
  readonly log: EventLog
  readonly derived: Derived
  /** What the disks were like, at any later time than the spans asked for: for those that have to be made anew. */
  readonly shapes: () => DiskShapes
}

/** Spans finished in memory that are not stored yet. */
type Pending = Map<number, Span>

/** A block, read and not decoded yet. */
interface Block {
  readonly level: number
  readonly ordinal: number
  /** Whether its list of disks could be read. */
  readonly known: boolean
  readonly part: SpanPart | undefined
  /** A bitmap of the reader's own … */
  readonly held: DirtyBitmap | undefined
  /** … or as it is stored; undefined: missing. */
  readonly bytes: Uint8Array | undefined
}

/** Lists of disks kept in memory. */
const LISTS = 128

export class SpanReader {
  protected readonly parts: SpanParts
  protected readonly values: SpanStore
  protected readonly ends: Pick<SpanEnd, 'after' | 'last' | 'time' | 'lastTime'>[] = []
  protected readonly pending: Pending = new Map()
  /** Blocks stored per level, from level 1 on. */
  protected readonly blocks: number[] = []
  readonly #lists = new Map<string, readonly SpanPart[]>()
  /** Set when something turned out missing or damaged: repairs, one after another. */
  #healing: Promise<unknown> = Promise.resolve()

  constructor(parts: SpanParts) {
    this.parts = parts
    this.values = new SpanStore(parts.derived)
  }

  /** Reads where the spans lie. The newest one that is of this log's history vouches for all before it. */
  protected async load(): Promise<void> {
    const ends = await this.values.ends()
    const there = await this.values.count()
    let whole = ends.length
    for (; whole > 0; whole--) {
      const { last, hash } = ends[whole - 1]!
      const expected = await this.parts.log.hashAt(last)
      if (expected !== undefined && Buffer.compare(expected, hash) === 0) break
    }
    if (ends.length < there)
      this.parts.derived.rebuilt.push(`the span index was damaged after span ${ends.length}`)
    if (whole < there) await this.values.dropFrom(whole)
    for (const { after, last, time, lastTime } of ends.slice(0, whole))
      this.ends.push({ after, last, time, lastTime })
    for (let level = 1, most = whole; most >= FANOUT; level++) {
      most = Math.floor(most / FANOUT)
      this.blocks[level] = Math.min(most, await this.values.blocks(level))
    }
  }

  /** The last position that the index covers; -1: none. */
  get covered(): number {
    return this.ends.at(-1)?.last ?? -1
  }

  /** The last position of each span, ascending: a compaction keeps them as points (R29). */
  get boundaries(): number[] {
    return this.ends.map(({ last }) => last)
  }

  /** How many spans end after position `from` and at or before position `to`. */
  between(from: number, to: number): number {
    return this.#upTo(to) - this.#upTo(from)
  }

  /** Sets what the disk's writes in the span set: what `foldWrites` sets, from spans where they serve. */
  async union(span: LogSpan, target: DirtyBitmap): Promise<void> {
    const { disk, after, upTo, signal, onProgress } = span
    if (upTo <= after) return
    const { log } = this.parts
    const end = this.#upTo(upTo)
    let at = this.#firstAfter(after)
    if (at >= end) {
      await foldWrites(log, span, target)
      return
    }
    const before = this.ends[at]!.after
    const last = this.ends[end - 1]!.last
    await foldWrites(log, { disk, after, upTo: before, signal }, target)
    // The next block is read while the one before is decoded and joined.
    let next = this.#read(at, end, disk.number)
    while (at < end) {
      checkAborted(signal)
      const block = await next
      at += FANOUT ** block.level
      if (at < end) {
        next = this.#read(at, end, disk.number)
        next.catch(() => undefined) // Seen when it is awaited, if nothing else fails before.
      }
      await this.#join(block, span, target)
      onProgress?.(this.ends[at - 1]?.last ?? last)
    }
    await foldWrites(log, { disk, after: last, upTo, signal, onProgress }, target)
  }

  /**
   * Ranges of positions that may hold writes touching the bytes, newest first, disjoint. Every such write lies in one of them;
   * what the index does not cover is given whole. A range may hold none.
   */
  async *touching(wanted: Touching): AsyncGenerator<PositionRange> {
    const first = Math.max(0, wanted.from)
    let last = Math.min(wanted.to, this.parts.log.head.next - 1)
    let span = this.#upTo(last)
    // The newest end of what is asked for may lie inside a span, or beyond them all.
    const covered = this.ends[span - 1]?.last ?? -1
    const partly = this.ends[span]
    if (last > covered && last >= first) {
      const from = Math.max(first, covered + 1)
      if (partly === undefined || (await this.#touched(0, span, wanted))) yield { first: from, last }
      last = covered
    }
    while (span > 0 && last >= first) {
      checkAborted(wanted.signal)
      const level = this.#levelBefore(span)
      const step = FANOUT ** level
      const ordinal = span / step - 1
      if (level > 0 && (await this.#touched(level, ordinal, wanted))) {
        yield* this.#inside(level, ordinal, first, wanted)
      } else if (level === 0 && (await this.#touched(0, ordinal, wanted))) {
        const { after } = this.ends[ordinal]!
        yield { first: Math.max(first, after + 1), last }
      }
      span -= step
      last = this.ends[span - 1]?.last ?? -1
    }
  }

  /** Spans from position `from` to position `to`, oldest first; one that lies in part is given whole. */
  async *summaries(from: number, to: number): AsyncGenerator<SpanSummary> {
    for (let ordinal = this.#upTo(from - 1); ordinal < this.ends.length; ordinal++) {
      const { after, last, time, lastTime } = this.ends[ordinal]!
      if (after >= to) return
      const disks = (await this.#list(0, ordinal)) ?? (await this.#redone(0, ordinal))
      yield { first: after + 1, last, time, lastTime, disks }
    }
  }

  /** Nothing is being made anew any more. */
  async healed(): Promise<void> {
    await this.#healing
  }

  async *#inside(
    level: number,
    ordinal: number,
    first: number,
    wanted: Touching,
  ): AsyncGenerator<PositionRange> {
    for (let child = ordinal * FANOUT + FANOUT - 1; child >= ordinal * FANOUT; child--) {
      const oldest = child * FANOUT ** (level - 1)
      const newest = this.ends[oldest + FANOUT ** (level - 1) - 1]
      const before = this.ends[oldest]
      if (newest === undefined || before === undefined || newest.last < first) continue
      if (!(await this.#touched(level - 1, child, wanted))) continue
      if (level > 1) yield* this.#inside(level - 1, child, first, wanted)
      else yield { first: Math.max(first, before.after + 1), last: newest.last }
    }
  }

  /** Whether the block may have touched the bytes; true where nobody knows. */
  async #touched(level: number, ordinal: number, { disk, offset, length }: Touching): Promise<boolean> {
    if (length <= 0) return false
    const list = await this.#list(level, ordinal)
    const part = list?.find((one) => one.disk === disk)
    if (list !== undefined && part === undefined) return false
    const bits = this.pending.get(ordinal)?.disks.get(disk)?.bits
    const held = level === 0 && bits !== undefined ? bits : await this.values.bits(level, ordinal, disk)
    if (held === undefined) {
      this.#heal(level, ordinal)
      return true
    }
    const granule = Math.floor(offset / held.granularity)
    return held.nextDirty(granule) * held.granularity < offset + length && granule < held.granules
  }

  /** The largest block that begins at span `at` and ends at or before span `end`. */
  #levelAt(at: number, end: number): number {
    let level = 0
    for (let step = FANOUT; at % step === 0 && at + step <= end; step *= FANOUT) {
      if (at / step >= (this.blocks[level + 1] ?? 0)) break
      level++
    }
    return level
  }

  /** The largest block that ends before span `end`. */
  #levelBefore(end: number): number {
    let level = 0
    for (let step = FANOUT; end % step === 0; step *= FANOUT) {
      if (end / step > (this.blocks[level + 1] ?? 0)) break
      level++
    }
    return level
  }

  /** The largest block that begins at span `at` and ends at or before span `end`. */
  async #read(at: number, end: number, disk: DiskNumber): Promise<Block> {
    const level = this.#levelAt(at, end)
    return await this.#block(level, at / FANOUT ** level, disk)
  }

  /** What a block holds of a disk, and its bits as they are stored. */
  async #block(level: number, ordinal: number, disk: DiskNumber): Promise<Block> {
    const list = await this.#list(level, ordinal)
    const part = list?.find((one) => one.disk === disk)
    const held = level === 0 ? this.pending.get(ordinal)?.disks.get(disk)?.bits : undefined
    const bytes =
      part === undefined || held !== undefined
        ? undefined
        : await this.values.encodedBits(level, ordinal, disk)
    return { level, ordinal, known: list !== undefined, part, held: held?.clone(), bytes }
  }

  async #join(block: Block, span: LogSpan, target: DirtyBitmap): Promise<void> {
    const { level, ordinal, known, part, held, bytes } = block
    if (known && part === undefined) return
    if (part !== undefined && part.granularity <= target.granularity) {
      const bits = held ?? decodedBits(bytes)
      // Made anew between the read of the list and theirs, they may be coarser than it says.
      if (bits !== undefined && bits.granularity <= target.granularity) {
        joinBits(bits, target)
        return
      }
      if (bits === undefined) this.#heal(level, ordinal)
    }
    if (part === undefined) this.#heal(level, ordinal)
    if (level > 0) {
      for (let child = ordinal * FANOUT; child < (ordinal + 1) * FANOUT; child++)
        await this.#join(await this.#block(level - 1, child, span.disk.number), span, target)
      return
    }
    const { after, last } = this.ends[ordinal]!
    await foldWrites(this.parts.log, { ...span, after, upTo: last, onProgress: undefined }, target)
  }

  /** A bitmap of the caller's own. */
  async #bits(level: number, ordinal: number, disk: DiskNumber): Promise<DirtyBitmap | undefined> {
    const held = level === 0 ? this.pending.get(ordinal)?.disks.get(disk) : undefined
    return held === undefined ? await this.values.bits(level, ordinal, disk) : held.bits.clone()
  }

  async #list(level: number, ordinal: number): Promise<readonly SpanPart[] | undefined> {
    const pending = level === 0 ? this.pending.get(ordinal) : undefined
    if (pending !== undefined) return partsOf(pending.disks)
    const key = `${level}/${ordinal}`
    const held = this.#lists.get(key)
    if (held !== undefined) return held
    const list = await this.values.parts(level, ordinal)
    if (list === undefined) return undefined
    if (this.#lists.size >= LISTS) this.#lists.delete(this.#lists.keys().next().value!)
    this.#lists.set(key, list)
    return list
  }

  protected forgetLists(): void {
    this.#lists.clear()
  }

  /** Makes a block anew behind the caller's back, who has the answer from elsewhere. */
  #heal(level: number, ordinal: number): void {
    this.#healing = this.#healing.then(() => this.#redone(level, ordinal)).catch(() => undefined)
  }

  async #redone(level: number, ordinal: number): Promise<readonly SpanPart[]> {
    if (await this.#whole(level, ordinal)) return (await this.#list(level, ordinal)) ?? []
    this.parts.derived.rebuilt.push(
      level === 0
        ? `span ${ordinal} was damaged`
        : `block ${ordinal} of ${FANOUT ** level} spans was damaged`,
    )
    this.#lists.delete(`${level}/${ordinal}`)
    if (level === 0) {
      const span = await this.#decoded(this.ends[ordinal]!)
      await this.values.put(ordinal, span, null)
      this.#lists.delete(`${level}/${ordinal}`) // Somebody may have read the old one meanwhile.
      return partsOf(span.disks)
    }
    return await this.makeBlock(level, ordinal)
  }

  /** Whether another repair has been here. */
  async #whole(level: number, ordinal: number): Promise<boolean> {
    const list = await this.values.parts(level, ordinal)
    if (list === undefined) return false
    for (const { disk } of list)
      if ((await this.values.bits(level, ordinal, disk)) === undefined) return false
    return true
  }

  async #decoded({ after, last, time, lastTime }: SpanReader['ends'][number]): Promise<Span> {
    const builder = new SpanBuilder(after)
    const shapes = this.parts.shapes()
    for await (const records of this.parts.log.read({ from: after + 1, to: last }))
      for (const record of records) builder.add(record, shapes)
    return { after, last, time, lastTime, disks: builder.cut()?.disks ?? new Map() }
  }

  /** Stores a block that was joined in memory. */
  protected async putBlock(
    level: number,
    ordinal: number,
    disks: ReadonlyMap<DiskNumber, SpanDisk>,
  ): Promise<void> {
    for (const [disk, { bits }] of disks) await this.values.putBits(level, ordinal, disk, bits)
    await this.values.putParts(level, ordinal, partsOf(disks))
  }

  /** Joins eight blocks of the level below, one disk after another: no more than two bitmaps are in memory. */
  protected async makeBlock(level: number, ordinal: number): Promise<readonly SpanPart[]> {
    const parts = new Map<DiskNumber, SpanPart[]>()
    const first = ordinal * FANOUT
    for (let child = first; child < first + FANOUT; child++) {
      for (const part of (await this.#list(level - 1, child)) ?? (await this.#redone(level - 1, child)))
        parts.set(part.disk, [...(parts.get(part.disk) ?? []), part])
    }
    const joined: SpanPart[] = []
    for (const [disk, list] of parts) {
      const granularity = list.reduce((most, part) => Math.max(most, part.granularity), 0)
      const bits = await this.#joined(level, first, disk, granularity)
      await this.values.putBits(level, ordinal, disk, bits)
      joined.push({
        disk,
        granularity: bits.granularity,
        writes: list.reduce((sum, { writes }) => sum + writes, 0),
        bytes: list.reduce((sum, { bytes }) => sum + bytes, 0),
      })
    }
    await this.values.putParts(level, ordinal, joined)
    this.#lists.delete(`${level}/${ordinal}`)
    return joined
  }

  async #joined(level: number, first: number, disk: DiskNumber, granularity: number): Promise<DirtyBitmap> {
    let all = new DirtyBitmap(0, granularity)
    for (let child = first; child < first + FANOUT; child++) {
      const list = (await this.#list(level - 1, child)) ?? (await this.#redone(level - 1, child))
      if (!list.some((part) => part.disk === disk)) continue
      let bits = await this.#bits(level - 1, child, disk)
      if (bits === undefined) {
        await this.#redone(level - 1, child)
        bits = await this.#bits(level - 1, child, disk)
      }
      if (bits === undefined) throw new Error(`a span that was made anew has no bits of disk ${disk}`)
      if (bits.size > all.size) all.resize(bits.size)
      if (bits.granularity > all.granularity) {
        const coarser = new DirtyBitmap(all.size, bits.granularity)
        joinBits(all, coarser)
        all = coarser
      }
      joinBits(bits, all)
    }
    return all
  }

  /** How many spans end at or before `position`. */
  #upTo(position: number): number {
    let low = 0
    let high = this.ends.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.ends[middle]!.last <= position) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The first span that begins after `position`. */
  #firstAfter(position: number): number {
    const at = this.#upTo(position)
    return (this.ends[at]?.after ?? position) >= position ? at : at + 1
  }
}

/** The index as it is stored, for reading what lies in the past. */
export async function openSpans(parts: SpanParts): Promise<SpanReader> {
  return await StoredSpans.open(parts)
}

class StoredSpans extends SpanReader {
  static async open(parts: SpanParts): Promise<SpanReader> {
    const spans = new StoredSpans(parts)
    await spans.load()
    return spans
  }
}

function partsOf(disks: ReadonlyMap<DiskNumber, SpanDisk>): SpanPart[] {
  return [...disks].map(([disk, { bits, writes, bytes }]) => ({
    disk,
    granularity: bits.granularity,
    writes,
    bytes,
  }))
}
