/**
 * Upkeep behind the committer's back: bits of frozen slices go to the derived store and out of memory, and a snapshot is
 * taken every so many events. All of it may fail or be lost without loss: it can be derived again.
 */
import type { LogRecord } from '../../events/types.ts'
import { refOf, type SliceBits } from '../../projections/bits.ts'
import type { EventLog } from '../log/event-log.ts'
import { collectPages, PageWriter } from './catalog-pages.ts'
import type { Derived } from './derived.ts'
import { type Boundary, Freezer } from './freeze.ts'
import { References, store } from './snapshots.ts'
import type { SpanIndex } from './span-index.ts'
import type { State } from './state.ts'

/** A close takes a snapshot when the next open would have to fold more events than this. */
const CLOSE_SNAPSHOT_EVENTS = 16_384

export interface KeeperParts {
  readonly derived: Derived
  readonly log: Pick<EventLog, 'hashAt'>
  readonly spans: SpanIndex
  readonly state: State
  readonly storeId: string
  readonly snapshotEvery: number
  readonly snapshotAt: number
}

export class Keeper {
  readonly #parts: KeeperParts
  readonly #freezer: Freezer
  readonly #pages: PageWriter
  readonly #work = new Set<Promise<void>>()
  /** Position of the newest snapshot that was stored, and of the newest that was tried. */
  #snapshotAt: number
  #triedAt: number
  #snapshotting = false

  constructor(parts: KeeperParts) {
    this.#parts = parts
    this.#freezer = new Freezer((ref) => parts.derived.isLost(ref))
    this.#pages = new PageWriter(parts.derived)
    this.#snapshotAt = parts.snapshotAt
    this.#triedAt = parts.snapshotAt
  }

  /**
   * Called inside the committer right after each record is folded: synchronous, and cheap unless a snapshot is due. One is
   * taken where a span ends, so that it may say "and the writes up to here"; without an index anywhere.
   */
  applied(record: LogRecord): void {
    const { spans, state, snapshotEvery } = this.#parts
    const boundary = spans.folded(record)
    const due = state.catalog.last.position - this.#triedAt >= snapshotEvery
    if (due && !this.#snapshotting && (boundary || !spans.live)) this.#later(this.snapshot())
  }

  /** Called inside the committer after each fold of a batch: synchronous. */
  folded(records: readonly LogRecord[]): void {
    for (const record of records) {
      if (record.kind !== 'events') continue
      for (const event of record.events) {
        if (event.type === 'slice-frozen' || event.type === 'slice-merged') {
          const number = event.type === 'slice-frozen' ? event.slice : event.into
          const bits = this.#parts.state.bits.bitmap(event.disk, event.bitmap)
          const slice = bits?.slices.get(number)
          if (bits !== undefined && slice !== undefined) this.#later(this.#settle(slice))
        }
      }
    }
  }

  /** Stores every slice that still has bits of its own in memory. */
  settleAll(): void {
    for (const disk of this.#parts.state.bits.disks.values()) {
      for (const bitmap of disk.bitmaps.values())
        for (const slice of bitmap.slices.values()) this.#later(this.#settle(slice))
    }
  }

  /** Stores a slice's own bits and lets go of them; begins again when a resize or a merge changed them meanwhile. */
  async #settle(slice: SliceBits): Promise<void> {
    const { own } = slice
    if (own === null) return
    const ref = await this.#parts.derived.putBits(own)
    if (slice.own !== own || refOf(own) !== ref) return await this.#settle(slice)
    slice.own = null
    slice.parts = [...slice.parts, { ref, sizeMin: own.size }]
  }

  /** The position of a snapshot that is being stored: a compaction must not fold across it meanwhile (R29). */
  get storing(): number | null {
    return this.#snapshotting ? this.#triedAt : null
  }

  /** Takes a snapshot of the state as it is now. */
  async snapshot(): Promise<void> {
    if (this.#snapshotting) return
    this.#snapshotting = true
    try {
      const { state, spans, derived, storeId, log } = this.#parts
      if (state.catalog.last.position < 0) return
      const frozen = this.#freezer.freeze(state, this.#boundary())
      this.#triedAt = frozen.position
      await spans.stored() // The index first: a snapshot counts on it.
      await store(frozen, derived, storeId, log, this.#pages)
      this.#snapshotAt = frozen.position
    } finally {
      this.#snapshotting = false
    }
  }

  /** This moment as one where a span ends. */
  #boundary(): Boundary {
    const { spans } = this.#parts
    if (!spans.cut()) return null
    return { between: (from, to) => spans.between(from, to), ordinal: spans.between(-1, spans.covered) }
  }

  /**
   * At a clean close: a snapshot where it saves the next open work, and no bits that nothing refers to. Never fails: what
   * cannot be stored or dropped (a full disk, say) costs the next open time, and nothing else.
   */
  async finish(): Promise<void> {
    await this.idle()
    try {
      if (this.#parts.state.catalog.last.position - this.#snapshotAt > CLOSE_SNAPSHOT_EVENTS)
        await this.snapshot()
      await this.#collect()
    } catch {
      // As above. Without the snapshot nothing is collected either: what is stored may serve the next open.
    }
  }

  async idle(): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work)
  }

  /** Drops stored bits and pages that neither the live state nor any snapshot refers to. */
  async #collect(): Promise<void> {
    const { derived, state } = this.#parts
    const stored = await derived.refs()
    const wanted = new Set<string>()
    for (const disk of state.bits.disks.values()) {
      for (const bitmap of disk.bitmaps.values()) {
        for (const slice of bitmap.slices.values()) for (const part of slice.parts) wanted.add(part.ref)
      }
    }
    const references = new References()
    for (const position of await derived.snapshots()) {
      const bytes = await derived.snapshot(position)
      if (bytes !== undefined) await references.add(bytes, derived)
    }
    const idle = stored.filter((ref) => !wanted.has(ref) && !references.bits.has(ref))
    if (idle.length > 0) await derived.dropBits(idle)
    await collectPages(derived, references.pages.values())
  }

  #later(work: Promise<void>): void {
    // A slice that could not be stored keeps its bits in memory, where they stay right; the next open stores it. A snapshot
    // that could not is tried again when as many events as lie between two have come.
    const settled: Promise<void> = work.catch(() => undefined).finally(() => this.#work.delete(settled))
    this.#work.add(settled)
  }
}
