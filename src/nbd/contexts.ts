/**
 * The dirty maps of a served disk: which there are, and their bits at the moment one is opened, merged on the fly.
 *
 * `NAME` is α as it is; a moment since which goes through a plan (slices, then the log for what they do not hold, R11), and
 * without a bitmap through the log (R23). A map that cannot vouch for a stretch is dirty throughout: the protocol has no way to
 * say "incomplete" (R35). Costs a copy of the bits for α, else the plan, whose bits are taken as they are.
 */
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import { findDisk } from '../commands/find.ts'
import { CheckpointError, type ErrorCode } from '../errors.ts'
import { bitsOf as bitsBehind } from '../store/answer-bits.ts'
import { usualGranularity } from '../store/answer-granularity.ts'
import { coreOf, type Store } from '../store/store.ts'
import type { BitmapInfo, PointInput } from '../store/types.ts'
import { AllocationContext, BitContext } from './bit-context.ts'
import { ALLOCATION, DIRTY, type MapName, parseMapName, type SliceName } from './context-name.ts'
import type { NbdContext } from './export.ts'

/** Names that one answer lists; more can still be asked for by name. */
export const LISTED_MAX = 1000

/** Refusals that mean: there is no such map. Whatever else goes wrong is told. */
const ABSENT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BACKUP_NOT_FOUND',
  'BITMAP_NOT_FOUND',
  'CHECKPOINT_NOT_FOUND',
  'DISK_NOT_FOUND',
  'POINT_INVALID',
  'POINT_NOT_FOUND',
  'POINT_ORDER',
  'SLICE_DROPPED',
  'SLICE_MERGED',
  'SLICE_NOT_FOUND',
  'SLICE_OLD_GENERATION',
])

/** As `NbdExport.contexts`: bitmaps first, then their slices and the checkpoints, newest first. */
export async function listContexts(store: Store, disk: string, query = ''): Promise<readonly string[]> {
  switch (query) {
    case '':
      return [ALLOCATION, ...dirtyMaps(store, disk, LISTED_MAX - 1)]
    case 'base:':
    case ALLOCATION:
      return [ALLOCATION]
    case 'qemu:':
    case DIRTY:
      return dirtyMaps(store, disk, LISTED_MAX)
    default:
      return (await orNull(() => checkMap(store, disk, query))) === null ? [] : [query]
  }
}

/** As `NbdExport.context`; `size` is the export's. */
export async function openContext(
  store: Store,
  disk: string,
  size: number,
  name: string,
): Promise<NbdContext | null> {
  if (name === ALLOCATION) return new AllocationContext(size)
  return await orNull(async () => {
    const meant = nameOf(store, disk, name)
    return meant === null ? null : new BitContext(name, await bitsOf(store, disk, meant), size)
  })
}

function dirtyMaps(store: Store, disk: string, most: number): readonly string[] {
  const bitmaps = store.bitmaps(disk)
  const names = bitmaps.map(({ bitmap }) => bitmap)
  for (const { bitmap, state } of bitmaps)
    for (const { number } of state.slices.toReversed()) names.push(`${bitmap}@since=${number}`)
  for (const { name } of store.checkpoints().toReversed()) names.push(`@checkpoint=${name}`)
  return [...new Set(names)].slice(0, most).map((name) => DIRTY + name)
}

function nameOf(store: Store, disk: string, name: string): MapName | null {
  if (!name.startsWith(DIRTY)) return null
  const there = new Set(store.bitmaps(disk).map(({ bitmap }) => bitmap))
  return parseMapName(name.slice(DIRTY.length), (bitmap) => there.has(bitmap))
}

/** Whether there is such a map, without making it. */
async function checkMap(store: Store, disk: string, name: string): Promise<true | null> {
  const meant = nameOf(store, disk, name)
  if (meant === null) return null
  const context = meant.bitmap === null ? { disk } : { disk, bitmap: meant.bitmap }
  let last = -1
  for (const point of pointsOf(store, disk, meant)) {
    const { position } = await store.resolvePoint(point, 'since', context)
    if (position < last) return null
    last = position
  }
  return true
}

