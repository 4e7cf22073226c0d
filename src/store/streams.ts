/**
 * rxjs at the edge: the log's followers as Observables. The core stays pull-based, so it never misses an event and never
 * sees one twice.
 *
 * An Observable cannot ask its source to wait. So the source waits by itself: a subscriber that works synchronously costs
 * nothing but its own time, since the next event is made when `next` has returned; behind it lies the follower's bounded
 * buffer, and behind that the log. What rxjs keeps for an operator that works later (`concatMap`, `delay`) is rxjs's own and
 * has no bound: whoever awaits something for each event reads `follow()` in a `for await` instead.
 */
import { setImmediate as breathe } from 'node:timers/promises'
import { Observable, scan } from 'rxjs'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { EventLog } from '../log/event-log.ts'
import { eventsOf } from './event-view.ts'
import type { RecordedEvent } from './types.ts'

/** Events are handed out for so long at a time; then whatever else waits has its turn. */
export const TURN_MS = 8

/** With `markers`: an event, or that the reader reached the head or fell behind it. `next`: where it goes on. */
export type Marked =
  | { readonly kind: 'event'; readonly event: RecordedEvent }
  | { readonly kind: 'caughtUp'; readonly next: number }
  | { readonly kind: 'fellBehind'; readonly next: number }

/** Lets others run once a turn is over; says so, because what was true before may not be after. */
export class Turns {
  #since = performance.now()

  get over(): boolean {
    return performance.now() - this.#since > TURN_MS
  }

  async breathe(): Promise<void> {
    await breathe()
    this.#since = performance.now()
  }
}

/** Catch-up from position `from`, then live. Completes when the store closes; ends with the log's error if it fails. */
export function marked(log: EventLog, catalog: CatalogReader, from: number): Observable<Marked> {
  return new Observable((subscriber) => {
    const stop = new AbortController()
    const pump = async () => {
      const turns = new Turns()
      for await (const followed of log.follow({ from, signal: stop.signal })) {
        if (followed.kind !== 'records') {
          subscriber.next(followed)
          continue
        }
        for (const record of followed.records) {
          if (turns.over) await turns.breathe()
          for (const event of eventsOf(record, catalog)) {
            if (subscriber.closed) return
            if (event.position >= from) subscriber.next({ kind: 'event', event })
          }
        }
      }
      subscriber.complete()
    }
    pump().catch((error) => subscriber.error(error))
    return () => stop.abort()
  })
}

/** The same without the markers. */
export function events(log: EventLog, catalog: CatalogReader, from: number): Observable<RecordedEvent> {
  return new Observable((subscriber) =>
    marked(log, catalog, from).subscribe({
      next: (item) => {
        if (item.kind === 'event') subscriber.next(item.event)
      },
      error: (error) => subscriber.error(error),
      complete: () => subscriber.complete(),
    }),
  )
}

/** A stream of state is a fold over the stream of events: one state after each event. */
export function fold<S>(
  source: Observable<RecordedEvent>,
  seed: S,
  step: (state: S, event: RecordedEvent) => S,
): Observable<S> {
  return source.pipe(scan(step, seed))
}
