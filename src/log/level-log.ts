/**
 * The log on LevelDB: one batch an append, one key a record (or pack), a head file beside it. Opened by level-open.ts.
 *
 * What LevelDB does not do is done here: order (one batch at a time), sync across its write-ahead files (wal-sync.ts), and
 * telling that something is missing (head-file.ts). Small records are joined in the background (repack.ts).
 */
import { setImmediate as breathe } from 'node:timers/promises'
import { EMPTY_HASH, type EncodedRecord, readHeader } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import { BaseLog, type OpenSource } from './base-log.ts'
import { aborted, headerOf } from './entries.ts'
import type { LogHead } from './event-log.ts'
import { type AuditedLog, FrozenLog } from './frozen-log.ts'
import type { HeadFile } from './head-file.ts'
import { commandKey, eventKey, FAR, FARTHER, positionBytes, positionOf, REPACK_KEY } from './keys.ts'
import { type Database, LevelSource, levelFailure, type RawEntries } from './level-source.ts'
import { removeOwner } from './owner.ts'
import { Reclaimer } from './reclaim.ts'
import { Packer, type Replacement, SMALL_EVENTS } from './repack.ts'
import type { Splice } from './splice.ts'
import { type Put, Staging } from './staging.ts'
import { markTables } from './table-check.ts'
import type { WalSync } from './wal-sync.ts'

/** Bytes appended between two looks at which tables there are: 16 MiB are checked in a twentieth of a second. */
const MARK_BYTES = 16 * 1024 * 1024

/** With the encodings that the database has anyway: without them every put would copy its options. */
const UNSYNCED_PUT = { sync: false, keyEncoding: 'view', valueEncoding: 'view' } as const
const SYNCED_PUT = { ...UNSYNCED_PUT, sync: true } as const

export interface LevelParts {
  readonly db: Database
  /** Absent: opened to inspect, nothing is written. */
  readonly headFile?: HeadFile
  readonly wal: WalSync
  readonly ownerFile: string
  /** Where it is noted which tables need no check at the next open. */
  readonly marks: string
  /** Called once the database is closed. */
  readonly closed: () => void
  /** Small values after which they are joined in the background; Infinity: only when asked. */
  readonly repackEvery: number
}

interface Repacked {
  readonly before: number
  readonly after: number
}

type Operation = Put | { readonly type: 'del'; readonly key: Uint8Array }

export class LevelEventLog extends BaseLog implements AuditedLog {
  readonly #parts: LevelParts
  #unsynced = false
  #appended = false
  #unmarked = 0
  #small = 0
  #repacking: Promise<Repacked> | undefined
  /** Whoever replaces stored values does so alone; how often runs did, so that a repack sees that it looks at what is gone. */
  #replacing: Promise<unknown> = Promise.resolve()
  #splices = 0
  /** Values before it lie in tables. */
  #inTables: number
  readonly #reclaimer: Reclaimer
  readonly #staging: Staging
  #closing = false

