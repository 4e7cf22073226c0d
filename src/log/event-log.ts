/**
 * Where events are kept: a small contract with two implementations (LevelDB, memory) and one exported suite of tests.
 *
 * The log stores records, in order, without holes. It checks what it stores and what it reads; it decides nothing.
 * One caller appends at a time (the store's committer); any number read meanwhile and see whole records only.
 */
import type { EncodedRecord } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import type { StoredEntry } from './entries.ts'

export interface LogHead {
  /** Position of the next event = number of events. 0 for an empty log. */
  readonly next: number
  /** Time of the last event, null when empty. */
  readonly time: number | null
  /** The chain's hash after the last record (32 bytes); 32 zero bytes when empty. */
  readonly hash: Uint8Array
}

export interface AppendOptions {
  /** Position that the caller believes is next; another one is refused with POSITION_CONFLICT and nothing is written. */
  readonly expected: number
  /** Wait until the records survive a power cut (R30, level `power`). Makes every earlier record durable too. */
  readonly sync: boolean
  /**
   * Runs that take the place of what is stored, in the same atomic and synced batch (R29): ascending, apart, before `expected`.
   * One that does not fit what is there is refused with POSITION_CONFLICT, a damaged value under one with LOG_DAMAGED; then
   * nothing is written and the log goes on. Whoever reads meanwhile goes on seeing what was there.
   */
  readonly replace?: readonly Swap[]
}

/** A run (events/run.ts) that takes the place of the whole records of positions `first` to `last`. */
export interface Swap {
  readonly first: number
  readonly last: number
  /** From encodeWindows or encodeGap; the hash that it carries is the chain's after `last`. */
  readonly value: Uint8Array
}

export interface ReadOptions {
  /** First position wanted. The record that holds it is delivered whole. Default 0. */
  readonly from?: number
  /** Last position wanted, inclusive. Default: the head at the time of the call. */
  readonly to?: number
  /** Newest record first. */
  readonly reverse?: boolean
  /**
   * Records of writes are left out: passed over by their heads, their checksums checked, nothing decoded. Finding fifty events
   * among 100 M writes so costs a read of the log and no more.
   */
  readonly without?: 'writes'
  readonly signal?: AbortSignal
}

export interface FollowOptions {
  readonly from?: number
  readonly signal?: AbortSignal
  /** Records buffered for this reader before it is sent back to the log. Default limits.subscriberBufferRecords. */
  readonly bufferRecords?: number
  /** Bytes of stored values buffered for it, whichever comes first. Default limits.subscriberBufferBytes. */
  readonly bufferBytes?: number
}

/** What a follower gets: records, and once each time it reaches the head or had to fall back to the log. */
export type Followed =
  | { readonly kind: 'records'; readonly records: readonly LogRecord[] }
  | { readonly kind: 'caughtUp'; readonly next: number }
  | { readonly kind: 'fellBehind'; readonly next: number }

/** What the readers of a log hold at this moment. */
export interface FollowersNow {
  readonly readers: number
  /** Stored values buffered for them, and their bytes. */
  readonly records: number
  readonly bytes: number
  /** Where each reader goes on: a compaction that puts no window across these is invisible to them (R29). */
  readonly next: readonly number[]
}

export interface EventLog {
  readonly head: LogHead
  /** Last head known to survive a power cut. */
  readonly syncedHead: LogHead

  /**
   * Writes all records atomically, or none. Records must be contiguous from `expected` and chained from the head's hash.
   * Rejects with POSITION_CONFLICT, or with IO_FAILED: then the outcome is unknown, and every later append is refused
   * with STORE_FAILED and the first cause (R33).
   * Idempotent append: a record whose `commandId` is already in the log is refused with COMMAND_ID_REUSED (fact `position`).
   */
  append(records: readonly EncodedRecord[], options: AppendOptions): Promise<LogHead>

  /** Batches of decoded records in order. Throws LOG_DAMAGED (facts `position`, `problem`) at a bad checksum or a hole. */
  read(options?: ReadOptions): AsyncIterable<readonly LogRecord[]>

  /** Stored values as they are, unchecked, from the one that holds `from` to the one that holds `to`, in order. */
  values(options?: Omit<ReadOptions, 'reverse'>): AsyncIterable<readonly StoredEntry[]>

  /** First position whose event has time ≥ `time`; head.next if none. By bisection, no index (times never decrease). */
  positionAtTime(time: number): Promise<number>

  /** Position of the first event of the record that carried this command id. */
  positionOfCommand(commandId: string): Promise<number | undefined>

  /**
   * The chain's hash after the event at `position` (-1: the empty log's); undefined when no record ends there.
   * Tells whether something derived, say a snapshot, is of this history.
   */
  hashAt(position: number): Promise<Uint8Array | undefined>

  /**
   * Catch-up from `from` (default: the head at the call), then live, without gap or double. Ends when aborted or the log closes.
   * The record that holds `from` is delivered whole; of compacted ones (R29) the window that holds it, and no earlier one.
   */
  follow(options?: FollowOptions): AsyncIterable<Followed>

  /** Who follows now, what is buffered for them, and where they go on. */
  readonly followers: FollowersNow

  /**
   * Joins runs of small records into packs; positions, times, hashes and command ids stay as they are.
   * Returns how many stored values became how many.
   */
  repack(options?: {
    readonly signal?: AbortSignal
  }): Promise<{ readonly before: number; readonly after: number }>

  /** Gives the space of values that `replace` took away in this range back to the file system. */
  reclaim(from: number, to: number): Promise<void>

  /** Clean end: flushes, writes the head file. Idempotent. */
  close(): Promise<void>
}
