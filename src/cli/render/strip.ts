/**
 * A disk as one line of text: each cell is a stretch of the disk, its shade the share of it that is dirty, from cold
 * (nothing) to hot (all). Block characters where the terminal has them, letters' weight otherwise; colour when allowed.
 */

import type { DirtyBitmap } from '../../../projections/bitmap.ts'
import { strip } from '../../../projections/strip.ts'
import type { Paint } from './paint.ts'
import { bytes } from './text.ts'

const BLOCKS = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
const ASCII = ['.', '-', ':', '=', '+', '*', 'x', '%', '#']

export interface StripRow {
  readonly label: string
  readonly bits: DirtyBitmap
  /** Printed behind the strip. */
  readonly note?: string
}

/** Rows under each other on one scale, with an axis and a legend. Empty when there are no rows. */
export function stripPicture(paint: Paint, rows: readonly StripRow[]): string {
  const first = rows[0]
  if (first === undefined) return ''
  const labels = Math.max(...rows.map((row) => row.label.length))
  const notes = Math.max(0, ...rows.map((row) => (row.note ?? '').length))
  const cells = Math.max(16, Math.min(96, paint.width - labels - notes - 4))
  const lines = rows.map((row) =>
    `${row.label.padEnd(labels)}  ${cellsOf(paint, row.bits, cells)}  ${row.note ?? ''}`.trimEnd(),
  )
  const end = bytes(first.bits.size)
  const axis = `0${' '.repeat(Math.max(1, cells - 1 - end.length))}${end}`
  return [
    ...lines,
    `${' '.repeat(labels)}  ${paint.colors.dim(axis)}`,
    `${' '.repeat(labels)}  ${legend(paint)}`,
  ].join('\n')
}

function cellsOf(paint: Paint, bits: DirtyBitmap, cells: number): string {
  return strip(bits, cells)
    .map((share) => cell(paint, share))
    .join('')
}

/** A cell that holds any dirt at all never looks clean, and only a full one looks full. */
function cell(paint: Paint, share: number): string {
  const shades = paint.unicode ? BLOCKS : ASCII
  const top = shades.length - 1
  const level = share <= 0 ? 0 : share >= 1 ? top : Math.min(top - 1, 1 + Math.floor(share * (top - 1)))
  return heat(paint, level / top)(shades[level]!)
}

function heat({ colors }: Paint, level: number): (text: string) => string {
  if (level === 0) return colors.dim
  if (level < 0.25) return colors.blue
  if (level < 0.5) return colors.cyan
  if (level < 0.75) return colors.yellow
  return colors.red
}

function legend(paint: Paint): string {
  const samples = [0, 0.05, 0.3, 0.6, 1].map((share) => cell(paint, share)).join('')
  return `${paint.colors.dim('cold')} ${samples} ${paint.colors.dim('hot')}`
}
