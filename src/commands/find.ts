/**
 * Finds what a command names, or refuses with the code, the facts and the next step; every family uses these.
 *
 * QEMU has several texts for one condition; the fact `qemu` carries the one that fits, so that QMP can answer with it.
 */
import type { DomainEvent, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BitmapState, DiskState, Slice, Tombstone } from '../../projections/state.ts'
import { assert, CheckpointError } from '../errors.ts'
import { conditionOf, LEGAL, type Operation } from './legal.ts'
import type { DecideContext } from './types.ts'

/** What every decision is made from. `at` is the end of the record being decided, `before` its events so far. */
export interface Deciding {
  readonly state: CatalogReader
  readonly context: DecideContext
  readonly at: Point
  readonly before: readonly DomainEvent[]
}

/** @throws CheckpointError DISK_NOT_FOUND */
export function findDisk(state: CatalogReader, id: string, qemu = `Node '${id}' not found`): DiskState {
  const disk = state.disk(id)
  if (disk === undefined) {
    throw new CheckpointError(
      'DISK_NOT_FOUND',
      `disk "${id}" does not exist; add it first, or list the disks`,
      { disk: id, qemu },
    )
  }
  return disk
}

/** @throws CheckpointError DISK_NOT_FOUND, BITMAP_NOT_FOUND */
export function findBitmap(
  state: CatalogReader,
  disk: string,
  name: string,
  qemu = `Dirty bitmap '${name}' not found`,
): BitmapState {
  const bitmap = findDisk(state, disk).bitmaps.get(name)
  if (bitmap !== undefined) return bitmap
  throw new CheckpointError(
    'BITMAP_NOT_FOUND',
    `disk "${disk}" has no bitmap "${name}"; add it first, or list the disk's bitmaps`,
    {
      disk,
      bitmap: name,
      qemu,
    },
  )
}

export interface Found {
  readonly disk: DiskState
  readonly bitmap: BitmapState
  /** The table says that nothing would change: accept, without events. */
  readonly nothing: boolean
}

/**
 * The bitmap that `operation` works on, if the table of legality allows it.
 * @throws CheckpointError DISK_NOT_FOUND, BITMAP_NOT_FOUND, BITMAP_BUSY
 */
export function bitmapFor(state: CatalogReader, diskId: string, name: string, operation: Operation): Found {
  const disk = findDisk(state, diskId)
  const verdict = LEGAL[operation][conditionOf(disk.bitmaps.get(name))]
  const bitmap = findBitmap(
    state,
    diskId,
    name,
    operation === 'begin-backup' ? `Bitmap '${name}' could not be found` : undefined,
  )
  if (verdict === 'BITMAP_BUSY') throw bitmapBusy(diskId, bitmap)
  assert(verdict === 'allowed' || verdict === 'nothing', `${operation} looks for an existing bitmap`)
  return { disk, bitmap, nothing: verdict === 'nothing' }
}

/** R6, R20: says who holds the bitmap and what would free it. */
export function bitmapBusy(disk: string, bitmap: BitmapState): CheckpointError {
  const { holder, name } = bitmap
  assert(holder !== null, 'a bitmap without a holder is not busy')
  const facts = {
    disk,
    bitmap: name,
    qemu: `Bitmap '${name}' is currently in use by another operation and cannot be used`,
  }
  switch (holder.kind) {
    case 'backup':
      return new CheckpointError(
        'BITMAP_BUSY',
        `bitmap "${name}" of disk "${disk}" is in use by backup "${holder.id}"; succeed, fail or cancel that backup first`,
        { ...facts, heldBy: holder.id },
      )
    case 'removal':
      return new CheckpointError(
        'BITMAP_BUSY',
        `bitmap "${name}" of disk "${disk}" is removed at the end of this transaction; use it before that, or in a later command`,
        { ...facts, heldBy: 'removal' },
      )
  }
}

/**
 * Slice N of the current generation, or of the one given.
 * @throws CheckpointError SLICE_OLD_GENERATION, SLICE_DROPPED, SLICE_MERGED, SLICE_NOT_FOUND: four different answers (R18).
 */
