/** Ranges of an export: whether they can be, how they are widened to the server's blocks, and in which pieces they are asked. Pure. */
import { CheckpointError } from '../../errors.ts'

export interface Range {
  readonly offset: number
  readonly length: number
}

/** @throws RangeError for what is no range at all; CheckpointError RANGE_OUTSIDE_DISK */
export function checkRange({ offset, length }: Range, size: number): void {
  for (const [name, value] of [
    ['offset', offset],
    ['length', length],
  ] as const)
    if (!Number.isSafeInteger(value) || value < 0)
      throw new RangeError(`${name} must be a whole number of bytes from 0, not ${value}`)
  if (offset + length > size)
    throw new CheckpointError(
      'RANGE_OUTSIDE_DISK',
      `${length} bytes at ${offset} end beyond the export, which has ${size} bytes`,
      { offset, length, size },
    )
}

/** @throws CheckpointError NBD_UNALIGNED */
export function checkAligned({ offset, length }: Range, minimum: number): void {
  if (offset % minimum === 0 && length % minimum === 0) return
  throw new CheckpointError(
    'NBD_UNALIGNED',
    `${length} bytes at ${offset} do not begin and end at the server's blocks of ${minimum} bytes; ` +
      'read those blocks, change them and write them whole',
    { offset, length, minimum },
  )
}

/** The whole blocks that a range touches. An export ends at a block, so they are all in it. */
export function widened({ offset, length }: Range, minimum: number): Range {
  const from = offset - (offset % minimum)
  return { offset: from, length: Math.ceil((offset + length) / minimum) * minimum - from }
}

/** In order, each of `max` bytes at most. */
export function* piecesOf({ offset, length }: Range, max: number): Generator<Range> {
  for (let at = 0; at < length; at += max) yield { offset: offset + at, length: Math.min(max, length - at) }
}
