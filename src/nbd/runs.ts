/**
 * The runs of a block status, from a context to the wire: pairs of 32 bits in one growing column, since an answer has up to
 * 131072 of them. No object a run; 8 bytes each, and at most as much again while it grows.
 */
import type { NbdDescriptor } from './export.ts'

/** What 32 bits can say. */
const LENGTH_MAX = 0xffff_ffff
const PAIRS_AT_FIRST = 64

/** The bytes of one run on the wire: `u32 length | u32 flags`. */
export const RUN_BYTES = 8

export class Runs implements Iterable<NbdDescriptor> {
  #pairs = new Uint32Array(2 * PAIRS_AT_FIRST)
  #count = 0
  #cut = false

  static of(list: Iterable<NbdDescriptor>): Runs {
    const runs = new Runs()
    for (const { length, flags } of list) runs.add(length, flags)
    return runs
  }

  get count(): number {
    return this.#count
  }

  /** Of the first run; 0 where there is none. */
  get bytesOfFirst(): number {
    return this.#count === 0 ? 0 : this.#pairs[0]!
  }

  /**
   * Adds a run of `length` bytes behind the last. What 32 bits cannot say is cut, and ends the list: the client asks on from there.
   * @throws RangeError for less than a byte: a client would ask for the same place again and again
   */
  add(length: number, flags: number): void {
    if (this.#cut) return
    if (!(length >= 1)) throw new RangeError(`a run of ${length} bytes tells nothing`)
    const at = 2 * this.#count++
    if (at === this.#pairs.length) {
      const wider = new Uint32Array(2 * at)
      wider.set(this.#pairs)
      this.#pairs = wider
    }
    this.#cut = length > LENGTH_MAX
    this.#pairs[at] = this.#cut ? LENGTH_MAX : length
    this.#pairs[at + 1] = flags
  }

  *[Symbol.iterator](): Generator<NbdDescriptor> {
    for (let at = 0; at < 2 * this.#count; at += 2)
      yield { length: this.#pairs[at]!, flags: this.#pairs[at + 1]! }
  }

  /** Puts all of them into `target`, big-endian, from byte `at` on. */
  writeTo(target: Buffer, at: number): void {
    const bytes = this.#count * RUN_BYTES
    target.set(new Uint8Array(this.#pairs.buffer, 0, bytes), at)
    // The machine is little-endian (projections/bitmap.ts refuses others).
    target.subarray(at, at + bytes).swap32()
  }
}
