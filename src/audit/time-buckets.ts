/** Stretches of time for a plot: some dozens, of a width that people count in. A write finds its own by one division. */

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const WIDTHS = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500],
  ...[1, 2, 5, 10, 15, 30].map((n) => n * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE),
  ...[1, 2, 3, 6, 12].map((n) => n * HOUR),
  ...[1, 2, 7, 14, 28].map((n) => n * DAY),
]
const BUCKETS_MAX = 60

export interface Buckets {
  /** ms */
  readonly width: number
  /** Start of the first. */
  readonly start: number
  readonly count: number
}

/** At most 60 buckets of a round width, on round times, that hold both ends. */
export function bucketsFor(from: number, to: number): Buckets {
  const end = Math.max(from, to)
  let width = WIDTHS.find((candidate) => countOf(from, end, candidate) <= BUCKETS_MAX) ?? 28 * DAY
  while (countOf(from, end, width) > BUCKETS_MAX) width *= 2
  return { width, start: floorTo(from, width), count: countOf(from, end, width) }
}

/** Times outside belong to the nearest bucket. */
export function bucketOf({ start, width, count }: Buckets, time: number): number {
  return Math.min(count - 1, Math.max(0, Math.floor((time - start) / width)))
}

function floorTo(time: number, width: number): number {
  return Math.floor(time / width) * width
}

function countOf(from: number, to: number, width: number): number {
  return (floorTo(to, width) - floorTo(from, width)) / width + 1
}