function pointsOf(store: Store, disk: string, meant: MapName): readonly PointInput[] {
  switch (meant.kind) {
    case 'active':
      return []
    case 'since':
      return [startOf(store.bitmap(disk, meant.bitmap), meant.from)]
    case 'between': {
      const info = store.bitmap(disk, meant.bitmap)
      return [startOf(info, meant.from), startOf(info, meant.to)]
    }
    case 'point':
      return [meant.point]
    default:
      return meant satisfies never
  }
}

async function bitsOf(store: Store, disk: string, meant: MapName): Promise<DirtyBitmap> {
  switch (meant.kind) {
    case 'active':
      return activeBits(store, disk, meant.bitmap)
    case 'since':
      return await plannedBits(
        store,
        disk,
        meant.bitmap,
        startOf(store.bitmap(disk, meant.bitmap), meant.from),
      )
    case 'between':
      return await betweenBits(store, disk, meant)
    case 'point':
      return meant.bitmap === null
        ? await changedBits(store, disk, meant.point)
        : await plannedBits(store, disk, meant.bitmap, meant.point)
    default:
      return meant satisfies never
  }
}

/** α, while a backup runs with what it collects meanwhile; everything, where α missed writes. */
function activeBits(store: Store, disk: string, name: string): DirtyBitmap {
  const { state } = store.bitmap(disk, name)
  const core = coreOf(store)
  const held = core.state.bits.bitmap(disk, name)
  if (held === undefined) throw new Error(`slicelog bug: bitmap ${name} of ${disk} has no bits`)
  const bits = held.active.clone()
  if (held.successor !== null) bits.or(held.successor)
  const lost = state.active.lost.length + (state.successor?.lost.length ?? 0)
  if (lost > 0 || core.unknownOf(findDisk(core.catalog, disk)).length > 0) bits.setAll()
  return bits
}

/** What a backup since that moment would copy (R11, R25): the whole disk, where it cannot be known (R35). */
async function plannedBits(
  store: Store,
  disk: string,
  bitmap: string,
  since: PointInput,
): Promise<DirtyBitmap> {
  return bitsBehind(await store.plan({ disk, bitmap, mode: 'differential', since }))
}

async function changedBits(store: Store, disk: string, since: PointInput): Promise<DirtyBitmap> {
  const granularity = usualGranularity(store.diskInfo(disk).size)
  return bitsBehind(await store.changed(disk, { since, granularity }))
}

/** What the log has between the two starts, and what lies in the slices between them: bits that were merged in are in no log. */
async function betweenBits(
  store: Store,
  disk: string,
  { bitmap, from, to }: Extract<MapName, { kind: 'between' }>,
): Promise<DirtyBitmap> {
  const info = store.bitmap(disk, bitmap)
  const { granularity } = info
  const [since, until] = [startOf(info, from), startOf(info, to)]
  const bits = bitsBehind(await store.changed(disk, { since, until, granularity, bitmap })).clone()
  bits.resize(store.diskInfo(disk).size) // They are of the size that the disk had at `until`.
  for (const { number } of info.state.slices) {
    if (number < from.slice || number >= to.slice) continue
    const slice = await store.disk(disk).bitmap(bitmap).dirty({ slice: number })
    slice.eachExtent((offset, length) => bits.setRange(offset, length))
  }
  return bits
}

/** Where a slice starts; α starts too, and its number is the next slice's. */
function startOf({ bitmap, generation, state }: BitmapInfo, name: SliceName): PointInput {
  const { active } = state
  const sameLife = name.generation === undefined || name.generation === generation
  return sameLife && name.slice === active.number && active.from.position >= 0
    ? { position: active.from.position }
    : { ...name, bitmap }
}

async function orNull<T>(find: () => Promise<T | null>): Promise<T | null> {
  try {
    return await find()
  } catch (error) {
    if (error instanceof CheckpointError && ABSENT.has(error.code)) return null
    throw error
  }
}
