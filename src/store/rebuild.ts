/**
 * A past state: the newest snapshot before it, then the tail of the log (R22). Without a usable snapshot, or when a
 * stored value turns out damaged, the same fold from the first event: slower, never wrong.
 */
import type { LogRecord } from '../../events/types.ts'
import { slicesNeeded } from '../../projections/bits.ts'
import type { Catalog } from '../../projections/catalog.ts'
import type { EventLog } from '../log/event-log.ts'
import { loadSlice } from './bits-loader.ts'
import { type Derived, DerivedMissing } from './derived.ts'
import { foldWrites } from './fold-writes.ts'
import { type FoldWrites, load } from './snapshots.ts'
import type { SpanIndex } from './span-index.ts'
import { cutRecord, State } from './state.ts'

export interface RebuildOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((position: number) => void) | undefined
  /** Use nothing derived: what an audit asks for (R26). */
  readonly fromLogAlone?: boolean
}

/** How a rebuild gets by without decoding, and who wants to see what it folds. */
export interface RebuildHelp {
  /** Adds writes to stored bits; default: decodes them. */
  readonly fold?: FoldWrites | undefined
  /** Fed with every record that is folded: for the state that goes on living. */
  readonly feed?: SpanIndex | undefined
}

export interface Rebuilt {
  readonly state: State
  /** Events folded from the log. */
  readonly replayed: number
}

/** The state after the event at `position` (-1: the empty state). */
export async function rebuild(
  log: EventLog,
  derived: Derived,
  storeId: string,
  position: number,
  options: RebuildOptions = {},
  help: RebuildHelp = {},
): Promise<Rebuilt> {
  if (options.fromLogAlone !== true) {
    const fold: FoldWrites = help.fold ?? ((span, target) => foldWrites(log, span, target))
    const state = await usable(log, derived, storeId, position, fold)
    if (state !== undefined) {
      try {
        return await foldTail(log, derived, state, position, options, help.feed)
      } catch (error) {
        if (!(error instanceof DerivedMissing)) throw error
      }
    }
  }
  return await foldTail(log, derived, new State(), position, options, help.feed)
}

/**
 * The catalog after the event at `position`, without any bits: what a question that names its own writes needs of a moment.
 * Reads no more of the log than `rebuild`, and none of the stored bits.
 */
export async function rebuildCatalog(
  log: EventLog,
  derived: Derived,
  storeId: string,
  position: number,
  signal?: AbortSignal,
): Promise<Catalog> {
  const { catalog } = (await usable(log, derived, storeId, position, null)) ?? new State()
  const from = catalog.last.position + 1
  if (from > position) return catalog
  for await (const records of log.read({ from, to: position, ...(signal === undefined ? {} : { signal }) }))
    for (const record of records) catalog.apply(cutRecord(record, position))
  return catalog
}

/** Snapshots that cannot even be looked through are as good as none. */
async function usable(
  log: EventLog,
  derived: Derived,
  storeId: string,
  position: number,
  fold: FoldWrites | null,
): Promise<State | undefined> {
  try {
    return await load(derived, storeId, position, fold, log)
  } catch (error) {
    derived.rebuilt.push(`the snapshots could not be read (${(error as Error).message})`)
    return undefined
  }
}

async function foldTail(
  log: EventLog,
  derived: Derived,
  state: State,
  position: number,
  options: RebuildOptions,
  feed: SpanIndex | undefined,
): Promise<Rebuilt> {
  const from = state.catalog.last.position + 1
  const fed = feed?.keepsUpWith(position) === true ? feed : undefined
  fed?.begin(from - 1, state)
  const signal = options.signal === undefined ? {} : { signal: options.signal }
  const tail = from > position ? [] : log.read({ from, to: position, ...signal })
  for await (const records of tail) {
    for (const record of records) {
      await foldOne(state, cutRecord(record, position), derived)
      fed?.folded(record)
    }
    await fed?.room()
    options.onProgress?.(state.catalog.last.position)
  }
  if (fed === undefined) feed?.begin(position, state)
  return { state, replayed: position + 1 - from }
}

/** Folds one record; puts the bits of slices in memory where its events need them. */
export async function foldOne(state: State, record: LogRecord, derived: Derived): Promise<void> {
  if (slicesNeeded(record).length > 0) await materialize(state, record, derived)
  state.apply(record)
}

export async function materialize(state: State, record: LogRecord, derived: Derived): Promise<void> {
  for (const { disk, bitmap, slice } of slicesNeeded(record)) {
    const bits = state.bits.bitmap(disk, bitmap)
    const held = bits?.slices.get(slice)
    if (bits === undefined || held === undefined || held.parts.length === 0) continue
    held.own = await loadSlice(held, bits.active.size, bits.granularity, derived)
    held.parts = []
  }
}
