/**
 * `log --follow`: what is in the log first, read at the reader's own pace, then what comes. The live part is a queue: only
 * this process can append, so it never runs far ahead of the printing.
 */
import type { Store } from '../store/store.ts'
import type { LogFilter, RecordedEvent } from '../store/types.ts'

export async function* follow(
  store: Store,
  filter: LogFilter,
  signal: AbortSignal,
): AsyncGenerator<RecordedEvent> {
  const head = store.head.position
  let left = filter.limit ?? Number.POSITIVE_INFINITY
  for await (const event of store.log({ ...filter, to: { position: head } })) {
    yield event
    if (--left === 0) return
  }
  for await (const event of live(store, head, signal)) {
    if (!passes(event, filter)) continue
    yield event
    if (--left === 0) return
  }
}

async function* live(store: Store, after: number, signal: AbortSignal): AsyncGenerator<RecordedEvent> {
  const queue: RecordedEvent[] = []
  let ended = false
  let wake: () => void = () => {}
  const end = (): void => {
    ended = true
    wake()
  }
  const subscription = store.events$({ from: { position: after + 1 } }).subscribe({
    next: (event) => {
      queue.push(event)
      wake()
    },
    complete: end,
    error: end,
  })
  signal.addEventListener('abort', end)
  // Waiting for an event that only this process could bring would otherwise let Node end.
  const stayAlive = setInterval(() => {}, 1 << 30)
  try {
    while (!ended) {
      for (let event = queue.shift(); event !== undefined; event = queue.shift()) yield event
      if (!ended) await new Promise<void>((resolve) => (wake = resolve))
    }
  } finally {
    clearInterval(stayAlive)
    signal.removeEventListener('abort', end)
    subscription.unsubscribe()
  }
}

/** The filter of `log`, for one event. */
function passes(event: RecordedEvent, { disk, types, actor, range }: LogFilter): boolean {
  if (disk !== undefined && event.disk !== disk) return false
  if (types !== undefined && !types.includes(event.type)) return false
  if (actor !== undefined && event.cause.actor !== actor) return false
  if (range === undefined) return true
  if (event.type !== 'write') return false
  const { offset, length } = event.data as { offset: number; length: number }
  return offset < range.offset + range.length && range.offset < offset + length
}
