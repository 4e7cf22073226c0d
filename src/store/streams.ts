/**
 * rxjs at the edge: the log's followers as Observables. The core stays pull-based, so a slow subscriber costs a bounded
 * buffer and then reads from the log; it never misses an event and never sees one twice.
 */
import { Observable, scan } from 'rxjs'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { EventLog } from '../log/event-log.ts'
import { eventsOf } from './event-view.ts'
import type { RecordedEvent } from './types.ts'

/** Catch-up from position `from`, then live. Completes when the store closes; ends with the log's error if it fails. */
export function events(log: EventLog, catalog: CatalogReader, from: number): Observable<RecordedEvent> {
  return new Observable((subscriber) => {
    const stop = new AbortController()
    const pump = async () => {
      for await (const followed of log.follow({ from, signal: stop.signal })) {
        if (followed.kind !== 'records') continue
        for (const record of followed.records) {
          for (const event of eventsOf(record, catalog)) {
            if (subscriber.closed) return
            if (event.position >= from) subscriber.next(event)
          }
        }
      }
      subscriber.complete()
    }
    pump().catch((error) => subscriber.error(error))
    return () => stop.abort()
  })
}

/** A stream of state is a fold over the stream of events: one state after each event. */
export function fold<S>(
  source: Observable<RecordedEvent>,
  seed: S,
  step: (state: S, event: RecordedEvent) => S,
): Observable<S> {
  return source.pipe(scan(step, seed))
}