  constructor(parts: LevelParts, head: LogHead, synced: LogHead) {
    super(head, synced)
    this.#parts = parts
    this.#inTables = head.next
    this.#reclaimer = new Reclaimer(parts.db)
    this.#staging = new Staging(
      parts.wal.folder,
      () => this.head.next,
      (values) => this.#putStaged(values),
    )
  }

  /** Of all that is acknowledged. */
  async #view(): Promise<LevelSource> {
    await this.#staging.drained()
    const view = new LevelSource(this.#parts.db, () => this.#reclaimer.viewReleased())
    this.#reclaimer.viewOpened()
    return view
  }

  protected override async source(): Promise<OpenSource> {
    try {
      return await this.#view()
    } catch (error) {
      throw levelFailure(error)
    }
  }

  /**
   * What is stored now, and a head that all of it up to there belongs to: taken while nothing is replaced, so no pack reaches
   * beyond the head, and every run is vouched for at or before it. Release it, or the space of what is replaced is not given back.
   * Throws STORE_CLOSED.
   */
  frozen(): Promise<{ readonly source: LevelSource; readonly head: LogHead }> {
    // In the order in which an append that replaces values waits for the two.
    return this.betweenAppends(() =>
      this.withValuesStill(async () => {
        try {
          return { source: await this.#view(), head: this.head }
        } catch (error) {
          throw levelFailure(error)
        }
      }),
    )
  }

  /**
   * The log as it is between two appends, when the head file says just what it holds. `beside` is called in the same turn.
   * Throws STORE_CLOSED.
   */
  moment<T>(beside: () => T): Promise<{ readonly log: FrozenLog; readonly beside: T }> {
    return this.betweenAppends(async () => {
      try {
        const source = await this.#view()
        return { log: new FrozenLog(source, this.head, this.syncedHead), beside: beside() }
      } catch (error) {
        throw levelFailure(error)
      }
    })
  }

  protected override async store(
    records: readonly EncodedRecord[],
    head: LogHead,
    synced: LogHead,
    sync: boolean,
    splice: Splice | undefined,
  ): Promise<void> {
    const { headFile } = this.#parts
    if (headFile === undefined)
      throw new CheckpointError('STORE_CLOSED', 'the log was opened to be inspected only')
    if (!sync && splice === undefined && (await this.#staging.take(records))) {
      headFile.write(head, synced)
      return
    }
    const spliced = splice === undefined ? [] : await this.#spliced(splice)
    const appended = records.flatMap(({ first, bytes, commandId }): Put[] => [
      { type: 'put', key: eventKey(first), value: bytes },
      ...(commandId === undefined
        ? []
        : [{ type: 'put' as const, key: commandKey(commandId), value: positionBytes(first) }]),
    ])
    for (const { count } of records) if (count < SMALL_EVENTS) this.#small++
    await this.#staging.along((staged) => this.#putNow([...staged, ...spliced, ...appended], sync))
    if (this.#staging.isQuick) headFile.write(head, synced)
    else await headFile.writeBeside(head, synced)
  }

  async #putNow(operations: Operation[], sync: boolean): Promise<void> {
    const { db, wal } = this.#parts
    if (sync) await wal.before(this.#unsynced || operations.length === 0)
    this.#unsynced = !sync
    this.#appended = true
    const [only] = operations
    // One record and nothing else: a put costs LevelDB the same, and its wrapper half.
    if (operations.length === 1 && only!.type === 'put')
      await db.put(only!.key, only!.value, sync ? SYNCED_PUT : UNSYNCED_PUT)
    else if (operations.length > 0) await db.batch(operations, { sync })
    if (sync) await wal.after()
    this.#grown(operations)
  }

  async #putStaged(values: Put[]): Promise<void> {
    this.#unsynced = true
    this.#appended = true
    this.#small += values.length
    await this.#parts.db.batch(values, { sync: false })
    this.#grown(values)
  }

  #grown(operations: readonly Operation[]): void {
    for (const operation of operations) if (operation.type === 'put') this.#unmarked += operation.value.length
    if (this.#unmarked >= MARK_BYTES) this.#mark()
    if (this.#small >= this.#parts.repackEvery && this.#repacking === undefined) this.#repackInBackground()
  }

  protected override withValuesStill<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#replacing.then(work)
    this.#replacing = done.catch(() => undefined)
    return done
  }

  /** Deletions first: a key that goes and comes back is put after them, and LevelDB takes a batch in order. */
  async #spliced({ removed, added }: Splice): Promise<Operation[]> {
    this.#splices++
    if (removed.some((position) => position >= this.#inTables)) await this.#intoTables()
    const operations: Operation[] = [
      ...removed.map((position) => ({ type: 'del' as const, key: eventKey(position) })),
      ...added.map(({ position, value }) => ({ type: 'put' as const, key: eventKey(position), value })),
    ]
    // A repack goes on where a value begins; one that would have begun inside a run goes on behind it.
    const stored = await this.#parts.db.get(REPACK_KEY)
    const cursor = stored && positionOf(stored)
    for (const { position, value } of added) {
      const end = position + readHeader(value).count
      if (cursor !== undefined && position < cursor && cursor < end)
        operations.push({ type: 'put', key: REPACK_KEY, value: positionBytes(end) })
    }
    return operations
  }

  /** What is deleted while it is still in memory is written out with its deletion, both into one table that nothing merges any more. */
  async #intoTables(): Promise<void> {
    const { next } = this.head
    await this.#staging.drained()
    await this.#parts.db.compactRange(FAR, FARTHER)
    this.#inTables = next
  }

  protected override async reclaimSome(from: number, to: number): Promise<void> {
    try {
      await this.#reclaimer.reclaim(from, to)
    } catch (error) {
      throw levelFailure(error)
    }
  }

  protected override async indexedPosition(commandId: string): Promise<number | undefined> {
    try {
      const value = await this.#parts.db.get(commandKey(commandId))
      return value && positionOf(value)
    } catch (error) {
      throw levelFailure(error)
    }
  }

  /** So that an open after a kill reads at most what was written since, whatever the log's size. */
  #mark(): void {
    this.#unmarked = 0
    markTables(this.#parts.wal.folder, this.#parts.marks)
  }

  #repackInBackground(): void {
    // Damage met here is left to whoever reads the place; a failed write is met again by the next append.
    this.repackSome().catch(() => {
      this.#small = Number.NEGATIVE_INFINITY
    })
  }

  protected override async repackSome(signal?: AbortSignal): Promise<Repacked> {
    while (this.#repacking !== undefined) await this.#repacking.catch(() => undefined)
    this.#small = 0
    this.#repacking = this.#repack(signal)
    try {
      return await this.#repacking
    } catch (error) {
      throw levelFailure(error)
    } finally {
      this.#repacking = undefined
    }
  }

  async #repack(signal: AbortSignal | undefined): Promise<Repacked> {
    // A splice that has begun and is not stored yet is in no view, and in the count already: what is seen then is gone soon.
    const { source, head, splices } = await this.withValuesStill(async () => {
      const { head } = this
      return { source: await this.#view(), head, splices: this.#splices }
    })
    const to = head.next - 1
    let from = 0
    let before = 0
    let saved = 0
    try {
      const { cursor, previous } = await this.#repackStart(source)
      if (cursor > to) return { before: 0, after: 0 }
      if (to >= this.#inTables) await this.#intoTables()
      from = cursor
      const packer = new Packer(previous, cursor)
      for await (const entries of source.entries(cursor, to, false)) {
        for (const entry of entries) {
          if (signal?.aborted === true) throw aborted(signal)
          if (this.failed || splices !== this.#splices) return { before, after: before - saved }
          before++
          saved += await this.#replace(packer.add(entry), packer.cursor, splices)
        }
      }
      saved += await this.#replace(packer.flush(), packer.cursor, splices)
    } finally {
      await source.release()
    }
    // The replaced values fill the tables until they are compacted, which a snapshot would prevent: ours is released.
    if (saved > 0 && !this.failed) await this.#parts.db.compactRange(eventKey(from), eventKey(to))
    return { before, after: before - saved }
  }

  /** The stored cursor, if it still is a boundary between two values; else the start. */
  async #repackStart(source: LevelSource): Promise<{ cursor: number; previous: Uint8Array }> {
    const stored = await this.#parts.db.get(REPACK_KEY)
    const cursor = (stored && positionOf(stored)) ?? 0
    const before = cursor === 0 ? undefined : await source.floor(cursor - 1)
    if (before === undefined) return { cursor: 0, previous: EMPTY_HASH }
    const { first, count, hash } = headerOf(before)
    return first + count === cursor ? { cursor, previous: hash } : { cursor: 0, previous: EMPTY_HASH }
  }

  /** One atomic batch: the pack in, what it holds out, the cursor on. Returns how many values that saved. */
  async #replace(replacement: Replacement | undefined, cursor: number, splices: number): Promise<number> {
    if (replacement === undefined) return 0
    const [head, ...others] = replacement.entries
    const operations: Operation[] = [
      { type: 'put', key: eventKey(head!.position), value: replacement.pack },
      ...others.map(({ position }) => ({ type: 'del' as const, key: eventKey(position) })),
      { type: 'put', key: REPACK_KEY, value: positionBytes(cursor) },
    ]
    // Unsynced on purpose: losing the batch leaves what it would have replaced.
    const replaced = await this.withValuesStill(async () => {
      if (splices !== this.#splices) return false
      await this.#parts.db.batch(operations, { sync: false })
      return true
    })
    this.#appended = true
    if (!this.#closing) await breathe()
    return replaced ? others.length : 0
  }

  async *rawEntries(from = 0): RawEntries {
    const source = await this.#view()
    try {
      yield* source.rawEntries(from)
    } finally {
      await source.release()
    }
  }

  async startOfValue(position: number): Promise<number | undefined> {
    const source = await this.#view()
    try {
      return (await source.floor(position))?.position
    } finally {
      await source.release()
    }
  }

  protected override async release(): Promise<void> {
    this.#closing = true
    const { db, headFile, ownerFile } = this.#parts
    try {
      await this.#repacking?.catch(() => undefined)
      await this.#reclaimer.end(headFile !== undefined && !this.failed)
      if (headFile !== undefined && !this.failed) await this.#endCleanly(headFile)
    } finally {
      try {
        await this.#staging.close()
        headFile?.close()
        removeOwner(ownerFile)
      } finally {
        try {
          await db.close()
          if (headFile !== undefined && !this.failed) this.#mark()
        } finally {
          this.#parts.closed()
        }
      }
    }
  }

  /** After this nothing is left in a write-ahead file: everything is in synced tables, compressed. */
  async #endCleanly(headFile: HeadFile): Promise<void> {
    await this.#staging.drained()
    if (this.#small > 0) await this.repackSome().catch(() => undefined)
    // Compacting a range that holds nothing only writes out what is in memory.
    if (this.#appended) await this.#parts.db.compactRange(FAR, FARTHER)
    headFile.write(this.head, this.head, 'closed')
    headFile.sync()
    this.#staging.remove()
  }
}
