/**
 * What it takes to put runs in the place of records (R29): which stored values go, and what comes. A run replaces whole records;
 * a pack that it cuts gives the records outside it back, under their own positions and hashes, joined again where that is smaller.
 *
 * Cost: one read of what is replaced; a hash a record for the packs at the edges.
 */
import { EMPTY_HASH, packStored, readHeader, unpackStored } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import { refusalAt } from './damaged.ts'
import { type EntrySource, headerOf, type StoredEntry } from './entries.ts'
import type { Swap } from './event-log.ts'

export interface Splice {
  /** Keys of the values that go; some of them come back with other content. */
  readonly removed: readonly number[]
  readonly added: readonly StoredEntry[]
}

/**
 * `next`: the log's head. Throws POSITION_CONFLICT where a run does not fit what is there (records cut in two, another hash after
 * it, overlap), and LOG_DAMAGED at a damaged value: nothing is replaced that cannot be read.
 */
export async function spliceOf(source: EntrySource, swaps: readonly Swap[], next: number): Promise<Splice> {
  const removed = new Map<number, StoredEntry>()
  /** Values that reach beyond the run that touches them. */
  const edges = new Map<number, StoredEntry>()
  let after = -1
  for (const swap of swaps) {
    checkSwap(swap, after, next)
    await collect(source, swap, removed, edges)
    after = swap.last
  }
  const added: StoredEntry[] = swaps.map(({ first, value }) => ({ position: first, value }))
  const ends = new Set<number>()
  for (const edge of edges.values()) added.push(...(await outside(source, edge, swaps, ends)))
  for (const { value } of removed.values()) {
    const { first, count } = readHeader(value)
    ends.add(first - 1).add(first + count - 1)
  }
  for (const { first, last } of swaps)
    if (!ends.has(first - 1) || !ends.has(last)) throw misfit(first, last, 'it cuts a record in two')
  return { removed: [...removed.keys()], added }
}

function checkSwap({ first, last, value }: Swap, after: number, next: number): void {
  const header = readHeader(value)
  if (header.layout !== 'run' || header.first !== first || header.first + header.count !== last + 1)
    throw new RangeError(`a run for positions ${first} to ${last} is needed`)
  if (first <= after || last >= next) throw misfit(first, last, 'it overlaps another, or the end of the log')
}

async function collect(
  source: EntrySource,
  { first, last, value }: Swap,
  removed: Map<number, StoredEntry>,
  edges: Map<number, StoredEntry>,
): Promise<void> {
  let expected: number | undefined
  for await (const entries of source.entries(first, last, false)) {
    for (const entry of entries) {
      const header = headerOf(entry)
      const end = header.first + header.count - 1
      if (expected === undefined ? header.first > first : header.first !== expected)
        throw misfit(first, last, 'records are missing there')
      expected = end + 1
      removed.set(entry.position, entry)
      if (header.first < first || end > last) edges.set(entry.position, entry)
      else if (end === last && !sameBytes(header.hash, readHeader(value).hash))
        throw misfit(first, last, 'the chain has another hash there')
    }
  }
  if (expected === undefined || expected <= last) throw misfit(first, last, 'records are missing there')
}

/** The records of a value that no run takes, as values of their own or packs. Adds where its records end to `ends`. */
async function outside(
  source: EntrySource,
  edge: StoredEntry,
  swaps: readonly Swap[],
  ends: Set<number>,
): Promise<StoredEntry[]> {
  const before = edge.position === 0 ? undefined : await source.floor(edge.position - 1)
  const previous = before === undefined ? EMPTY_HASH : headerOf(before).hash
  const values = unpacked(edge, previous)
  const kept: StoredEntry[] = []
  let group: Uint8Array[] = []
  let groupBefore = previous
  let hash = previous
  const flush = () => {
    const joined = packStored(group, groupBefore)
    for (const value of joined === undefined ? group : [joined])
      kept.push({ position: readHeader(value).first, value })
    group = []
  }
  for (const value of values) {
    const header = readHeader(value)
    const last = header.first + header.count - 1
    ends.add(header.first - 1).add(last)
    const taken = swaps.find((swap) => swap.first <= last && header.first <= swap.last)
    if (taken === undefined) {
      if (group.length === 0) groupBefore = hash
      group.push(value)
    } else {
      flush()
      if (taken.last === last && !sameBytes(header.hash, readHeader(taken.value).hash))
        throw misfit(taken.first, taken.last, 'the chain has another hash there')
    }
    hash = header.hash
  }
  flush()
  return kept
}

function unpacked(edge: StoredEntry, previous: Uint8Array): Uint8Array[] {
  let values: Uint8Array[] | undefined
  try {
    values = unpackStored(edge.value, previous)
  } catch (error) {
    throw refusalAt(edge.position, error)
  }
  if (values === undefined) throw misfit(edge.position, edge.position, 'the pack there does not follow')
  return values
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

function misfit(first: number, last: number, why: string): CheckpointError {
  return new CheckpointError(
    'POSITION_CONFLICT',
    `no run can take the place of positions ${first} to ${last}: ${why}; read the log again and fold it anew`,
    { expected: first, last },
  )
}
