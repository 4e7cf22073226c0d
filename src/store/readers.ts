/** Who reads the log by a place of their own: cursors, live projections, and where each of them begins. */
import type { Observable } from 'rxjs'
import type { Point } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import type { Followed } from '../log/event-log.ts'
import type { Core } from './core.ts'
import { Cursor, type CursorInfo, listCursors, openCursor } from './cursors.ts'
import { Projection, type ProjectionOptions } from './projection.ts'
import type { ProjectionDefinition } from './projection-fold.ts'
import { type DiskStats, statsOf } from './stats.ts'
import { events, type Marked, marked } from './streams.ts'
import type { PointInput, RecordedEvent } from './types.ts'

/** Where a stream begins: a point (`{ position }` begins with that event), or behind a cursor. */
export type StreamFrom = PointInput | Cursor

/** A place that needs no look into the log: an Observable begins when it is subscribed to, and cannot wait before. */
export type EventsFrom = 'start' | 'now' | { readonly position: number } | Cursor

export interface FollowStoreOptions {
  /** Default `now`, at the call. */
  readonly from?: StreamFrom
  readonly signal?: AbortSignal
  /** Bounds of what is buffered for a slow reader. Defaults: limits.subscriberBufferRecords and …Bytes. */
  readonly bufferRecords?: number
  readonly bufferBytes?: number
}

export interface StoreStats {
  /** The last event that is counted in. */
  readonly until: Point
  readonly disks: readonly DiskStats[]
}

export class Readers {
  readonly #core: Core
  readonly #live = new Map<string, Promise<Projection<never>>>()

  constructor(core: Core) {
    this.#core = core
    core.endings.push(() => this.#end())
  }

  async *follow(
    from: number,
    { signal, bufferRecords, bufferBytes }: FollowStoreOptions,
  ): AsyncGenerator<Followed> {
    yield* this.#core.log.follow({
      from,
      ...(signal === undefined ? {} : { signal }),
      ...(bufferRecords === undefined ? {} : { bufferRecords }),
      ...(bufferBytes === undefined ? {} : { bufferBytes }),
    })
  }

  events(from: EventsFrom): Observable<RecordedEvent> {
    return events(this.#core.log, this.#core.catalog, this.#next(from))
  }

  marked(from: EventsFrom): Observable<Marked> {
    return marked(this.#core.log, this.#core.catalog, this.#next(from))
  }

  #next(from: EventsFrom): number {
    if (from === 'start') return 0
    if (from === 'now') return this.#core.log.head.next
    if (from instanceof Cursor) return from.position + 1
    const position = (from as { readonly position?: unknown } | null)?.position
    if (typeof position === 'number' && Number.isSafeInteger(position) && position >= 0) return position
    throw new TypeError('events begin at start, now, { position } with a whole number from 0, or a cursor')
  }

  cursor(name: string): Promise<Cursor> {
    return openCursor(name, this.#core.log, this.#core.derived)
  }

  cursors(): Promise<CursorInfo[]> {
    return listCursors(this.#core.log, this.#core.derived)
  }

  async project<S>(definition: ProjectionDefinition<S>, options: ProjectionOptions): Promise<Projection<S>> {
    const { name } = definition
    if (typeof name === 'string' && name.startsWith('slicelog/'))
      throw new RangeError(
        `names that begin with "slicelog/" are the product's own; rename projection "${name}"`,
      )
    const before = await this.#live.get(name)?.catch(() => undefined)
    if (before !== undefined && before.status.kind !== 'stopped' && before.status.kind !== 'failed')
      throw new RangeError(`projection "${name}" is running already; use that one, or stop it first`)
    if (this.#core.closing) throw new CheckpointError('STORE_CLOSED', 'the store is closed; open it again')
    const { log, derived, catalog } = this.#core
    const started = Projection.start(definition, { log, derived, catalog }, options)
    this.#live.set(name, started as Promise<unknown> as Promise<Projection<never>>)
    return await started
  }

  async stats(filter: { readonly disk?: string; readonly since?: number }): Promise<StoreStats> {
    const state = await this.#core.stats.current()
    return { until: this.#core.catalog.last, disks: statsOf(state, this.#core.catalog, filter) }
  }

  async #end(): Promise<void> {
    const started = await Promise.allSettled(this.#live.values())
    await Promise.all(started.map((one) => (one.status === 'fulfilled' ? one.value.end() : undefined)))
  }
}
