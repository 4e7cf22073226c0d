/**
 * Small unsynced records on their way to LevelDB: in the journal already (journal.ts), so their callers have been answered, and in
 * memory until what some ten milliseconds brought is put at once, joined into packs as a repack would do it later.
 *
 * Whoever looks at LevelDB waits for `drained` first; a synced append takes along what is here. A put that fails ends the log at
 * the next append, and loses nothing: the journal has it (R33). Cost: memory of at most a journal, and one put for some 50 ms.
 */
import type { EncodedRecord } from '../../events/record.ts'
import type { StoredEntry } from './entries.ts'
import { Journal } from './journal.ts'
import { eventKey } from './keys.ts'
import { Packer, type Replacement } from './repack.ts'

/** How long a record waits for others at most: a put costs the main thread half a millisecond, however little it puts. */
const STAGED_MS = 50
/** Larger appends are worth a trip to LevelDB of their own. */
const STAGED_BYTES_MAX = 4 * 1024

/** One value to put. */
export interface Put {
  readonly type: 'put'
  readonly key: Uint8Array
  readonly value: Uint8Array
}

export class Staging {
  readonly #journal: Journal
  readonly #put: (values: Put[]) => Promise<void>
  /** The next position of the log: what lies before it is acknowledged. */
  readonly #next: () => number
  #staged: EncodedRecord[] = []
  /** The put under way; one at a time. */
  #flushing: Promise<unknown> | null = null
  #timer: NodeJS.Timeout | null = null
  #failure: { readonly cause: unknown } | null = null

  /** `put`: one batch into LevelDB, unsynced. */
  constructor(folder: string, next: () => number, put: (values: Put[]) => Promise<void>) {
    this.#journal = new Journal(folder)
    this.#next = next
    this.#put = put
  }

  /** Whether small writes beside LevelDB may be made on the main thread now. */
  get isQuick(): boolean {
    return this.#journal.isQuick
  }

  /** Takes unsynced records in, if this is the place for them: then they survive the process. */
  async take(records: readonly EncodedRecord[]): Promise<boolean> {
    this.#check()
    if (!this.#journal.isQuick || !areSmall(records)) return false
    while (!this.#journal.hasRoom(records)) await this.drained()
    this.#journal.append(records)
    this.#staged.push(...records)
    this.#wakeLater()
    return true
  }

  /** Hands what is here to `work`, which puts it together with more; nothing is put beside it. */
  async along(work: (values: Put[]) => Promise<void>): Promise<void> {
    await this.#idle()
    this.#check()
    const taken = this.#staged.slice() // What comes meanwhile is not in it.
    const putting = work(joined(taken)).then(() => this.#gone(taken.length))
    this.#underWay(putting)
    await putting
  }

  /** Resolves when LevelDB has everything that is acknowledged now. @throws what a put failed with */
  async drained(): Promise<void> {
    const next = this.#next()
    for (;;) {
      this.#check()
      const [oldest] = this.#staged
      if (oldest === undefined || oldest.first >= next) return
      if (this.#flushing === null) this.#flush()
      await this.#flushing
    }
  }

  /** LevelDB has everything, and its files are synced: nothing is left to take back. */
  remove(): void {
    this.#stop()
    this.#journal.remove()
  }

  /** Lets go of the journal, which the next open reads. */
  async close(): Promise<void> {
    this.#stop()
    await this.#idle()
    this.#journal.close()
  }

  async #idle(): Promise<void> {
    while (this.#flushing !== null) await this.#flushing
  }

  #due(): void {
    this.#timer = null
    if (this.#flushing === null) this.#flush()
  }

  /** What fails is met by whoever comes next. */
  #flush(): void {
    // A pack must not reach beyond what is acknowledged: a copy of the log up to its head would get more than that.
    const next = this.#next()
    const open = this.#staged.findIndex(({ first }) => first >= next)
    const taken = this.#staged.slice(0, open < 0 ? undefined : open) // What comes meanwhile is not in it.
    if (taken.length === 0) return
    const put = this.#put(joined(taken)).then(() => this.#gone(taken.length))
    this.#underWay(
      put.catch((cause: unknown) => {
        this.#failure = { cause }
      }),
    )
  }

  /** Whoever waits for it looks again afterwards. */
  #underWay(putting: Promise<void>): void {
    this.#flushing = putting.then(nothing, nothing).then(() => {
      this.#flushing = null
      this.#wakeLater()
    })
  }

  #wakeLater(): void {
    if (this.#staged.length > 0 && this.#failure === null)
      this.#timer ??= setTimeout(() => this.#due(), STAGED_MS).unref()
  }

  #gone(count: number): void {
    this.#staged = this.#staged.slice(count)
    if (this.#staged.length === 0) this.#journal.restart()
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure.cause
  }

  #stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }
}

function areSmall(records: readonly EncodedRecord[]): boolean {
  let bytes = 0
  for (const record of records) {
    if (record.commandId !== undefined) return false
    bytes += record.bytes.length
  }
  return records.length > 0 && bytes <= STAGED_BYTES_MAX
}

/** As values to put: neighbours that are worth it in packs. */
function joined(records: readonly EncodedRecord[]): Put[] {
  const [oldest] = records
  if (oldest === undefined) return []
  const values = new Map(records.map(({ first, bytes }): [number, Uint8Array] => [first, bytes]))
  const packer = new Packer(oldest.previous, oldest.first)
  const join = (done: Replacement | undefined): void => {
    if (done === undefined) return
    for (const { position } of done.entries) values.delete(position)
    values.set(done.entries[0]!.position, done.pack)
  }
  for (const entry of records.map(({ first, bytes }): StoredEntry => ({ position: first, value: bytes })))
    join(packer.add(entry))
  join(packer.flush())
  return [...values].map(([position, value]) => ({ type: 'put', key: eventKey(position), value }))
}

function nothing(): void {}
