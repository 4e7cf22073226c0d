/** Decides the commands on disks: add, resize, remove, attach, detach, lost stretches, windows (R3, R7, R32, R35). */
import type { DomainEvent, Extent } from '../../events/types.ts'
import type { BitmapState, DiskState } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { hasTooManyGranules, limits } from '../limits.ts'
import { bitmapBusy, type Deciding, findDisk } from './find.ts'
import { conditionOf, LEGAL } from './legal.ts'
import { detachEvents } from './lifecycle.ts'
import { checkName } from './names.ts'
import type { Command } from './types.ts'
import { uncleanStretch } from './unclean.ts'

type Of<T extends Command['type']> = Extract<Command, { type: T }>

/** @throws CheckpointError SIZE_INVALID */
function checkSize(disk: string, size: number): void {
  if (typeof size !== 'number')
    throw new TypeError(`the size of disk "${disk}" must be a number of bytes, not ${typeof size}`)
  if (Number.isSafeInteger(size) && size > 0 && size <= limits.diskBytesMax) return
  throw new CheckpointError(
    'SIZE_INVALID',
    `disk "${disk}" cannot have ${size} bytes; give a whole number from 1 to ${limits.diskBytesMax}`,
    {
      disk,
      size,
      max: limits.diskBytesMax,
    },
  )
}

/** R23: 2^32 bits at most. @throws CheckpointError BITMAP_TOO_LARGE */
export function checkGranules(disk: string, bitmap: string, size: number, granularity: number): void {
  if (!hasTooManyGranules(size, granularity)) return
  throw new CheckpointError(
    'BITMAP_TOO_LARGE',
    `bitmap "${bitmap}" of disk "${disk}" would need ${Math.ceil(size / granularity)} bits for ${size} bytes at granularity ${granularity}, ` +
      `and ${limits.granulesMax} is the most; use a larger granularity`,
    {
      disk,
      bitmap,
      size,
      granularity,
      max: limits.granulesMax,
      qemu: 'Too much space will be occupied by the bitmap. Use larger granularity',
    },
  )
}

export function addDisk({ state }: Deciding, command: Of<'add-disk'>): DomainEvent[] {
  const { disk, size } = command
  checkName('disk', disk)
  checkSize(disk, size)
  if (state.disk(disk) !== undefined) {
    throw new CheckpointError('DISK_EXISTS', `disk "${disk}" exists already; use it, or choose another id`, {
      disk,
      size: state.disk(disk)?.size,
    })
  }
  return [{ type: 'disk-added', disk, size }]
}

/** R7: refused while a bitmap of the disk is busy. Setting the size it has changes nothing. */
export function resizeDisk({ state }: Deciding, command: Of<'resize-disk'>): DomainEvent[] {
  const disk = findDisk(state, command.disk)
  checkSize(disk.id, command.size)
  const busy = busyBitmaps(disk, 'resize-disk')[0]
  if (busy !== undefined) throw bitmapBusy(disk.id, busy)
  for (const { name, granularity } of disk.bitmaps.values())
    checkGranules(disk.id, name, command.size, granularity)
  return command.size === disk.size ? [] : [{ type: 'disk-resized', disk: disk.id, size: command.size }]
}

/** Its bitmaps and slices go with it; its backups stay in the history. */
export function removeDisk({ state }: Deciding, command: Of<'remove-disk'>): DomainEvent[] {
  const disk = findDisk(state, command.disk)
  const busy = busyBitmaps(disk, 'remove-disk')
  if (busy.length > 0) {
    const names = busy.map(({ name }) => name)
    const heldBy = busy.map(({ holder }) => (holder?.kind === 'backup' ? holder.id : 'removal'))
    throw new CheckpointError(
      'DISK_BUSY',
      `disk "${disk.id}" is in use: its bitmap "${names[0]}" is held by ${heldBy[0] === 'removal' ? 'this transaction' : `backup "${heldBy[0]}"`}; end that first`,
      { disk: disk.id, bitmaps: names, heldBy },
    )
  }
  return [{ type: 'disk-removed', disk: disk.id }]
}

