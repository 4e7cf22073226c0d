/** The strip rows of a bitmap: one per slice, oldest first, then what is being collected now. */
import type { SlicesInfo } from '../../store/types.ts'
import type { StateView } from '../../store/view.ts'
import type { Paint } from './paint.ts'
import type { StripRow } from './strip.ts'
import { bytes } from './text.ts'

export async function sliceRows(
  paint: Paint,
  view: Pick<StateView, 'dirty'>,
  disk: string,
  bitmap: string,
  slices: SlicesInfo,
): Promise<StripRow[]> {
  const rows: StripRow[] = []
  for (const { slice, count } of slices.slices) {
    rows.push({
      label: `slice ${slice}`,
      bits: await view.dirty(disk, bitmap, { slice }),
      note: bytes(count),
    })
  }
  const bits = await view.dirty(disk, bitmap)
  rows.push({ label: paint.unicode ? 'α' : 'active', bits, note: bytes(bits.count) })
  return rows
}
