/**
 * Why a backup has the size it has (R27): its base and why that one, what each slice and each stretch of the log brought, when
 * and where the guest wrote, what other granularities would have copied, and a verdict in words.
 *
 * Costs the state at the backup's begin (from a snapshot), one read of the log since its base (some 7 M writes a second) and
 * the slices that it merged; of the backup before it the same without the read, but for stretches that came from the log. For
 * a backup without a base the span begins at the base that it could have had. Memory is bounded: see explain-span.ts.
 */
import type { Point } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { planReason } from '../../projections/plan.ts'
import type { BackupState } from '../../projections/state.ts'
import { hasTooManyGranules, MiB } from '../limits.ts'
import { needOptions } from '../store/arguments.ts'
import type { BeginView } from '../store/begin-view.ts'
import { needStore, type Store } from '../store/store.ts'
import { backupInfo } from '../store/view.ts'
import { findingsOf } from './explain-findings.ts'
import { partsOf, type Shapes, shapesOf, weigh } from './explain-parts.ts'
import { type SpanTally, tallySpan, volume } from './explain-span.ts'
import type { Between, ExplainedBase, Explanation, GranularityFigure } from './explain-types.ts'

export interface ExplainOptions {
  /** Hot regions of each list. Default 8. */
  readonly top?: number
  readonly signal?: AbortSignal | undefined
  /** Events of the span read so far, and how many there are. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

const TOP = 8
const GRANULARITIES = [4, 16, 64, 256, 1024].map((n) => n * 1024)
/** Bits of a granularity that takes more are not counted. */
const BITS_MEMORY_MAX = 256 * MiB

/**
 * Works for a backup in any state, of any mode. Changes nothing.
 * @throws CheckpointError BACKUP_NOT_FOUND, BACKUP_STATE (a combined copy was never begun), ABORTED, LOG_DAMAGED
 */
export async function explainBackup(
  store: Store,
  id: string,
  options: ExplainOptions = {},
): Promise<Explanation> {
  needStore(store)
  needOptions(options, { top: 'count', signal: 'signal', onProgress: 'function' })
  const view = await store.beginOf(id, { signal: options.signal })
  const { backup, disk, bitmap } = view
  const shapes = shapesOf(view)
  const parts = partsOf(view, shapes.bare)
  const between = betweenOf(view, shapes.from)
  const last = between.at(-1)
  const sinceLast = last === undefined ? null : new DirtyBitmap(disk.size, bitmap.granularity)
  const tally = await tallySpan(store, {
    disk,
    granularity: bitmap.granularity,
    finest: finestOf(disk.size, bitmap.granularity),
    from: shapes.from,
    to: backup.point,
    since: startOf(view, shapes.from),
    parts: [
      ...parts.flatMap(({ span }) => (span === null ? [] : [span])),
      ...(last === undefined
        ? []
        : [{ from: last.point.position, to: backup.point.position, volume: volume(), bits: sinceLast }]),
    ],
    signal: options.signal,
    onProgress: options.onProgress,
  })
  const { union, sources } = await weigh(view, parts)
  const previous = await previousOf(store, view, options)
  const bits = planBits(view, shapes, union)
  const rest = unexplained(union, tally, shapes)
  const explanation: Omit<Explanation, 'findings'> = {
    backup: backupInfo(backup),
    size: disk.size,
    base: baseOf(view),
    reason: planReason(shapes.actual, backup.base),
    equal: bits.digest() === backup.digest && bits.dirtyBytes === backup.bytes,
    whole:
      shapes.actual.whole === null
        ? null
        : { why: shapes.actual.whole, without: union.dirtyBytes, since: shapes.from },
    lost: shapes.actual.lost,
    sources,
    between,
    sinceLast: sinceLast?.dirtyBytes ?? null,
    ...figuresOf(view, shapes.from, tally, options.top ?? TOP),
    previous: previous === null ? null : { ...previous.figures, both: common(bits, previous.bits) },
    unexplained: rest,
    merged: rest === 0 ? [] : await mergedInto(store, view, shapes.from, options),
    bits,
    previousBits: previous?.bits ?? null,
  }
  return { ...explanation, findings: findingsOf(explanation, view.bitmap) }
}

function figuresOf({ backup, disk, bitmap }: BeginView, from: Point, tally: SpanTally, top: number) {
  const { ops, windows, own } = tally
  const written = ops.reduce((sum, op) => ({ writes: sum.writes + op.writes, bytes: sum.bytes + op.bytes }), {
    writes: windows.writes,
    bytes: windows.bytes,
  })
  return {
    span: {
      from,
      to: backup.point,
      resolution: windows.count === 0 ? ('exact' as const) : ('window' as const),
      windows,
    },
    written: {
      ...written,
      ops: { write: ops[0], zero: ops[1], discard: ops[2] },
      rewrites: tally.rewrites,
      onlyDiscarded: tally.data === null ? 0 : own.dirtyBytes - tally.data.dirtyBytes,
      sizes: tally.sizes,
    },
    timeline: tally.timeline,
    hot: { region: tally.hot.region, ...tally.hot.top(top) },
    granularities: granularitiesOf(disk.size, bitmap.granularity, tally, written.bytes),
  }
}

/** A base of no time begins where the disk did. */
function startOf({ disk, backup }: BeginView, from: Point): number {
  return from.time ?? disk.addedAt.time ?? backup.point.time ?? 0
}

function planBits({ disk, bitmap }: BeginView, { actual }: Shapes, union: DirtyBitmap): DirtyBitmap {
  if (actual.whole === null) return union
  const all = new DirtyBitmap(disk.size, bitmap.granularity)
  all.setAll()
  return all
}

function baseOf({ backup, catalog }: BeginView): ExplainedBase {
  const { base, point } = backup
  const here = (at: Point) => base.kind !== 'none' && at.position === base.position
  return {
    ...base,
    age: base.time === null || point.time === null ? null : point.time - base.time,
    backups: [...catalog.backups()].filter((other) => here(other.point)).map((other) => other.id),
    checkpoints: [...catalog.checkpoints()].filter((other) => here(other.point)).map(({ name }) => name),
  }
}

function betweenOf({ backup, catalog }: BeginView, from: Point): readonly Between[] {
  return sameBitmap(catalog.backups(), backup)
    .filter(({ point }) => from.position < point.position && point.position < backup.point.position)
    .map(({ id, mode, point, phase }) => ({
      backup: id,
      mode,
      point,
      state: phase.kind,
      reason: 'reason' in phase ? phase.reason : null,
    }))
}

/** Other backups that were begun over it, oldest first. */
function sameBitmap(backups: Iterable<BackupState>, { id, diskNumber, bitmap }: BackupState): BackupState[] {
  return [...backups].filter(
    (other) =>
      other.id !== id && other.diskNumber === diskNumber && other.bitmap === bitmap && other.of === null,
  )
}

async function previousOf(
  store: Store,
  { backup, disk, bitmap, catalog }: BeginView,
  options: ExplainOptions,
) {
  const before = sameBitmap(catalog.backups(), backup).filter(
    ({ phase, point }) => phase.kind === 'succeeded' && point.position < backup.point.position,
  )
  const last = before.at(-1)
  if (last === undefined) return null
  const bits = new DirtyBitmap(disk.size, bitmap.granularity)
  if (last.whole) bits.setRange(0, Math.min(last.size, disk.size))
  else {
    const view = await store.beginOf(last.id, { signal: options.signal })
    const parts = partsOf(view, shapesOf(view).actual)
    const spans = parts.flatMap(({ span }) => (span === null || span.bits === null ? [] : [span]))
    for (const { from, to, bits: target } of spans)
      await store.foldWrites({ disk: view.disk, after: from, upTo: to, signal: options.signal }, target!)
    for (const part of parts) {
      const piece = await part.load()
      piece.resize(disk.size)
      bits.or(piece)
    }
  }
  return { figures: { backup: last.id, bytes: last.bytes }, bits }
}

function common(bits: DirtyBitmap, other: DirtyBitmap): number {
  const both = bits.clone()
  both.and(other)
  return both.dirtyBytes
}

/** Granules of the plan that no write of the span touched, nor a resize brought. */
function unexplained(union: DirtyBitmap, tally: SpanTally, { bare }: Shapes): number {
  const rest = union.clone()
  rest.andNot(tally.own)
  if (bare.outside !== null) {
    const outside = new DirtyBitmap(union.size, union.granularity)
    outside.setRange(bare.outside.from, bare.outside.to - bare.outside.from)
    rest.andNot(outside)
  }
  return rest.dirtyBytes
}

/** Other bitmaps whose bits were merged into this one since: looked for only where bits have no other reason. */
async function mergedInto(
  store: Store,
  view: BeginView,
  from: Point,
  { signal }: ExplainOptions,
): Promise<string[]> {
  const { disk, bitmap, backup } = view
  const names = new Set<string>()
  const span = { from: from.position + 1, to: backup.point.position, without: 'writes' as const }
  for await (const records of store.records({ ...span, ...(signal === undefined ? {} : { signal }) })) {
    for (const record of records) {
      if (record.kind !== 'events') continue
      for (const event of record.events) {
        if (event.type !== 'bitmap-merged' || event.disk !== disk.id || event.bitmap !== bitmap.name) continue
        for (const source of event.sources)
          if (source.disk !== disk.id) names.add(`${source.disk}:${source.bitmap}`)
          else if (source.bitmap !== bitmap.name) names.add(source.bitmap)
      }
    }
  }
  return [...names]
}

/** The finest granularity worth counting at, of which every coarser one follows. */
function finestOf(size: number, own: number): number {
  return [...GRANULARITIES, own].sort((a, b) => a - b).find((g) => g === own || fits(size, g)) ?? own
}

function fits(size: number, granularity: number): boolean {
  return memoryOf(size, granularity) <= BITS_MEMORY_MAX && !hasTooManyGranules(size, granularity)
}

function memoryOf(size: number, granularity: number): number {
  return Math.ceil(Math.ceil(size / granularity) / 8)
}

/** A coarse granule is dirty if one of the fine ones in it is: so one bitmap gives all. */
function granularitiesOf(
  size: number,
  own: number,
  { fine, own: ownBits }: SpanTally,
  written: number,
): readonly GranularityFigure[] {
  const all = [...new Set([...GRANULARITIES, own])].sort((a, b) => a - b)
  return all.map((granularity) => {
    const memory = memoryOf(size, granularity)
    if (granularity < fine.granularity) return { granularity, bytes: null, amplification: null, memory }
    let bits = granularity === own ? ownBits : fine
    if (bits.granularity !== granularity) {
      bits = new DirtyBitmap(size, granularity)
      bits.or(fine)
    }
    const bytes = bits.dirtyBytes
    return { granularity, bytes, amplification: written === 0 ? null : bytes / written, memory }
  })
}
