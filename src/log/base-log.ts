/**
 * What every EventLog does alike: one append at a time, checks before it, refusal after a failure, readers, followers.
 * An implementation brings a source of stored values and a way to store some atomically.
 */
import { EMPTY_HASH, type EncodedRecord } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { bisectTime } from './bisect.ts'
import {
  type EntrySource,
  hashAfter,
  readRecords,
  readValues,
  recordsOf,
  type StoredEntry,
} from './entries.ts'
import type {
  AppendOptions,
  EventLog,
  Followed,
  FollowersNow,
  FollowOptions,
  LogHead,
  ReadOptions,
} from './event-log.ts'
import { Followers } from './follow.ts'
import { type Splice, spliceOf } from './splice.ts'

export const EMPTY_HEAD: LogHead = { next: 0, time: null, hash: EMPTY_HASH }

/** A view to read from, to be released when the reader is done. */
export interface OpenSource extends EntrySource {
  release(): Promise<void>
}

type State =
  | { readonly kind: 'open' }
  | { readonly kind: 'failed'; readonly cause: unknown }
  | { readonly kind: 'closed' }

export abstract class BaseLog implements EventLog {
  #head: LogHead
  #synced: LogHead
  #state: State = { kind: 'open' }
  #tail: Promise<unknown> = Promise.resolve()
  #closing: Promise<void> | undefined
  readonly #followers = new Followers()

  protected constructor(head: LogHead, synced: LogHead) {
    this.#head = head
    this.#synced = synced
  }

  get head(): LogHead {
    return this.#head
  }

  get syncedHead(): LogHead {
    return this.#synced
  }

  /** Whether an append failed, so that what the log holds is unknown. */
  protected get failed(): boolean {
    return this.#state.kind === 'failed'
  }

  protected abstract source(): Promise<OpenSource>
  /** Stores all or nothing. `head` is the head after it; `synced` the last head that survives a power cut. */
  protected abstract store(
    records: readonly EncodedRecord[],
    head: LogHead,
    synced: LogHead,
    sync: boolean,
    splice: Splice | undefined,
  ): Promise<void>
  /** Runs `work` while no stored value is replaced by anything else. */
  protected abstract withValuesStill<T>(work: () => Promise<T>): Promise<T>
  protected abstract reclaimSome(from: number, to: number): Promise<void>
  /** Where the index says that the command is; the record there is checked by the caller. */
  protected abstract indexedPosition(commandId: string): Promise<number | undefined>
  protected abstract repackSome(
    signal?: AbortSignal,
  ): Promise<{ readonly before: number; readonly after: number }>
  protected abstract release(): Promise<void>

