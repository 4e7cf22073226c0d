/**
 * A log that goes wrong on purpose at its n-th append, over any other log. What it leaves behind is what a real fault leaves:
 * a record not written, written without anyone being told, half of an append, or a flipped bit under a good answer.
 */
import type { EncodedRecord } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import type { StoredEntry } from './entries.ts'
import type {
  AppendOptions,
  EventLog,
  Followed,
  FollowersNow,
  FollowOptions,
  LogHead,
  ReadOptions,
} from './event-log.ts'

export type Fault =
  /** The append fails and wrote nothing. */
  | { readonly kind: 'fail'; readonly at: number; readonly cause?: Error }
  /** The append was written and fails all the same. */
  | { readonly kind: 'fail-after'; readonly at: number; readonly cause?: Error }
  /** Only the first `keep` records of the append were written, and it fails. */
  | { readonly kind: 'truncate'; readonly at: number; readonly keep: number }
  /** Bit `bit` (counted over the bytes of the append's first record) is stored flipped; nobody is told. */
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }

export class FaultLog implements EventLog {
  readonly #inner: EventLog
  readonly #fault: Fault | undefined
  #appends = 0
  #failure: Error | undefined

  /** `fault.at`: 1 is the first append. Without a fault it changes nothing. */
  constructor(inner: EventLog, fault?: Fault) {
    this.#inner = inner
    this.#fault = fault
  }

  get head(): LogHead {
    return this.#inner.head
  }

  get syncedHead(): LogHead {
    return this.#inner.syncedHead
  }

  async append(records: readonly EncodedRecord[], options: AppendOptions): Promise<LogHead> {
    if (this.#failure !== undefined) {
      throw new CheckpointError('STORE_FAILED', 'an earlier write to the log failed', {}, this.#failure)
    }
    this.#appends++
    const fault = this.#fault
    if (fault === undefined || fault.at !== this.#appends) return this.#inner.append(records, options)
    switch (fault.kind) {
      case 'fail':
        return this.#fail(options, fault.cause)
      case 'fail-after':
        await this.#inner.append(records, options)
        return this.#fail(options, fault.cause)
      case 'truncate':
        if (fault.keep > 0) {
          const { replace: _, ...rest } = options // Half of an append is no atomic batch: it replaced nothing.
          await this.#inner.append(records.slice(0, fault.keep), rest)
        }
        return this.#fail(options)
      case 'flip':
        return this.#inner.append(flipped(records, fault.bit), options)
    }
  }

  #fail(options: AppendOptions, cause: Error = new Error('injected fault')): never {
    this.#failure = cause
    throw new CheckpointError(
      'IO_FAILED',
      'writing to the log failed; its outcome is unknown',
      { from: options.expected },
      cause,
    )
  }

  read(options?: ReadOptions): ReturnType<EventLog['read']> {
    return this.#inner.read(options)
  }

  values(options?: Omit<ReadOptions, 'reverse'>): AsyncIterable<readonly StoredEntry[]> {
    return this.#inner.values(options)
  }

  positionAtTime(time: number): Promise<number> {
    return this.#inner.positionAtTime(time)
  }

  positionOfCommand(commandId: string): Promise<number | undefined> {
    return this.#inner.positionOfCommand(commandId)
  }

  hashAt(position: number): Promise<Uint8Array | undefined> {
    return this.#inner.hashAt(position)
  }

  follow(options?: FollowOptions): AsyncIterable<Followed> {
    return this.#inner.follow(options)
  }

  get followers(): FollowersNow {
    return this.#inner.followers
  }

  repack(options?: { readonly signal?: AbortSignal }): ReturnType<EventLog['repack']> {
    return this.#inner.repack(options)
  }

  reclaim(from: number, to: number): Promise<void> {
    return this.#inner.reclaim(from, to)
  }

  close(): Promise<void> {
    return this.#inner.close()
  }
}

function flipped(records: readonly EncodedRecord[], bit: number): EncodedRecord[] {
  const [first, ...rest] = records
  if (first === undefined) return []
  const bytes = Uint8Array.from(first.bytes)
  const at = Math.floor(bit / 8) % bytes.length
  bytes[at] = bytes[at]! ^ (1 << (bit % 8))
  return [{ ...first, bytes }, ...rest]
}
