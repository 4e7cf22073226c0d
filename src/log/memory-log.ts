/**
 * The log in memory, for tests and trials: same checks, same stored bytes, no durability. Its values can be read and
 * replaced (`storedEntries`), so that damage and a restart can be played.
 */
import { type EncodedRecord, readHeader } from '../../events/record.ts'
import { BaseLog, EMPTY_HEAD, type OpenSource } from './base-log.ts'
import type { StoredEntry } from './entries.ts'
import type { LogHead } from './event-log.ts'
import { Packer } from './repack.ts'
import type { Splice } from './splice.ts'

const CHUNK = 64

/** What outlives a MemoryEventLog: give it to the next one to play a restart. */
export interface MemoryStorage {
  entries: readonly StoredEntry[]
  readonly commands: Map<string, number>
}

export function emptyStorage(): MemoryStorage {
  return { entries: [], commands: new Map() }
}

export class MemoryEventLog extends BaseLog {
  readonly #storage: MemoryStorage
  #packed = 0

  constructor(storage: MemoryStorage = emptyStorage()) {
    const last = storage.entries[storage.entries.length - 1]
    const head = last === undefined ? EMPTY_HEAD : headOf(last)
    super(head, head)
    this.#storage = storage
  }

  get storage(): MemoryStorage {
    return this.#storage
  }

  protected override source(): Promise<OpenSource> {
    return Promise.resolve(new ArraySource(this.#storage.entries))
  }

  protected override store(
    records: readonly EncodedRecord[],
    _head: LogHead,
    _synced: LogHead,
    _sync: boolean,
    splice: Splice | undefined,
  ): Promise<void> {
    if (splice !== undefined) this.#splice(splice)
    const added = records.map((record) => ({ position: record.first, value: record.bytes }))
    // A long array is grown in place: readers hold (array, length), never the array alone.
    ;(this.#storage.entries as StoredEntry[]).push(...added)
    for (const { commandId, first } of records)
      if (commandId !== undefined) this.#storage.commands.set(commandId, first)
    return Promise.resolve()
  }

  /** A new array: readers go on with the one they have. */
  #splice({ removed, added }: Splice): void {
    const gone = new Set(removed)
    const kept = this.#storage.entries.filter((entry) => !gone.has(entry.position))
    this.#storage.entries = [...kept, ...added].sort((a, b) => a.position - b.position)
    if (
      added.some(
        ({ position, value }) => position < this.#packed && this.#packed < position + readHeader(value).count,
      )
    )
      this.#packed = 0
  }

  protected override withValuesStill<T>(work: () => Promise<T>): Promise<T> {
    return work() // A repack here never waits, so nothing comes in between.
  }

  protected override reclaimSome(): Promise<void> {
    return Promise.resolve()
  }

  protected override indexedPosition(commandId: string): Promise<number | undefined> {
    return Promise.resolve(this.#storage.commands.get(commandId))
  }

  protected override repackSome(): Promise<{ before: number; after: number }> {
    const old = this.#storage.entries
    const start = old.findIndex((entry) => entry.position >= this.#packed)
    if (start < 0) return Promise.resolve({ before: 0, after: 0 })
    const previous = start === 0 ? EMPTY_HEAD.hash : readHeader(old[start - 1]!.value).hash
    const packer = new Packer(previous, this.#packed)
    const replaced = new Map<number, StoredEntry | undefined>()
    let after = old.length - start
    const take = (done: ReturnType<Packer['flush']>) => {
      if (done === undefined) return
      for (const entry of done.entries) replaced.set(entry.position, undefined)
      const position = done.entries[0]!.position
      replaced.set(position, { position, value: done.pack })
      after -= done.entries.length - 1
    }
    for (const entry of old.slice(start)) take(packer.add(entry))
    take(packer.flush())
    this.#packed = packer.cursor
    this.#storage.entries = old.flatMap((entry) => {
      if (!replaced.has(entry.position)) return [entry]
      const pack = replaced.get(entry.position)
      return pack === undefined ? [] : [pack]
    })
    return Promise.resolve({ before: old.length - start, after })
  }

  protected override release(): Promise<void> {
    return Promise.resolve()
  }
}

function headOf(entry: StoredEntry): LogHead {
  const { first, count, lastTime, hash } = readHeader(entry.value)
  return { next: first + count, time: lastTime, hash }
}

class ArraySource implements OpenSource {
  readonly #length: number

  constructor(readonly all: readonly StoredEntry[]) {
    this.#length = all.length
  }

  /** Index of the last entry at or before `position`, -1 if none. */
  #indexOf(position: number): number {
    let low = 0
    let high = this.#length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.all[middle]!.position <= position) low = middle + 1
      else high = middle
    }
    return low - 1
  }

  async *entries(
    from: number,
    to: number,
    reverse: boolean,
  ): AsyncGenerator<readonly StoredEntry[], void, void> {
    const start = Math.max(this.#indexOf(from), 0)
    const end = this.#indexOf(to) + 1
    for (let done = 0; done < end - start; done += CHUNK) {
      const chunk = reverse
        ? this.all.slice(Math.max(start, end - done - CHUNK), end - done).reverse()
        : this.all.slice(start + done, Math.min(end, start + done + CHUNK))
      yield await Promise.resolve(chunk)
    }
  }

  floor(position: number): Promise<StoredEntry | undefined> {
    return Promise.resolve(this.all[this.#indexOf(position)])
  }

  release(): Promise<void> {
    return Promise.resolve()
  }
}
