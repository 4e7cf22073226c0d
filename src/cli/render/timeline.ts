/** Points in time as marks on a line, from the first one to the last: which can be restored is seen at a glance. */
import type { PointState, RestorePoint } from '../../audit/restore-points.ts'
import type { Paint } from './paint.ts'
import { time } from './text.ts'

/** From the best to the worst: where points fall on one cell, the worst is shown. */
const STATES: readonly PointState[] = ['whole', 'doubtful', 'gone', 'broken']

const WORDS: Readonly<Record<PointState, string>> = {
  whole: 'restorable',
  doubtful: 'in doubt',
  gone: 'gone',
  broken: 'broken',
}

export function timeline(paint: Paint, points: readonly RestorePoint[]): string {
  const first = points[0]
  const last = points.at(-1)
  if (first === undefined || last === undefined) return ''
  const cells = Math.min(paint.width, 80) - 1
  const row = new Array<PointState | null>(cells).fill(null)
  const places = placesOf(points, cells)
  for (const [i, { state }] of points.entries()) {
    const at = places[i]!
    const held = row[at]
    if (held == null || STATES.indexOf(state) > STATES.indexOf(held)) row[at] = state
  }
  const line = row.map((state) => cell(paint, state)).join('')
  const begin = time(first.point.time).slice(0, 19)
  const end = points.length === 1 ? '' : time(last.point.time).slice(0, 19)
  const axis = `${begin}${' '.repeat(Math.max(1, cells - begin.length - end.length))}${end}`
  const seen = STATES.filter((state) => points.some((point) => point.state === state))
  const legend = seen.map((state) => `${cell(paint, state)} ${WORDS[state]}`).join('   ')
  return [line, paint.colors.dim(axis), legend].join('\n')
}

/** True to time where that keeps the points apart; evenly spaced where it does not and there is room for all. */
function placesOf(points: readonly RestorePoint[], cells: number): number[] {
  const times = points.map(({ point }) => point.time ?? 0)
  const from = times[0] ?? 0
  const span = Math.max(1, (times.at(-1) ?? from) - from)
  const byTime = times.map((at) => Math.round(((at - from) / span) * (cells - 1)))
  if (new Set(byTime).size === points.length || points.length > cells) return byTime
  return points.map((_, i) => Math.round((i / Math.max(1, points.length - 1)) * (cells - 1)))
}

function cell({ colors, unicode }: Paint, state: PointState | null): string {
  switch (state) {
    case 'whole':
      return colors.green(unicode ? '●' : 'o')
    case 'doubtful':
      return colors.yellow(unicode ? '◐' : '?')
    case 'broken':
      return colors.red(unicode ? '✗' : 'x')
    case 'gone':
      return colors.dim(unicode ? '○' : '.')
    case null:
      return colors.dim(unicode ? '─' : '-')
  }
}
