/**
 * Where on a disk the writes went: a count per region, some hundred thousand regions whatever the disk's size. A write costs
 * three additions, however long it is: the regions between its ends are counted as differences and summed once.
 */
import type { HotRegion } from './explain-types.ts'

const REGIONS_MAX = 2 ** 18
/** Neighbours of a hot region belong to it while they have this share of its figure. */
const JOINED_SHARE = 0.5

export class HotRegions {
  readonly region: number
  readonly #size: number
  readonly #count: number
  /** Writes by the region in which they begin. */
  readonly #writes: Float64Array
  /** Bytes of regions written in part. */
  readonly #parts: Float64Array
  /** +1 where a run of wholly written regions begins, -1 after its end. */
  readonly #whole: Float64Array

  /** Regions of `granularity`, or of the smallest multiple by a power of two that there are not too many of. */
  constructor(size: number, granularity: number) {
    let region = granularity
    while (Math.ceil(size / region) > REGIONS_MAX) region *= 2
    this.region = region
    this.#size = size
    this.#count = Math.ceil(size / region)
    this.#writes = new Float64Array(this.#count + 1)
    this.#parts = new Float64Array(this.#count + 1)
    this.#whole = new Float64Array(this.#count + 1)
  }

  /** `writes`: how many this is; 0 for a further range of the same window. What lies beyond the disk is passed over. */
  add(offset: number, length: number, writes: number): void {
    const end = Math.min(offset + length, this.#size)
    if (offset >= end) return
    const { region } = this
    const first = Math.floor(offset / region)
    const last = Math.floor((end - 1) / region)
    this.#writes[first]! += writes
    if (first === last) {
      this.#parts[first]! += end - offset
      return
    }
    this.#parts[first]! += (first + 1) * region - offset
    this.#parts[last]! += end - last * region
    this.#whole[first + 1]! += 1
    this.#whole[last]! -= 1
  }

  /** The hottest `limit` stretches by writes and by bytes, hottest first, neighbours joined. */
  top(limit: number): { byWrites: HotRegion[]; byBytes: HotRegion[] } {
    const bytes = this.#parts.slice()
    let whole = 0
    for (let at = 0; at < this.#count; at++) {
      whole += this.#whole[at]!
      bytes[at]! += whole * this.region
    }
    return {
      byWrites: this.#hottest(this.#writes, bytes, limit, (region) => region.writes),
      byBytes: this.#hottest(bytes, bytes, limit, (region) => region.bytes),
    }
  }

  #hottest(
    by: Float64Array,
    bytes: Float64Array,
    limit: number,
    figure: (region: HotRegion) => number,
  ): HotRegion[] {
    const order = []
    for (let at = 0; at < this.#count; at++) if (by[at]! > 0) order.push(at)
    order.sort((a, b) => by[b]! - by[a]! || a - b)
    const taken = new Uint8Array(this.#count)
    const found: HotRegion[] = []
    for (const seed of order) {
      if (found.length >= limit) break
      if (taken[seed] === 1) continue
      const least = by[seed]! * JOINED_SHARE
      const belongs = (at: number) => at >= 0 && at < this.#count && taken[at] === 0 && by[at]! >= least
      let first = seed
      let last = seed
      while (belongs(first - 1)) first--
      while (belongs(last + 1)) last++
      taken.fill(1, first, last + 1)
      found.push(this.#sum(first, last, bytes))
    }
    return found.sort((a, b) => figure(b) - figure(a) || a.offset - b.offset)
  }

  #sum(first: number, last: number, bytes: Float64Array): HotRegion {
    let writes = 0
    let sum = 0
    for (let at = first; at <= last; at++) {
      writes += this.#writes[at]!
      sum += bytes[at]!
    }
    const offset = first * this.region
    return { offset, length: Math.min((last + 1) * this.region, this.#size) - offset, writes, bytes: sum }
  }
}
