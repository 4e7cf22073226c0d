/**
 * Whether the span index is what follows from the log: each span, and each block of them, against what the walk saw go by
 * (R28). A compaction may have left a window across a boundary: then the spans up to the next common boundary are compared as
 * one. Costs one more bit per write, and one read of the index.
 */
import type { LogRecord } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { Catalog } from '../../projections/catalog.ts'
import type { Derived } from '../store/derived.ts'
import { joinBits, type Span, SpanBuilder, shapesOf } from '../store/span-builder.ts'
import { FANOUT, type SpanEnd, type SpanPart, SpanStore } from '../store/span-store.ts'

type Tell = (what: string, position: number) => void

/** What is stored, or was seen, of one disk. */
interface Sum {
  readonly bits: readonly DirtyBitmap[]
  readonly writes: number
  readonly bytes: number
}

export class SpanCheck {
  readonly #values: SpanStore
  readonly #tell: Tell
  #ends: readonly SpanEnd[] = []
  readonly #blocks: number[] = []
  #builder: SpanBuilder | null = null
  /** The next span to come to its end, and those before it that did without a common boundary. */
  #next = 0
  #group: number[] = []
  #coarseness = new Map<number, number>()

  constructor(derived: Derived, tell: Tell) {
    this.#values = new SpanStore(derived)
    this.#tell = tell
  }

  /** Spans up to position `after` were compared another time. */
  async begin(after: number): Promise<void> {
    this.#ends = await this.#values.ends()
    if (this.#ends.length < (await this.#values.count()))
      this.#tell(`where span ${this.#ends.length} of the span index ends cannot be read`, after)
    for (let level = 1, most = this.#ends.length; most >= FANOUT; level++) {
      most = Math.floor(most / FANOUT)
      this.#blocks[level] = Math.min(most, await this.#values.blocks(level))
    }
    while (this.#next < this.#ends.length && this.#ends[this.#next]!.after < after) this.#next++
    await this.#expect()
  }

  /** After the record was folded into `catalog`. Records that are left out end the check. */
  async step(record: LogRecord, catalog: Catalog): Promise<void> {
    const builder = this.#builder
    if (builder === null) return
    const end = record.first + record.count - 1
    if (end <= builder.last) return
    if (record.first > builder.last + 1) {
      this.#builder = null
      return
    }
    const shapes = shapesOf(catalog)
    builder.add(record, {
      ...shapes,
      granularity: (disk) => this.#coarseness.get(disk) ?? shapes.granularity(disk),
    })
    while (this.#next < this.#ends.length && this.#ends[this.#next]!.last <= end)
      this.#group.push(this.#next++)
    const last = this.#group.at(-1)
    if (last === undefined || this.#ends[last]!.last !== end) return
    await this.#compare(builder.cut(), this.#group)
    for (const ordinal of this.#group) await this.#aboveOf(ordinal + 1)
    this.#group = []
    await this.#expect()
  }

  /** Begins with the next span, as coarse as it was stored. */
  async #expect(): Promise<void> {
    const end = this.#ends[this.#next]
    if (end === undefined) {
      this.#builder = null
      return
    }
    this.#builder ??= new SpanBuilder(end.after)
    const parts = (await this.#values.parts(0, this.#next)) ?? []
    this.#coarseness = new Map(parts.map((part) => [part.disk, part.granularity]))
  }

  async #compare(span: Span | null, group: readonly number[]): Promise<void> {
    const stored = await this.#stored(0, group)
    const { last } = this.#ends[group.at(-1)!]!
    if (stored === null) return
    const seen = new Map<number, Sum>()
    for (const [disk, { bits, writes, bytes }] of span?.disks ?? [])
      seen.set(disk, { bits: [bits], writes, bytes })
    const why = difference(seen, stored)
    if (why !== null)
      this.#tell(`span ${group.join(', ')} of the span index is not what the log gives: ${why}`, last)
  }

  /** The blocks that are complete with so many spans, against what they join. */
  async #aboveOf(spans: number): Promise<void> {
    for (let level = 1, count = spans; count % FANOUT === 0 && count > 0; level++) {
      count /= FANOUT
      const ordinal = count - 1
      if (ordinal >= (this.#blocks[level] ?? 0)) return
      const children = Array.from({ length: FANOUT }, (_, i) => ordinal * FANOUT + i)
      const joined = await this.#stored(level - 1, children, true)
      const block = await this.#stored(level, [ordinal])
      if (joined === null || block === null) continue
      const why = difference(joined, block)
      if (why !== null)
        this.#tell(
          `block ${ordinal} of level ${level} of the span index is not what its spans give: ${why}`,
          this.#ends[spans - 1]!.last,
        )
    }
  }

  /** Null: something cannot be read, and was told (unless `quietly`: then it was told before). */
  async #stored(
    level: number,
    ordinals: readonly number[],
    quietly = false,
  ): Promise<Map<number, Sum> | null> {
    const sums = new Map<number, Sum>()
    for (const ordinal of ordinals) {
      const parts = await this.#values.parts(level, ordinal)
      if (parts === undefined) return this.#unreadable(level, ordinal, null, quietly)
      for (const part of parts) {
        const bits = await this.#values.bits(level, ordinal, part.disk)
        if (bits === undefined || bits.granularity !== part.granularity)
          return this.#unreadable(level, ordinal, part, quietly)
        const sum = sums.get(part.disk) ?? { bits: [], writes: 0, bytes: 0 }
        sums.set(part.disk, {
          bits: [...sum.bits, bits],
          writes: sum.writes + part.writes,
          bytes: sum.bytes + part.bytes,
        })
      }
    }
    return sums
  }

  #unreadable(level: number, ordinal: number, part: SpanPart | null, quietly: boolean): null {
    const what = level === 0 ? `span ${ordinal}` : `block ${ordinal} of level ${level}`
    const of = part === null ? 'the list of disks' : `the bits of disk number ${part.disk}`
    if (!quietly) {
      const spans = (ordinal + 1) * FANOUT ** level
      this.#tell(`${of} of ${what} of the span index cannot be read`, this.#ends[spans - 1]?.last ?? 0)
    }
    return null
  }
}

function difference(seen: ReadonlyMap<number, Sum>, stored: ReadonlyMap<number, Sum>): string | null {
  for (const disk of new Set([...seen.keys(), ...stored.keys()])) {
    const mine = seen.get(disk)
    const theirs = stored.get(disk)
    if (mine === undefined) return `disk number ${disk} was not written`
    if (theirs === undefined) return `disk number ${disk} was written`
    if (mine.writes !== theirs.writes || mine.bytes !== theirs.bytes)
      return `disk number ${disk} had ${mine.writes} writes of ${mine.bytes} bytes in all`
    const all = [...mine.bits, ...theirs.bits]
    const granularity = all.reduce((most, bits) => Math.max(most, bits.granularity), 0)
    const size = all.reduce((most, bits) => Math.max(most, bits.size), 0)
    if (!unionOf(mine.bits, size, granularity).equals(unionOf(theirs.bits, size, granularity)))
      return `other granules of disk number ${disk} were written`
  }
  return null
}

function unionOf(list: readonly DirtyBitmap[], size: number, granularity: number): DirtyBitmap {
  const all = new DirtyBitmap(size, granularity)
  for (const bits of list) joinBits(bits.clone(), all)
  return all
}
