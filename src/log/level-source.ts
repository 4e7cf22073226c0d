/**
 * Stored values from a LevelDB snapshot. One iterator, big chunks, the next chunk fetched while this one is used; LevelDB's
 * cache is left to point reads. The snapshot makes a repack invisible: it may replace entries while we walk them.
 */
import { ClassicLevel } from 'classic-level'
import { CheckpointError } from '../errors.ts'
import type { OpenSource } from './base-log.ts'
import { logDamaged } from './damaged.ts'
import type { StoredEntry } from './entries.ts'
import { eventKey, positionOfEventKey } from './keys.ts'

export type Database = ClassicLevel<Uint8Array, Uint8Array>

/** Keys and values as they are stored, a chunk at a time. */
export type RawEntries = AsyncGenerator<
  readonly { readonly key: Uint8Array; readonly value: Uint8Array }[],
  void,
  void
>

export const CHUNK_ENTRIES = 1000
const CHUNK_BYTES = 512 * 1024

export function database(folder: string): Database {
  return new ClassicLevel<Uint8Array, Uint8Array>(folder, { keyEncoding: 'view', valueEncoding: 'view' })
}

/** LevelDB's failures in our words. */
export function levelFailure(error: unknown, facts: Readonly<Record<string, unknown>> = {}): unknown {
  if (!(error instanceof Error) || error instanceof CheckpointError) return error
  const code = String((error as { code?: unknown }).code ?? '')
  if (code.endsWith('_NOT_OPEN')) {
    return new CheckpointError(
      'STORE_CLOSED',
      'the log was closed meanwhile; open the store again',
      {},
      error,
    )
  }
  if (code === 'LEVEL_CORRUPTION' || error.message.startsWith('Corruption'))
    return logDamaged('leveldb', facts, error)
  return new CheckpointError('IO_FAILED', `LevelDB: ${error.message}`, facts, error)
}

/** Chunks of [key, value], the next one being fetched while the caller has this one. */
export async function* chunks(
  iterator: ReturnType<Database['iterator']>,
  entries = CHUNK_ENTRIES,
): AsyncGenerator<[Uint8Array, Uint8Array][], void, void> {
  let pending = iterator.nextv(entries)
  try {
    for (;;) {
      const chunk = await pending
      if (chunk.length === 0) return
      pending = iterator.nextv(entries)
      pending.catch(() => undefined)
      yield chunk as [Uint8Array, Uint8Array][]
    }
  } catch (error) {
    throw levelFailure(error)
  } finally {
    await pending.catch(() => undefined)
    await iterator.close()
  }
}

export class LevelSource implements OpenSource {
  readonly #snapshot: ReturnType<Database['snapshot']>

  readonly #released: (() => void) | undefined
  #gone = false

  /** `released`: called once the view is let go of. */
  constructor(
    readonly db: Database,
    released?: () => void,
  ) {
    this.#snapshot = db.snapshot()
    this.#released = released
  }

  async *entries(
    from: number,
    to: number,
    reverse: boolean,
  ): AsyncGenerator<readonly StoredEntry[], void, void> {
    const start = from === 0 ? 0 : ((await this.#floorKey(from)) ?? 0)
    const iterator = this.db.iterator({
      gte: eventKey(start),
      lte: eventKey(to),
      reverse,
      fillCache: false,
      highWaterMarkBytes: CHUNK_BYTES,
      snapshot: this.#snapshot,
    })
    for await (const chunk of chunks(iterator))
      yield chunk.map(([key, value]) => ({ position: keyed(key), value }))
  }

  /** Every key and value as stored, whatever it is: for a copy. */
  raw(): AsyncGenerator<[Uint8Array, Uint8Array][], void, void> {
    const range = { fillCache: false, highWaterMarkBytes: CHUNK_BYTES, snapshot: this.#snapshot }
    return chunks(this.db.iterator(range))
  }

  /**
   * Every key and value as they are, for verify. LevelDB passes over a block that it cannot read and says so only at the end,
   * with the last chunk withheld: from there on entries are asked for one by one, and then the error is thrown. `from`: the
   * position of a stored value.
   */
  async *rawEntries(from: number): RawEntries {
    let after: Uint8Array | undefined
    for (const size of [CHUNK_ENTRIES, 1]) {
      const range = after === undefined ? (from === 0 ? {} : { gte: eventKey(from) }) : { gt: after }
      const how = { fillCache: false, highWaterMarkBytes: CHUNK_BYTES, snapshot: this.#snapshot }
      try {
        for await (const chunk of chunks(this.db.iterator({ ...range, ...how }), size)) {
          yield chunk.map(([key, value]) => ({ key, value }))
          after = chunk[chunk.length - 1]![0]
        }
        return
      } catch (error) {
        if (size === 1) throw error
      }
    }
  }

  get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.db.get(key, { snapshot: this.#snapshot })
  }

  async #floorKey(position: number): Promise<number | undefined> {
    try {
      const keys = this.db.keys({
        gte: eventKey(0),
        lte: eventKey(position),
        reverse: true,
        limit: 1,
        snapshot: this.#snapshot,
      })
      const [key] = await keys.all()
      return key && keyed(key)
    } catch (error) {
      throw levelFailure(error)
    }
  }

  async floor(position: number): Promise<StoredEntry | undefined> {
    const range = {
      gte: eventKey(0),
      lte: eventKey(position),
      reverse: true,
      limit: 1,
      snapshot: this.#snapshot,
    }
    try {
      const [entry] = await this.db.iterator(range).all()
      return entry && { position: keyed(entry[0]), value: entry[1] }
    } catch (error) {
      throw levelFailure(error)
    }
  }

  async release(): Promise<void> {
    if (this.#gone) return
    this.#gone = true
    try {
      await this.#snapshot.close()
    } finally {
      this.#released?.()
    }
  }
}

function keyed(key: Uint8Array): number {
  const position = positionOfEventKey(key)
  if (position === undefined) throw logDamaged('misplaced', { key: Buffer.from(key).toString('hex') })
  return position
}
