/**
 * A projection without its feeder: the state, how far it has come, and how both are kept. Fed by a follower
 * (projection.ts) or from inside the committer (tap.ts); neither knows more about it than `take`.
 *
 * State, position, version and the chain's hash there are one stored value, so they are of one moment, whatever happens.
 */
import { Packr } from 'msgpackr'
import type { DiskNumber, LogRecord } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { checkName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { sameHash } from '../log/base-log.ts'
import type { EventLog } from '../log/event-log.ts'
import { windowsFrom } from '../log/follow.ts'
import { guarded } from './cursors.ts'
import type { Derived } from './derived.ts'
import { eventsOf } from './event-view.ts'
import type { RecordedEvent } from './types.ts'

const packr = new Packr({ useRecords: false })

/** What every fold has. */
interface Definition<S> {
  /** Unique in the store: its stored state is kept under it. */
  readonly name: string
  /** A whole number. Another one than the stored state's: that is not used, and everything is folded anew. */
  readonly version: number
  /** The state before the first event. */
  seed(): S
  /**
   * What to keep of a state: a Uint8Array, or data as JSON knows it. Called between two records, and may not wait. Left out:
   * the state itself is such data.
   */
  save?(state: S): unknown
  /** The state again, from what `save` gave. A throw counts as damage: everything is folded anew. */
  load?(saved: unknown): S
}

/** Event by event, as objects: convenient, about a microsecond an event. */
export interface EventProjection<S> extends Definition<S> {
  readonly per?: 'event'
  /** The next state: a new one, or the given one, changed. */
  apply(state: S, event: RecordedEvent): S
}

/** Record by record, writes as columns: the hot path. The columns are lent: copy what is to be kept. */
export interface RecordProjection<S> extends Definition<S> {
  readonly per: 'record'
  /** `diskId`: what a section's number stands for; null for a disk that never was. */
  apply(state: S, record: LogRecord, diskId: (number: DiskNumber) => string | null): S
}

export type ProjectionDefinition<S> = EventProjection<S> | RecordProjection<S>

/** Where a projection began in this session. */
export type Origin =
  | { readonly kind: 'new' }
  | { readonly kind: 'resumed'; readonly position: number }
  /** The stored state was of another version, failed its check, was of another history of the log, or `load` refused it. */
  | { readonly kind: 'rebuilt'; readonly because: 'version' | 'damaged' | 'history' | 'unreadable' }

type Plain = readonly [position: number, version: number, hash: Uint8Array, saved: Uint8Array]

export interface FoldParts {
  readonly log: Pick<EventLog, 'head' | 'hashAt'>
  readonly derived: Derived
  readonly catalog: CatalogReader
}

export class ProjectionFold<S> {
  readonly #definition: ProjectionDefinition<S>
  readonly #parts: FoldParts
  readonly #diskId: (number: DiskNumber) => string | null
  #state: S
  #position = -1
  #savedAt = -1
  #saving: Promise<void> = Promise.resolve()
  origin: Origin = { kind: 'new' }

  constructor(definition: ProjectionDefinition<S>, parts: FoldParts) {
    checkDefinition(definition)
    this.#definition = definition
    this.#parts = parts
    this.#diskId = (number) => parts.catalog.diskByNumber(number)?.id ?? null
    this.#state = definition.seed()
  }

  get name(): string {
    return this.#definition.name
  }

  get state(): S {
    return this.#state
  }

  /** The last event that the state includes; -1 before the first. */
  get position(): number {
    return this.#position
  }

  /** The last event that the stored state includes. */
  get savedAt(): number {
    return this.#savedAt
  }

  /** Folds the next record; one that the state includes is passed over. Throws PROJECTION_FAILED when the fold throws. */
  take(given: LogRecord): void {
    const end = given.first + given.count - 1
    if (end <= this.#position) return
    const record = given.kind === 'windows' ? windowsFrom(given, this.#position + 1) : given
    let at = record.first
    try {
      if (this.#definition.per === 'record') {
        this.#state = this.#definition.apply(this.#state, record, this.#diskId)
      } else {
        for (const event of eventsOf(record, this.#parts.catalog)) {
          at = event.position
          if (at > this.#position) this.#state = this.#definition.apply(this.#state, event)
        }
      }
    } catch (cause) {
      throw new CheckpointError(
        'PROJECTION_FAILED',
        `projection "${this.name}" threw at position ${at} (${(cause as Error)?.message ?? String(cause)}); it has stopped there, the store goes on. Correct its apply, raise its version, and project it again`,
        { projection: this.name, position: at },
        cause,
      )
    }
    this.#position = end
  }

  /** Takes up what was stored, if it is whole, of this version and of this history. */
  async load(): Promise<void> {
    const bytes = await guarded(() => this.#parts.derived.named('p', this.name))
    if (bytes === undefined) return
    const rebuilt = (because: Extract<Origin, { kind: 'rebuilt' }>['because']) => {
      this.origin = { kind: 'rebuilt', because }
    }
    if (bytes === 'damaged') return rebuilt('damaged')
    const [position, version, hash, saved] = packr.unpack(bytes) as Plain
    if (version !== this.#definition.version) return rebuilt('version')
    const now = position < this.#parts.log.head.next ? await this.#parts.log.hashAt(position) : undefined
    if (now === undefined || !sameHash(hash, now)) return rebuilt('history')
    try {
      const plain: unknown = packr.unpack(saved)
      const given = plain instanceof Uint8Array ? new Uint8Array(plain) : plain // Not as the Buffer that msgpackr makes.
      this.#state = this.#definition.load === undefined ? (given as S) : this.#definition.load(given)
    } catch {
      this.#state = this.#definition.seed()
      return rebuilt('unreadable')
    }
    this.#position = position
    this.#savedAt = position
    this.origin = { kind: 'resumed', position }
  }

  /** Stores the state as it is at the call, in one value. Nothing is done when that is stored already. */
  async save(): Promise<void> {
    const position = this.#position
    if (position === this.#savedAt || position < 0) return
    // Encoded before the first wait: the fold goes on meanwhile.
    const saved = this.#definition.save === undefined ? this.#state : this.#definition.save(this.#state)
    const packed = new Uint8Array(packr.pack(saved))
    const { version } = this.#definition
    const bytes = (hash: Uint8Array) => packr.pack([position, version, hash, packed] satisfies Plain)
    const before = this.#saving.catch(() => undefined)
    this.#saving = before.then(async () => {
      const hash = await this.#parts.log.hashAt(position)
      if (hash === undefined) return // Compacted over since: the next save is of a place that is still there.
      await guarded(() => this.#parts.derived.putNamed('p', this.name, bytes(hash)))
      this.#savedAt = position
    })
    await this.#saving
  }

  /** Drops what is stored. */
  async forget(): Promise<void> {
    await this.#saving.catch(() => undefined)
    await guarded(() => this.#parts.derived.dropNamed('p', this.name))
    this.#savedAt = -1
  }
}

function checkDefinition<S>(definition: ProjectionDefinition<S>): void {
  const { name, version, per = 'event', seed, apply } = definition
  checkName('projection', name)
  if (!Number.isSafeInteger(version))
    throw new TypeError(`the version of projection "${name}" must be a whole number`)
  if (per !== 'event' && per !== 'record')
    throw new TypeError(`projection "${name}" is fed per "event" or per "record", not ${String(per)}`)
  if (typeof seed !== 'function' || typeof apply !== 'function')
    throw new TypeError(`projection "${name}" needs the functions seed() and apply()`)
  for (const optional of [definition.save, definition.load])
    if (optional !== undefined && typeof optional !== 'function')
      throw new TypeError(`save and load of projection "${name}" must be functions where they are given`)
}