export function findSlice(disk: string, bitmap: BitmapState, number: number, generation?: number): Slice {
  const facts = { disk, bitmap: bitmap.name, slice: number, generation: bitmap.generation }
  const what = `slice ${number} of bitmap "${bitmap.name}" of disk "${disk}"`
  if (generation !== undefined && generation !== bitmap.generation)
    throw ofOtherGeneration(what, bitmap, number, generation, facts)
  const slice = bitmap.slices.find((candidate) => candidate.number === number)
  if (slice !== undefined) return slice
  if (number === bitmap.active.number) {
    throw new CheckpointError(
      'SLICE_NOT_FOUND',
      `${what} is not a slice yet: ${number} is the active part, which still collects; name a frozen slice, or bank it first`,
      { ...facts, active: true, slices: bitmap.slices.map((candidate) => candidate.number) },
    )
  }
  const tombstone = bitmap.tombstones.findLast((stone) => stone.slice === number)
  if (tombstone !== undefined) throw buried(what, bitmap, tombstone, facts)
  const given = Number.isSafeInteger(number) && number >= 0 && number < bitmap.highestNumber
  if (given) {
    throw new CheckpointError(
      'SLICE_DROPPED',
      `${what} is long gone; list the slices, and look in the log for its end`,
      {
        ...facts,
        position: null,
        because: 'long gone',
      },
    )
  }
  throw new CheckpointError(
    'SLICE_NOT_FOUND',
    `${what} never existed; list the slices to see which there are`,
    {
      ...facts,
      active: false,
      slices: bitmap.slices.map((candidate) => candidate.number),
    },
  )
}

function buried(what: string, bitmap: BitmapState, tombstone: Tombstone, facts: object): CheckpointError {
  switch (tombstone.kind) {
    case 'dropped': {
      const { at: position, because } = tombstone
      return new CheckpointError(
        'SLICE_DROPPED',
        `${what} was dropped at position ${position} (${because}); name a slice that is still there`,
        {
          ...facts,
          position,
          because,
        },
      )
    }
    case 'merged': {
      const { at: position, into } = tombstone
      const holds = whereNow(bitmap, into)
      return new CheckpointError(
        'SLICE_MERGED',
        `${what} was merged into slice ${into} at position ${position}; ${holds === null ? 'that one is gone too, so name another' : `name slice ${holds} instead`}`,
        { ...facts, position, into, now: holds },
      )
    }
    case 'unmarked': {
      const { at: position } = tombstone
      const into =
        bitmap.slices.findLast((slice) => slice.number < tombstone.slice)?.number ?? bitmap.active.number
      return new CheckpointError(
        'SLICE_MERGED',
        `${what} was to begin at a point that was deleted at position ${position}; its writes are in slice ${into}, so name that one`,
        { ...facts, position, into, now: into },
      )
    }
  }
}

/** Follows merges to the slice that holds the bits today; null when that one was dropped. */
function whereNow(bitmap: BitmapState, into: number): number | null {
  let number = into
  // Every merge goes to a lower number, so this ends.
  for (;;) {
    if (bitmap.active.number === number || bitmap.slices.some((slice) => slice.number === number))
      return number
    const stone = bitmap.tombstones.findLast((candidate) => candidate.slice === number)
    if (stone?.kind !== 'merged') return null
    number = stone.into
  }
}

function ofOtherGeneration(
  what: string,
  bitmap: BitmapState,
  number: number,
  generation: number,
  facts: object,
): CheckpointError {
  const past = bitmap.pastGenerations.find((candidate) => candidate.generation === generation)
  if (past !== undefined && Number.isSafeInteger(number) && number >= 0 && number < past.numbers) {
    return new CheckpointError(
      'SLICE_OLD_GENERATION',
      `${what} is of the older generation ${generation}, which a full backup ended at position ${past.endedAt}; ` +
        `the generation now is ${bitmap.generation}`,
      { ...facts, asked: generation, endedAt: past.endedAt },
    )
  }
  const why =
    past === undefined
      ? `has no generation ${generation}`
      : `gave no number ${number} in generation ${generation}`
  return new CheckpointError(
    'SLICE_NOT_FOUND',
    `${what} never existed: the bitmap ${why}; list the slices to see generation and numbers`,
    {
      ...facts,
      asked: generation,
      active: false,
      slices: bitmap.slices.map((candidate) => candidate.number),
    },
  )
}
