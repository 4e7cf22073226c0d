/**
 * What a power cut may have done to the disks that we serve at level `power` (R30, R32), read off the end of the log and told as
 * `maybe-written`: counted as written everywhere, so no answer is too small.
 *
 * - Writes on armed granules whose records were not synced are gone from the log, and may be on the disk: their granules were
 *   armed by records that are still there, at most `ARMED_MS` older than the log's end (arms.ts).
 * - Writes whose bytes were not synced are in the log, and may be gone from the disk: back to what was there at the disk's last
 *   mark, which is made behind an fsync of the file (R35). Whoever copied the disk in between has bytes that it has no more.
 *
 * Cost: one fold of that stretch for each disk that was being served.
 */
import type { DomainEvent, Extent } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { DiskState } from '../../projections/state.ts'
import { decideMaybeWritten } from '../commands/marks.ts'
import { usualGranularity } from './answer-granularity.ts'
import { ARMED_MS } from './arms.ts'
import type { Core } from './core.ts'

/**
 * For an open after a restart of the machine, where no stretch is told lost instead: of each disk that a process of ours served and
 * never detached, once. Decides; records nothing.
 */
export async function decidePowerLoss(core: Core): Promise<DomainEvent[]> {
  const { last } = core.catalog
  if (last.time === null) return []
  const armed = (await core.log.positionAtTime(last.time - ARMED_MS)) - 1
  const events: DomainEvent[] = []
  for (const disk of core.catalog.disks()) {
    if (disk.recorder !== 'store' || !disk.attached || isTold(disk)) continue
    const extents = await writtenAfter(core, disk, Math.min(armed, disk.mark?.at.position ?? armed))
    events.push(...decideMaybeWritten(core.catalog, { disk: disk.id, from: last, extents }))
  }
  return events
}

/** By the restart before: nothing was written since. */
function isTold({ windows, wrote }: DiskState): boolean {
  return wrote === null || windows.at(-1)?.at.position === wrote.position
}

async function writtenAfter(core: Core, disk: DiskState, after: number): Promise<Extent[]> {
  const bits = new DirtyBitmap(disk.size, usualGranularity(disk.size))
  await core.spans.union({ disk, after, upTo: core.catalog.last.position }, bits)
  return bits.extentList()
}
