/**
 * Reading a state: the same questions for the present and for any moment of the past (R22). Answers are copies; bits of
 * slices are loaded when asked.
 */
import type { Point } from '../../events/types.ts'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { BitmapBits, SliceBits } from '../../projections/bits.ts'
import type { BackupState, BitmapState, DiskState } from '../../projections/state.ts'
import { findBitmap, findDisk, findSlice } from '../commands/find.ts'
import { loadSlice } from './bits-loader.ts'
import type { Derived } from './derived.ts'
import type { State } from './state.ts'
import type {
  BackupInfo,
  BitmapInfo,
  BitsInfo,
  CheckpointInfo,
  DiskInfo,
  SliceInfo,
  SlicesInfo,
} from './types.ts'

export interface BackupFilter {
  readonly disk?: string
  readonly bitmap?: string
  readonly state?: BackupInfo['state']
}

export interface SliceSelector {
  readonly slice?: number
  readonly generation?: number
}

export class StateView {
  readonly #state: () => State
  readonly #derived: Derived
  readonly #heal: (error: unknown) => Promise<void>

  /** `heal` makes stored bits anew that were missing or damaged, or throws what it was given. */
  constructor(state: () => State, derived: Derived, heal: (error: unknown) => Promise<void>) {
    this.#state = state
    this.#derived = derived
    this.#heal = heal
  }

  /** The last event that this state includes. */
  get point(): Point {
    return this.#state().catalog.last
  }

  disks(): DiskInfo[] {
    return [...this.#state().catalog.disks()].map(diskInfo)
  }

  /** DISK_NOT_FOUND. */
  diskInfo(id: string): DiskInfo {
    return diskInfo(findDisk(this.#state().catalog, id))
  }

  /** DISK_NOT_FOUND. */
  bitmaps(disk: string): BitmapInfo[] {
    return [...findDisk(this.#state().catalog, disk).bitmaps.values()].map((bitmap) =>
      bitmapInfo(disk, bitmap),
    )
  }

  /** DISK_NOT_FOUND, BITMAP_NOT_FOUND. */
  bitmap(disk: string, bitmap: string): BitmapInfo {
    return bitmapInfo(disk, findBitmap(this.#state().catalog, disk, bitmap))
  }

  /** In order of their begin. */
  backups(filter: BackupFilter = {}): BackupInfo[] {
    return [...this.#state().catalog.backups()]
      .map(backupInfo)
      .filter((backup) => (filter.disk ?? backup.disk) === backup.disk)
      .filter((backup) => (filter.bitmap ?? backup.bitmap) === backup.bitmap)
      .filter((backup) => (filter.state ?? backup.state) === backup.state)
  }

  checkpoints(): CheckpointInfo[] {
    return [...this.#state().catalog.checkpoints()]
  }

  /** α, or one slice, as facts (R5). While a backup runs: the frozen part, and the successor's count. */
  async bits(disk: string, bitmap: string, selector: SliceSelector = {}): Promise<BitsInfo> {
    const info = this.bitmap(disk, bitmap)
    const held = this.#bits(disk, bitmap)
    const dirty = await this.dirty(disk, bitmap, selector)
    return {
      disk,
      bitmap,
      generation: info.generation,
      granularity: info.granularity,
      count: dirty.count,
      digest: dirty.digest(),
      recording: info.recording,
      busy: info.busy,
      extents: dirty.extentList(),
      ...(selector.slice === undefined && held.successor !== null
        ? { successorCount: held.successor.count }
        : {}),
    }
  }

  /** The bits themselves, as a copy that the caller may change. Refusals as in R18. */
  async dirty(disk: string, bitmap: string, selector: SliceSelector = {}): Promise<DirtyBitmap> {
    const { slice, generation } = selector
    if (slice === undefined) {
      findBitmap(this.#state().catalog, disk, bitmap)
      return this.#bits(disk, bitmap).active.clone()
    }
    // Found again after healing: the slice may be gone by then, and the refusal is the answer.
    return await this.#healed(async () => {
      const state = findBitmap(this.#state().catalog, disk, bitmap)
      return await this.#slice(disk, bitmap, findSlice(disk, state, slice, generation).number)
    })
  }

  async slices(disk: string, bitmap: string): Promise<SlicesInfo> {
    return await this.#healed(() => this.#slices(disk, bitmap))
  }

  /** Everything as it is at the call: a slice may be merged or dropped while another one is loaded. */
  async #slices(disk: string, bitmap: string): Promise<SlicesInfo> {
    const state = findBitmap(this.#state().catalog, disk, bitmap)
    const held = this.#bits(disk, bitmap)
    const { size } = held.active
    const frozen = state.slices.map((slice) => ({ slice, bits: sliceBits(held, slice.number).clone() }))
    const slices: SliceInfo[] = []
    for (const { slice, bits } of frozen) {
      const dirty = await loadSlice(bits, size, held.granularity, this.#derived)
      slices.push({
        slice: slice.number,
        count: dirty.count,
        digest: dirty.digest(),
        from: slice.from,
        to: slice.to,
        lost: slice.lost,
      })
    }
    return { generation: state.generation, next: state.active.number, slices }
  }

  #bits(disk: string, bitmap: string): BitmapBits {
    const bits = this.#state().bits.bitmap(disk, bitmap)
    if (bits === undefined) throw new Error(`slicelog bug: bitmap ${bitmap} of ${disk} has no bits`)
    return bits
  }

  async #slice(disk: string, bitmap: string, number: number): Promise<DirtyBitmap> {
    const held = this.#bits(disk, bitmap)
    return await loadSlice(sliceBits(held, number), held.active.size, held.granularity, this.#derived)
  }

  async #healed<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read()
    } catch (error) {
      await this.#heal(error)
      return await read()
    }
  }
}

function sliceBits(bitmap: BitmapBits, number: number): SliceBits {
  const slice = bitmap.slices.get(number)
  if (slice === undefined) throw new Error(`slicelog bug: slice ${number} has no bits`)
  return slice
}

export function diskInfo(disk: DiskState): DiskInfo {
  return {
    disk: disk.id,
    size: disk.size,
    attached: disk.attached,
    recorder: disk.recorder,
    added: disk.addedAt,
    last: disk.last,
    bitmaps: [...disk.bitmaps.keys()],
    lost: disk.lost,
  }
}

export function bitmapInfo(disk: string, bitmap: BitmapState): BitmapInfo {
  return {
    disk,
    bitmap: bitmap.name,
    generation: bitmap.generation,
    granularity: bitmap.granularity,
    retention: bitmap.retention,
    recording: bitmap.recording,
    busy: bitmap.holder !== null,
    persistent: bitmap.persistent,
    next: bitmap.active.number,
    slices: bitmap.slices.length,
    state: bitmap,
  }
}

export function backupInfo(backup: BackupState): BackupInfo {
  return { ...backup, state: backup.phase.kind }
}
