/**
 * The values of the span index, as they are kept with the other derived values.
 *
 *   ie ORDINAL              where the span ends: [after, last, time, lastTime, hash], checksum
 *   ih LEVEL ORDINAL        which disks it wrote: [disk, granularity, writes, bytes]…, checksum
 *   iw LEVEL ORDINAL DISK   which granules (bits-codec, with its own checksum)
 *
 * Level 0 is one span, level j joins eight of level j - 1. A span's values are written in one batch; a joined one's list of
 * disks comes last, so what has a list is whole. Nothing is hashed: `hash` is the log's own, and tells which history this is of.
 */
import { crc32 } from 'node:zlib'
import { Packr } from 'msgpackr'
import type { DiskNumber } from '../../events/types.ts'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import { decodeBits, encodeBits } from '../../projections/bits-codec.ts'
import type { Derived } from './derived.ts'
import type { Span } from './span-builder.ts'

const packr = new Packr({ useRecords: false })

/** Spans joined by one block of the next level. */
export const FANOUT = 8

export interface SpanEnd {
  readonly after: number
  readonly last: number
  readonly time: number
  readonly lastTime: number
  /** The chain's hash after `last`. */
  readonly hash: Uint8Array
}

/** What a span, or a block of them, holds of one disk. */
export interface SpanPart {
  readonly disk: DiskNumber
  readonly granularity: number
  readonly writes: number
  readonly bytes: number
}

const place = (ordinal: number): string => ordinal.toString().padStart(10, '0')
const endKey = (ordinal: number): string => `ie${place(ordinal)}`
const partsKey = (level: number, ordinal: number): string => `ih${level}${place(ordinal)}`
const bitsKey = (level: number, ordinal: number, disk: DiskNumber): string =>
  `iw${level}${place(ordinal)}/${disk}`

/** The levels that keys have a digit for: 8^9 spans are more events than a position can count. */
const LEVELS = 10

export class SpanStore {
  readonly #derived: Derived

  constructor(derived: Derived) {
    this.#derived = derived
  }

  /** Ends of spans 0, 1, 2, …, up to the first that is missing or damaged. */
  async ends(): Promise<SpanEnd[]> {
    const ends: SpanEnd[] = []
    for (const [key, value] of await this.#derived.entries('ie', 'if')) {
      const end = endFrom(unseal(value))
      if (key !== endKey(ends.length) || end === undefined || end.after !== (ends.at(-1)?.last ?? -1)) break
      ends.push(end)
    }
    return ends
  }

  /** How many ends there are, whole or not. */
  async count(): Promise<number> {
    return (await this.#derived.keys('ie', 'if')).length
  }

  /** Undefined: missing or damaged. */
  async parts(level: number, ordinal: number): Promise<readonly SpanPart[] | undefined> {
    const rows = unseal(await this.#derived.value(partsKey(level, ordinal)))
    if (!Array.isArray(rows)) return undefined
    return (rows as [DiskNumber, number, number, number][]).map(([disk, granularity, writes, bytes]) => ({
      disk,
      granularity,
      writes,
      bytes,
    }))
  }

  /** Undefined: missing or damaged. */
  async bits(level: number, ordinal: number, disk: DiskNumber): Promise<DirtyBitmap | undefined> {
    return decodedBits(await this.encodedBits(level, ordinal, disk))
  }

  /** As they are stored, unchecked. Undefined: missing. */
  async encodedBits(level: number, ordinal: number, disk: DiskNumber): Promise<Uint8Array | undefined> {
    return await this.#derived.value(bitsKey(level, ordinal, disk))
  }

  /** All of a span at once. `hash`: null leaves its end as it is. */
  async put(ordinal: number, span: Span, hash: Uint8Array | null): Promise<void> {
    const puts: [string, Uint8Array][] = []
    const parts: SpanPart[] = []
    for (const [disk, { bits, writes, bytes }] of span.disks) {
      puts.push([bitsKey(0, ordinal, disk), encodeBits(bits)])
      parts.push({ disk, granularity: bits.granularity, writes, bytes })
      await breathe() // Each may take a millisecond, and calls wait.
    }
    puts.push([partsKey(0, ordinal), seal(parts.map(row))])
    if (hash !== null)
      puts.push([endKey(ordinal), seal([span.after, span.last, span.time, span.lastTime, hash])])
    await this.#derived.write(puts)
  }

  async putBits(level: number, ordinal: number, disk: DiskNumber, bits: DirtyBitmap): Promise<void> {
    await this.#derived.write([[bitsKey(level, ordinal, disk), encodeBits(bits)]])
  }

  /** After all its bits: from now on the block counts. */
  async putParts(level: number, ordinal: number, parts: readonly SpanPart[]): Promise<void> {
    await this.#derived.write([[partsKey(level, ordinal), seal(parts.map(row))]])
  }

  /** How many blocks of a level are there, from the first on, taking it that none is missing before the last. */
  async blocks(level: number): Promise<number> {
    const last = await this.#derived.lastKey(`ih${level}`, `ih${level}:`)
    return last === undefined ? 0 : Number(last.slice(3)) + 1
  }

  /** Forgets span `ordinal`, all after it, and every block that holds one of them. */
  async dropFrom(ordinal: number): Promise<void> {
    const drops = await this.#derived.keys(endKey(ordinal), 'if')
    let first = ordinal
    for (let level = 0; level < LEVELS; level++, first = Math.floor(first / FANOUT)) {
      drops.push(...(await this.#derived.keys(partsKey(level, first), `ih${level}:`)))
      drops.push(...(await this.#derived.keys(`iw${level}${place(first)}`, `iw${level}:`)))
    }
    await this.#derived.write([], drops)
  }
}

/** Undefined: missing or damaged. */
export function decodedBits(value: Uint8Array | undefined): DirtyBitmap | undefined {
  if (value === undefined) return undefined
  try {
    return decodeBits(value)
  } catch {
    return undefined
  }
}

function row({ disk, granularity, writes, bytes }: SpanPart): readonly number[] {
  return [disk, granularity, writes, bytes]
}

function endFrom(value: unknown): SpanEnd | undefined {
  if (!Array.isArray(value) || !(value[4] instanceof Uint8Array)) return undefined
  const [after, last, time, lastTime, hash] = value as [number, number, number, number, Uint8Array]
  return { after, last, time, lastTime, hash }
}

export function seal(value: unknown): Uint8Array {
  const bytes = packr.pack(value)
  const sealed = new Uint8Array(bytes.length + 4)
  new DataView(sealed.buffer).setUint32(0, crc32(bytes), true)
  sealed.set(bytes, 4)
  return sealed
}

/** Undefined: not what `seal` gave. */
export function unseal(sealed: Uint8Array | undefined): unknown {
  if (sealed === undefined || sealed.length < 5) return undefined
  const bytes = sealed.subarray(4)
  const sum = new DataView(sealed.buffer, sealed.byteOffset).getUint32(0, true)
  return sum === crc32(bytes) ? packr.unpack(bytes) : undefined
}

function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
