/**
 * Tables without borders: columns two spaces apart, a dim head. On a terminal never wider than it: the widest columns give way,
 * with `…` where words were cut, and where even that leaves nothing to read, each row becomes lines of its own. Elsewhere all of
 * it is written.
 */
import Table from 'cli-table3'
import { columnsOf, cut, folded } from './fit.ts'
import type { Paint } from './paint.ts'
import { shown } from './text.ts'

/** `color` is put around the words after they were made fit for a terminal, and never taken from them. */
export type Cell = string | number | { readonly text: string; readonly color: (text: string) => string }

/** On a terminal wider cells than this are cut: --json has all of them. A digest just fits. */
const CELL_COLUMNS = 64
const GAP = 2
/** A column that has to be cut to less than this says nothing any more. */
const READABLE = 10
/** Of a value beside its name. */
const VALUE_COLUMNS = 8

/** Column heads; a leading `>` aligns a column to the right. */
export function table(paint: Paint, heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const columns = heads.map((head) => (head.startsWith('>') ? head.slice(1) : head))
  const widths = widthsOf(paint, columns, rows)
  if (widths === null) return stacked(paint, columns, rows)
  const grid = new Table({
    head: columns.map((head, i) => paint.colors.dim(cut(head, widths[i]!))),
    colAligns: heads.map((head) => (head.startsWith('>') ? 'right' : 'left')),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': GAP, compact: true },
  })
  grid.push(...rows.map((row) => row.map((cell, i) => painted(cell, cut(wordsOf(cell), widths[i]!)))))
  return trimLines(grid.toString())
}

/** Name and value, one a line; on a terminal a longer value goes on below itself. Nothing of it is cut. */
export function facts(paint: Paint, entries: readonly (readonly [name: string, value: Cell])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length))
  const room = paint.columns - width - GAP
  const below = `\n${' '.repeat(width + GAP)}`
  return entries
    .map(([name, value]) => {
      const words = wordsOf(value)
      const lines = room < VALUE_COLUMNS ? [words] : folded(words, room)
      const said = lines.map((line) => painted(value, line)).join(below)
      return `${paint.colors.dim(name.padEnd(width))}${' '.repeat(GAP)}${said}`
    })
    .join('\n')
}

/** What each column gets. Null: the terminal is too narrow for a table. */
function widthsOf(
  paint: Paint,
  heads: readonly string[],
  rows: readonly (readonly Cell[])[],
): number[] | null {
  const needed = heads.map((head, i) =>
    Math.max(columnsOf(head), ...rows.map((row) => columnsOf(wordsOf(row[i] ?? '')))),
  )
  if (paint.columns === Number.POSITIVE_INFINITY) return needed
  const room = paint.columns - GAP * (heads.length - 1)
  const sum = (limit: number) => needed.reduce((total, width) => total + Math.min(width, limit), 0)
  // The widest are lowered to one width, and the narrower ones stay whole.
  for (let limit = CELL_COLUMNS; limit >= READABLE; limit--) {
    if (sum(limit) > room) continue
    let over = limit === CELL_COLUMNS ? 0 : room - sum(limit)
    return needed.map((width) => {
      const more = Math.min(Math.max(0, width - limit), over)
      over -= more
      return Math.min(width, limit) + more
    })
  }
  return null
}

/** A row as names and values, and a blank line before the next. */
function stacked(paint: Paint, heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  return rows
    .map((row) =>
      facts(
        paint,
        row.map((cell, i) => [heads[i] ?? '', cell] as const),
      ),
    )
    .join('\n\n')
}

function wordsOf(cell: Cell): string {
  return shown(typeof cell === 'object' ? cell.text : String(cell))
}

function painted(cell: Cell, words: string): string {
  return typeof cell === 'object' ? cell.color(words) : words
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
