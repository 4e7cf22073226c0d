/**
 * The span index of an open store: fed with every record that is folded, it ends a span every so many events and stores it
 * behind the committer's back. At open the tail's replay feeds it. Where it is behind (deleted, damaged, an older version's
 * store) it is caught up in the background, and answers come from the log meanwhile.
 *
 * Cost: the bits that the fold sets anyway; at a boundary one pass to join them into the bitmaps, and in the background one encode
 * per disk that was written.
 */
import type { DiskNumber, LogRecord } from '../../events/types.ts'
import { type DiskShapes, joinBits, type Span, SpanBuilder, type SpanDisk, shapesOf } from './span-builder.ts'
import { FANOUT } from './span-store.ts'
import { type SpanParts, SpanReader } from './spans.ts'
import type { State } from './state.ts'

export interface SpanIndexParts extends Omit<SpanParts, 'shapes'> {
  /** Events of a span. */
  readonly every: number
}

/** Finished spans that may wait to be stored: then the next one grows longer instead. */
const WAITING = 4

/** Spans that a replay makes at most. More would take longer than the fold: the index is caught up afterwards then. */
const FED_SPANS = 4

/** Memory for a block that is not complete yet. */
const BLOCK_BYTES = 2 ** 25

/** Of the time: the rest is for whoever uses the store while its index is caught up. */
const CATCH_UP_SHARE = 0.5

export class SpanIndex extends SpanReader {
  readonly #every: number
  /** Null while the index is behind what was folded, or cannot be stored. */
  #builder: SpanBuilder | null = null
  #shapes: DiskShapes | undefined
  #state: State | undefined
  #storing: Promise<void> = Promise.resolve()
  /** The spans of the block that is not complete yet, joined as they were stored; null: too many, they are read again. */
  #block: OpenBlock | null = null
  #catching: Promise<void> | undefined
  #closed = false

  private constructor(parts: SpanIndexParts, shapes: () => DiskShapes) {
    super({ ...parts, shapes })
    this.#every = parts.every
  }

