/** Words of the command line into values, strictly: what is not exactly right is refused here with an example. */
import { InvalidArgumentError } from 'commander'
import { CheckpointError } from '../errors.ts'
import { parsePoint } from '../store/points.ts'
import type { PointInput, WriteRange } from '../store/types.ts'

const SUFFIXES = 'KMGTPE'

/** `512`, `64K`, `64KiB`, `1T`: bytes, binary suffixes. */
export function parseSize(text: string): number {
  const match = /^(\d+)(?:([KMGTPE])(?:iB)?|B)?$/i.exec(text)
  if (match === null)
    throw new InvalidArgumentError(`"${text}" is no size; give bytes such as 65536, 64K or 1T.`)
  const power = match[2] === undefined ? 0 : SUFFIXES.indexOf(match[2].toUpperCase()) + 1
  const bytes = BigInt(match[1]!) << BigInt(10 * power)
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new InvalidArgumentError(`"${text}" is beyond 2^53 bytes.`)
  }
  return Number(bytes)
}

/** `OFFSET+LENGTH`, both sizes: `4K+512`. */
export function parseRange(text: string): WriteRange {
  const parts = text.split('+')
  if (parts.length !== 2)
    throw new InvalidArgumentError(`"${text}" is no range; give OFFSET+LENGTH such as 4K+512.`)
  return { offset: parseSize(parts[0]!), length: parseSize(parts[1]!) }
}

/** For commander's variadic arguments: collects one range after the other. */
export function collectRanges(
  text: string,
  before: readonly WriteRange[] | undefined,
): readonly WriteRange[] {
  return [...(before ?? []), parseRange(text)]
}

export function parseCount(text: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value))
    throw new InvalidArgumentError(`"${text}" is no whole number of 0 or more.`)
  return value
}

export function parsePositiveCount(text: string): number {
  const value = parseCount(text)
  if (value === 0) throw new InvalidArgumentError('It must be 1 or more.')
  return value
}

export interface SliceReference {
  readonly slice: number
  readonly generation?: number
}

/** `N`, or `GENERATION.N` to have the generation checked (R18). */
export function parseSliceReference(text: string): SliceReference {
  const match = /^(?:(\d+)\.)?(\d+)$/.exec(text)
  if (match === null) throw new InvalidArgumentError(`"${text}" is no slice; give N or GENERATION.N.`)
  const slice = parseCount(match[2]!)
  return match[1] === undefined ? { slice } : { slice, generation: parseCount(match[1]) }
}

export interface BitmapReference {
  readonly disk: string
  readonly bitmap: string
}

/**
 * `DISK:BITMAP`: all that it may mean, since both names may hold colons; only the store knows which (`bitmapMeant`). The last
 * colon comes first.
 */
export function parseBitmapReference(text: string): readonly BitmapReference[] {
  const colons = [...text.matchAll(/:/g)]
    .map(({ index }) => index)
    .filter((at) => at > 0 && at < text.length - 1)
  if (colons.length === 0) {
    throw new InvalidArgumentError(`"${text}" is no bitmap; give DISK:BITMAP such as vm-17/vda:daily.`)
  }
  return colons.reverse().map((at) => ({ disk: text.slice(0, at), bitmap: text.slice(at + 1) }))
}

export function collectBitmaps(
  text: string,
  before: readonly (readonly BitmapReference[])[] | undefined,
): readonly (readonly BitmapReference[])[] {
  return [...(before ?? []), parseBitmapReference(text)]
}

/** At least one: an empty variable of a script is a mistake, and no wish for nothing. */
export function collectWords(text: string, before: readonly string[] | undefined): readonly string[] {
  const words = text.split(',').filter((word) => word !== '')
  if (words.length === 0) throw new InvalidArgumentError('Give one or more, separated by commas.')
  return [...(before ?? []), ...words]
}

/**
 * An ISO 8601 time, as the time of an import. Another kind of point is bad usage; what is no point at all is POINT_INVALID:
 * commander lets errors of ours through as they are.
 */
export function parseTime(text: string): string {
  const what = `"${text}" is no time; give ISO 8601 such as 2026-11-18T18:00:00Z`
  let point: PointInput
  try {
    point = parsePoint(text)
  } catch {
    throw new CheckpointError('POINT_INVALID', what, { point: text })
  }
  if (typeof point === 'object' && 'time' in point) return text
  throw new InvalidArgumentError(`${what}.`)
}
