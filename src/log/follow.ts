/**
 * Catch-up and live reading without gap or double, pulled by the reader.
 *
 *     log      ─ read until next = head ─┐ attach (no await between the comparison and this)
 *     buffer                             └─ records as they are appended ─ overflow → fellBehind, back to the log
 *
 * A slow reader costs `bufferRecords` encoded records at most; records are decoded by whoever reads them.
 */
import { decodeStored, type EncodedRecord } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { limits } from '../limits.ts'
import type { EventLog, Followed, FollowOptions } from './event-log.ts'

interface Follower {
  buffer: EncodedRecord[]
  readonly limit: number
  overflowed: boolean
  wake: () => void
}

/** Who is told after each append. */
export class Followers {
  readonly #live = new Set<Follower>()
  readonly #waiting = new Set<() => void>()
  #ended = false

  publish(records: readonly EncodedRecord[]): void {
    for (const follower of this.#live) {
      if (follower.buffer.length + records.length > follower.limit) {
        follower.overflowed = true
        follower.buffer = []
        this.#live.delete(follower)
      } else follower.buffer.push(...records)
      follower.wake()
    }
  }

  end(): void {
    this.#ended = true
    for (const wake of this.#waiting) wake()
  }

  async *follow(
    log: Pick<EventLog, 'head' | 'read'>,
    options: FollowOptions,
  ): AsyncGenerator<Followed, void, void> {
    const { signal } = options
    let next = options.from ?? log.head.next
    const stopped = () => this.#ended || signal?.aborted === true
    while (!stopped()) {
      while (next < log.head.next) {
        for await (const records of log.read({ from: next })) {
          if (stopped()) return
          next = endOf(records)
          yield { kind: 'records', records }
          if (stopped()) return
        }
      }
      const behind = yield* this.#deliver(next, options, stopped)
      if (behind === undefined) return
      next = behind
      yield { kind: 'fellBehind', next }
    }
  }

  /** Delivers appended records until stopped (undefined) or fallen behind (where to go on). */
  async *#deliver(
    from: number,
    options: FollowOptions,
    stopped: () => boolean,
  ): AsyncGenerator<Followed, number | undefined, void> {
    let wake: () => void = () => undefined
    const follower: Follower = {
      buffer: [],
      limit: options.bufferRecords ?? limits.subscriberBufferRecords,
      overflowed: false,
      wake: () => wake(),
    }
    const wakeUp = () => wake()
    this.#live.add(follower)
    this.#waiting.add(wakeUp)
    options.signal?.addEventListener('abort', wakeUp)
    let next = from
    try {
      yield { kind: 'caughtUp', next }
      while (!stopped()) {
        if (follower.overflowed) return next
        const taken = follower.buffer
        follower.buffer = []
        if (taken.length > 0) {
          const records = taken
            .filter((record) => record.first + record.count > next)
            .flatMap((record) => decodeStored(record.bytes))
          if (records.length > 0) {
            next = endOf(records)
            yield { kind: 'records', records }
          }
          if (follower.buffer.length === 0 && !follower.overflowed && !stopped())
            yield { kind: 'caughtUp', next }
          continue
        }
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      return undefined
    } finally {
      this.#live.delete(follower)
      this.#waiting.delete(wakeUp)
      options.signal?.removeEventListener('abort', wakeUp)
    }
  }
}

function endOf(records: readonly LogRecord[]): number {
  const last = records[records.length - 1]!
  return last.first + last.count
}
