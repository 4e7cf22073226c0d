/**
 * Where a small record goes first: one positional write into a file that has its size already, and the record survives the death
 * of the process (R30, level `process`). LevelDB gets it some ten milliseconds later, with all that came meanwhile and joined with
 * them (staging.ts). A write to LevelDB is a trip to the thread pool and back, ten times this; at queue depth 1 that trip was
 * most of what a tracked write cost.
 *
 *     file  = frame … , then whatever an older generation left
 *     frame = length:u32le | stored value (events/frame.ts)
 *
 * A frame is believed if its value's checksum is right; it is taken into the log again if the chain goes on with it, which no
 * frame of an older generation can. Nothing here survives a power cut by promise: synced records go to LevelDB at once.
 */
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { checkHeader, type EncodedRecord, hashesOf } from '../../events/record.ts'
import { EMPTY_HEAD, sameHash } from './base-log.ts'
import { headerOf, type StoredEntry } from './entries.ts'
import type { LogHead } from './event-log.ts'
import { eventKey } from './keys.ts'
import { type Database, LevelSource } from './level-source.ts'
import { Pace } from './pace.ts'

/** In LevelDB's folder, which leaves names alone that are not its own: it goes where the log goes. */
const JOURNAL_NAME = 'journal'
const JOURNAL_BYTES = 1024 * 1024
const LENGTH_BYTES = 4

export function journalPath(folder: string): string {
  return join(folder, JOURNAL_NAME)
}

export class Journal {
  readonly #path: string
  readonly #pace = new Pace()
  #descriptor: number | null = null
  #at = 0

  constructor(folder: string) {
    this.#path = journalPath(folder)
  }

  /** While the file system lets even such writes wait, LevelDB's thread is the better place. */
  get isQuick(): boolean {
    return this.#pace.isQuick
  }

  /** Whether they fit behind what is there. */
  hasRoom(records: readonly EncodedRecord[]): boolean {
    return this.#at + framed(records) <= JOURNAL_BYTES
  }

  /** Written when it returns. Throws what the file system throws: then nothing of it may be acknowledged. */
  append(records: readonly EncodedRecord[]): void {
    const frames = Buffer.allocUnsafe(framed(records))
    let at = 0
    for (const { bytes } of records) {
      at = frames.writeUInt32LE(bytes.length, at)
      frames.set(bytes, at)
      at += bytes.length
    }
    this.#descriptor ??= this.#make()
    const written = this.#pace.run(() => writeSync(this.#descriptor!, frames, 0, at, this.#at))
    if (written !== at) throw new Error(`wrote ${written} of ${at} bytes of the journal`)
    this.#at += at
  }

  /** Everything in it is in LevelDB: the next frame takes the first one's place. */
  restart(): void {
    this.#at = 0
  }

  close(): void {
    if (this.#descriptor !== null) closeSync(this.#descriptor)
    this.#descriptor = null
  }

  /** Of a log that is closed: LevelDB has everything. */
  remove(): void {
    this.close()
    rmSync(this.#path, { force: true })
  }

  /** At its full size from the start: a write that lengthens a file costs the file system several times as much. */
  #make(): number {
    const descriptor = openSync(this.#path, 'w+')
    try {
      writeSync(descriptor, Buffer.alloc(JOURNAL_BYTES), 0, JOURNAL_BYTES, 0)
      return descriptor
    } catch (error) {
      closeSync(descriptor)
      throw error
    }
  }
}

function framed(records: readonly EncodedRecord[]): number {
  let bytes = 0
  for (const record of records) bytes += LENGTH_BYTES + record.bytes.length
  return bytes
}

/** The values of all frames that are whole, in the file's order; none where there is no such file. */
export function readJournal(folder: string): StoredEntry[] {
  let file: Buffer
  try {
    file = readFileSync(journalPath(folder))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  const entries: StoredEntry[] = []
  for (let at = 0; at + LENGTH_BYTES < file.length; ) {
    const end = at + LENGTH_BYTES + file.readUInt32LE(at)
    if (end > file.length) break
    const value = new Uint8Array(file.subarray(at + LENGTH_BYTES, end))
    const first = firstOf(value)
    if (first === null) break
    entries.push({ position: first, value })
    at = end
  }
  return entries
}

/** Null for what is no stored value under a right checksum. */
function firstOf(value: Uint8Array): number | null {
  try {
    return checkHeader(value).first
  } catch {
    return null
  }
}

/**
 * After an end of the process: what the journal has and LevelDB does not, where the chain goes on with it, is put there, synced.
 * Returns the bytes of it.
 */
export async function takeFromJournal(db: Database, folder: string): Promise<number> {
  const entries = readJournal(folder)
  let head = entries.length === 0 ? null : await headOf(db)
  if (head === null) return 0 // Nothing there; or damage, which whoever opens finds and names.
  let bytes = 0
  const taken: { type: 'put'; key: Uint8Array; value: Uint8Array }[] = []
  for (const { position, value } of entries) {
    if (position < head.next) continue
    const after: LogHead | null = position === head.next ? continued(head, value) : null
    if (after === null) break
    head = after
    bytes += value.length
    taken.push({ type: 'put', key: eventKey(position), value })
  }
  if (taken.length > 0) await db.batch(taken, { sync: true })
  return bytes
}

/** The head behind a value, if its content gives the hash that it says; null for one of another history. */
function continued(head: LogHead, value: Uint8Array): LogHead | null {
  const { first, count, hash, lastTime } = checkHeader(value)
  try {
    const last = hashesOf(value, head.hash).at(-1)
    return last !== undefined && sameHash(last.hash, hash)
      ? { next: first + count, time: lastTime, hash }
      : null
  } catch {
    return null
  }
}

async function headOf(db: Database): Promise<LogHead | null> {
  const source = new LevelSource(db)
  try {
    const last = await source.floor(Number.MAX_SAFE_INTEGER)
    if (last === undefined) return EMPTY_HEAD
    const { first, count, lastTime, hash } = headerOf(last)
    return { next: first + count, time: lastTime, hash }
  } catch {
    return null
  } finally {
    await source.release()
  }
}
