/**
 * A snapshot: the state at one position, so that opening and `at()` replay only a tail. Bits go in by reference (equal bits are
 * stored once), and those of a bitmap that is only written to as "stored then, and written to up to there" (freeze.ts); the
 * catalog in pages by content (catalog-pages.ts). So one costs what changed since the one before. Never trusted by verify.
 */
import { Packr } from 'msgpackr'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import { BitmapBits, BitsFold, type BitsRef, DiskBits, SliceBits } from '../../projections/bits.ts'
import { Catalog } from '../../projections/catalog.ts'
import { sameHash } from '../log/base-log.ts'
import type { EventLog } from '../log/event-log.ts'
import { type PageName, type PageWriter, readPages } from './catalog-pages.ts'
import type { Derived } from './derived.ts'
import type { Span } from './fold-writes.ts'
import type { Frozen, FrozenBitmap, FrozenDisk } from './freeze.ts'
import { State } from './state.ts'

const VERSION = 2
/** Disks whose bits go into one page. */
const BITS_PAGE = 64
const packr = new Packr({ useRecords: false })

type Hashes = Pick<EventLog, 'hashAt'>

/** Sets what the writes of a span of the log set. */
export type FoldWrites = (span: Span, target: DirtyBitmap) => Promise<void>

type PlainParts = readonly (readonly [ref: BitsRef, sizeMin: number])[]
type PlainBitmap = readonly [
  name: string,
  recording: boolean,
  active: BitsRef,
  successor: BitsRef | null,
  /** Those bits are of position `at`; what collects was written to up to `upTo`. */
  at: number,
  upTo: number,
  slices: readonly (readonly [number: number, own: BitsRef | null, parts: PlainParts])[],
]
type PlainDisk = readonly [id: string, number: number, size: number, bitmaps: readonly PlainBitmap[]]
type Plain = readonly [
  version: number,
  storeId: string,
  hash: Uint8Array,
  catalog: readonly unknown[],
  lists: readonly (readonly PageName[])[],
  bits: readonly PageName[],
]

/** The slow half: stores the bits, then the pages that refer to them, then the snapshot that refers to those. */
export async function store(
  frozen: Frozen,
  derived: Derived,
  storeId: string,
  log: Hashes,
  pages: PageWriter,
): Promise<void> {
  // The record was stored before it was folded; the hash tells the history that this state is of (R28).
  const hash = await log.hashAt(frozen.position)
  if (hash === undefined) throw new Error(`no record ends at position ${frozen.position}`)
  try {
    for (const disk of frozen.disks) await storeBits(disk, derived)
    const lists: (readonly PageName[])[] = []
    for (const list of frozen.catalog.lists) lists.push(await pages.store(list, lists.length))
    const plain = (item: number): PlainDisk => plainDisk(frozen.disks[item]!)
    const bits = await pages.store({ page: BITS_PAGE, items: frozen.disks, plain }, lists.length)
    const snapshot: Plain = [VERSION, storeId, hash, frozen.catalog.head, lists, bits]
    await derived.putSnapshot(frozen.position, packr.pack(snapshot))
  } catch (error) {
    pages.forget()
    throw error
  }
}

async function storeBits(disk: FrozenDisk, derived: Derived): Promise<void> {
  for (const bitmap of disk.bitmaps) {
    if (bitmap.own !== null) {
      const { active, successor } = bitmap.own
      bitmap.base.refs = {
        active: await derived.putBits(active),
        successor: successor === null ? null : await derived.putBits(successor),
      }
      bitmap.own = null
    }
    for (const slice of bitmap.slices) {
      if (slice.own === null) continue
      slice.ref = await derived.putBits(slice.own)
      slice.own = null
    }
  }
}

function plainDisk({ id, number, size, bitmaps }: FrozenDisk): PlainDisk {
  return [id, number, size, bitmaps.map(plainBitmap)]
}

function plainBitmap({ name, recording, base, upTo, slices }: FrozenBitmap): PlainBitmap {
  const { active, successor } = base.refs!
  const plainSlices = slices.map(
    (slice) =>
      [slice.number, slice.ref, slice.parts.map((part) => [part.ref, part.sizeMin] as const)] as const,
  )
  return [name, recording, active, successor, base.at, upTo, plainSlices]
}

/**
 * The newest usable snapshot at or before `position`, as a state; undefined: replay from the start. With `log`, one of another
 * history is not used: a copy of the store that went its own way has the same id. `fold` gives the writes that were added to
 * bits since they were stored; null: the catalog is all that is wanted, and the state has no bits.
 */
