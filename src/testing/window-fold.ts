/** Consecutive writes into one window (R29): per disk the union of their ranges, how many, how many bytes, and the last. */
import type { LogWindow, WriteColumns } from '../../events/types.ts'

/** Ranges of one disk that are joined once so many have come: the union is no longer than they are, and mostly much shorter. */
const JOIN_AT = 65_536

class DiskFold {
  writes = 0
  bytes = 0
  last = { position: 0, time: 0 }
  #ranges: [start: number, end: number][] = []

  add(offset: number, length: number): void {
    const newest = this.#ranges[this.#ranges.length - 1]
    // A write that goes on where the one before ended is most writes there are.
    if (newest !== undefined && offset === newest[1]) newest[1] += length
    else this.#ranges.push([offset, offset + length])
    if (this.#ranges.length >= JOIN_AT) this.#ranges = joined(this.#ranges)
  }

  columns(): WriteColumns {
    const ranges = joined(this.#ranges)
    return {
      offsets: Float64Array.from(ranges, ([start]) => start),
      lengths: Float64Array.from(ranges, ([start, end]) => end - start),
    }
  }
}

export class WindowFold {
  readonly #disks = new Map<number, DiskFold>()
  #first: number | undefined
  #next = 0
  #time = 0
  #lastTime = 0

  /**
   * Rows `from` to `to` of one disk (null: of one whose writes are only counted); `first`: the position of row 0. They follow
   * what was folded before.
   */
  rows(
    disk: number | null,
    first: number,
    time: number,
    columns: WriteColumns,
    from: number,
    to: number,
  ): void {
    const { offsets, lengths, times } = columns
    const lastTime = times?.[to - 1] ?? time
    this.nothing({ first: first + from, count: to - from, time: times?.[from] ?? time, lastTime })
    if (disk === null) return
    let fold = this.#disks.get(disk)
    if (fold === undefined) {
      fold = new DiskFold()
      this.#disks.set(disk, fold)
    }
    for (let i = from; i < to; i++) {
      fold.add(offsets[i]!, lengths[i]!)
      fold.bytes += lengths[i]!
    }
    fold.writes += to - from
    fold.last = { position: first + to - 1, time: lastTime }
  }

  /** Positions of which only the place and the times are kept. */
  nothing({ first, count, time, lastTime }: Omit<LogWindow, 'sections'>): void {
    if (this.#first === undefined) {
      this.#first = first
      this.#time = time
    }
    this.#next = first + count
    this.#lastTime = lastTime
  }

  window(): LogWindow | undefined {
    if (this.#first === undefined) return undefined
    const sections = [...this.#disks]
      .sort(([a], [b]) => a - b)
      .map(([disk, fold]) => ({
        disk,
        writes: fold.writes,
        bytes: fold.bytes,
        last: fold.last,
        columns: fold.columns(),
      }))
    const { first, count } = { first: this.#first, count: this.#next - this.#first }
    return { first, count, time: this.#time, lastTime: this.#lastTime, sections }
  }
}

/** Ascending, and those that touch are one. */
function joined(ranges: readonly (readonly [number, number])[]): [number, number][] {
  const sorted = [...ranges].sort((a, b) => a[0] - b[0])
  const union: [number, number][] = []
  for (const [start, end] of sorted) {
    const newest = union[union.length - 1]
    if (newest !== undefined && start <= newest[1]) newest[1] = Math.max(newest[1], end)
    else union.push([start, end])
  }
  return union
}
