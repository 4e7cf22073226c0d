/**
 * "naive": the obvious event log on the same dependencies. One LevelDB key per event, each event a msgpackr object, batches
 * of 1000 with an await each, and the same bitmap as ours kept beside it. No checksum, no chain, no validation.
 */
import { Level } from 'level'
import { Packr } from 'msgpackr'
import { DirtyBitmap } from '../src/index.ts'
import { type Columns, DISK, DISK_BYTES, GRANULARITY } from './workload.ts'

export const NAIVE_BATCH = 1000

export interface NaiveEvent {
  readonly position: number
  readonly time: number
  readonly type: 'write' | 'zero' | 'discard'
  readonly disk: string
  readonly offset: number
  readonly length: number
}

const OPS = ['write', 'zero', 'discard'] as const

export function eventOf(
  position: number,
  offset: number,
  length: number,
  time = Date.now(),
  op = 0,
): NaiveEvent {
  return { position, time, type: OPS[op]!, disk: DISK, offset, length }
}

/** Big-endian, so that a scan reads in log order. */
export function keyOf(position: number): Uint8Array {
  const key = Buffer.allocUnsafe(8)
  key.writeUInt32BE(Math.floor(position / 2 ** 32), 0)
  key.writeUInt32BE(position >>> 0, 4)
  return key
}

export class Naive {
  readonly db: Level<Uint8Array, Uint8Array>
  readonly packr = new Packr({ useRecords: false })
  readonly bitmap = new DirtyBitmap(DISK_BYTES, GRANULARITY)
  #next = 0

  private constructor(db: Level<Uint8Array, Uint8Array>) {
    this.db = db
  }

  static async open(folder: string): Promise<Naive> {
    const db = new Level<Uint8Array, Uint8Array>(folder, { keyEncoding: 'view', valueEncoding: 'view' })
    await db.open()
    return new Naive(db)
  }

  async append(writes: Columns, times?: Float64Array, ops?: Uint8Array): Promise<void> {
    const { offsets, lengths } = writes
    for (let from = 0; from < offsets.length; from += NAIVE_BATCH) {
      const to = Math.min(offsets.length, from + NAIVE_BATCH)
      const batch = []
      for (let i = from; i < to; i++) {
        const position = this.#next++
        const event = eventOf(position, offsets[i]!, lengths[i]!, times?.[i], ops?.[i])
        batch.push({ type: 'put' as const, key: keyOf(position), value: this.packr.pack(event) })
      }
      await this.db.batch(batch)
      for (let i = from; i < to; i++) this.bitmap.setRange(offsets[i]!, lengths[i]!)
    }
  }

  /** One call of one caller: its event packed and put by itself. */
  async appendOne(offset: number, length: number): Promise<void> {
    const position = this.#next++
    await this.db.put(keyOf(position), this.packr.pack(eventOf(position, offset, length)))
    this.bitmap.setRange(offset, length)
  }

  /** The bitmap after the event at `until`, read from the keys. */
  async rebuild(until: number): Promise<DirtyBitmap> {
    const bitmap = new DirtyBitmap(DISK_BYTES, GRANULARITY)
    const values = this.db.values({ lte: keyOf(until) })
    for (;;) {
      const batch = await values.nextv(NAIVE_BATCH)
      if (batch.length === 0) break
      for (const value of batch) {
        const event = this.packr.unpack(value) as NaiveEvent
        bitmap.setRange(event.offset, event.length)
      }
    }
    await values.close()
    return bitmap
  }

  async close(): Promise<void> {
    await this.db.close()
  }
}
