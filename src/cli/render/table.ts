/** Tables without borders: columns two spaces apart, a dim head. */
import Table from 'cli-table3'
import type { Paint } from './paint.ts'
import { cut, shown } from './text.ts'

/** `color` is put around the words after they were made fit for a terminal, and never taken from them. */
export type Cell = string | number | { readonly text: string; readonly color: (text: string) => string }

/** Wider cells than this are cut: --json has all of them. A digest just fits. */
const CELL_COLUMNS = 64

/** Column heads; a leading `>` aligns a column to the right. */
export function table(paint: Paint, heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const columns = heads.map((head) => (head.startsWith('>') ? head.slice(1) : head))
  const grid = new Table({
    head: columns.map((head) => paint.colors.dim(head)),
    colAligns: heads.map((head) => (head.startsWith('>') ? 'right' : 'left')),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2, compact: true },
  })
  grid.push(...rows.map((row) => row.map((cell) => cellText(cell, CELL_COLUMNS))))
  return trimLines(grid.toString())
}

/** Name and value, one a line. */
export function facts(paint: Paint, entries: readonly (readonly [name: string, value: Cell])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length))
  return entries
    .map(([name, value]) => `${paint.colors.dim(name.padEnd(width))}  ${cellText(value)}`)
    .join('\n')
}

function cellText(cell: Cell, columns = Number.POSITIVE_INFINITY): string {
  if (typeof cell === 'object') return cell.color(cut(shown(cell.text), columns))
  return cut(shown(String(cell)), columns)
}

const NO_BORDERS = Object.fromEntries(
  [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
    'left',
    'left-mid',
    'mid',
    'mid-mid',
    'right',
    'right-mid',
    'middle',
  ].map((side) => [side, '']),
)

function trimLines(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}
