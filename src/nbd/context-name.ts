/**
 * Names of dirty maps, as clients write them: a bitmap, a moment since which, or both.
 *
 *   qemu:dirty-bitmap:NAME                  what bitmap NAME collects now (its α)
 *   qemu:dirty-bitmap:NAME@since=4          slices 4 to now, as a backup since slice 4 would copy them; also GENERATION.4
 *   qemu:dirty-bitmap:NAME@between=2..5     what was written between the starts of slices 2 and 5
 *   qemu:dirty-bitmap:[NAME]@checkpoint=X   since a checkpoint; also @backup=ID, @time=ISO8601, @position=N
 *
 * Without NAME the log answers alone, in granules of 64 KiB. No commas of ours: qemu-img splits its options there. All names
 * may hold any character, so a text can be read in several ways: a bitmap of exactly that name comes first, then the longest
 * name of a bitmap that is there, then no name. Pure, and linear in the text for each `@` in it.
 */
import { parsePoint } from '../store/points.ts'
import type { PointInput } from '../store/types.ts'

export const ALLOCATION = 'base:allocation'
export const DIRTY = 'qemu:dirty-bitmap:'

/** A slice as a name writes it: `4`, or `GENERATION.4` to have the generation checked (R18). */
export interface SliceName {
  readonly slice: number
  readonly generation?: number
}

export type MapName =
  | { readonly kind: 'active'; readonly bitmap: string }
  | { readonly kind: 'since'; readonly bitmap: string; readonly from: SliceName }
  | { readonly kind: 'between'; readonly bitmap: string; readonly from: SliceName; readonly to: SliceName }
  | { readonly kind: 'point'; readonly bitmap: string | null; readonly point: PointInput }

const CLAUSE = /^@(since|between|checkpoint|backup|time|position)=(.+)$/s

/** What a name after `qemu:dirty-bitmap:` means where these bitmaps are; null: nothing. */
export function parseMapName(text: string, isBitmap: (name: string) => boolean): MapName | null {
  if (text !== '' && isBitmap(text)) return { kind: 'active', bitmap: text }
  for (let at = text.lastIndexOf('@'); at >= 0; at = at === 0 ? -1 : text.lastIndexOf('@', at - 1)) {
    const bitmap = text.slice(0, at)
    if (bitmap !== '' && !isBitmap(bitmap)) continue
    const name = parseClause(bitmap === '' ? null : bitmap, text.slice(at))
    if (name !== null) return name
  }
  return null
}

function parseClause(bitmap: string | null, text: string): MapName | null {
  const [, key, value] = CLAUSE.exec(text) ?? []
  if (value === undefined) return null
  switch (key) {
    case 'since':
    case 'between':
      return bitmap === null ? null : parseSlices(bitmap, key, value)
    case 'checkpoint':
      return { kind: 'point', bitmap, point: { checkpoint: value } }
    case 'backup':
      return { kind: 'point', bitmap, point: { backup: value } }
    case 'position':
      return pointOf(bitmap, 'position', `@${value}`)
    default:
      return pointOf(bitmap, 'time', value)
  }
}

/** Slices are a bitmap's. */
function parseSlices(bitmap: string, key: 'since' | 'between', value: string): MapName | null {
  const [first, second, more] = (key === 'since' ? [value] : value.split('..')).map(parseSlice)
  if (first === undefined || first === null || more !== undefined) return null
  if (key === 'since') return { kind: 'since', bitmap, from: first }
  return second === undefined || second === null ? null : { kind: 'between', bitmap, from: first, to: second }
}

function parseSlice(text: string): SliceName | null {
  const match = /^(?:(\d{1,15})\.)?(\d{1,15})$/.exec(text)
  if (match === null) return null
  const slice = Number(match[2])
  return match[1] === undefined ? { slice } : { slice, generation: Number(match[1]) }
}

function pointOf(bitmap: string | null, kind: 'position' | 'time', text: string): MapName | null {
  try {
    const point = parsePoint(text)
    return typeof point === 'object' && kind in point ? { kind: 'point', bitmap, point } : null
  } catch {
    return null // No point in time, so no context of that name.
  }
}
