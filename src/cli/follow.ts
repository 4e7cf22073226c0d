/**
 * `log --follow`: what is in the log, read at the reader's own pace, then what comes. It is always read from the log, also what came
 * just now, so a reader that is slower than the writers costs nothing but its lag: nothing is queued for it.
 */
import type { Store } from '../store/store.ts'
import type { LogFilter, RecordedEvent } from '../store/types.ts'

export async function* follow(
  store: Store,
  filter: LogFilter,
  signal: AbortSignal,
): AsyncGenerator<RecordedEvent> {
  let left = filter.limit ?? Number.POSITIVE_INFINITY
  let from = filter.from
  // Waiting for an event that only this process could bring would otherwise let Node end.
  const stayAlive = setInterval(() => {}, 1 << 30)
  try {
    for (;;) {
      const head = store.head.position
      const span = { ...filter, ...(from === undefined ? {} : { from }), to: { position: head }, signal }
      // A log that is still empty has no position to read up to.
      for await (const event of head < 0 ? [] : store.log(span)) {
        yield event
        if (--left === 0) return
      }
      if (head >= 0) from = { position: head + 1 }
      if (!(await appendedAfter(head, store, signal))) return
    }
  } finally {
    clearInterval(stayAlive)
  }
}

/** False: stopped, or the store is closed. */
async function appendedAfter(head: number, store: Store, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false
  if (store.head.position > head) return true
  // Begins here and now, in the same turn as the look at the head.
  for await (const followed of store.follow({ signal })) if (followed.kind === 'records') return true
  return false
}