  append(records: readonly EncodedRecord[], options: AppendOptions): Promise<LogHead> {
    const append = () => this.#append(records, options)
    const result = this.#tail.then(() =>
      options.replace === undefined ? append() : this.withValuesStill(append),
    )
    this.#tail = result.catch(() => undefined)
    return result
  }

  /** Runs `work` while nothing is on its way to disk. */
  protected betweenAppends<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.#tail.then(work)
    this.#tail = result.catch(() => undefined)
    return result
  }

  async #append(records: readonly EncodedRecord[], options: AppendOptions): Promise<LogHead> {
    this.#refuseUnlessOpen()
    if (options.expected !== this.#head.next) {
      throw new CheckpointError(
        'POSITION_CONFLICT',
        `the next position is ${this.#head.next}, not ${options.expected}; read on from there and decide again`,
        { expected: options.expected, next: this.#head.next },
      )
    }
    if (records.length === 0 && (!options.sync || this.#synced.next === this.#head.next)) return this.#head
    const head = headAfter(this.#head, records)
    // Asked first, since each wait costs a turn of the loop that every write has to pay.
    if (records.some(({ commandId }) => commandId !== undefined)) await this.#refuseKnownCommands(records)
    const splice = options.replace === undefined ? undefined : await this.#splice(options)
    const synced = options.sync ? head : this.#synced
    try {
      await this.store(records, head, synced, options.sync, splice)
    } catch (cause) {
      this.#state = { kind: 'failed', cause }
      throw new CheckpointError(
        'IO_FAILED',
        `writing to the log failed; whether positions ${options.expected} to ${head.next - 1} were kept is unknown until it is opened again`,
        { from: options.expected, to: head.next - 1, ...codeOf(cause) },
        cause,
      )
    }
    this.#head = head
    this.#synced = synced
    this.#followers.publish(records)
    return head
  }

  async #splice({ replace, sync, expected }: AppendOptions): Promise<Splice | undefined> {
    if (replace === undefined || replace.length === 0) return undefined
    if (!sync) throw new RangeError('what replaces records must be synced')
    const source = await this.source()
    try {
      return await spliceOf(source, replace, expected)
    } finally {
      await source.release()
    }
  }

  async #refuseKnownCommands(records: readonly EncodedRecord[]): Promise<void> {
    const seen = new Map<string, number>()
    for (const { commandId, first } of records) {
      if (commandId === undefined) continue
      const position = seen.get(commandId) ?? (await this.positionOfCommand(commandId))
      if (position !== undefined) {
        throw new CheckpointError(
          'COMMAND_ID_REUSED',
          `command id "${commandId}" is in the log already, at position ${position}; use a new id`,
          { commandId, position },
        )
      }
      seen.set(commandId, first)
    }
  }

  #refuseUnlessOpen(): void {
    if (this.#state.kind === 'failed') {
      throw new CheckpointError(
        'STORE_FAILED',
        'an earlier write to the log failed, so nothing more is accepted; close and open the store again',
        codeOf(this.#state.cause),
        this.#state.cause,
      )
    }
    this.#refuseIfClosed()
  }

  #refuseIfClosed(): void {
    if (this.#state.kind === 'closed')
      throw new CheckpointError('STORE_CLOSED', 'the log is closed; open the store again')
  }

  async *read(options: ReadOptions = {}): AsyncGenerator<readonly LogRecord[], void, void> {
    this.#refuseIfClosed()
    const next = this.#head.next
    const source = await this.source()
    try {
      yield* readRecords(source, next, options)
    } finally {
      await source.release()
    }
  }

  async *values(
    options: Omit<ReadOptions, 'reverse'> = {},
  ): AsyncGenerator<readonly StoredEntry[], void, void> {
    this.#refuseIfClosed()
    const next = this.#head.next
    const source = await this.source()
    try {
      yield* readValues(source, next, options)
    } finally {
      await source.release()
    }
  }

  async positionAtTime(time: number): Promise<number> {
    this.#refuseIfClosed()
    const next = this.#head.next
    const source = await this.source()
    try {
      return await bisectTime(source, next, time)
    } finally {
      await source.release()
    }
  }

  async positionOfCommand(commandId: string): Promise<number | undefined> {
    this.#refuseIfClosed()
    const position = await this.indexedPosition(commandId)
    if (position === undefined) return undefined
    const source = await this.source()
    try {
      const entry = await source.floor(position)
      const record = entry && recordsOf(entry).find((candidate) => candidate.first === position)
      return record?.kind === 'events' && record.meta.commandId === commandId ? position : undefined
    } finally {
      await source.release()
    }
  }

  async hashAt(position: number): Promise<Uint8Array | undefined> {
    this.#refuseIfClosed()
    if (position === -1) return EMPTY_HASH
    const { next, hash } = this.#head
    if (position + 1 === next) return hash
    if (!Number.isSafeInteger(position) || position < 0 || position >= next) return undefined
    const source = await this.source()
    try {
      return await hashAfter(source, position)
    } finally {
      await source.release()
    }
  }

  get followers(): FollowersNow {
    return this.#followers.now
  }

  follow(options: FollowOptions = {}): AsyncIterable<Followed> {
    this.#refuseIfClosed()
    return this.#followers.follow(this, { ...options, from: options.from ?? this.#head.next })
  }

  async repack(
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<{ readonly before: number; readonly after: number }> {
    this.#refuseUnlessOpen()
    return this.repackSome(options.signal)
  }

  async reclaim(from: number, to: number): Promise<void> {
    this.#refuseUnlessOpen()
    await this.reclaimSome(from, to)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#followers.end()
    await this.#tail
    try {
      await this.release()
    } finally {
      this.#state = { kind: 'closed' }
    }
  }
}

/** Asserts what the caller promised: contiguous positions, times that do not go back, each chained from the one before. */
function headAfter(head: LogHead, records: readonly EncodedRecord[]): LogHead {
  let { next, time, hash } = head
  for (const record of records) {
    if (record.first !== next) throw conflict(record.first, next)
    if (time !== null && record.time < time)
      throw new RangeError(`time goes back from ${time} to ${record.time}`)
    if (!sameHash(record.previous, hash)) throw conflict(record.first, next)
    next += record.count
    time = record.lastTime
    hash = record.hash
  }
  return { next, time, hash }
}

function conflict(first: number, next: number): CheckpointError {
  return new CheckpointError(
    'POSITION_CONFLICT',
    `a record for position ${first} does not continue the log at ${next}, or not from its hash`,
    { expected: first, next },
  )
}

export function sameHash(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** The system's own code (ENOSPC, EIO) where the failure has one. */
function codeOf(error: unknown): { readonly reason?: string } {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const code = (at as { code?: unknown }).code
    if (typeof code === 'string' && /^E[A-Z]+$/.test(code)) return { reason: code }
    const found = /No space left|Input\/output error/.exec(at.message)
    if (found !== null) return { reason: found[0].startsWith('No') ? 'ENOSPC' : 'EIO' }
  }
  return {}
}
