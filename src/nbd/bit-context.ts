/**
 * Meta contexts as the protocol asks for them: what holds from an offset on, as runs of equal flags.
 *
 * A dirty map is bits that were taken when it was opened: 2 MiB for 1 TiB at 64 KiB, and 0.2 µs a run (1 TiB with 1.7 M extents:
 * half a second). Runs begin at the asked offset, aligned or not, end at the request's end, and are cut to what 32 bits can say
 * (a status of 64 GiB that is all clean takes 17 of them).
 */
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import { ALLOCATION } from './context-name.ts'
import type { NbdContext, NbdDescriptor } from './export.ts'

/** Lengths on the wire have 32 bits; a round number keeps what follows aligned. */
export const RUN_BYTES_MAX = 2 ** 32 - 2 ** 16

const DIRTY_FLAG = 1

/** Bits of a disk of `size` bytes; the bitmap's own size may differ, and bytes beyond it are clean. */
export class BitContext implements NbdContext {
  readonly name: string
  readonly #bits: DirtyBitmap
  readonly #size: number

  constructor(name: string, bits: DirtyBitmap, size: number) {
    this.name = name
    this.#bits = bits
    this.#size = size
  }

  async status(offset: number, length: number, max: number): Promise<readonly NbdDescriptor[]> {
    const end = Math.min(offset + length, this.#size)
    const runs: NbdDescriptor[] = []
    for (let at = offset; at < end && runs.length < max; ) {
      const granule = Math.floor(at / this.#bits.granularity)
      const dirty = this.#bits.has(granule)
      const stop = dirty ? this.#bits.nextClean(granule) : this.#bits.nextDirty(granule)
      // Behind the last granule nothing is dirty any more, however much disk there is.
      const until = !dirty && stop >= this.#bits.granules ? end : stop * this.#bits.granularity
      const run = Math.min(until, end) - at
      for (let done = 0; done < run && runs.length < max; ) {
        const part = Math.min(run - done, RUN_BYTES_MAX)
        runs.push({ length: part, flags: dirty ? DIRTY_FLAG : 0 })
        done += part
        at += part
      }
    }
    return runs
  }
}

/**
 * `base:allocation` of a raw file: data throughout. Node has no way to ask for holes, and the number of allocated blocks, which it
 * has, may be late or zero where there is data; so every byte is said to be data, which is always legal.
 */
export class AllocationContext implements NbdContext {
  readonly name = ALLOCATION
  readonly #size: number

  constructor(size: number) {
    this.#size = size
  }

  async status(offset: number, length: number, max: number): Promise<readonly NbdDescriptor[]> {
    const end = Math.min(offset + length, this.#size)
    const runs: NbdDescriptor[] = []
    for (let at = offset; at < end && runs.length < max; ) {
      const part = Math.min(end - at, RUN_BYTES_MAX)
      runs.push({ length: part, flags: 0 })
      at += part
    }
    return runs
  }
}
