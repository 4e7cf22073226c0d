/**
 * What is derived from the log and kept to save replaying it: bits of slices and of snapshots, by content, and snapshots
 * of the state. May be deleted at any time; a value that fails its check is dropped and reported, never used (R28).
 */
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import type { AbstractBatchOptions, AbstractLevel } from 'abstract-level'
import { Level } from 'level'
import { MemoryLevel } from 'memory-level'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import { type BitsRef, refOf } from '../../projections/bits.ts'
import { decodeBits, encodeBits } from '../../projections/bits-codec.ts'
import { messageOf } from '../errors.ts'
import { deadlyTable, markTables } from '../log/table-check.ts'
import { viewOf } from './derived-view.ts'

/** What both databases can do. Their own types differ only in how they spell optional options. */
type Db = AbstractLevel<string, string, Uint8Array>

interface Range {
  readonly gte: string
  readonly lt: string
  readonly reverse?: boolean
  readonly limit?: number
}

/** Sorts like the numbers do. */
function snapshotKey(position: number): string {
  return `s${position.toString().padStart(16, '0')}`
}

/** Values with names of their own: readers' cursors, and states of projections. */
export type NamedKind = 'k' | 'p'

function checked(bytes: Uint8Array): Uint8Array {
  const value = new Uint8Array(bytes.length + 4)
  new DataView(value.buffer).setUint32(0, crc32(bytes), true)
  value.set(bytes, 4)
  return value
}

function unchecked(value: Uint8Array): Uint8Array | undefined {
  if (value.length < 4) return undefined
  const bytes = value.slice(4)
  return new DataView(value.buffer, value.byteOffset).getUint32(0, true) === crc32(bytes) ? bytes : undefined
}

function marksOf(folder: string): string {
  return `${folder}.checked`
}

export class DerivedMissing extends Error {
  constructor(readonly ref: string) {
    super(`derived value ${ref} is missing or damaged`)
  }
}

export class Derived {
  readonly #db: Db
  /** What was found missing or damaged since opening, in words. */
  readonly rebuilt: string[] = []
  readonly #lost = new Set<string>()
  #unlisted: string | null = null

  /** Where it is noted which tables need no check at the next open; null in memory. */
  readonly #folder: string | null

  private constructor(db: Db, folder: string | null) {
    this.#db = db
    this.#folder = folder
  }

  /**
   * Opens the folder; one that LevelDB cannot open is made anew, since all of it can be derived again. `expected`: one that
   * is not there went missing, which is told. Snapshots from position `beyond` on are of a future that the log does not have
   * (it was cut after a power failure): they go, and where they cannot go, everything does.
   */
  static async open(
    folder: string | null,
    expected = false,
    beyond = Number.MAX_SAFE_INTEGER,
  ): Promise<Derived> {
    if (folder === null) {
      const db = new MemoryLevel<string, Uint8Array>({ valueEncoding: 'view' })
      await db.open()
      return new Derived(db as unknown as Db, null)
    }
    // Bits are packed already, so LevelDB's compression has nothing to gain.
    const options = { valueEncoding: 'view', compression: false } as const
    const missing = expected && !existsSync(folder)
    const table = deadlyTable(folder, marksOf(folder))
    if (table !== undefined) return await Derived.#anew(folder, options, `${table.name}: ${table.why}`)
    const db = new Level<string, Uint8Array>(folder, options)
    try {
      await db.open()
      const derived = new Derived(db as unknown as Db, folder)
      await derived.#dropSnapshotsFrom(beyond)
      if (missing) derived.rebuilt.push('the folder of derived values was missing and was made anew')
      return derived
    } catch (cause) {
      await db.close()
      return await Derived.#anew(folder, options, String((cause as Error).cause ?? cause))
    }
  }

