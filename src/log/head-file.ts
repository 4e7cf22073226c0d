/**
 * Where the log must at least reach, kept outside LevelDB, because LevelDB drops what it cannot read and says nothing (R28).
 *
 *     file   = pair (padded to 512) | pair                written in turn, one positional write after every append
 *     pair   = slot (padded to 256) | the same slot again  so that damage to one of them hides no append
 *     slot   = "SLHD" | version:u8 | state:u8 (1 open, 2 closed) | level:u8 (0 process, 1 power) | 0:u8 | sequence:u64le
 *            | acknowledged head | synced head | boot id:16 | crc32:u32le over all before it
 *     head   = next:u64le | time:u64le (all ones: null) | hash:32
 *
 * No fsync but at open and close: the page cache outlives a killed process, and after a restart of the machine (another boot
 * id) only the synced head is asked for. A torn write costs one slot; the other is at most one append old. Cost: 5 µs.
 */
import { closeSync, fsyncSync, openSync, readFileSync, write, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import type { LogHead } from './event-log.ts'

export const SLOT_SPACING = 512
/** Where in its sector a slot stands again. */
export const COPY_AT = 256
const MAGIC = 0x44484c53
const VERSION = 1
const HEAD_BYTES = 48
const BOOT_AT = 16 + 2 * HEAD_BYTES
const CRC_AT = BOOT_AT + 16
export const SLOT_BYTES = CRC_AT + 4

export interface HeadSlot {
  readonly sequence: number
  readonly state: 'open' | 'closed'
  /** The level (R30) that writes were acknowledged at. */
  readonly level: 'process' | 'power'
  readonly acknowledged: LogHead
  readonly synced: LogHead
  /** 16 bytes: which start of the machine wrote it. */
  readonly bootId: Uint8Array
}

export type HeadFileContent =
  | { readonly kind: 'missing' }
  | { readonly kind: 'unreadable' }
  /** Written by a newer version, under a right checksum. */
  | { readonly kind: 'too-new'; readonly version: number }
  | { readonly kind: 'good'; readonly slot: HeadSlot; readonly index: 0 | 1 }

function putU64(view: DataView, at: number, value: number | null): void {
  view.setUint32(at, value === null ? 0xffffffff : value >>> 0, true)
  view.setUint32(at + 4, value === null ? 0xffffffff : Math.floor(value / 2 ** 32), true)
}

function takeU64(view: DataView, at: number): number | null {
  const low = view.getUint32(at, true)
  const high = view.getUint32(at + 4, true)
  return low === 0xffffffff && high === 0xffffffff ? null : high * 2 ** 32 + low
}

function putHead(bytes: Uint8Array, view: DataView, at: number, head: LogHead): void {
  putU64(view, at, head.next)
  putU64(view, at + 8, head.time)
  bytes.set(head.hash, at + 16)
}

function takeHead(bytes: Uint8Array, view: DataView, at: number): LogHead {
  return {
    next: takeU64(view, at) ?? 0,
    time: takeU64(view, at + 8),
    hash: new Uint8Array(bytes.subarray(at + 16, at + HEAD_BYTES)),
  }
}

export function encodeSlot(slot: HeadSlot): Uint8Array {
  const bytes = new Uint8Array(SLOT_BYTES)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, MAGIC, true)
  bytes[4] = VERSION
  bytes[5] = slot.state === 'open' ? 1 : 2
  bytes[6] = slot.level === 'power' ? 1 : 0
  putU64(view, 8, slot.sequence)
  putHead(bytes, view, 16, slot.acknowledged)
  putHead(bytes, view, 16 + HEAD_BYTES, slot.synced)
  bytes.set(slot.bootId, BOOT_AT)
  view.setUint32(CRC_AT, crc32(bytes.subarray(0, CRC_AT)), true)
  return bytes
}

