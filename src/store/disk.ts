/** A disk as its caller holds it: an id, looked up at every call, and everything that is done to one disk. */

import type { Extent } from '../../events/types.ts'
import { findDisk } from '../commands/find.ts'
import { needName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { needExtents, needObject } from './arguments.ts'
import type { Backup } from './backup.ts'
import { Bitmap } from './bitmap.ts'
import type { Core } from './core.ts'
import type { Recorded } from './incoming.ts'
import type { ChangedOptions, Store } from './store.ts'
import type {
  BeginRequest,
  BitmapInfo,
  Changed,
  CommandOptions,
  DiskInfo,
  Plan,
  PlanRequest,
  PointInput,
  Writes,
} from './types.ts'
import { diskInfo } from './view.ts'

export interface BitmapOptions {
  /** Bytes per bit: a power of two from 512 to 2 GiB. Default 64 KiB. */
  readonly granularity?: number
  /** Slices kept (R15). Default 0. */
  readonly retention?: number
  /** False: removed at the disk's clean detach (R4). Default true. */
  readonly persistent?: boolean
  /** True: does not record until enabled. Default false. */
  readonly disabled?: boolean
}

export class Disk {
  readonly id: string
  readonly #core: Core
  readonly #store: Store

  constructor(core: Core, store: Store, id: string) {
    this.#core = core
    this.#store = store
    this.id = id
  }

  /** DISK_NOT_FOUND when it is gone. */
  get info(): DiskInfo {
    return diskInfo(findDisk(this.#core.catalog, this.id))
  }

  get size(): number {
    return findDisk(this.#core.catalog, this.id).size
  }

  /**
   * Records write ranges (R1, R3): all of the call, or none and a refusal. Log first (R31). With `move`, the bytes are
   * moved after the record is acknowledged, the promise waits for that, and a point taken meanwhile records the ranges
   * again behind itself (R8). Attaches the disk when this session has not.
   * @throws CheckpointError RANGE_INVALID, RANGE_OUTSIDE_DISK, TIME_INVALID, DISK_NOT_FOUND, OUTCOME_UNKNOWN, STORE_FAILED
   */
  recordWrites(writes: Writes, move?: () => unknown): Promise<Recorded> {
    if (move !== undefined && typeof move !== 'function')
      return Promise.reject(
        new TypeError(
          'move must be a function that moves the bytes once they are recorded; a promise has begun too early (R31)',
        ),
      )
    const disk = this.#core.catalog.disk(this.id)
    if (move === undefined && disk !== undefined && this.#core.isAttached(disk))
      return this.#core.recordNow(disk, writes)
    return this.#core.recordWrites(this.id, writes, move)
  }

  /** One event for what another tracker collected since `from` (R3). WINDOW_INVALID. */
  async recordWindow(
    window: { readonly from: PointInput; readonly extents: readonly Extent[]; readonly writes?: number },
    options: CommandOptions = {},
  ): Promise<void> {
    needObject('the window', window)
    const { from: since, extents, writes = 0 } = window
    needExtents('extents', extents)
    await this.#core.run([{ type: 'record-window', disk: this.id, since, writes, extents }], options)
  }

  /** Says that writes since `from` (default: the disk's last event) may have gone unrecorded (R35). */
  async declareLost(
    reason: string,
    lost: { readonly from?: PointInput } = {},
    options: CommandOptions = {},
  ): Promise<void> {
    needObject('the stretch', lost)
    const told = { type: 'declare-lost', disk: this.id, reason } as const
    const command = lost.from === undefined ? { ...told, from: null } : { ...told, since: lost.from }
    await this.#core.run([command], options)
  }

  /** R7. BITMAP_BUSY while a bitmap of the disk is busy. */
  async resize(size: number, options: CommandOptions = {}): Promise<void> {
    await this.#core.run([{ type: 'resize-disk', disk: this.id, size }], options)
  }

  /** No more writes until it is attached again; its transient bitmaps go (R4). */
  async detach(options: CommandOptions = {}): Promise<void> {
    await this.#core.run([{ type: 'detach-disk', disk: this.id }], options)
  }

  /** BITMAP_EXISTS and the refusals of R4. */
  async addBitmap(name: string, bitmap: BitmapOptions = {}, options: CommandOptions = {}): Promise<Bitmap> {
    needObject('the bitmap', bitmap)
    await this.#core.run([{ type: 'add-bitmap', disk: this.id, bitmap: name, ...bitmap }], options)
    return new Bitmap(this.#core, this.#store, this.id, name) // By name: a command id may come back after the bitmap went (R13).
  }

  /**
   * The same on every start: adds the bitmap if it is not there, sets its retention if that differs.
   * @throws CheckpointError BITMAP_MISMATCH when it is there with another granularity; RETENTION_FULL
   */
  async ensureBitmap(
    name: string,
    bitmap: BitmapOptions = {},
    options: CommandOptions = {},
  ): Promise<Bitmap> {
    needName('bitmap', name)
    needObject('the bitmap', bitmap)
    const held = this.#core.catalog.disk(this.id)?.bitmaps.get(name)
    if (held === undefined) return await this.addBitmap(name, bitmap, options)
    const granularity = bitmap.granularity ?? limits.granularityDefault
    if (bitmap.granularity !== undefined && held.granularity !== granularity) {
      throw new CheckpointError(
        'BITMAP_MISMATCH',
        `bitmap "${name}" of disk "${this.id}" has a granularity of ${held.granularity}, not ${granularity}; use that, or remove it and add it anew`,
        { disk: this.id, bitmap: name, granularity: held.granularity, wanted: granularity },
      )
    }
    const found = this.bitmap(name)
    if (bitmap.retention !== undefined && bitmap.retention !== held.retention)
      await found.setRetention(bitmap.retention, options)
    return found
  }

  /** By name: whether it is there is looked up at every call of the handle, since a command id may come back after it went (R13). */
  bitmap(name: string): Bitmap {
    needName('bitmap', name)
    return new Bitmap(this.#core, this.#store, this.id, name)
  }

  bitmaps(): BitmapInfo[] {
    return this.#store.bitmaps(this.id)
  }

  /** R8 to R12. */
  async beginBackup(request: BeginRequest, options: CommandOptions = {}): Promise<Backup> {
    needObject('the request', request)
    const [backup] = await this.#store.beginBackups([{ disk: this.id, ...request }], options)
    return backup!
  }

  /** A dry run of a begin: what it would copy, or why it would be refused (R25). */
  async plan(request: Omit<PlanRequest, 'disk'>): Promise<Plan> {
    needObject('the request', request)
    return await this.#store.plan({ disk: this.id, ...request })
  }

  /** What was written between two points (R23). */
  async changed(options: ChangedOptions): Promise<Changed> {
    return await this.#store.changed(this.id, options)
  }
}
