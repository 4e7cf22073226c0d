/** The first extents of an answer; all of them are in --json. */
import type { PlanExtent } from '../../store/types.ts'
import type { Paint } from './paint.ts'
import { table } from './table.ts'
import { bytes, plural } from './text.ts'

const SHOWN = 10

export function extentTable(paint: Paint, extents: readonly PlanExtent[]): string {
  if (extents.length === 0) return ''
  const rows = extents.slice(0, SHOWN).map(({ offset, length }) => [offset, length, bytes(length)])
  const rest = extents.length - SHOWN
  const more =
    rest > 0 ? `\n${paint.colors.dim(`… and ${plural(rest, 'more extent')}; --json gives all`)}` : ''
  return `\n${table(paint, ['>offset', '>length', '>'], rows)}${more}`
}
