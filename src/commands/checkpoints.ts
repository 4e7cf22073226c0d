/**
 * Decides checkpoints: a name for a log position, which may bank bitmaps there, and what deleting one does to them (R19).
 *
 * `checkpointDeletion` computes the whole answer from the state, so that deciding and answering cannot disagree.
 */
import type { BitmapRef, DomainEvent, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BitmapState, CheckpointState } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { bitmapFor, type Deciding } from './find.ts'
import { checkName } from './names.ts'
import { bankEvents, deletionOf } from './slices.ts'
import type { Command } from './types.ts'

type Of<T extends Command['type']> = Extract<Command, { type: T }>

export function createCheckpoint({ state }: Deciding, command: Of<'create-checkpoint'>): DomainEvent[] {
  const { checkpoint } = command
  checkName('checkpoint', checkpoint)
  const known = state.checkpoint(checkpoint)
  if (known !== undefined) {
    throw new CheckpointError(
      'CHECKPOINT_EXISTS',
      `checkpoint "${checkpoint}" exists already, at position ${known.point.position}; choose another name, or delete it first`,
      { checkpoint, position: known.point.position },
    )
  }
  const bitmaps = distinct(command.bitmaps)
  const banked = bitmaps.flatMap((ref) => {
    const { disk, bitmap } = bitmapFor(state, ref.disk, ref.bitmap, 'create-checkpoint')
    return bankEvents(disk.id, bitmap, command.forceCycle === true, { kind: 'checkpoint', name: checkpoint })
  })
  return [{ type: 'checkpoint-created', checkpoint, bitmaps }, ...banked]
}

/** A bitmap named twice is banked once. */
function distinct(refs: readonly BitmapRef[]): BitmapRef[] {
  const byKey = new Map(refs.map(({ disk, bitmap }) => [JSON.stringify([disk, bitmap]), { disk, bitmap }]))
  return [...byKey.values()]
}

/** For whom a point stays. `active`: α begins there and no older slice exists that it could join. */
export type KeptFor =
  | { readonly kind: 'checkpoint'; readonly name: string }
  | { readonly kind: 'backup'; readonly id: string }
  | { readonly kind: 'active' }

export interface CheckpointDeletion {
  /** Point `slice` is forgotten; its bits are in `into`, or dropped (null) because nothing older is left. */
  readonly merged: readonly (BitmapRef & { readonly slice: number; readonly into: number | null })[]
  readonly kept: readonly (BitmapRef & { readonly for: KeptFor })[]
  readonly gone: readonly BitmapRef[]
}

interface Outcome {
  readonly deletion: CheckpointDeletion
  readonly events: readonly DomainEvent[]
}

/** @throws CheckpointError CHECKPOINT_NOT_FOUND */
function findCheckpoint(state: CatalogReader, name: string): CheckpointState {
  const checkpoint = state.checkpoint(name)
  if (checkpoint !== undefined) return checkpoint
  throw new CheckpointError(
    'CHECKPOINT_NOT_FOUND',
    `checkpoint "${name}" does not exist; list the checkpoints to see which there are`,
    { checkpoint: name },
  )
}

export function deleteCheckpoint({ state }: Deciding, command: Of<'delete-checkpoint'>): DomainEvent[] {
  const { events } = outcomeOf(state, command.checkpoint)
  return [{ type: 'checkpoint-deleted', checkpoint: command.checkpoint }, ...events]
}

/** What deleting the checkpoint would do, or (asked of the state before it) did. Errors as for the command. */
export function checkpointDeletion(state: CatalogReader, name: string): CheckpointDeletion {
  return outcomeOf(state, name).deletion
}

function outcomeOf(state: CatalogReader, name: string): Outcome {
  const checkpoint = findCheckpoint(state, name)
  const merged: (BitmapRef & { slice: number; into: number | null })[] = []
  const kept: (BitmapRef & { for: KeptFor })[] = []
  const gone: BitmapRef[] = []
  const events: DomainEvent[] = []
  for (const ref of checkpoint.bitmaps) {
    const bitmap = state.disk(ref.disk)?.bitmaps.get(ref.bitmap)
    if (bitmap === undefined || !hasPoint(bitmap, checkpoint.point)) {
      gone.push(ref)
      continue
    }
    const sharer = sharerOf(state, checkpoint, ref)
    if (sharer !== null) {
      kept.push({ ...ref, for: sharer })
      continue
    }
    bitmapFor(state, ref.disk, ref.bitmap, 'delete-checkpoint')
    const event = forget(ref.disk, bitmap, checkpoint.point)
    if (event === null) {
      kept.push({ ...ref, for: { kind: 'active' } })
      continue
    }
    events.push(event)
    merged.push({ ...ref, ...endOfPoint(event) })
  }
  return { deletion: { merged, kept, gone }, events }
}

/** A bitmap made after the checkpoint has no point that old, so a new life under an old name is never touched. */
function hasPoint(bitmap: BitmapState, point: Point): boolean {
  return startsAt(bitmap.active, point) || bitmap.slices.some((slice) => startsAt(slice, point))
}

function startsAt(part: { readonly from: Point }, point: Point): boolean {
  return part.from.position === point.position
}

/** R19: another checkpoint of the same point and bitmap, or a backup of it that began there and is still of use. */
function sharerOf(
  state: CatalogReader,
  checkpoint: CheckpointState,
  { disk, bitmap }: BitmapRef,
): KeptFor | null {
  const { position } = checkpoint.point
  for (const other of state.checkpoints()) {
    const names = other.bitmaps.some((ref) => ref.disk === disk && ref.bitmap === bitmap)
    if (other.name !== checkpoint.name && other.point.position === position && names)
      return { kind: 'checkpoint', name: other.name }
  }
  for (const backup of state.backups()) {
    if (backup.disk !== disk || backup.bitmap !== bitmap || backup.point.position !== position) continue
    if (backup.copy.kind === 'forgotten') continue
    if (backup.phase.kind !== 'failed' && backup.phase.kind !== 'cancelled')
      return { kind: 'backup', id: backup.id }
  }
  return null
}

/** R16 on the point: a slice goes into the next older one; α's start makes the newest slice α again. Null: nothing to join. */
function forget(disk: string, bitmap: BitmapState, point: Point): PointEnd | null {
  const slice = bitmap.slices.find((candidate) => startsAt(candidate, point))
  if (slice !== undefined) return deletionOf(disk, bitmap, slice)
  const newest = bitmap.slices.at(-1)
  if (newest === undefined) return null
  return {
    type: 'slice-reactivated',
    disk,
    bitmap: bitmap.name,
    slice: newest.number,
    deleted: bitmap.active.number,
  }
}

type PointEnd = Extract<DomainEvent, { type: 'slice-dropped' | 'slice-merged' | 'slice-reactivated' }>

function endOfPoint(event: PointEnd): { slice: number; into: number | null } {
  switch (event.type) {
    case 'slice-dropped':
      return { slice: event.slice, into: null }
    case 'slice-merged':
      return { slice: event.slice, into: event.into }
    case 'slice-reactivated':
      return { slice: event.deleted, into: event.slice }
  }
}
