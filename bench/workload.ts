/** What is written: seeded random writes of 4 to 64 KiB on a disk of 1 TiB, the worst that a delta encoding can meet. */
import { KiB, TiB } from '../src/limits.ts'

export const DISK = 'vm/vda'
export const BITMAP = 'daily'
export const DISK_BYTES = TiB
export const GRANULARITY = 64 * KiB
export const CALL_ROWS = 4096

export interface Columns {
  readonly offsets: Float64Array
  readonly lengths: Float64Array
}

/** mulberry32: 32 random bits a call, the same for the same seed everywhere. */
export function randomBits(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
}

/** A whole number from 0 to `below` - 1. */
export function randomBelow(bits: () => number, below: number): number {
  return Math.floor((bits() / 2 ** 32) * below)
}

/** Writes of 4 KiB, each at the start of a random granule: of a million on 1 TiB, 0.97 M granules are others. */
export function scatteredWrites(count: number, seed: number): Columns {
  const bits = randomBits(seed)
  const offsets = new Float64Array(count).map(() => randomBelow(bits, DISK_BYTES / GRANULARITY) * GRANULARITY)
  return { offsets, lengths: new Float64Array(count).fill(4 * KiB) }
}

export function randomWrites(count: number, seed: number): Columns {
  const bits = randomBits(seed)
  const offsets = new Float64Array(count)
  const lengths = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    lengths[i] = (1 + randomBelow(bits, 16)) * 4 * KiB
    offsets[i] = randomBelow(bits, (DISK_BYTES - 64 * KiB) / (4 * KiB)) * 4 * KiB
  }
  return { offsets, lengths }
}

/** The same writes as calls of at most `CALL_ROWS` rows. */
export function calls(writes: Columns): Columns[] {
  const list: Columns[] = []
  for (let from = 0; from < writes.offsets.length; from += CALL_ROWS) {
    list.push({
      offsets: writes.offsets.subarray(from, from + CALL_ROWS),
      lengths: writes.lengths.subarray(from, from + CALL_ROWS),
    })
  }
  return list
}
