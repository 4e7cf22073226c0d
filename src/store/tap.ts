/**
 * A projection of our own, fed from inside the committer with the records it has just folded: no decoding, no lag. For folds
 * that cost a few nanoseconds a row and never throw; a user's fold is fed by a follower instead (projection.ts).
 *
 * Until the first record or question nothing is loaded, so opening costs nothing. What the stored state does not include is
 * read from the log beside the committer, in turns; the tap goes live in the very turn in which nothing is missing.
 */
import type { LogRecord } from '../../events/types.ts'
import type { EventLog } from '../log/event-log.ts'
import { type FoldParts, type ProjectionDefinition, ProjectionFold } from './projection-fold.ts'
import { Turns } from './streams.ts'

/** Events between two saves: what a kill costs the next session to fold again, about 20 ms. */
const SAVE_EVERY = 262_144

type Mode =
  | { readonly kind: 'idle' }
  | { readonly kind: 'catching-up'; readonly done: Promise<void> }
  | { readonly kind: 'live' }
  | { readonly kind: 'ended' }

export class Tap<S> {
  readonly #fold: ProjectionFold<S>
  readonly #parts: FoldParts & { readonly log: EventLog }
  readonly #stop = new AbortController()
  #mode: Mode = { kind: 'idle' }
  #triedAt = -1
  #saving: Promise<void> = Promise.resolve()

  constructor(definition: ProjectionDefinition<S>, parts: FoldParts & { readonly log: EventLog }) {
    this.#fold = new ProjectionFold(definition, parts)
    this.#parts = parts
  }

  get position(): number {
    return this.#fold.position
  }

  /** Called inside the committer after each fold: synchronous, and it never throws. */
  folded(records: readonly LogRecord[]): void {
    const first = records[0]?.first ?? 0
    // Records that came past the hook are read from the log, with these.
    if (this.#mode.kind === 'live' && first > this.#fold.position + 1) this.#mode = { kind: 'idle' }
    if (this.#mode.kind === 'idle') void this.#start().catch(() => undefined) // Met again by whoever asks.
    if (this.#mode.kind !== 'live') return
    try {
      for (const record of records) this.#fold.take(record)
    } catch {
      this.#mode = { kind: 'idle' } // Our bug, and not worth a store: folded again from the log, which then tells.
      return
    }
    if (this.#fold.position - this.#triedAt >= SAVE_EVERY) this.#save()
  }

  /** The state, with every event in it that is committed now. Throws what reading the log throws. */
  async current(): Promise<S> {
    if (this.#mode.kind !== 'live') await this.#start()
    return this.#fold.state
  }

  /** At the store's close. */
  async end(): Promise<void> {
    const mode = this.#mode
    this.#mode = { kind: 'ended' }
    this.#stop.abort()
    if (mode.kind === 'catching-up') await mode.done.catch(() => undefined)
    await this.#saving
    await this.#fold.save().catch(() => undefined) // Costs the next session time, and nothing else.
  }

  #start(): Promise<void> {
    if (this.#mode.kind === 'catching-up') return this.#mode.done
    if (this.#mode.kind !== 'idle') return Promise.resolve()
    const done = this.#catchUp().catch((error: unknown) => {
      if (this.#mode.kind === 'catching-up') this.#mode = { kind: 'idle' }
      throw error
    })
    this.#mode = { kind: 'catching-up', done }
    return done
  }

  async #catchUp(): Promise<void> {
    if (this.#fold.position < 0) await this.#fold.load()
    this.#triedAt = this.#fold.position
    const { log, catalog } = this.#parts
    const turns = new Turns()
    const { signal } = this.#stop
    while (this.#fold.position < catalog.last.position) {
      const from = this.#fold.position + 1
      for await (const records of log.read({ from, to: catalog.last.position, signal })) {
        for (const record of records) {
          if (turns.over) await turns.breathe()
          if (signal.aborted) return
          this.#fold.take(record)
        }
        if (this.#fold.position - this.#triedAt >= SAVE_EVERY) this.#save()
      }
      if (signal.aborted) return
    }
    this.#mode = { kind: 'live' }
  }

  #save(): void {
    this.#triedAt = this.#fold.position
    this.#saving = this.#fold.save().catch(() => undefined)
  }
}