  static async open(parts: SpanIndexParts): Promise<SpanIndex> {
    const index: SpanIndex = new SpanIndex(parts, () => index.#shapes!)
    await index.load()
    index.#builder = new SpanBuilder(index.covered)
    return index
  }

  /** Whether every record that was folded is in a span, or in the one that grows. */
  get live(): boolean {
    return this.#builder !== null
  }

  /** Events of a span, unless much waits to be stored. */
  get every(): number {
    return this.#every
  }

  /** Whether a replay up to `position` should feed it. */
  keepsUpWith(position: number): boolean {
    return position - this.covered <= FED_SPANS * this.#every
  }

  /** A replay begins after `position`: what lies before must be in the index already, or it is behind. */
  begin(position: number, state: State): void {
    this.#builder?.feedNoMore() // A replay before this one was given up.
    this.#shapes = shapesOf(state.catalog)
    this.#state = state
    if (position > (this.#builder?.last ?? this.covered)) this.#builder = null
    else this.#builder ??= new SpanBuilder(this.covered)
    this.#feed(position)
  }

  /** From where the builder has all that is folded, the fold sets the bits for both. */
  #feed(folded: number): void {
    const builder = this.#builder
    if (builder !== null && !builder.fed && builder.last === folded)
      builder.feedFrom(this.#state!.bits, this.#shapes!)
  }

  /**
   * Takes in a record right after it was folded into `catalog`; its columns are looked at during the call only. True: a span
   * ended with it, so its position is a boundary.
   */
  folded(record: LogRecord): boolean {
    const builder = this.#builder
    if (builder === null) return false
    try {
      builder.add(record, this.#shapes!)
      if (!builder.fed) this.#feed(record.first + record.count - 1)
      return builder.events >= this.#every && this.pending.size < WAITING && this.cut()
    } catch {
      this.#giveUp() // A bug of ours must not cost the store: answers come from the log.
      return false
    }
  }

  /** Ends the span that grows. False: the index is behind, so this is no boundary. */
  cut(): boolean {
    if (this.#builder === null) return false
    const span = this.#builder.cut()
    if (span !== null) this.#finished(span)
    return true
  }

  /** Every span that ended is stored, as far as it can be. */
  async stored(): Promise<void> {
    await this.#storing
  }

  /** Waits while many spans wait to be stored: for a replay, which nobody hurries. */
  async room(): Promise<void> {
    if (this.pending.size >= WAITING) await this.#storing
  }

  /** Starts what has to be done in the background. `exclusive` runs its work while nothing is folded. */
  start(exclusive: (work: () => Promise<void>) => Promise<void>): void {
    this.#later(() => this.#raise())
    if (this.#builder === null) this.#catching = this.#catchUp(exclusive).catch(() => undefined)
  }

  /** Nothing is under way any more: spans are stored, blocks joined, what was behind caught up. */
  async idle(): Promise<void> {
    await this.#catching
    await this.#storing
    await this.healed()
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.idle()
  }

  #finished(span: Span): void {
    const ordinal = this.ends.length
    const { after, last, time, lastTime } = span
    this.ends.push({ after, last, time, lastTime })
    this.pending.set(ordinal, span)
    this.#later(async () => {
      await this.#store(ordinal, span)
      await this.#raise()
    })
  }

  async #store(ordinal: number, span: Span): Promise<void> {
    if (!this.pending.has(ordinal)) return // One before could not be stored.
    const hash = await this.parts.log.hashAt(span.last)
    if (hash === undefined) throw new Error(`no record ends at position ${span.last}`)
    await this.values.put(ordinal, span, hash)
    this.pending.delete(ordinal)
    this.#block = joinedWith(this.#block, ordinal, span)
    if (this.#block === null || ordinal % FANOUT !== FANOUT - 1) return
    const block = Math.floor(ordinal / FANOUT)
    if ((this.blocks[1] ?? 0) === block) {
      await this.putBlock(1, block, this.#block.disks)
      this.blocks[1] = block + 1
    }
    this.#block = null
  }

  /** Joins what is complete. */
  async #raise(): Promise<void> {
    let below = this.ends.length - this.pending.size
    for (let level = 1; below >= FANOUT; level++) {
      const complete = Math.floor(below / FANOUT)
      while ((this.blocks[level] ?? 0) < complete && !this.#closed) {
        await this.makeBlock(level, this.blocks[level] ?? 0)
        this.blocks[level] = (this.blocks[level] ?? 0) + 1
      }
      below = this.blocks[level] ?? 0
    }
  }

  #later(work: () => Promise<void>): void {
    // What cannot be stored (a full disk, say) ends the index here; the next open goes on from what is stored.
    this.#storing = this.#storing.then(work).catch(() => this.#giveUp())
  }

  #giveUp(): void {
    this.#builder = null
    this.#state?.bits.giveTo(null)
    this.pending.clear() // Their places stay known; what they held is decoded where it is asked for.
  }

  /** Reads the log from where the index ends, faster than it grows, and takes over at its head. */
  async #catchUp(exclusive: (work: () => Promise<void>) => Promise<void>): Promise<void> {
    const builder = new SpanBuilder(this.covered)
    while (!this.#closed) {
      const head = this.parts.log.head.next - 1
      if (head - builder.last < this.#every) break
      await this.#read(builder, head, CATCH_UP_SHARE)
    }
    if (this.#closed) return
    await exclusive(async () => {
      await this.#read(builder, this.parts.log.head.next - 1, 1)
      if (this.#closed) return
      this.#builder = builder
      this.#feed(this.#state!.catalog.last.position)
    })
  }

  async #read(builder: SpanBuilder, to: number, share: number): Promise<void> {
    const shapes = this.#shapes!
    let began = performance.now()
    for await (const records of this.parts.log.read({ from: builder.last + 1, to })) {
      for (const record of records) {
        builder.add(record, shapes)
        if (builder.events >= this.#every) this.#finished(builder.cut()!)
      }
      if (this.#closed) return
      await this.room()
      if (share === 1) continue
      await pause(((performance.now() - began) * (1 - share)) / share)
      began = performance.now()
    }
  }
}

interface OpenBlock {
  readonly next: number
  readonly disks: ReadonlyMap<DiskNumber, SpanDisk>
}

/** Takes the span's bits over: nobody looks at them any more. */
function joinedWith(block: OpenBlock | null, ordinal: number, span: Span): OpenBlock | null {
  if (ordinal % FANOUT === 0) return { next: ordinal + 1, disks: span.disks }
  if (block?.next !== ordinal) return null
  const disks = new Map(block.disks)
  let memory = 0
  for (const [disk, { bits, writes, bytes }] of span.disks) {
    const held = disks.get(disk)
    if (held === undefined) disks.set(disk, { bits, writes, bytes })
    else if (held.bits.granularity !== bits.granularity) return null
    else {
      if (bits.size > held.bits.size) held.bits.resize(bits.size)
      joinBits(bits, held.bits)
      held.writes += writes
      held.bytes += bytes
    }
  }
  for (const { bits } of disks.values()) memory += bits.wordsBytes()
  return memory > BLOCK_BYTES ? null : { next: ordinal + 1, disks }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.min(ms, 100)))
}
