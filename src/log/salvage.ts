/**
 * Everything that a log's files still hold, staged in a database of its own in the order of positions, newest version first.
 * What LevelDB deleted or replaced is there too: records that were packed since, or that a damaged manifest lost.
 *
 * Cost: every file read once, every version written once; memory is one file's.
 */
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { readHeader } from '../../events/record.ts'
import { readJournal } from './journal.ts'
import { eventKey, isCommandKey, positionBytes, positionOf, positionOfEventKey, REPACK_KEY } from './keys.ts'
import { chunks, type Database, database } from './level-source.ts'
import { salvageTable, salvageWal, type Version } from './salvage-files.ts'

/** Where a version comes from. Those of `log` count first; others must prove that they belong, by the chain. */
type Source = 0 | 1 | 2
const FROM_LOG: Source = 0
const FROM_ASIDE: Source = 1
/** Under the position that the value itself names, not the one it was stored under. */
const ELSEWHERE: Source = 2

const BATCH = 256
const UNKNOWN_KEYS_MAX = 10_000

/** All versions of what was stored under one position. */
export interface Candidates {
  readonly position: number
  /** What a reader would have found: the newest version in the log's own files, unless that is a deletion. */
  readonly newest: Uint8Array | undefined
  readonly others: readonly Uint8Array[]
}

export interface UnknownKey {
  readonly key: Uint8Array
  readonly value: Uint8Array
}

export class Salvage {
  /** Files that were not whole, and why. */
  readonly damagedFiles: { readonly path: string; readonly why: string }[] = []
  readonly #unknown = new Map<string, Version>()

  private constructor(
    readonly folder: string,
    readonly db: Database,
  ) {}

  /** `folder`: a new one, for staging. `asides`: folders of files that were put aside when damage was met before. */
  static async of(log: string, asides: readonly string[], folder: string): Promise<Salvage> {
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    const db = database(folder)
    await db.open()
    const salvage = new Salvage(folder, db)
    try {
      await salvage.#files(log, FROM_LOG)
      await salvage.#journal(log)
      for (const aside of asides) await salvage.#files(aside, FROM_ASIDE)
      return salvage
    } catch (error) {
      await salvage.remove()
      throw error
    }
  }

  /** Keys of the log that no slicelog writes. */
  get unknown(): UnknownKey[] {
    return [...this.#unknown.values()].flatMap(({ key, value }) =>
      value === undefined ? [] : [{ key, value }],
    )
  }

  async #files(folder: string, source: Source): Promise<void> {
    const names = await readdir(folder).catch(() => [])
    for (const name of names.sort()) {
      const path = join(folder, name)
      const table = /^\d+\.(ldb|sst)$/.test(name)
      if (!table && !/^\d+\.log$/.test(name)) continue
      if (!(await stat(path)).isFile()) continue
      const { versions, damage } = table ? salvageTable(path) : salvageWal(path)
      if (source === FROM_LOG) for (const why of new Set(damage)) this.damagedFiles.push({ path, why })
      for (let at = 0; at < versions.length; at += BATCH)
        await this.#stage(versions.slice(at, at + BATCH), source)
    }
  }

  /** Much of it is in the log as well, joined with others: it has to prove that it belongs. */
  async #journal(folder: string): Promise<void> {
    const versions = readJournal(folder).map(({ position, value }) => ({
      key: eventKey(position),
      sequence: 0,
      value,
    }))
    for (let at = 0; at < versions.length; at += BATCH)
      await this.#stage(versions.slice(at, at + BATCH), FROM_ASIDE)
  }

  async #stage(versions: readonly Version[], source: Source): Promise<void> {
    const batch: { type: 'put'; key: Uint8Array; value: Uint8Array }[] = []
    const put = (position: number, from: Source, { sequence, value }: Version) => {
      const stored = new Uint8Array(1 + (value?.length ?? 0))
      if (value !== undefined) {
        stored[0] = 1
        stored.set(value, 1)
      }
      batch.push({ type: 'put', key: stageKey(position, from, sequence), value: stored })
    }
    for (const version of versions) {
      const position = positionOfEventKey(version.key)
      if (position === undefined) {
        if (source === FROM_LOG) this.#other(version)
        continue
      }
      put(position, source, version)
      const named = version.value === undefined ? undefined : firstOf(version.value)
      if (named !== undefined && named !== position) put(named, ELSEWHERE, version)
    }
    await this.db.batch(batch)
  }

  /** The index of commands is made anew from the records. */
  #other(version: Version): void {
    if (isCommandKey(version.key) || Buffer.compare(version.key, REPACK_KEY) === 0) return
    const name = Buffer.from(version.key).toString('hex')
    const known = this.#unknown.get(name)
    if (known !== undefined && known.sequence > version.sequence) return
    if (known !== undefined || this.#unknown.size < UNKNOWN_KEYS_MAX) this.#unknown.set(name, version)
  }

  /** In order of positions. */
  async *candidates(): AsyncGenerator<Candidates, void, void> {
    let group: [Uint8Array, Uint8Array][] = []
    let position = -1
    for await (const chunk of chunks(this.db.iterator({ fillCache: false }), 64)) {
      for (const entry of chunk) {
        const at = positionOf(entry[0].subarray(0, 8)) ?? 0
        if (at !== position && group.length > 0) {
          yield candidatesOf(position, group)
          group = []
        }
        position = at
        group.push(entry)
      }
    }
    if (group.length > 0) yield candidatesOf(position, group)
  }

  async at(position: number): Promise<Candidates> {
    const group = await this.db
      .iterator({
        gte: stageKey(position, FROM_LOG, Number.MAX_SAFE_INTEGER),
        lt: positionBytes(position + 1),
      })
      .all()
    return candidatesOf(position, group)
  }

  async remove(): Promise<void> {
    await this.db.close()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** Newest first. */
function stageKey(position: number, source: Source, sequence: number): Uint8Array {
  const key = new Uint8Array(17)
  key.set(positionBytes(position))
  key[8] = source
  key.set(positionBytes(Number.MAX_SAFE_INTEGER - sequence), 9)
  return key
}

function candidatesOf(position: number, group: readonly [Uint8Array, Uint8Array][]): Candidates {
  const [first] = group
  const read = (value: Uint8Array) => (value[0] === 1 ? value.slice(1) : undefined)
  const newest = first !== undefined && first[0][8] === FROM_LOG ? read(first[1]) : undefined
  const others = group.slice(newest === undefined ? 0 : 1).flatMap(([, value]) => read(value) ?? [])
  return { position, newest, others }
}

/** The position that a value says it begins at, whatever its checksum. */
function firstOf(value: Uint8Array): number | undefined {
  try {
    return readHeader(value).first
  } catch {
    return undefined
  }
}
