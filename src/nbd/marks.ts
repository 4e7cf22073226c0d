/**
 * When a served disk's mark is recorded (R35): as it is attached, as it is detached, once no write came for five seconds, and at a
 * flush when the last one is a minute old. Each with everything durable that it stands for, and never while a write is on its way,
 * whose bytes might land behind it. At the same looks it is found that the path leads to something else by now.
 *
 * Why no mark every five seconds under load: it is an event, and no window of a compaction reaches across one (R29), so an hour of
 * writes could never become fewer than 720 windows. Costs two additions a write, and an fsync and a synced record a mark.
 */
import type { DiskMark } from '../../events/types.ts'
import { CheckpointError, messageOf } from '../errors.ts'
import { coreOf, type Store } from '../store/store.ts'
import type { MarkSource } from './file-mark.ts'

export interface MarkTimes {
  /** After the last write, ms, at least and at most twice that. */
  readonly idleMs: number
  /** Between two marks at flushes, ms. */
  readonly flushMs: number
}

const TIMES: MarkTimes = { idleMs: 5_000, flushMs: 60_000 }

/** The store ends, or the disk is gone: who owns them is told elsewhere. */
const ENDINGS: readonly string[] = ['STORE_FAILED', 'STORE_CLOSED', 'OUTCOME_UNKNOWN', 'DISK_NOT_FOUND']

/** Synced, as commands are. The mark that the disk has already, with no write since, changes nothing. */
export async function recordMark(store: Store, disk: string, mark: DiskMark): Promise<void> {
  await coreOf(store).run([{ type: 'mark-disk', disk, mark }])
}

/** @throws CheckpointError IO_FAILED */
export async function lookAt(source: MarkSource, disk: string): Promise<DiskMark> {
  try {
    return await source.look()
  } catch (cause) {
    throw unseen(disk, cause)
  }
}

function unseen(disk: string, cause: unknown): CheckpointError {
  const why = messageOf(cause)
  return new CheckpointError(
    'IO_FAILED',
    `what disk "${disk}" is served from cannot be looked at (${why}), so its next serving may find it changed; put that right`,
    { disk },
    cause,
  )
}

export class Marks {
  readonly #store: Store
  readonly #disk: string
  readonly #source: MarkSource
  readonly #tell: (error: CheckpointError) => void
  readonly #times: MarkTimes
  /** Changes that were begun, those that are over, and how many were begun at the last mark. */
  #begun = 0
  #over = 0
  #marked = 0
  #markedAt = performance.now()
  /** Runs while there are changes without a mark. */
  #timer: NodeJS.Timeout | undefined
  #seen = 0
  #marking: Promise<void> = Promise.resolve()
  #ended = false
  readonly #told = new Set<string>()

  /** `tell`: what is wrong, once each. Must not throw. */
  constructor(
    store: Store,
    disk: string,
    source: MarkSource,
    tell: (error: CheckpointError) => void,
    times: MarkTimes = TIMES,
  ) {
    this.#store = store
    this.#disk = disk
    this.#source = source
    this.#tell = tell
    this.#times = times
  }

  /** As the disk was attached, before anybody writes. IO_FAILED, or as the store rejects. */
  async begin(): Promise<void> {
    await recordMark(this.#store, this.#disk, await lookAt(this.#source, this.#disk))
  }

  /** A change is about to be recorded. */
  changing(): void {
    this.#begun++
    if (this.#timer === undefined) this.#watch()
  }

  /** Its bytes have landed, or never will. */
  changed(): void {
    this.#over++
  }

  /** Everything up to here is durable. Nobody waits for the mark. */
  flushed(): void {
    if (this.#begun === this.#marked || performance.now() - this.#markedAt < this.#times.flushMs) return
    this.#soon()
  }

  /** The last one: once no change comes any more. */
  async end(): Promise<void> {
    this.#ended = true
    clearTimeout(this.#timer)
    await this.#marking
    await this.#mark()
  }

  #watch(): void {
    if (this.#ended) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      const quiet = this.#seen === this.#begun
      this.#seen = this.#begun
      if (quiet) this.#soon()
      else this.#watch()
    }, this.#times.idleMs)
    this.#timer.unref()
  }

  #soon(): void {
    this.#marking = this.#marking.then(async () => {
      await this.#mark()
      if (this.#begun !== this.#marked && this.#timer === undefined) this.#watch()
    })
  }

  async #mark(): Promise<void> {
    const begun = this.#begun
    if (begun !== this.#over) return
    try {
      const mark = await lookAt(this.#source, this.#disk)
      if (begun !== this.#begun) return
      await recordMark(this.#store, this.#disk, mark)
      this.#marked = begun
      this.#markedAt = performance.now()
      await this.#lookAfter()
    } catch (error) {
      this.#marked = begun // Not again before the next change: what failed may go on failing.
      const known = error instanceof CheckpointError ? error : unseen(this.#disk, error)
      if (!ENDINGS.includes(known.code)) this.#say(known)
    }
  }

  /** R35: who replaces the file goes on with another one, which nobody tracks. */
  async #lookAfter(): Promise<void> {
    const strayed = await this.#source.strayed()
    if (strayed === null) return
    this.#say(
      new CheckpointError(
        'SERVED_FILE_INVALID',
        `what disk "${this.#disk}" is served from was replaced: ${strayed}. Clients go on with what was opened, and what is at its path is not tracked; stop serving it and put the right one there`,
        { disk: this.#disk, why: 'replaced' },
      ),
    )
  }

  #say(error: CheckpointError): void {
    if (this.#told.has(error.message)) return
    this.#told.add(error.message)
    this.#tell(error)
  }
}