export async function load(
  derived: Derived,
  storeId: string,
  position: number,
  fold: FoldWrites | null,
  log?: Hashes,
): Promise<State | undefined> {
  for (let at = position; ; ) {
    const found = await derived.snapshotAtMost(at)
    if (found === undefined) return undefined
    try {
      if (log !== undefined) await refuseForeign(found, log)
      return await thaw(found.bytes, derived, storeId, fold)
    } catch {
      // Its bits are missing, or it is of another store, history or version: drop it and try the one before.
      await derived.dropSnapshot(found.position)
      derived.rebuilt.push(`the snapshot at position ${found.position} could not be used`)
      at = found.position - 1
    }
  }
}

async function refuseForeign(
  { position, bytes }: { readonly position: number; readonly bytes: Uint8Array },
  log: Hashes,
): Promise<void> {
  const hash = plainOf(bytes)[2]
  const expected = await log.hashAt(position)
  if (expected === undefined || !(hash instanceof Uint8Array) || !sameHash(hash, expected))
    throw new Error('a snapshot of another history')
}

function plainOf(bytes: Uint8Array): Plain {
  const plain = packr.unpack(bytes) as Plain
  if (plain[0] !== VERSION) throw new Error('a snapshot of another version')
  return plain
}

async function thaw(
  bytes: Uint8Array,
  derived: Derived,
  storeId: string,
  fold: FoldWrites | null,
): Promise<State> {
  const [, id, , head, lists, bits] = plainOf(bytes)
  if (id !== storeId) throw new Error('a snapshot of another store')
  const catalog = [...head, ...(await Promise.all(lists.map((names) => readPages(derived, names))))]
  const state = new State(Catalog.fromPlain(catalog), new BitsFold())
  if (fold === null) return state
  for (const [disk, number, size, bitmaps] of (await readPages(derived, bits)) as PlainDisk[]) {
    const held = new DiskBits(size)
    for (const bitmap of bitmaps)
      held.bitmaps.set(bitmap[0], await thawBitmap(bitmap, { id: disk, number, size }, derived, fold))
    state.bits.restoreDisk(disk, number, held)
  }
  for (const backup of state.catalog.backups()) {
    const { kind } = backup.phase
    if (kind === 'running' || kind === 'pending' || kind === 'interrupted')
      state.bits.restoreRunning(backup.id, backup)
  }
  return state
}

async function thawBitmap(
  [, recording, active, successor, at, upTo, slices]: PlainBitmap,
  disk: { readonly id: string; readonly number: number; readonly size: number },
  derived: Derived,
  fold: FoldWrites,
): Promise<BitmapBits> {
  const bits = new BitmapBits(await derived.bits(active), recording)
  if (successor !== null) bits.successor = await derived.bits(successor)
  await fold({ disk, after: at, upTo }, bits.collecting)
  bits.base = { refs: { active, successor }, at, upTo }
  for (const [number, own, parts] of slices) {
    const stored = parts.map(([ref, sizeMin]) => ({ ref, sizeMin }))
    bits.slices.set(
      number,
      new SliceBits(null, own === null ? stored : [...stored, { ref: own, sizeMin: disk.size }]),
    )
  }
  return bits
}

/** Everything that snapshots refer to, for dropping what nothing refers to. */
export class References {
  readonly bits = new Set<BitsRef>()
  readonly pages = new Map<string, PageName>()

  async add(snapshot: Uint8Array, derived: Derived): Promise<void> {
    const [, , , , lists, bits] = plainOf(snapshot)
    for (const names of lists) for (const name of names) this.#page(name)
    for (const name of bits) {
      if (!this.#page(name)) continue // Its references are known.
      for (const disk of (await readPages(derived, [name])) as PlainDisk[]) this.#disk(disk)
    }
  }

  #page(name: PageName): boolean {
    const key = Buffer.from(name).toString('hex')
    if (this.pages.has(key)) return false
    this.pages.set(key, name)
    return true
  }

  #disk([, , , bitmaps]: PlainDisk): void {
    for (const [, , active, successor, , , slices] of bitmaps) {
      this.bits.add(active)
      if (successor !== null) this.bits.add(successor)
      for (const [, own, parts] of slices) {
        if (own !== null) this.bits.add(own)
        for (const [ref] of parts) this.bits.add(ref)
      }
    }
  }
}
