/** Decides the commands that QEMU has for a bitmap: add, remove, clear, enable, disable, merge (R4), with its refusals. */
import type { BitmapRef, DomainEvent } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { checkGranules } from './disks.ts'
import { bitmapFor, type Deciding, findBitmap, findDisk } from './find.ts'
import { conditionOf, LEGAL } from './legal.ts'
import { checkName } from './names.ts'
import { checkRetention } from './slices.ts'
import type { Command } from './types.ts'

type Of<T extends Command['type']> = Extract<Command, { type: T }>
type OneBitmap = Extract<
  Command,
  { type: 'remove-bitmap' | 'clear-bitmap' | 'enable-bitmap' | 'disable-bitmap' }
>

/** @throws CheckpointError GRANULARITY_INVALID */
export function checkGranularity(granularity: number): void {
  if (typeof granularity !== 'number')
    throw new TypeError(`a granularity must be a number of bytes, not ${typeof granularity}`)
  const fits =
    Number.isSafeInteger(granularity) &&
    granularity >= limits.granularityMin &&
    granularity <= limits.granularityMax
  if (fits && Number.isInteger(Math.log2(granularity))) return
  throw new CheckpointError(
    'GRANULARITY_INVALID',
    `granularity ${granularity} is not possible; give a power of two from ${limits.granularityMin} to ${limits.granularityMax} bytes`,
    {
      granularity,
      min: limits.granularityMin,
      max: limits.granularityMax,
      qemu: 'Granularity must be power of 2 and at least 512',
    },
  )
}

export function addBitmap({ state }: Deciding, command: Of<'add-bitmap'>): DomainEvent[] {
  const disk = findDisk(
    state,
    command.disk,
    `Cannot find device='${command.disk}' nor node-name='${command.disk}'`,
  )
  const {
    bitmap,
    granularity = limits.granularityDefault,
    retention = 0,
    persistent = true,
    disabled = false,
  } = command
  checkName('bitmap', bitmap)
  if (LEGAL['add-bitmap'][conditionOf(disk.bitmaps.get(bitmap))] === 'BITMAP_EXISTS') {
    throw new CheckpointError(
      'BITMAP_EXISTS',
      `disk "${disk.id}" has a bitmap "${bitmap}" already; use it, remove it, or choose another name`,
      {
        disk: disk.id,
        bitmap,
        qemu: `Bitmap already exists: ${bitmap}`,
      },
    )
  }
  checkGranularity(granularity)
  checkRetention(disk.id, bitmap, retention)
  checkGranules(disk.id, bitmap, disk.size, granularity)
  return [
    { type: 'bitmap-added', disk: disk.id, bitmap, granularity, recording: !disabled, persistent, retention },
  ]
}

/** In a transaction the event comes last (transaction.ts). */
export function removeBitmap({ state }: Deciding, command: OneBitmap): DomainEvent[] {
  bitmapFor(state, command.disk, command.bitmap, 'remove-bitmap')
  return [{ type: 'bitmap-removed', disk: command.disk, bitmap: command.bitmap, because: 'command' }]
}

export function clearBitmap({ state }: Deciding, command: OneBitmap): DomainEvent[] {
  bitmapFor(state, command.disk, command.bitmap, 'clear-bitmap')
  return [{ type: 'bitmap-cleared', disk: command.disk, bitmap: command.bitmap }]
}

/** Enabling what records, or disabling what does not, is accepted and changes nothing, as in QEMU. */
export function enableBitmap({ state }: Deciding, command: OneBitmap): DomainEvent[] {
  const { nothing } = bitmapFor(state, command.disk, command.bitmap, 'enable-bitmap')
  return nothing ? [] : [{ type: 'bitmap-enabled', disk: command.disk, bitmap: command.bitmap }]
}

export function disableBitmap({ state }: Deciding, command: OneBitmap): DomainEvent[] {
  const { nothing } = bitmapFor(state, command.disk, command.bitmap, 'disable-bitmap')
  return nothing ? [] : [{ type: 'bitmap-disabled', disk: command.disk, bitmap: command.bitmap }]
}

/** Sources may be of another disk of the same size, or of another granularity; into itself and from nothing change nothing. */
export function mergeBitmaps({ state }: Deciding, command: Of<'merge-bitmaps'>): DomainEvent[] {
  // QEMU's order of refusals: the target exists; then for each source it exists, the target and it are free, sizes agree.
  findBitmap(state, command.disk, command.bitmap)
  for (const ref of command.sources.slice(0, 1)) findBitmap(state, ref.disk, ref.bitmap)
  const target = bitmapFor(state, command.disk, command.bitmap, 'merge-bitmaps')
  const sources = new Map<string, BitmapRef>()
  for (const ref of command.sources) {
    const source = bitmapFor(state, ref.disk, ref.bitmap, 'merge-bitmaps source')
    if (source.disk.size !== target.disk.size) {
      const [destination, size] = [target.disk.size, source.disk.size]
      throw new CheckpointError(
        'SIZES_DIFFER',
        `bitmap "${ref.bitmap}" of disk "${ref.disk}" (${size} bytes) cannot be merged into one of disk "${command.disk}" (${destination} bytes); ` +
          'merge bitmaps of disks of the same size, or resize one disk first',
        {
          disk: command.disk,
          bitmap: command.bitmap,
          destinationSize: destination,
          source: { disk: ref.disk, bitmap: ref.bitmap },
          sourceSize: size,
          qemu: `Bitmaps are of different sizes (destination size is ${destination}, source size is ${size}) and can't be merged`,
        },
      )
    }
    const itself = ref.disk === command.disk && ref.bitmap === command.bitmap
    if (!itself) sources.set(JSON.stringify([ref.disk, ref.bitmap]), { disk: ref.disk, bitmap: ref.bitmap })
  }
  if (sources.size === 0) return []
  return [
    { type: 'bitmap-merged', disk: command.disk, bitmap: command.bitmap, sources: [...sources.values()] },
  ]
}