function busyBitmaps(disk: DiskState, operation: 'resize-disk' | 'remove-disk'): BitmapState[] {
  return [...disk.bitmaps.values()].filter((bitmap) => {
    const verdict: string = LEGAL[operation][conditionOf(bitmap)]
    return verdict !== 'allowed'
  })
}

/**
 * R32: after an unclean end, what a caller did between the disk's last event and now is unknown, unless it says `quiet`.
 * A disk that was or will be recorded by a caller counts: only a disk that our process alone wrote before and after is safe.
 */
export function attachDisk({ state, context, at }: Deciding, command: Of<'attach-disk'>): DomainEvent[] {
  const disk = findDisk(state, command.disk)
  const attached: DomainEvent = { type: 'disk-attached', disk: disk.id, recorder: command.recorder }
  const callers = command.recorder === 'caller' || disk.recorder === 'caller'
  if (callers && !command.quiet) {
    const lost = uncleanStretch(disk, context, at)
    if (lost.length > 0) return [...lost, attached]
  }
  if (!context.unclean.has(disk.id) && disk.attached && disk.recorder === command.recorder) return []
  return [attached]
}

/**
 * R4: a transient bitmap goes at its disk's clean detach; a busy one stays, for its backup's sake. A disk that an unclean
 * end left attached is told lost first: after the detach nothing would remember it (R32).
 */
export function detachDisk({ state, context, at }: Deciding, command: Of<'detach-disk'>): DomainEvent[] {
  const disk = findDisk(state, command.disk)
  if (!disk.attached) return []
  const lost = disk.recorder === 'caller' ? uncleanStretch(disk, context, at) : []
  return [...lost, ...detachEvents(disk)]
}

export function declareLost({ state }: Deciding, command: Of<'declare-lost'>): DomainEvent[] {
  const disk = findDisk(state, command.disk)
  const from = command.from ?? disk.last
  if (from.position > state.last.position) {
    throw new CheckpointError(
      'POINT_INVALID',
      `a lost stretch of disk "${disk.id}" cannot begin at ${from.position}, after the log's head ${state.last.position}; begin it at a point of the past`,
      {
        disk: disk.id,
        position: from.position,
        head: state.last.position,
      },
    )
  }
  if (typeof command.reason !== 'string') throw new TypeError('the reason of a lost stretch must be a string')
  return [{ type: 'stretch-lost', disk: disk.id, from, reason: command.reason }]
}

/** R3: the span ends at the window itself, so only its start and its ranges can be wrong. */
export function recordWindow({ state }: Deciding, command: Of<'record-window'>): DomainEvent[] {
  const disk = findDisk(state, command.disk)
  const { from, writes } = command
  const refuse = (why: string, facts: object): CheckpointError =>
    new CheckpointError('WINDOW_INVALID', `a window of disk "${disk.id}" ${why}; nothing was recorded`, {
      disk: disk.id,
      ...facts,
    })
  if (!Number.isSafeInteger(from.position) || from.position < disk.addedAt.position) {
    throw refuse(
      `cannot begin at ${from.position}, before the disk was added at ${disk.addedAt.position}; begin it there or later`,
      {
        position: from.position,
        addedAt: disk.addedAt.position,
      },
    )
  }
  if (from.position > state.last.position) {
    throw refuse(
      `cannot begin at ${from.position}, after the log's head ${state.last.position}; begin it at a point of the past`,
      {
        position: from.position,
        head: state.last.position,
      },
    )
  }
  if (!Number.isSafeInteger(writes) || writes < 0) {
    throw refuse(`cannot stand for ${writes} writes; give a whole number, 0 when nobody knows`, { writes })
  }
  command.extents.forEach((extent, index) => {
    if (!insideDisk(extent, disk.size)) {
      throw refuse(
        `has a range ${extent[0]}+${extent[1]} (number ${index}) that is not inside its ${disk.size} bytes; correct it`,
        {
          index,
          offset: extent[0],
          length: extent[1],
          size: disk.size,
        },
      )
    }
  })
  const extents = command.extents.filter(([, length]) => length > 0)
  return [{ type: 'window', disk: disk.id, from, writes, extents }]
}

/** R1's rule for a range: safe integers, not negative, not beyond the end. */
export function insideDisk([offset, length]: Extent, size: number): boolean {
  return (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset <= size - length
  )
}
