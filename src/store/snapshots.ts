/**
 * A snapshot: the state at one position, so that opening and `at()` replay only a tail. Bits go in by reference (equal
 * bits are stored once); the rest is the catalog as fixed-order arrays. Never trusted by verify.
 */
import { Packr } from 'msgpackr'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import {
  BitmapBits,
  BitsFold,
  type BitsRef,
  DiskBits,
  SliceBits,
  type StoredPart,
} from '../../projections/bits.ts'
import { Catalog } from '../../projections/catalog.ts'
import { sameHash } from '../log/base-log.ts'
import type { EventLog } from '../log/event-log.ts'
import type { Derived } from './derived.ts'
import { State } from './state.ts'

const VERSION = 1
const packr = new Packr({ useRecords: false })

type Hashes = Pick<EventLog, 'hashAt'>

type PlainParts = readonly (readonly [ref: BitsRef, sizeMin: number])[]
type PlainBitmap = readonly [
  name: string,
  recording: boolean,
  active: BitsRef,
  successor: BitsRef | null,
  slices: readonly (readonly [number: number, own: BitsRef | null, parts: PlainParts])[],
]
type PlainDisk = readonly [id: string, number: number, size: number, bitmaps: readonly PlainBitmap[]]
type Plain = readonly [
  version: number,
  storeId: string,
  catalog: unknown,
  disks: readonly PlainDisk[],
  hash: Uint8Array,
]

/** What a snapshot holds, taken at once: later folds do not change it. */
export interface Frozen {
  readonly position: number
  readonly catalog: unknown
  readonly disks: readonly {
    readonly id: string
    readonly number: number
    readonly size: number
    readonly bitmaps: readonly {
      readonly name: string
      readonly recording: boolean
      readonly active: DirtyBitmap
      readonly successor: DirtyBitmap | null
      readonly slices: readonly {
        readonly number: number
        readonly own: DirtyBitmap | null
        readonly parts: readonly StoredPart[]
      }[]
    }[]
  }[]
}

/** The synchronous half: copies α and successors (2 MiB for 1 TiB at 64 KiB), shares what is inert. */
export function freeze(state: State): Frozen {
  const disks = []
  for (const disk of state.catalog.disks()) {
    const bits = state.bits.disks.get(disk.id)
    if (bits === undefined) continue
    const bitmaps = []
    for (const [name, bitmap] of bits.bitmaps) {
      const slices = [...bitmap.slices].map(([number, slice]) => ({
        number,
        own: slice.own?.clone() ?? null,
        parts: slice.parts,
      }))
      bitmaps.push({
        name,
        recording: bitmap.recording,
        active: bitmap.active.clone(),
        successor: bitmap.successor?.clone() ?? null,
        slices,
      })
    }
    disks.push({ id: disk.id, number: disk.number, size: bits.size, bitmaps })
  }
  return { position: state.catalog.last.position, catalog: state.catalog.toPlain(), disks }
}

/** The slow half: stores the bits, then the snapshot that refers to them. */
export async function store(frozen: Frozen, derived: Derived, storeId: string, log: Hashes): Promise<void> {
  // The record was stored before it was folded; the hash tells the history that this state is of (R28).
  const hash = await log.hashAt(frozen.position)
  if (hash === undefined) throw new Error(`no record ends at position ${frozen.position}`)
  const disks: PlainDisk[] = []
  for (const disk of frozen.disks) {
    const bitmaps: PlainBitmap[] = []
    for (const bitmap of disk.bitmaps) {
      const slices: [number, BitsRef | null, PlainParts][] = []
      for (const slice of bitmap.slices) {
        const own = slice.own === null ? null : await derived.putBits(slice.own)
        slices.push([slice.number, own, slice.parts.map((part) => [part.ref, part.sizeMin] as const)])
      }
      const successor = bitmap.successor === null ? null : await derived.putBits(bitmap.successor)
      bitmaps.push([bitmap.name, bitmap.recording, await derived.putBits(bitmap.active), successor, slices])
    }
    disks.push([disk.id, disk.number, disk.size, bitmaps])
  }
  const plain: Plain = [VERSION, storeId, frozen.catalog, disks, hash]
  await derived.putSnapshot(frozen.position, packr.pack(plain))
}

/**
 * The newest usable snapshot at or before `position`, as a state; undefined: replay from the start. With `log`, one of another
 * history is not used: a copy of the store that went its own way has the same id.
 */
export async function load(
  derived: Derived,
  storeId: string,
  position: number,
  log?: Hashes,
): Promise<State | undefined> {
  for (let at = position; ; ) {
    const found = await derived.snapshotAtMost(at)
    if (found === undefined) return undefined
    try {
      if (log !== undefined) await refuseForeign(found, log)
      return await thaw(found.bytes, derived, storeId)
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
  const hash = (packr.unpack(bytes) as Plain)[4]
  const expected = await log.hashAt(position)
  if (expected === undefined || !(hash instanceof Uint8Array) || !sameHash(hash, expected))
    throw new Error('a snapshot of another history')
}

async function thaw(bytes: Uint8Array, derived: Derived, storeId: string): Promise<State> {
  const [version, id, catalog, disks] = packr.unpack(bytes) as Plain
  if (version !== VERSION || id !== storeId) throw new Error('a snapshot of another store or version')
  const state = new State(Catalog.fromPlain(catalog), new BitsFold())
  for (const [diskId, number, size, bitmaps] of disks) {
    const disk = new DiskBits(size)
    for (const [name, recording, active, successor, slices] of bitmaps) {
      const bits = new BitmapBits(await derived.bits(active), recording)
      if (successor !== null) bits.successor = await derived.bits(successor)
      for (const [sliceNumber, own, parts] of slices) {
        const stored = parts.map(([ref, sizeMin]) => ({ ref, sizeMin }))
        bits.slices.set(
          sliceNumber,
          new SliceBits(null, own === null ? stored : [...stored, { ref: own, sizeMin: size }]),
        )
      }
      disk.bitmaps.set(name, bits)
    }
    state.bits.restoreDisk(diskId, number, disk)
  }
  for (const backup of state.catalog.backups()) {
    const { kind } = backup.phase
    if (kind === 'running' || kind === 'pending' || kind === 'interrupted')
      state.bits.restoreRunning(backup.id, backup.disk, backup.bitmap)
  }
  return state
}

/** Every reference that a snapshot makes, for dropping bits that nothing refers to. */
export function refsIn(bytes: Uint8Array): Set<BitsRef> {
  const refs = new Set<BitsRef>()
  const [, , , disks] = packr.unpack(bytes) as Plain
  for (const [, , , bitmaps] of disks) {
    for (const [, , active, successor, slices] of bitmaps) {
      refs.add(active)
      if (successor !== null) refs.add(successor)
      for (const [, own, parts] of slices) {
        if (own !== null) refs.add(own)
        for (const [ref] of parts) refs.add(ref)
      }
    }
  }
  return refs
}
