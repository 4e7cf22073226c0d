/**
 * The repaired log, written beside the damaged one: what was kept byte for byte, gaps where records were lost, the index of
 * command ids made anew, and at its end the record that tells it all (R28). Cost: one write of the log, in batches.
 */
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { decodeStored, EMPTY_HASH, encodeEvents, encodeGap, ownHash } from '../../events/record.ts'
import type { CompactedRun, DomainEvent, Point, RepairedGap } from '../../events/types.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { CheckpointError } from '../errors.ts'
import { aborted } from '../log/entries.ts'
import type { LogHead } from '../log/event-log.ts'
import { HeadFile } from '../log/head-file.ts'
import { commandKey, eventKey, FAR, FARTHER, positionBytes } from '../log/keys.ts'
import { openLevelLog } from '../log/level-open.ts'
import { type Database, database } from '../log/level-source.ts'
import type { Lost, Piece } from './repair-choose.ts'

const BATCH_BYTES = 2 * 1024 * 1024

/** A stretch of positions whose records are gone. */
export interface LostRecords {
  readonly first: number
  readonly last: number
  /** The last event before it. */
  readonly from: Point
  readonly why: readonly string[]
}

export interface Written {
  readonly head: LogHead
  readonly lost: readonly LostRecords[]
  readonly gaps: readonly RepairedGap[]
  /** Gaps that earlier repairs left, in `gaps` as well. */
  readonly earlier: readonly EarlierGap[]
  /** Every run of windows that was kept, as this repair vouches for it. */
  readonly runs: readonly CompactedRun[]
  readonly values: number
  /** Values that a reader would not have found: older versions that fit, or what lay in the wrong place. */
  readonly restored: number
}

export interface EarlierGap {
  readonly first: number
  readonly last: number
  readonly from: Point
}

const hex = (hash: Uint8Array) => Buffer.from(hash).toString('hex')

/** Gives every stored value of the repaired log, in order; gaps joined, with the times of their neighbours. */
export class Repaired {
  readonly lost: LostRecords[] = []
  readonly gaps: RepairedGap[] = []
  readonly earlier: EarlierGap[] = []
  readonly runs: CompactedRun[] = []
  restored = 0
  values = 0
  head: LogHead = { next: 0, time: null, hash: EMPTY_HASH }
  #open: Lost | undefined
  #earlier: RepairedGap | undefined;

  /** Values to store now, each under its position. */
  *add(piece: Piece): Generator<{ readonly position: number; readonly value: Uint8Array }> {
    if (piece.kind === 'lost') {
      const { hash, last } = piece
      this.#open =
        this.#open === undefined
          ? piece
          : { ...this.#open, last, hash, why: [...this.#open.why, ...piece.why] }
      return
    }
    const { first, count, time, lastTime, hash, layout } = piece.header
    yield* this.#gap(time, hash)
    this.#vouchAgain(hash)
    if (layout === 'run') this.#run(piece.value, first, first + count - 1, hash)
    this.values++
    if (piece.restored) this.restored++
    this.head = { next: first + count, time: lastTime, hash }
    yield { position: first, value: piece.value }
  }

  /** What vouched for it may be lost by now, or speak of what an older version took the place of: it is told again. */
  #run(value: Uint8Array, first: number, last: number, hash: Uint8Array): void {
    const before = hex(this.head.hash)
    if (decodeStored(value)[0]?.kind === 'gap') {
      this.#earlier = { first, last, before, next: '' }
      this.earlier.push({ first, last, from: { position: first - 1, time: this.head.time } })
    } else this.runs.push({ first, last, before, after: hex(hash), own: hex(ownHash(value)) })
  }

  get written(): Written {
    const { head, lost, gaps, earlier, runs, values, restored } = this
    return { head, lost, gaps, earlier, runs, values, restored }
  }

  /** `time`: of the head that the log must reach, when it is lost at its end. */
  *end(time: number | null): Generator<{ readonly position: number; readonly value: Uint8Array }> {
    yield* this.#gap(time, null)
    this.#vouchAgain(null)
  }

