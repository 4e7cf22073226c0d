/**
 * Reading, for both implementations: what a source of stored values delivers is checked (checksum, place, no hole) and
 * becomes records. Cost: the checksum and the decoder, about 35 ns a write; nothing is kept.
 */
import {
  checkHeader,
  decodeStored,
  EMPTY_HASH,
  hashesOf,
  onlyWrites,
  type StoredHeader,
} from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { logDamaged, refusalAt } from './damaged.ts'
import type { ReadOptions } from './event-log.ts'

/** A stored value under the position that its key names. */
export interface StoredEntry {
  readonly position: number
  readonly value: Uint8Array
}

/** One consistent view of the stored values. */
export interface EntrySource {
  /** From the entry at or before `from` to the last at or before `to`, in order or newest first. */
  entries(from: number, to: number, reverse: boolean): AsyncIterable<readonly StoredEntry[]>
  /** The entry with the highest position ≤ `position`. */
  floor(position: number): Promise<StoredEntry | undefined>
}

/** The entry's records. Throws LOG_DAMAGED or FORMAT_TOO_NEW. */
export function recordsOf(entry: StoredEntry): LogRecord[] {
  let records: LogRecord[]
  try {
    records = decodeStored(entry.value)
  } catch (error) {
    throw refusalAt(entry.position, error)
  }
  if (records[0]!.first !== entry.position) throw misplaced(entry.position, records[0]!.first)
  return records
}

/** The entry's header, after its checksum. Throws LOG_DAMAGED or FORMAT_TOO_NEW. */
export function headerOf(entry: StoredEntry): StoredHeader {
  let header: StoredHeader
  try {
    header = checkHeader(entry.value)
  } catch (error) {
    throw refusalAt(entry.position, error)
  }
  if (header.first !== entry.position) throw misplaced(entry.position, header.first)
  return header
}

function misplaced(position: number, found: number): CheckpointError {
  return logDamaged('misplaced', { position, found })
}

export function hole(position: number, found: number | null): CheckpointError {
  return logDamaged('hole', { position, found })
}

/** The entry that holds `position`. Throws LOG_DAMAGED when none does. */
export async function entryAt(source: EntrySource, position: number): Promise<StoredEntry> {
  const entry = await source.floor(position)
  if (entry === undefined) throw hole(position, null)
  const { first, count } = headerOf(entry)
  if (first + count <= position) throw hole(first + count, null)
  return entry
}

/** `next`: the head at the time of the call. */
export async function* readRecords(
  source: EntrySource,
  next: number,
  options: ReadOptions,
): AsyncGenerator<readonly LogRecord[], void, void> {
  const from = options.from ?? 0
  const to = Math.min(options.to ?? next - 1, next - 1)
  checkPosition(from)
  if (from > to) return
  const reverse = options.reverse === true
  let expected = reverse ? to : from
  for await (const entries of source.entries(from, to, reverse)) {
    if (options.signal?.aborted === true) throw aborted(options.signal)
    const batch: LogRecord[] = []
    for (const entry of entries) {
      const skipped = options.without === 'writes' ? writesOnly(entry) : undefined
      const records = skipped === undefined ? recordsOf(entry) : []
      const first = entry.position
      const last = skipped ?? records[records.length - 1]!
      const end = last.first + last.count - 1
      const fits =
        expected === (reverse ? to : from)
          ? first <= expected && expected <= end
          : expected === (reverse ? end : first)
      if (!fits) throw hole(expected, reverse ? end : first)
      expected = reverse ? first - 1 : end + 1
      if (reverse) records.reverse()
      for (const record of records) {
        if (options.without === 'writes' && record.kind === 'writes') continue
        if (record.first <= to && record.first + record.count > from) batch.push(record)
      }
    }
    if (batch.length > 0) yield batch
  }
  if (reverse ? expected >= from : expected <= to) throw hole(expected, null)
}

/** The header of an entry that holds nothing but writes; undefined where it may hold more. Throws LOG_DAMAGED or FORMAT_TOO_NEW. */
function writesOnly(entry: StoredEntry): StoredHeader | undefined {
  const header = headerOf(entry)
  try {
    return onlyWrites(entry.value) ? header : undefined
  } catch (error) {
    throw refusalAt(entry.position, error)
  }
}

/** Values as they are stored, from the one that holds `from` on. */
export async function* readValues(
  source: EntrySource,
  next: number,
  options: Omit<ReadOptions, 'reverse'>,
): AsyncGenerator<readonly StoredEntry[], void, void> {
  const from = options.from ?? 0
  const to = Math.min(options.to ?? next - 1, next - 1)
  checkPosition(from)
  if (from > to) return
  for await (const entries of source.entries(from, to, false)) {
    if (options.signal?.aborted === true) throw aborted(options.signal)
    yield entries
  }
}

function checkPosition(position: number): void {
  if (!(Number.isSafeInteger(position) && position >= 0)) throw new RangeError(`no position: ${position}`)
}

/** Between two parts of a long read. @throws CheckpointError ABORTED */
export function checkAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw aborted(signal)
}

export function aborted(signal: AbortSignal): CheckpointError {
  return new CheckpointError(
    'ABORTED',
    'the caller gave up; what was delivered until then holds',
    {},
    signal.reason,
  )
}

/** The chain's hash after the event at `position`; undefined when no record ends there. Reads at most two stored values. */
export async function hashAfter(source: EntrySource, position: number): Promise<Uint8Array | undefined> {
  const entry = await source.floor(position)
  if (entry === undefined) return undefined
  const { first, count, hash } = headerOf(entry)
  if (first + count <= position) return undefined
  if (first + count === position + 1) return hash
  // Inside a pack, whose inner hashes follow from the one before it.
  const before = first === 0 ? undefined : await source.floor(first - 1)
  if (first > 0 && before === undefined) return undefined
  const previous = before === undefined ? EMPTY_HASH : headerOf(before).hash
  try {
    const steps = hashesOf(entry.value, previous)
    // After a gap nothing says what the chain was, so nothing inside the pack can be said either (R28).
    if (Buffer.compare(steps[steps.length - 1]!.hash, hash) !== 0) return undefined
    return steps.find((step) => step.next === position + 1)?.hash
  } catch (error) {
    throw refusalAt(entry.position, error)
  }
}
