/**
 * The oracle: a dirty bitmap as a set of granule numbers, each rule written down as plainly as it reads. Slow on purpose.
 */
import { createHash } from 'node:crypto'

export class NaiveBitmap {
  readonly granularity: number
  size: number
  dirty = new Set<number>()

  constructor(size: number, granularity: number) {
    this.size = size
    this.granularity = granularity
  }

  get granules(): number {
    return Math.ceil(this.size / this.granularity)
  }

  write(offset: number, length: number): void {
    if (length === 0) return
    const last = Math.floor((offset + length - 1) / this.granularity)
    for (let g = Math.floor(offset / this.granularity); g <= last; g++) this.dirty.add(g)
  }

  or(other: NaiveBitmap): void {
    if (other.granularity === this.granularity) for (const g of other.dirty) this.dirty.add(g)
    else for (const [offset, length] of other.extents()) this.write(offset, length)
  }

  resize(size: number): void {
    this.size = size
    for (const g of this.dirty) if (g * this.granularity >= size) this.dirty.delete(g)
  }

  extents(): [number, number][] {
    const runs: [number, number][] = []
    for (const g of [...this.dirty].sort((a, b) => a - b)) {
      const open = runs.at(-1)
      if (open !== undefined && open[0] + open[1] === g * this.granularity) open[1] += this.granularity
      else runs.push([g * this.granularity, this.granularity])
    }
    return runs.map(([offset, length]) => [offset, Math.min(length, this.size - offset)])
  }

  digest(): string {
    const bytes = new Uint8Array(Math.ceil(this.granules / 64) * 8)
    for (const g of this.dirty) bytes[Math.floor(g / 8)]! |= 1 << (g % 8)
    return createHash('sha256').update(bytes).digest('hex')
  }
}
