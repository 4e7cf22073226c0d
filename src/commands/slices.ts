/**
 * Decides what happens to slices: retention, bank, delete (R15 to R17).
 *
 * Room is one question asked in one place: an operation that needs more than the retention allows is refused before
 * anything happens, naming the slices in the way, or drops the oldest when told to.
 */
import type { DomainEvent, SliceCause } from '../../events/types.ts'
import type { BitmapState, Slice } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { bitmapFor, type Deciding, findSlice } from './find.ts'
import type { Command } from './types.ts'

type Of<T extends Command['type']> = Extract<Command, { type: T }>
type Dropped = Extract<DomainEvent, { type: 'slice-dropped' }>

/** @throws CheckpointError RETENTION_INVALID */
export function checkRetention(disk: string, bitmap: string, retention: number): void {
  if (typeof retention !== 'number')
    throw new TypeError(`a retention must be a number of slices, not ${typeof retention}`)
  if (Number.isSafeInteger(retention) && retention >= 0 && retention <= limits.retentionMax) return
  throw new CheckpointError(
    'RETENTION_INVALID',
    `bitmap "${bitmap}" of disk "${disk}" cannot keep ${retention} slices; give a whole number from 0 to ${limits.retentionMax}`,
    { disk, bitmap, retention, max: limits.retentionMax },
  )
}

/** How many of the oldest slices must go so that `needed` more fit under `retention`. */
function slicesInTheWay(bitmap: BitmapState, retention: number, needed: number): readonly Slice[] {
  return bitmap.slices.slice(0, Math.max(0, bitmap.slices.length + needed - retention))
}

/**
 * R15: the drops that make room, or the refusal. Nothing is in the way: no events.
 * @throws CheckpointError RETENTION_FULL
 */
export function makeRoom(
  disk: string,
  bitmap: BitmapState,
  retention: number,
  needed: number,
  forceCycle: boolean,
  because: 'force-cycle' | 'retention',
): Dropped[] {
  const inTheWay = slicesInTheWay(bitmap, retention, needed)
  if (inTheWay.length > 0 && !forceCycle) {
    const numbers = inTheWay.map(({ number }) => number)
    throw new CheckpointError(
      'RETENTION_FULL',
      `bitmap "${bitmap.name}" of disk "${disk}" holds ${bitmap.slices.length} slices of at most ${retention}: ` +
        `slice${numbers.length === 1 ? '' : 's'} ${numbers.join(', ')} would have to go; delete ${numbers.length === 1 ? 'it' : 'them'}, ` +
        'raise the retention, or force the cycle',
      { disk, bitmap: bitmap.name, generation: bitmap.generation, retention, slices: numbers },
    )
  }
  return inTheWay.map(({ number: slice }) => ({
    type: 'slice-dropped',
    disk,
    bitmap: bitmap.name,
    slice,
    because,
  }))
}

/** Setting the retention it has changes nothing. Lowering it below what is held follows R15. */
export function setRetention({ state }: Deciding, command: Of<'set-retention'>): DomainEvent[] {
  const { disk, bitmap } = bitmapFor(state, command.disk, command.bitmap, 'set-retention')
  checkRetention(disk.id, bitmap.name, command.retention)
  if (command.retention === bitmap.retention) return []
  const drops = makeRoom(disk.id, bitmap, command.retention, 0, command.forceCycle === true, 'retention')
  return [
    { type: 'retention-set', disk: disk.id, bitmap: bitmap.name, retention: command.retention },
    ...drops,
  ]
}

/** R17: α becomes a slice without a backup. */
export function bank({ state }: Deciding, command: Of<'bank'>): DomainEvent[] {
  const { disk, bitmap } = bitmapFor(state, command.disk, command.bitmap, 'bank')
  return bankEvents(disk.id, bitmap, command.forceCycle === true, { kind: 'bank' })
}

/** @throws CheckpointError RETENTION_ZERO (even with forceCycle, R17), RETENTION_FULL */
export function bankEvents(
  disk: string,
  bitmap: BitmapState,
  forceCycle: boolean,
  cause: SliceCause,
): DomainEvent[] {
  if (bitmap.retention === 0) {
    throw new CheckpointError(
      'RETENTION_ZERO',
      `bitmap "${bitmap.name}" of disk "${disk}" keeps no slices (retention 0), so nothing can be banked; set its retention first`,
      { disk, bitmap: bitmap.name, retention: 0 },
    )
  }
  const drops = makeRoom(disk, bitmap, bitmap.retention, 1, forceCycle, 'force-cycle')
  return [...drops, frozenEvent(disk, bitmap, cause)]
}

export function frozenEvent(disk: string, bitmap: BitmapState, cause: SliceCause): DomainEvent {
  const { number: slice } = bitmap.active
  return { type: 'slice-frozen', disk, bitmap: bitmap.name, slice, next: bitmap.highestNumber + 1, cause }
}

export function deleteSlice({ state }: Deciding, command: Of<'delete-slice'>): DomainEvent[] {
  const { disk, bitmap } = bitmapFor(state, command.disk, command.bitmap, 'delete-slice')
  const slice = findSlice(disk.id, bitmap, command.slice, command.generation)
  return [deletionOf(disk.id, bitmap, slice)]
}

/** R16: its bits go into the next older slice; the oldest has none and is dropped. */
export function deletionOf(
  disk: string,
  bitmap: BitmapState,
  slice: Slice,
): Extract<DomainEvent, { type: 'slice-dropped' | 'slice-merged' }> {
  const older = bitmap.slices[bitmap.slices.indexOf(slice) - 1]
  const ref = { disk, bitmap: bitmap.name, slice: slice.number }
  if (older === undefined) return { type: 'slice-dropped', ...ref, because: 'deleted' }
  return { type: 'slice-merged', ...ref, into: older.number }
}
