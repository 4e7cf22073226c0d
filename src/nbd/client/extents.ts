/** Extents of one context, followed to the end of a range: servers may answer for less than was asked, and for more. */
import { RUN_BYTES } from '../runs.ts'
import type { Range } from './ranges.ts'
import type { NbdExtent } from './types.ts'

/** Extents as they came for a range that began at `from`, cut to `range`. */
export function* cutExtents(runs: Buffer, from: number, range: Range): Generator<NbdExtent> {
  const end = range.offset + range.length
  let at = from
  for (let i = 0; i < runs.length && at < end; i += RUN_BYTES) {
    const next = at + runs.readUInt32BE(i)
    const offset = Math.max(at, range.offset)
    const length = Math.min(next, end) - offset
    if (length > 0) yield { offset, length, flags: runs.readUInt32BE(i + 4) }
    at = next
  }
}

/**
 * Asks on from the end of each answer, and joins neighbours with the same flags over the seams. `ask` gives the extents from the
 * start of a range on: at least one, and none that begins behind it.
 */
export async function* followExtents(
  { offset, length }: Range,
  ask: (range: Range) => Promise<Iterable<NbdExtent>>,
): AsyncGenerator<NbdExtent, void, undefined> {
  const end = offset + length
  let at = offset
  let held = { offset, length: 0, flags: 0 }
  while (at < end) {
    for (const extent of await ask({ offset: at, length: end - at })) {
      at = extent.offset + extent.length
      if (held.length > 0 && held.flags === extent.flags) {
        held.length += extent.length
        continue
      }
      if (held.length > 0) yield held
      held = { ...extent }
    }
  }
  if (held.length > 0) yield held
}
