/** What the contract's cases are made of: a chain of records to append, and the few things that they all do with a log. */
import assert from 'node:assert/strict'
import { EMPTY_HASH, type EncodedRecord, encodeEvents, encodeWrites } from '../../events/record.ts'
import type { DomainEvent, LogRecord } from '../../events/types.ts'
import { CheckpointError, type ErrorCode } from '../errors.ts'
import type { EventLog, ReadOptions } from './event-log.ts'

export interface ContractSubject {
  readonly log: EventLog
  /** Closes the log and opens it again on the same content. Without it those tests are left out, by name. */
  readonly reopen?: () => Promise<EventLog>
  readonly dispose?: () => Promise<void>
}

/** By title. */
export type Cases = Readonly<Record<string, (subject: ContractSubject) => Promise<void>>>

/** Makes a chain of records to append: of `rows` writes each, or an event with a command id. */
export class ContractChain {
  next = 0
  time = 1_700_000_000_000
  hash: Uint8Array = EMPTY_HASH

  writes(rows = 1, step = 1): EncodedRecord {
    const offsets = Float64Array.from({ length: rows }, (_, i) => ((this.next + i) % 1000) * 4096)
    const lengths = new Float64Array(rows).fill(4096)
    const times = Float64Array.from({ length: rows }, (_, i) => this.time + i * step)
    return this.#took(
      encodeWrites(this.next, this.time, [{ disk: 0, columns: { offsets, lengths, times } }], this.hash),
      step,
    )
  }

  event(
    commandId?: string,
    event: DomainEvent = { type: 'disk-added', disk: 'vda', size: 1 << 30 },
  ): EncodedRecord {
    const meta =
      commandId === undefined ? {} : { command: 'add-disk', commandId, argumentsHash: 'a'.repeat(64) }
    return this.#took(encodeEvents(this.next, this.time, meta, [event], this.hash), 1)
  }

  #took(record: EncodedRecord, step: number): EncodedRecord {
    this.next = record.first + record.count
    this.time = record.lastTime + step
    this.hash = record.hash
    return record
  }
}

export async function refusedWith(code: ErrorCode, promise: Promise<unknown>): Promise<CheckpointError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof CheckpointError, `expected ${code}, got ${String(error)}`)
  assert.equal(error.code, code)
  return error
}

export async function readAll(log: EventLog, options?: ReadOptions): Promise<LogRecord[]> {
  const all: LogRecord[] = []
  for await (const records of log.read(options)) all.push(...records)
  return all
}

export async function appendAll(
  log: EventLog,
  records: readonly EncodedRecord[],
  sync = false,
): Promise<void> {
  for (const record of records) await log.append([record], { expected: record.first, sync })
}

export const firsts = (records: readonly LogRecord[]) => records.map((record) => record.first)
