/**
 * What a backup was planned from, for whoever asks why it came out as it did: the disk, the bitmap and the catalog as they were
 * at its begin, and the bits of each part. Slices are loaded when asked and not kept.
 */
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BackupState, BitmapState, DiskState } from '../../projections/state.ts'
import { loadSlice } from './bits-loader.ts'
import { type Derived, DerivedMissing } from './derived.ts'
import type { BackupMoment } from './planner.ts'

export interface BeginView {
  /** As it is now. */
  readonly backup: BackupState
  /** As they were. */
  readonly disk: DiskState
  readonly bitmap: BitmapState
  readonly catalog: CatalogReader
  /** A copy of α's bits. */
  active(): DirtyBitmap
  /** The bits of a slice that was held then; another number is an error of ours. */
  slice(number: number): Promise<DirtyBitmap>
}

/** `again`: the same moment from the log alone, wanted once when stored bits are missing or damaged (R28). */
export function beginView(
  moment: BackupMoment,
  derived: Derived,
  again: () => Promise<BackupMoment>,
): BeginView {
  let alone: Promise<BackupMoment> | undefined
  const { backup, disk, bitmap, state } = moment
  const load = async (from: BackupMoment, number: number) => {
    const bits = from.state.bits.bitmap(disk.id, bitmap.name)
    const slice = bits?.slices.get(number)
    if (bits === undefined || slice === undefined)
      throw new Error(`slicelog bug: slice ${number} was not held when backup ${backup.id} began`)
    return await loadSlice(slice, disk.size, bits.granularity, derived)
  }
  return {
    backup,
    disk,
    bitmap,
    catalog: state.catalog,
    active: () => state.bits.bitmap(disk.id, bitmap.name)!.active.clone(),
    async slice(number) {
      try {
        return await load(moment, number)
      } catch (error) {
        if (!(error instanceof DerivedMissing)) throw error
        alone ??= again()
        return await load(await alone, number)
      }
    },
  }
}
