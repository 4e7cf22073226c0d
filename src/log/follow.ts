/**
 * Catch-up and live reading without gap or double, pulled by the reader.
 *
 *     log      ─ read until next = head ─┐ attach (no await between the comparison and this)
 *     buffer                             └─ records as they are appended ─ overflow → fellBehind, back to the log
 *
 * A slow reader costs a buffer of encoded records, bounded in number and in bytes; they are decoded by whoever reads them, a
 * few at a time. While it reads from the log it costs one batch, and no view of the database once it pauses.
 */
import { decodeStored, type EncodedRecord } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { limits } from '../limits.ts'
import type { EventLog, Followed, FollowersNow, FollowOptions } from './event-log.ts'

/** A reader that takes longer over a batch than this lets go of its view of the log: a view keeps what was replaced on disk. */
const VIEW_MS = 250

/** Buffered records that are decoded at once: of full ones, 6 MiB of columns. */
const DELIVER_RECORDS = 64

class Follower {
  /** Position of the next event that it was not given yet. */
  next: number
  live = false
  overflowed = false
  bytes = 0
  readonly #buffer: EncodedRecord[] = []
  readonly #recordsMax: number
  readonly #bytesMax: number
  #wake: () => void = () => undefined

  constructor(next: number, options: FollowOptions) {
    this.next = next
    this.#recordsMax = options.bufferRecords ?? limits.subscriberBufferRecords
    this.#bytesMax = options.bufferBytes ?? limits.subscriberBufferBytes
  }

  get records(): number {
    return this.#buffer.length
  }

  /** Takes all of them, or lets go of everything it holds: the log has it. */
  push(records: readonly EncodedRecord[], bytes: number): void {
    if (this.records + records.length > this.#recordsMax || this.bytes + bytes > this.#bytesMax) {
      this.overflowed = true
      this.live = false
      this.#buffer.length = 0
      this.bytes = 0
    } else {
      this.#buffer.push(...records)
      this.bytes += bytes
    }
    this.wake()
  }

  take(): EncodedRecord[] {
    const taken = this.#buffer.splice(0, DELIVER_RECORDS)
    this.bytes -= bytesOf(taken)
    return taken
  }

  attach(): void {
    this.live = true
    this.overflowed = false
  }

  detach(): void {
    this.live = false
    this.#buffer.length = 0
    this.bytes = 0
  }

  wake(): void {
    this.#wake()
  }

  woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}

/** Who is told after each append. */
export class Followers {
  readonly #all = new Set<Follower>()
  #ended = false

  get now(): FollowersNow {
    const all = [...this.#all]
    return {
      readers: all.length,
      records: all.reduce((sum, { records }) => sum + records, 0),
      bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
      next: all.map(({ next }) => next),
    }
  }

  publish(records: readonly EncodedRecord[]): void {
    if (this.#all.size === 0) return
    const bytes = bytesOf(records)
    for (const follower of this.#all) if (follower.live) follower.push(records, bytes)
  }

  /** The log closes: whoever is live gets what is buffered for it, then its end; whoever reads from the log ends. */
  end(): void {
    this.#ended = true
    for (const follower of this.#all) follower.wake()
  }

  async *follow(
    log: Pick<EventLog, 'head' | 'read'>,
    options: FollowOptions & { readonly from: number },
  ): AsyncGenerator<Followed, void, void> {
    const { signal } = options
    const follower = new Follower(options.from, options)
    const aborted = () => signal?.aborted === true
    const wake = () => follower.wake()
    this.#all.add(follower)
    signal?.addEventListener('abort', wake)
    try {
      while (!this.#ended && !aborted()) {
        yield* this.#catchUp(log, follower, () => this.#ended || aborted())
        if (this.#ended || aborted()) return
        yield* this.#deliver(follower, aborted)
        if (!follower.overflowed) return
        yield { kind: 'fellBehind', next: follower.next }
      }
    } finally {
      this.#all.delete(follower)
      follower.detach()
      signal?.removeEventListener('abort', wake)
    }
  }

  /** From the log, until there is nothing more in it; attached in the same turn in which that was seen. */
  async *#catchUp(
    log: Pick<EventLog, 'head' | 'read'>,
    follower: Follower,
    stopped: () => boolean,
  ): AsyncGenerator<Followed, void, void> {
    while (follower.next < log.head.next) {
      const reader = log.read({ from: follower.next })[Symbol.asyncIterator]()
      const letGo = () => void reader.return?.().catch(() => undefined)
      try {
        for (;;) {
          const step = await reader.next()
          if (stopped()) return
          if (step.done === true) break
          const records = notBefore(step.value, follower.next)
          follower.next = endOf(records, follower.next)
          const pause = setTimeout(letGo, VIEW_MS).unref()
          try {
            if (records.length > 0) yield { kind: 'records', records }
          } finally {
            clearTimeout(pause)
          }
          if (stopped()) return
        }
      } catch (error) {
        if (!stopped()) throw error // Closing a log under its readers is no failure of theirs.
        return
      } finally {
        await reader.return?.().catch(() => undefined)
      }
    }
    follower.attach()
  }

  /** As records are appended, until the reader is stopped or has fallen behind. */
  async *#deliver(follower: Follower, aborted: () => boolean): AsyncGenerator<Followed, void, void> {
    yield { kind: 'caughtUp', next: follower.next }
    while (!aborted() && !follower.overflowed) {
      const taken = follower.take()
      if (taken.length === 0) {
        if (this.#ended) return
        await follower.woken()
        continue
      }
      const records = notBefore(
        taken.flatMap((record) => decodeStored(record.bytes)),
        follower.next,
      )
      if (records.length > 0) {
        follower.next = endOf(records, follower.next)
        yield { kind: 'records', records }
      }
      if (follower.records === 0 && !follower.overflowed && !aborted() && !this.#ended)
        yield { kind: 'caughtUp', next: follower.next }
    }
  }
}

/**
 * Without what this reader has had. A record that holds `next` is given whole; of compacted ones, only the windows before it
 * are left out: the one that holds it stands for all of its span and cannot be divided.
 */
function notBefore(records: readonly LogRecord[], next: number): LogRecord[] {
  return records
    .filter((record) => record.first + record.count > next)
    .map((record) => (record.kind === 'windows' ? windowsFrom(record, next) : record))
}

type WindowsRecord = Extract<LogRecord, { kind: 'windows' }>

/** Without the windows that lie wholly before position `next`; at least one does not. */
export function windowsFrom(record: WindowsRecord, next: number): WindowsRecord {
  if (record.first >= next) return record
  const windows = record.windows.filter((window) => window.first + window.count > next)
  const { first, time } = windows[0]!
  return { ...record, first, time, count: record.first + record.count - first, windows }
}

function endOf(records: readonly LogRecord[], before: number): number {
  const last = records[records.length - 1]
  return last === undefined ? before : last.first + last.count
}

function bytesOf(records: readonly EncodedRecord[]): number {
  return records.reduce((sum, { bytes }) => sum + bytes.length, 0)
}
