/**
 * lmdb as an engineer would use it: one integer key per event, the package's own msgpack, its own asynchronous batching (or
 * `transactionSync` of 1000), the same bitmap beside it. Its default on Linux is `overlappingSync`: a put is answered when
 * it is committed and synced a moment later, which is our level `process`.
 */
import { open, type RootDatabase } from 'lmdb'
import { DirtyBitmap } from '../src/index.ts'
import { eventOf, NAIVE_BATCH, type NaiveEvent } from './naive.ts'
import { type Columns, DISK_BYTES, GRANULARITY } from './workload.ts'

export class LmdbLog {
  readonly db: RootDatabase<NaiveEvent, number>
  readonly bitmap = new DirtyBitmap(DISK_BYTES, GRANULARITY)
  #next = 0

  constructor(folder: string) {
    this.db = open<NaiveEvent, number>({ path: folder, encoding: 'msgpack', overlappingSync: true })
  }

  /** Puts of 1000 events, then a wait for the last: the package commits them together. */
  async append(writes: Columns, times?: Float64Array, ops?: Uint8Array): Promise<void> {
    const { offsets, lengths } = writes
    for (let from = 0; from < offsets.length; from += NAIVE_BATCH) {
      const to = Math.min(offsets.length, from + NAIVE_BATCH)
      let last: Promise<boolean> | undefined
      for (let i = from; i < to; i++) {
        const position = this.#next++
        last = this.db.put(position, eventOf(position, offsets[i]!, lengths[i]!, times?.[i], ops?.[i]))
      }
      await last
      for (let i = from; i < to; i++) this.bitmap.setRange(offsets[i]!, lengths[i]!)
    }
  }

  /** The same in one synchronous transaction per 1000. */
  appendSync(writes: Columns): void {
    const { offsets, lengths } = writes
    for (let from = 0; from < offsets.length; from += NAIVE_BATCH) {
      const to = Math.min(offsets.length, from + NAIVE_BATCH)
      this.db.transactionSync(() => {
        for (let i = from; i < to; i++) {
          const position = this.#next++
          this.db.putSync(position, eventOf(position, offsets[i]!, lengths[i]!))
        }
      })
      for (let i = from; i < to; i++) this.bitmap.setRange(offsets[i]!, lengths[i]!)
    }
  }

  async appendOne(offset: number, length: number): Promise<void> {
    const position = this.#next++
    await this.db.put(position, eventOf(position, offset, length))
    this.bitmap.setRange(offset, length)
  }

  rebuild(until: number): DirtyBitmap {
    const bitmap = new DirtyBitmap(DISK_BYTES, GRANULARITY)
    for (const { value } of this.db.getRange({ end: until + 1 })) bitmap.setRange(value.offset, value.length)
    return bitmap
  }

  /** Everything synced, nothing open. */
  async close(): Promise<void> {
    await this.db.flushed
    await this.db.close()
  }
}
