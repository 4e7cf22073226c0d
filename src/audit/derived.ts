/**
 * Whether what is kept beside the log is what follows from it: every snapshot against the fold at its position, every span of
 * the index against what went by, every stored value against the digest that names it (R28). Nothing here is used for anything; a store makes it anew when it fails.
 */

import type { LogRecord } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import type { EventLog } from '../log/event-log.ts'
import { loadSlice } from '../store/bits-loader.ts'
import { damagedPages } from '../store/catalog-pages.ts'
import type { Derived } from '../store/derived.ts'
import { foldWrites } from '../store/fold-writes.ts'
import { load } from '../store/snapshots.ts'
import { type DiskShapes, shapesOf } from '../store/span-builder.ts'
import { openSpans, type SpanReader } from '../store/spans.ts'
import type { State } from '../store/state.ts'
import type { Findings } from './findings.ts'
import { SpanCheck } from './spans.ts'

const WHAT_TO_DO =
  'It is derived, so nothing is lost: delete the folder derived/ while the store is closed, and it is made anew'

export class DerivedCheck {
  readonly #derived: Derived
  readonly #scratch: Derived
  readonly #storeId: string
  readonly #findings: Findings
  readonly #log: EventLog
  readonly #spans: SpanCheck
  /** For the writes that snapshots refer to: what it gives was compared before. Null: it cannot be read at all. */
  #index: SpanReader | null = null
  #shapes: DiskShapes = shapesOf(new Catalog())
  #waiting: number[] = []

  /** `derived` must be a copy that may be changed: reading a damaged value drops it. */
  constructor(derived: Derived, scratch: Derived, storeId: string, findings: Findings, log: EventLog) {
    this.#derived = derived
    this.#log = log
    this.#spans = new SpanCheck(derived, (what, position) => this.#add(what, position < 0 ? null : position))
    this.#scratch = scratch
    this.#storeId = storeId
    this.#findings = findings
  }

  /** Stored bits first, since snapshots refer to them. Snapshots up to position `after` were compared another time. */
  async begin(after = -1): Promise<void> {
    for (const text of this.#derived.rebuilt) this.#add(text, null)
    for (const ref of await this.#derived.refs()) {
      await this.#derived
        .bits(ref)
        .catch(() => this.#add(`the stored bits ${ref} do not have the digest that names them`, null))
    }
    for (const page of await damagedPages(this.#derived))
      this.#add(`the page ${page} of a snapshot does not have the digest that names it`, null)
    await this.#spans.begin(after)
    this.#index = await openSpans({
      log: this.#log,
      derived: this.#derived,
      shapes: () => this.#shapes,
    }).catch(() => null)
    const snapshots = await this.#derived.snapshots()
    const { unlisted } = this.#derived
    if (unlisted !== null) this.#add(`what is stored cannot be listed (${unlisted})`, null)
    this.#waiting = snapshots.filter((position) => position > after).sort((a, b) => a - b)
  }

  /** After each record was folded, before `at`. */
  async step(record: LogRecord, state: State): Promise<void> {
    if (this.#waiting.length > 0) this.#shapes = shapesOf(state.catalog)
    await this.#spans.step(record, state.catalog)
  }

  /** The next position at which `at` wants to be called. */
  get due(): number | undefined {
    return this.#waiting[0]
  }

  /** Compares the snapshots up to the fold's position. */
  async at(position: number, state: State): Promise<void> {
    while (this.#waiting[0] !== undefined && this.#waiting[0] <= position) {
      const snapshot = this.#waiting.shift()!
      const why =
        snapshot < position
          ? 'it is of no position between two records'
          : await this.#difference(position, state)
      if (why !== null)
        this.#add(`the snapshot at position ${snapshot} is not what the log gives: ${why}`, snapshot)
    }
  }

  async #difference(position: number, state: State): Promise<string | null> {
    const stored = await load(this.#derived, this.#storeId, position, (span, target) =>
      this.#index === null ? foldWrites(this.#log, span, target) : this.#index.union(span, target),
    )
    if (stored === undefined || stored.catalog.last.position !== position)
      return 'it cannot be read, or what it refers to is missing'
    if (JSON.stringify(stored.catalog.toPlain()) !== JSON.stringify(state.catalog.toPlain()))
      return 'its disks, bitmaps, backups or checkpoints differ'
    if ([...stored.bits.disks.keys()].join() !== [...state.bits.disks.keys()].join())
      return 'its disks differ'
    for (const [id, disk] of state.bits.disks) {
      for (const name of disk.bitmaps.keys()) {
        const why = await this.#bitsDiffer(id, name, state, stored)
        if (why !== null) return why
      }
    }
    return null
  }

  async #bitsDiffer(disk: string, name: string, state: State, stored: State): Promise<string | null> {
    const mine = state.bits.bitmap(disk, name)!
    const theirs = stored.bits.bitmap(disk, name)
    const differ = `the bits of bitmap "${name}" of disk "${disk}" differ`
    if (theirs === undefined || theirs.recording !== mine.recording || !theirs.active.equals(mine.active))
      return differ
    if ((theirs.successor === null) !== (mine.successor === null)) return differ
    if (mine.successor !== null && theirs.successor?.equals(mine.successor) !== true) return differ
    if (theirs.slices.size !== mine.slices.size) return differ
    for (const [number, slice] of mine.slices) {
      const other = theirs.slices.get(number)
      if (other === undefined) return differ
      const { size } = mine.active
      const ours = await loadSlice(slice, size, mine.granularity, this.#scratch)
      const kept = await loadSlice(other, size, mine.granularity, this.#derived).catch(() => undefined)
      if (kept === undefined || !kept.equals(ours))
        return `the bits of slice ${number} of bitmap "${name}" of disk "${disk}" differ`
    }
    return null
  }

  #add(what: string, position: number | null): void {
    this.#findings.add('DERIVED_DAMAGED', `${what}. ${WHAT_TO_DO}`, position === null ? {} : { position })
  }
}
