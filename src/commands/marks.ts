/**
 * Decides what concerns a disk's file or device rather than its bits: its mark (R35), and what a power cut may have taken of the
 * records of writes (R30). Pure as all of them; costs nothing of note.
 */
import { diskMark } from '../../events/fields.ts'
import type { DiskMark, DomainEvent, Extent, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { assert, CheckpointError } from '../errors.ts'
import { insideDisk } from './disks.ts'
import { type Deciding, findDisk } from './find.ts'
import type { Command } from './types.ts'

const FIELDS: readonly (keyof DiskMark)[] = [
  'kind',
  'device',
  'inode',
  'size',
  'modified',
  'changed',
  'boot',
  'sectorsWritten',
]

export function sameMark(a: DiskMark, b: DiskMark): boolean {
  return FIELDS.every((field) => a[field] === b[field])
}

/**
 * The mark that the disk has already, with no write since, changes nothing: an event is a border for compaction (R29).
 * @throws CheckpointError DISK_SIZE_MISMATCH; RangeError for a mark that cannot be
 */
export function markDisk(
  { state }: Deciding,
  { disk: id, mark }: Extract<Command, { type: 'mark-disk' }>,
): DomainEvent[] {
  const { id: disk, size, mark: held, wrote } = findDisk(state, id)
  diskMark.put(mark) // A record that cannot be encoded would be met too late to be refused (R21).
  if (mark.size !== size)
    throw new CheckpointError(
      'DISK_SIZE_MISMATCH',
      `a mark of ${mark.size} bytes is none of disk "${disk}", which has ${size}; resize the disk when what it is on changed`,
      { disk, size, wanted: mark.size },
    )
  const known = held !== null && sameMark(held.mark, mark)
  if (known && (wrote === null || wrote.position <= held.at.position)) return []
  return [{ type: 'disk-marked', disk, mark }]
}

/**
 * What a recovery tells of a disk whose machine lost power: ranges within `extents` may have been written after `from`, with no
 * record left of it. They count as written, so answers stay complete. No public command; none when there is nothing to tell.
 * `extents` must lie inside the disk and `from` be of the past: both come from our own log, so anything else is our bug.
 */
export function decideMaybeWritten(
  state: CatalogReader,
  told: { readonly disk: string; readonly from: Point; readonly extents: readonly Extent[] },
): DomainEvent[] {
  const disk = findDisk(state, told.disk)
  const extents = told.extents.filter(([, length]) => length > 0)
  assert(
    extents.every((extent) => insideDisk(extent, disk.size)),
    'what may have been written lies inside its disk',
  )
  assert(
    told.from.position <= state.last.position,
    'what may have been written happened after a point of the past',
  )
  return extents.length === 0 ? [] : [{ type: 'maybe-written', disk: disk.id, from: told.from, extents }]
}
