/** Plots for a terminal: a row of columns over time, and bars beside figures. As wide as the terminal lets them be. */
import plot from 'simple-ascii-chart'
import type { Paint } from './paint.ts'

const EIGHTHS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
const SIDE_EIGHTHS = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█']

export interface Columns {
  readonly values: readonly number[]
  readonly rows: number
  /** Columns of the terminal that it may take, labels included. */
  readonly width: number
  /** Labels of the upright axis. */
  readonly format: (value: number) => string
  /** Under both ends of the level axis. */
  readonly ends: readonly [string, string]
}

/** Values side by side, each as high as it is: eighths of a row where the terminal has them. */
export function columnPlot(paint: Paint, { values, rows, width, format, ends }: Columns): string {
  const max = Math.max(...values)
  if (values.length === 0 || max <= 0) return paint.colors.dim('nothing')
  const label = Math.max(...[0, max / 2, max].map((tick) => format(tick).length))
  const each = Math.max(1, Math.floor((width - label - 3) / values.length))
  const points = values.flatMap((value, i) =>
    Array.from({ length: each }, (_, j): [number, number] => [i * each + j, value]),
  )
  const drawn = plot(points.length === 1 ? [...points, [1, 0]] : points, {
    width: Math.max(2, points.length),
    height: rows,
    yRange: [0, max],
    customYAxisTicks: [0, max / 2, max],
    hideXAxisTicks: true,
    // Padded: the library makes room for the highest tick alone, and cuts the beginning off a longer label.
    formatter: (value, { axis }) => (axis === 'y' ? format(value).padStart(label) : ''),
    symbols: { axis: paint.unicode ? { n: '│', e: '─' } : ASCII_AXIS },
    lineFormatter: ({ y, plotX }) =>
      cellsOf(paint, y / max, rows).map((symbol, i) => ({ x: plotX, y: rows - i, symbol })),
  })
  const lines = drawn.split('\n').filter((line) => /[^\s│|]/.test(line))
  const indent = (lines.at(-1) ?? '').search(/\S/) + 1
  const between = Math.max(1, points.length - ends[0].length - ends[1].length)
  const axis = `${' '.repeat(indent)}${ends[0]}${' '.repeat(between)}${ends[1]}`
  return [...lines.map((line) => line.trimEnd()), paint.colors.dim(axis)].join('\n')
}

/** The sign of a tick must not be that of the line: the library tells by it where a label goes. */
const ASCII_AXIS = { n: '|', ns: '|', y: '+', nse: '+', x: '-', we: '-', e: '-' }

/** From the bottom up. Whatever is there at all is seen. */
function cellsOf(paint: Paint, share: number, rows: number): string[] {
  if (share <= 0) return []
  if (!paint.unicode) return new Array<string>(Math.max(1, Math.round(share * rows))).fill('#')
  const eighths = Math.max(1, Math.round(share * rows * 8))
  const full = Math.floor(eighths / 8)
  const rest = eighths % 8
  return [...new Array<string>(full).fill('█'), ...(rest === 0 ? [] : [EIGHTHS[rest - 1]!])]
}

/** A level bar of `share` of `width` columns; whatever is there at all is seen. */
export function bar(paint: Paint, share: number, width: number): string {
  if (!(share > 0)) return ''
  if (!paint.unicode) return '#'.repeat(Math.max(1, Math.round(share * width)))
  const eighths = Math.max(1, Math.round(Math.min(1, share) * width * 8))
  const rest = eighths % 8
  return '█'.repeat(Math.floor(eighths / 8)) + (rest === 0 ? '' : SIDE_EIGHTHS[rest - 1]!)
}

/** Words in lines of at most `width` columns; the first begins with `first`, the others with as many spaces. */
export function wrapped(words: string, width: number, first: string, columns = first.length): string {
  const lines: string[] = []
  let line = ''
  for (const word of words.split(' ')) {
    if (line !== '' && columns + line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  lines.push(line)
  return lines.map((text, i) => `${i === 0 ? first : ' '.repeat(columns)}${text}`).join('\n')
}
