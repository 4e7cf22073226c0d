/**
 * What the store shows of a disk, in a trace's words. A running backup's successor is read from the log (the writes
 * since the backup's point, R23) and checked against the count that the live bits have, so that each proves the other.
 */
import type { Extent } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { Disk, Plan } from '../../src/index.ts'
import type { Observation } from './compare.ts'
import type { BitmapView, BitsView, Range, StreamDigests, StreamView } from './format.ts'

/** Every bitmap of the disk; those named in `streams` with their slices. */
export async function lookAt(
  disk: Disk,
  streams: ReadonlySet<string>,
): Promise<Pick<Observation, 'bitmaps' | 'streams'>> {
  const plain: Record<string, BitmapView> = {}
  const sliced: Record<string, StreamView> = {}
  for (const { bitmap: name } of disk.bitmaps()) {
    if (streams.has(name)) sliced[name] = await streamView(disk, name)
    else plain[name] = await bitmapView(disk, name)
  }
  return { bitmaps: plain, streams: sliced }
}

/** The store's digests of everything there is now (R5). */
export async function digestsOf(
  disk: Disk,
  streams: ReadonlySet<string>,
): Promise<Pick<Observation, 'sha256' | 'stream_sha256'>> {
  const plain: Record<string, string> = {}
  const sliced: Record<string, StreamDigests> = {}
  for (const { bitmap: name } of disk.bitmaps()) {
    const bitmap = disk.bitmap(name)
    const { digest } = await bitmap.bits()
    if (!streams.has(name)) {
      plain[name] = digest
      continue
    }
    const { slices } = await bitmap.slices()
    const active = bitmap.info.busy ? (await successorOf(disk, name)).digest() : digest
    const numbered = Object.fromEntries(slices.map((slice) => [String(slice.slice), slice.digest]))
    sliced[name] = { active, slices: numbered }
  }
  return { sha256: plain, stream_sha256: sliced }
}

/** A plan in the trace's words; its digest and bytes must be those of its own extents (R25). */
export function bitsOfPlan(plan: Plan, diskBytes: number): BitsView {
  const bits = bitmapOf(diskBytes, plan.extents, plan.granularity)
  if (bits.digest() !== plan.digest)
    throw new Error(`R25: the plan's digest ${plan.digest} is not that of its extents`)
  if (bits.dirtyBytes !== plan.bytes)
    throw new Error(`R25: the plan says ${plan.bytes} bytes, its extents ${bits.dirtyBytes}`)
  return { count: bits.count, extents: plan.extents.map(({ offset, length }) => [offset, length] as const) }
}

async function bitmapView(disk: Disk, name: string): Promise<BitmapView> {
  const bitmap = disk.bitmap(name)
  const { granularity, recording, busy, persistent } = bitmap.info
  const { count, extents, successorCount } = await bitmap.bits()
  const successor = successorCount === undefined ? {} : { successor_count: successorCount }
  return {
    granularity,
    recording,
    busy,
    persistent,
    count,
    extents: busy ? null : ranges(extents),
    ...successor,
  }
}

async function streamView(disk: Disk, name: string): Promise<StreamView> {
  const bitmap = disk.bitmap(name)
  const { granularity, retention, next, busy } = bitmap.info
  const bits = await bitmap.bits()
  const held: BitsView = { count: bits.count, extents: ranges(bits.extents) }
  const slices = []
  for (const { slice, count } of (await bitmap.slices()).slices)
    slices.push({ id: slice, count, extents: ranges((await bitmap.bits({ slice })).extents) })
  const base = { granularity, retention, next, slices }
  if (!busy) return { ...base, active: held, frozen: null }
  const successor = await successorOf(disk, name)
  if (successor.count !== bits.successorCount)
    throw new Error(`the successor of ${name} counts ${bits.successorCount}, the log ${successor.count}`)
  return {
    ...base,
    active: { count: successor.count, extents: ranges(successor.extentList()) },
    frozen: held,
  }
}

async function successorOf(disk: Disk, name: string): Promise<DirtyBitmap> {
  const { granularity, state } = disk.bitmap(name).info
  if (state.holder?.kind !== 'backup') throw new Error(`no backup holds ${name}`)
  const { extents } = await disk.changed({ since: { backup: state.holder.id }, granularity })
  return bitmapOf(disk.size, extents, granularity)
}

function bitmapOf(
  diskBytes: number,
  extents: readonly { readonly offset: number; readonly length: number }[],
  granularity: number,
): DirtyBitmap {
  const bitmap = new DirtyBitmap(diskBytes, granularity)
  for (const { offset, length } of extents) bitmap.setRange(offset, length)
  return bitmap
}

function ranges(extents: readonly Extent[]): Range[] {
  return extents.map(([offset, length]) => [offset, length])
}