  static async #anew(
    folder: string,
    options: { readonly valueEncoding: 'view'; readonly compression: boolean },
    why: string,
  ): Promise<Derived> {
    await rm(folder, { recursive: true, force: true })
    const fresh = new Level<string, Uint8Array>(folder, options)
    await fresh.open()
    const derived = new Derived(fresh as unknown as Db, folder)
    derived.rebuilt.push(`the folder of derived values could not be opened and was made anew (${why})`)
    return derived
  }

  async putBits(bitmap: DirtyBitmap): Promise<BitsRef> {
    // Encoded before the first wait: the bitmap may change once the caller goes on.
    const ref = refOf(bitmap)
    const bytes = encodeBits(bitmap)
    const key = `b${ref}`
    if (!(await this.#db.has(key))) await this.#db.put(key, bytes)
    this.found(ref)
    return ref
  }

  /** Throws DerivedMissing when there is no such value, or it does not have the digest that names it. */
  async bits(ref: BitsRef): Promise<DirtyBitmap> {
    const value = await this.#get(`b${ref}`)
    if (value !== undefined) {
      try {
        const bitmap = decodeBits(value)
        if (refOf(bitmap) === ref) return bitmap
      } catch {
        // Falls through: damaged is the same as missing.
      }
      await this.#db.del(`b${ref}`)
    }
    this.rebuilt.push(`bits ${ref} were ${value === undefined ? 'missing' : 'damaged'}`)
    this.lost(ref)
    throw new DerivedMissing(ref)
  }

  async putSnapshot(position: number, bytes: Uint8Array): Promise<void> {
    const value = new Uint8Array(bytes.length + 4)
    new DataView(value.buffer).setUint32(0, crc32(bytes), true)
    value.set(bytes, 4)
    await this.#db.put(snapshotKey(position), value)
    if (this.#folder !== null) markTables(this.#folder, marksOf(this.#folder)) // So that an open after a kill reads little.
  }

  /** The newest snapshot at or before `position` that is whole. */
  async snapshotAtMost(position: number): Promise<{ position: number; bytes: Uint8Array } | undefined> {
    if (position < 0) return undefined
    try {
      for await (const key of this.#db.keys({ lte: snapshotKey(position), gte: 's', reverse: true })) {
        const bytes = await this.snapshot(Number(key.slice(1)))
        if (bytes !== undefined) return { position: Number(key.slice(1)), bytes }
      }
    } catch (error) {
      this.#unlisted = messageOf(error)
    }
    return undefined
  }

  /** A snapshot's bytes, or undefined when there is none or it is damaged (then it is dropped). */
  async snapshot(position: number): Promise<Uint8Array | undefined> {
    const value = await this.#get(snapshotKey(position))
    if (value === undefined) return undefined
    const bytes = value.subarray(4)
    if (value.length >= 4 && new DataView(value.buffer, value.byteOffset).getUint32(0, true) === crc32(bytes))
      return bytes.slice()
    await this.dropSnapshot(position)
    this.rebuilt.push(`the snapshot at position ${position} was damaged`)
    return undefined
  }

  async snapshots(): Promise<number[]> {
    const keys = await this.#list({ gte: 's', lt: 't' })
    return keys.map((key) => Number(key.slice(1)))
  }

  async dropSnapshot(position: number): Promise<void> {
    await this.#db.del(snapshotKey(position))
  }

  async #dropSnapshotsFrom(position: number): Promise<void> {
    const keys = await this.#db.keys({ gte: snapshotKey(position), lt: 't' }).all()
    if (keys.length === 0) return
    // Synced: the log will grow past these positions, and a power cut must not bring them back. Only Level knows the option.
    const synced = { sync: true } as AbstractBatchOptions<string, Uint8Array>
    await this.#db.batch(
      keys.map((key) => ({ type: 'del', key }) as const),
      synced,
    )
  }

  /** Keeps `bytes` under a name, with a checksum. Kinds: `k` cursors, `p` projections. One put: whole or not at all. */
  async putNamed(kind: NamedKind, name: string, bytes: Uint8Array): Promise<void> {
    await this.#db.put(`${kind}${name}`, checked(bytes))
  }

  /** What is kept under a name; `damaged`: it failed its check, so it was dropped and is reported. */
  async named(kind: NamedKind, name: string): Promise<Uint8Array | 'damaged' | undefined> {
    const key = `${kind}${name}`
    const value = await this.#get(key)
    if (value === undefined) return undefined
    const bytes = unchecked(value)
    if (bytes !== undefined) return bytes
    await this.#db.del(key)
    this.rebuilt.push(`${kind === 'k' ? 'cursor' : 'projection'} "${name}" was damaged`)
    return 'damaged'
  }

  async names(kind: NamedKind): Promise<string[]> {
    const keys = await this.#list({ gte: kind, lt: String.fromCharCode(kind.charCodeAt(0) + 1) })
    return keys.map((key) => key.slice(1))
  }

  async dropNamed(kind: NamedKind, name: string): Promise<void> {
    await this.#db.del(`${kind}${name}`)
  }

  async refs(): Promise<BitsRef[]> {
    const keys = await this.#list({ gte: 'b', lt: 'c' })
    return keys.map((key) => key.slice(1))
  }

  async dropBits(refs: readonly BitsRef[]): Promise<void> {
    await this.#db.batch(refs.map((ref) => ({ type: 'del', key: `b${ref}` }) as const))
  }

  /** Every key and value as stored, for a copy of the store. What LevelDB cannot read ends it early. */
  async *stored(): AsyncGenerator<readonly [string, Uint8Array]> {
    try {
      yield* this.#db.iterator()
    } catch {
      // A damaged block: the copy derives it anew, as this store would.
    }
  }

  /** Drops everything that follows from the log; readers' cursors stay. For a log that was repaired (R28). */
  async dropDerived(): Promise<void> {
    for (const range of [{ lt: 'k' }, { gte: 'l' }]) await this.#db.clear(range)
  }

  /** A value that others may refer to turned out missing or damaged: what is stored from now on must not count on it. */
  lost(name: string): void {
    this.#lost.add(name)
  }

  /** It is there, perhaps again. */
  found(name: string): void {
    this.#lost.delete(name)
  }

  isLost(name: string): boolean {
    return this.#lost.has(name)
  }

  /** A value of the span index or a page, as it is stored: who reads it checks it. Undefined: missing, or unreadable. */
  async value(key: string): Promise<Uint8Array | undefined> {
    return await this.#get(key)
  }

  async has(key: string): Promise<boolean> {
    return await this.#db.has(key)
  }

  /** All of it, or nothing. */
  async write(
    puts: readonly (readonly [key: string, value: Uint8Array])[],
    drops: readonly string[] = [],
  ): Promise<void> {
    await this.#db.batch([
      ...drops.map((key) => ({ type: 'del', key }) as const),
      ...puts.map(([key, value]) => ({ type: 'put', key, value }) as const),
    ])
  }

  /** Keys from `from` to `to` (exclusive). */
  keys(from: string, to: string): Promise<string[]> {
    return this.#list({ gte: from, lt: to })
  }

  async lastKey(from: string, to: string): Promise<string | undefined> {
    return (await this.#list({ gte: from, lt: to, reverse: true, limit: 1 }))[0]
  }

  /** Why keys could not be listed since opening; null: they could. */
  get unlisted(): string | null {
    return this.#unlisted
  }

  /** Small values only. */
  async entries(from: string, to: string): Promise<[string, Uint8Array][]> {
    return await this.#db
      .iterator({ gte: from, lt: to })
      .all()
      .catch((error: unknown) => {
        this.#unlisted = messageOf(error)
        return []
      })
  }

  /** What is stored now, for a look that may not change it: what is put beside it goes to `top`, which is closed with the view. */
  view(top: Derived): Derived {
    return new Derived(viewOf(this.#db, top.#db), null)
  }

  async close(): Promise<void> {
    await this.#db.close()
    if (this.#folder !== null) markTables(this.#folder, marksOf(this.#folder))
  }

  /** None where LevelDB cannot read them: the same as missing. */
  async #list(range: Range): Promise<string[]> {
    try {
      return await this.#db.keys(range).all()
    } catch (error) {
      this.#unlisted = messageOf(error)
      return []
    }
  }

  async #get(key: string): Promise<Uint8Array | undefined> {
    try {
      return await this.#db.get(key)
    } catch {
      return undefined // A block that LevelDB cannot read: the same as missing.
    }
  }
}
