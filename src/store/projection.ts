/**
 * A user's projection, live: fed by a follower of its own beside the committer, so that it never holds up a write and its
 * errors are its own. It takes turns of a few milliseconds, and catches up from the log as every slow reader does.
 */
import { BehaviorSubject, type Observable, Subject } from 'rxjs'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { type FoldParts, type Origin, type ProjectionDefinition, ProjectionFold } from './projection-fold.ts'
import { Turns } from './streams.ts'

export interface ProjectionOptions {
  /** Events between two saves of the state. Default 65,536. */
  readonly saveEvery?: number
  /** Seconds after which a changed state is saved at the latest. Default 10. */
  readonly saveSeconds?: number
  /** False: nothing is stored, and each session folds from the start. Default true. */
  readonly stored?: boolean
  /** Told after every turn until the head is reached first, and when it is. */
  readonly onProgress?: (progress: ProjectionProgress) => void
}

export interface ProjectionProgress {
  /** The last event folded, and the log's last. */
  readonly position: number
  readonly head: number
  readonly caughtUp: boolean
}

export type ProjectionStatus =
  | { readonly kind: 'catching-up' }
  | { readonly kind: 'live' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly error: Error }

interface Waiter {
  readonly position: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class Projection<S> {
  readonly #fold: ProjectionFold<S>
  readonly #log: EventLog
  readonly #options: ProjectionOptions
  readonly #stop = new AbortController()
  readonly #states: BehaviorSubject<S>
  readonly #progress = new Subject<ProjectionProgress>()
  readonly #running: Promise<void>
  #status: ProjectionStatus = { kind: 'catching-up' }
  #waiting: Waiter[] = []
  #saveTimer: NodeJS.Timeout | undefined
  #saveError: Error | null = null
  #told = false

  /** Use `store.project`. */
  constructor(fold: ProjectionFold<S>, log: EventLog, options: ProjectionOptions) {
    this.#fold = fold
    this.#log = log
    this.#options = options
    this.#states = new BehaviorSubject(fold.state)
    this.#running = this.#run()
  }

  /** Loads what is stored and begins to fold. */
  static async start<S>(
    definition: ProjectionDefinition<S>,
    parts: FoldParts & { readonly log: EventLog },
    options: ProjectionOptions,
  ): Promise<Projection<S>> {
    checkOptions(options)
    const fold = new ProjectionFold(definition, parts)
    if (options.stored !== false) await fold.load()
    return new Projection(fold, parts.log, options)
  }

  get name(): string {
    return this.#fold.name
  }

  /** As of `cursor`. After a failure it may hold half an event: use it to find out why, not as an answer. */
  get state(): S {
    return this.#fold.state
  }

  /** The last event that the state includes; -1 before the first. */
  get cursor(): number {
    return this.#fold.position
  }

  /** The last event that the stored state includes, and why the last save failed if it did. */
  get saved(): { readonly position: number; readonly error: Error | null } {
    return { position: this.#fold.savedAt, error: this.#saveError }
  }

  /** Whether this session went on from a stored state, and if not, why. */
  get origin(): Origin {
    return this.#fold.origin
  }

  get status(): ProjectionStatus {
    return this.#status
  }

  /** The state now, and after each batch of records. Errors when the projection fails, completes when it is stopped. */
  get state$(): Observable<S> {
    return this.#states.asObservable()
  }

  /** As `onProgress`. */
  get progress$(): Observable<ProjectionProgress> {
    return this.#progress.asObservable()
  }

  /**
   * Resolves when everything that is in the log at the call has been folded.
   * @throws CheckpointError PROJECTION_FAILED, or STORE_CLOSED when it is stopped before
   */
  caughtUp(): Promise<void> {
    const position = this.#log.head.next - 1
    if (this.#status.kind === 'failed') return Promise.reject(this.#status.error)
    if (this.#fold.position >= position) return Promise.resolve()
    if (this.#status.kind === 'stopped') return Promise.reject(this.#stopped())
    return new Promise((resolve, reject) => this.#waiting.push({ position, resolve, reject }))
  }

  /** Stores the state now. */
  async save(): Promise<void> {
    clearTimeout(this.#saveTimer)
    this.#saveTimer = undefined
    if (this.#options.stored === false || this.#status.kind === 'failed') return
    try {
      await this.#fold.save()
      this.#saveError = null
    } catch (error) {
      this.#saveError = error as Error // What is stored is older, and still right; the next save tries again.
    }
  }

  /** Ends it, with its state saved. Idempotent. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
    await this.save()
  }

  /** Ends it and drops what is stored: the next one of this name begins at the start. */
  async forget(): Promise<void> {
    this.#stop.abort()
    await this.#running
    clearTimeout(this.#saveTimer)
    await this.#fold.forget()
  }

  /** At the store's close: what is live folds the little that waits for it, what is far behind does not hold up the end. */
  async end(): Promise<void> {
    if (this.#status.kind === 'live') await this.caughtUp().catch(() => undefined)
    await this.stop()
  }

  async #run(): Promise<void> {
    try {
      await this.#follow()
      this.#ended({ kind: 'stopped' })
    } catch (error) {
      this.#ended({ kind: 'failed', error: error as Error })
    }
  }

  async #follow(): Promise<void> {
    const turns = new Turns()
    const from = this.#fold.position + 1
    for await (const followed of this.#log.follow({ from, signal: this.#stop.signal })) {
      if (followed.kind !== 'records') {
        this.#status = { kind: followed.kind === 'caughtUp' ? 'live' : 'catching-up' }
        this.#tell()
        continue
      }
      for (const record of followed.records) {
        if (turns.over) {
          this.#tell()
          await this.#saveIfDue()
          await turns.breathe()
          if (this.#stop.signal.aborted) return
        }
        this.#fold.take(record)
      }
      this.#tell()
      await this.#saveIfDue()
    }
  }

  async #saveIfDue(): Promise<void> {
    const { saveEvery = 65_536, saveSeconds = 10, stored = true } = this.#options
    if (!stored) return
    if (this.#fold.position - this.#fold.savedAt >= saveEvery) await this.save()
    else this.#saveTimer ??= setTimeout(() => void this.save(), saveSeconds * 1000).unref()
  }

  #tell(): void {
    const position = this.#fold.position
    const due = this.#waiting.filter((waiter) => waiter.position <= position)
    if (due.length > 0) {
      this.#waiting = this.#waiting.filter((waiter) => waiter.position > position)
      for (const { resolve } of due) resolve()
    }
    this.#states.next(this.#fold.state)
    const caughtUp = this.#status.kind === 'live'
    if (caughtUp && this.#told) return
    this.#told = caughtUp
    const progress = { position, head: this.#log.head.next - 1, caughtUp }
    this.#progress.next(progress)
    this.#options.onProgress?.(progress)
  }

  #ended(status: ProjectionStatus): void {
    this.#status = status
    clearTimeout(this.#saveTimer)
    this.#saveTimer = undefined
    const failed = status.kind === 'failed'
    for (const { reject } of this.#waiting.splice(0)) reject(failed ? status.error : this.#stopped())
    if (failed) {
      this.#states.error(status.error)
      this.#progress.error(status.error)
    } else {
      this.#states.complete()
      this.#progress.complete()
    }
  }

  #stopped(): CheckpointError {
    return new CheckpointError(
      'STORE_CLOSED',
      `projection "${this.name}" was stopped at position ${this.cursor}; project it again to go on`,
      { projection: this.name, position: this.cursor },
    )
  }
}

function checkOptions({ saveEvery = 1, saveSeconds = 1 }: ProjectionOptions): void {
  if (!Number.isSafeInteger(saveEvery) || saveEvery < 1)
    throw new TypeError('saveEvery must be a positive whole number of events')
  if (!(typeof saveSeconds === 'number' && saveSeconds > 0 && saveSeconds <= 2_000_000))
    throw new TypeError('saveSeconds must be seconds, more than 0')
}
