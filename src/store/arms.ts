/**
 * Armed granules of the disks that we serve at level `power` (R30): a granule is armed once a synced record says that it may
 * change, and until then the next writes to it need no sync of their own. The record that arms is that of the first write.
 *
 * Nothing else is stored. What a power cut may take of the log is a tail of unsynced records, each on granules whose arming
 * record, synced and so still there, is at most `ARMED_MS` older by the log's own times, which never decrease: recovery reads
 * them off the end of the log (power-loss.ts). That is also why a flush does not end arms: it would cost a sync for each
 * granule written after it, and leave recovery with the same list.
 *
 * Two bitmaps take turns, so that an arm lives between half of that time and all of it. Cost: a bit looked up for each
 * granule of a write, and two bits for each granule of the disk where writes go.
 */
import type { WriteColumns } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { usualGranularity } from './answer-granularity.ts'

/** How long an arm lasts at most, by the log's times (ms). */
export const ARMED_MS = 5000

export class Arms {
  readonly #size: number
  readonly #granularity: number
  #young: DirtyBitmap
  #old: DirtyBitmap
  /** The log's time when `#young` was begun. */
  #since = Number.NEGATIVE_INFINITY

  constructor(size: number) {
    this.#size = size
    this.#granularity = usualGranularity(size)
    this.#young = this.#none()
    this.#old = this.#none()
  }

  get size(): number {
    return this.#size
  }

  /**
   * Arms whatever the rows touch, in a record of that time. True: some of it was not armed, so the record must be synced
   * before a byte of it moves.
   */
  take(rows: WriteColumns, time: number): boolean {
    this.#turn(time)
    const { offsets, lengths } = rows
    let first = false
    for (let i = 0; i < offsets.length; i++) {
      const from = Math.floor(offsets[i]! / this.#granularity)
      const to = Math.floor((offsets[i]! + lengths[i]! - 1) / this.#granularity)
      for (let granule = from; granule <= to; granule++) {
        if (this.#young.has(granule) || this.#old.has(granule)) continue
        first = true
        this.#young.setGranules(from, to)
        break
      }
    }
    return first
  }

  #turn(time: number): void {
    const age = time - this.#since
    if (age < ARMED_MS / 2) return
    const kept = age < ARMED_MS
    this.#old = kept ? this.#young : this.#none()
    this.#young = this.#none()
    // By halves from where it began, not from now: what is armed late in a half must not outlive the next one.
    this.#since = kept ? this.#since + ARMED_MS / 2 : time
  }

  #none(): DirtyBitmap {
    return new DirtyBitmap(this.#size, this.#granularity)
  }
}
