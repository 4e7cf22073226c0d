/** Tables without borders: columns two spaces apart, a dim head. */
import Table from 'cli-table3'
import type { Paint } from './paint.ts'

export type Cell = string | number

/** Column heads; a leading `>` aligns a column to the right. */
export function table(paint: Paint, heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const columns = heads.map((head) => (head.startsWith('>') ? head.slice(1) : head))
  const grid = new Table({
    head: columns.map((head) => paint.colors.dim(head)),
    colAligns: heads.map((head) => (head.startsWith('>') ? 'right' : 'left')),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2, compact: true },
  })
  grid.push(...rows.map((row) => row.map(String)))
  return trimLines(grid.toString())
}

/** Name and value, one a line. */
export function facts(paint: Paint, entries: readonly (readonly [name: string, value: Cell])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length))
  return entries.map(([name, value]) => `${paint.colors.dim(name.padEnd(width))}  ${value}`).join('\n')
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