/** The slot, its version if that is newer, or undefined when it is not whole. */
export function decodeSlot(bytes: Uint8Array): HeadSlot | number | undefined {
  if (bytes.length < SLOT_BYTES) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(0, true) !== MAGIC) return undefined
  if (view.getUint32(CRC_AT, true) !== crc32(bytes.subarray(0, CRC_AT))) return undefined
  if (bytes[4] !== VERSION) return bytes[4]!
  return {
    sequence: takeU64(view, 8) ?? 0,
    state: bytes[5] === 1 ? 'open' : 'closed',
    level: bytes[6] === 1 ? 'power' : 'process',
    acknowledged: takeHead(bytes, view, 16),
    synced: takeHead(bytes, view, 16 + HEAD_BYTES),
    bootId: new Uint8Array(bytes.subarray(BOOT_AT, CRC_AT)),
  }
}

/** The newer of the two slots that are whole. Throws only what reading a file throws. */
export function readHeadFile(path: string): HeadFileContent {
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { kind: 'missing' }
    throw error
  }
  let best: { slot: HeadSlot; index: 0 | 1 } | undefined
  for (const index of [0, 1] as const) {
    const at = index * SLOT_SPACING
    const slot = slotAt(bytes, at) ?? slotAt(bytes, at + COPY_AT)
    if (typeof slot === 'number') return { kind: 'too-new', version: slot }
    if (slot !== undefined && (best === undefined || slot.sequence > best.slot.sequence))
      best = { slot, index }
  }
  return best === undefined ? { kind: 'unreadable' } : { kind: 'good', ...best }
}

function slotAt(bytes: Uint8Array, at: number): HeadSlot | number | undefined {
  return decodeSlot(bytes.subarray(at, at + SLOT_BYTES))
}

export class HeadFile {
  readonly #descriptor: number
  readonly #pair = new Uint8Array(COPY_AT + SLOT_BYTES)
  #sequence: number
  #index: 0 | 1

  /** Goes on after `last`; writes nothing yet. */
  constructor(
    path: string,
    readonly bootId: Uint8Array,
    last: HeadFileContent,
    readonly level: HeadSlot['level'] = 'process',
  ) {
    this.#descriptor = openSync(path, last.kind === 'missing' ? 'w+' : 'r+')
    this.#sequence = last.kind === 'good' ? last.slot.sequence : 0
    this.#index = last.kind === 'good' ? last.index : 1
  }

  /** Written when it returns. */
  write(acknowledged: LogHead, synced: LogHead, state: 'open' | 'closed' = 'open'): void {
    this.#put(acknowledged, synced, state)
    const { length } = this.#pair
    this.#check(writeSync(this.#descriptor, this.#pair, 0, length, this.#index * SLOT_SPACING))
  }

  /** The same by the thread pool, for when the file system lets even such a write wait. One at a time. */
  writeBeside(acknowledged: LogHead, synced: LogHead): Promise<void> {
    this.#put(acknowledged, synced, 'open')
    return new Promise<void>((resolve, reject) => {
      const { length } = this.#pair
      write(this.#descriptor, this.#pair, 0, length, this.#index * SLOT_SPACING, (error, written) => {
        if (error !== null) reject(error)
        else resolve(this.#check(written))
      })
    })
  }

  sync(): void {
    fsyncSync(this.#descriptor)
  }

  close(): void {
    closeSync(this.#descriptor)
  }

  #put(acknowledged: LogHead, synced: LogHead, state: 'open' | 'closed'): void {
    const { bootId, level } = this
    this.#index = this.#index === 0 ? 1 : 0
    const slot = encodeSlot({ sequence: ++this.#sequence, state, level, acknowledged, synced, bootId })
    this.#pair.set(slot)
    this.#pair.set(slot, COPY_AT)
  }

  #check(written: number): void {
    if (written !== this.#pair.length)
      throw new Error(`wrote ${written} of ${this.#pair.length} bytes of the head file`)
  }
}