  /** A gap of an earlier repair: what told it may be lost by now, so it is told again. */
  #vouchAgain(next: Uint8Array | null): void {
    if (this.#earlier !== undefined)
      this.gaps.push({ ...this.#earlier, next: next === null ? '' : hex(next) })
    this.#earlier = undefined
  }

  *#gap(nextTime: number | null, next: Uint8Array | null) {
    const open = this.#open
    if (open === undefined) return
    this.#open = undefined
    const { first, last, hash, why } = open
    const from: Point = { position: first - 1, time: this.head.time }
    const start = this.head.time ?? nextTime ?? 0
    const end = Math.max(start, nextTime ?? start)
    const count = last + 1 - first
    this.#vouchAgain(hash ?? EMPTY_HASH)
    this.gaps.push({ first, last, before: hex(this.head.hash), next: next === null ? '' : hex(next) })
    this.lost.push({ first, last, from, why: [...new Set(why)] })
    const value = encodeGap(first, count, start, end, hash ?? EMPTY_HASH)
    this.head = { next: last + 1, time: end, hash: hash ?? EMPTY_HASH }
    yield { position: first, value }
  }
}

export interface WriteTarget {
  readonly folder: string
  readonly headFile: string
  /** Of the repair's own, for what an open needs. */
  readonly scratch: string
  readonly bootId: Uint8Array
}

/** Writes the pieces into a new log, and its head file. Nothing of the store is touched. */
export async function writePieces(
  pieces: AsyncIterable<Piece>,
  target: WriteTarget,
  endTime: number | null,
  options: {
    readonly signal?: AbortSignal | undefined
    readonly onProgress?: ((position: number) => void) | undefined
  },
): Promise<Written> {
  await rm(target.folder, { recursive: true, force: true })
  await rm(target.headFile, { force: true })
  await mkdir(target.folder, { recursive: true })
  const repaired = new Repaired()
  const db = database(target.folder)
  await db.open({ createIfMissing: true, errorIfExists: true })
  try {
    const writer = new BatchWriter(db)
    for await (const piece of pieces) {
      if (options.signal?.aborted === true) throw aborted(options.signal)
      for (const entry of repaired.add(piece)) await writer.put(entry)
      options.onProgress?.(repaired.head.next)
    }
    for (const entry of repaired.end(endTime)) await writer.put(entry)
    await writer.flush()
    await db.compactRange(FAR, FARTHER)
  } finally {
    await db.close()
  }
  const headFile = new HeadFile(target.headFile, target.bootId, { kind: 'missing' })
  headFile.write(repaired.head, repaired.head, 'closed')
  headFile.sync()
  headFile.close()
  return repaired.written
}

class BatchWriter {
  #operations: { type: 'put'; key: Uint8Array; value: Uint8Array }[] = []
  #bytes = 0

  constructor(readonly db: Database) {}

  async put({ position, value }: { readonly position: number; readonly value: Uint8Array }): Promise<void> {
    this.#operations.push({ type: 'put', key: eventKey(position), value })
    for (const record of decodeStored(value)) {
      if (record.kind !== 'events' || record.meta.commandId === undefined) continue
      const key = commandKey(record.meta.commandId)
      this.#operations.push({ type: 'put', key, value: positionBytes(record.first) })
    }
    this.#bytes += value.length
    if (this.#bytes >= BATCH_BYTES) await this.flush()
  }

  async flush(): Promise<void> {
    if (this.#operations.length > 0) await this.db.batch(this.#operations)
    this.#operations = []
    this.#bytes = 0
  }
}

/**
 * What tells the repair: the gaps, the runs that stay, and for each disk the stretch since the first damage that it met. `since`:
 * from where on something may be missing although no position is, because nothing says any more how far the log went.
 */
export function eventsOfRepair(
  catalog: Catalog,
  { lost, gaps, earlier, runs }: Pick<Written, 'lost' | 'gaps' | 'earlier' | 'runs'>,
  kept: string,
  since: Point | null,
): DomainEvent[] {
  const reason = 'the log was damaged, and records of writes may have gone with what the repair took out'
  const stretches = [...catalog.disks()].flatMap((disk): DomainEvent[] => {
    // What told the stretch of an earlier gap may be lost by now.
    const untold = earlier.filter(
      ({ first, last }) => !disk.lost.some(({ from, to }) => from.position < first && last <= to.position),
    )
    const froms = [...lost, ...untold].filter(({ first }) => first > disk.number).map(({ from }) => from)
    const from = froms.sort((a, b) => a.position - b.position)[0] ?? since
    return from === null ? [] : [{ type: 'stretch-lost', disk: disk.id, from, reason }]
  })
  const vouched: DomainEvent[] = runs.length === 0 ? [] : [{ type: 'log-compacted', runs }]
  return [{ type: 'log-repaired', gaps, kept }, ...vouched, ...stretches]
}

/** Appends the record of the repair to the log that `writePieces` made, synced, and closes it. */
export async function tellRepair(
  target: WriteTarget,
  events: readonly DomainEvent[],
  cause: { readonly time: number; readonly actor: string | undefined },
): Promise<LogHead> {
  const { log } = await openLevelLog({
    folder: target.folder,
    headFile: target.headFile,
    asideFolder: join(target.scratch, 'aside'),
    ownerFile: join(target.scratch, 'owner.json'),
    bootId: target.bootId,
    createIfMissing: false,
  })
  try {
    const { next, time, hash } = log.head
    const meta = { command: 'repair', ...(cause.actor === undefined ? {} : { actor: cause.actor }) }
    const record = encodeEvents(next, Math.max(cause.time, time ?? 0), meta, events, hash)
    return await log.append([record], { expected: next, sync: true })
  } catch (error) {
    if (error instanceof CheckpointError) throw error
    throw new CheckpointError(
      'IO_FAILED',
      `writing the repaired log failed: ${(error as Error).message}`,
      {},
      error,
    )
  } finally {
    await log.close()
  }
}
