/** What can be restored, for people: a timeline a bitmap, a line a point, then what is wrong and what to do about it. */
import { stripVTControlCharacters } from 'node:util'
import type { CoverageGap, CoverageReport } from '../../audit/coverage.ts'
import type { Repair } from '../../audit/repairs.ts'
import type { PointState, RestorePoint } from '../../audit/restore-points.ts'
import type { Paint } from './paint.ts'
import { type Cell, table } from './table.ts'
import * as text from './text.ts'
import { timeline } from './timeline.ts'

/** Points that the table has a line for; --json has all. */
const LINES_MAX = 40

export function coverageText(paint: Paint, coverage: CoverageReport): string {
  const parts = [
    headline(paint, coverage),
    timeline(paint, coverage.points),
    pointTable(paint, coverage.points),
    ...coverage.gaps.map((gap) => gapText(paint, gap)),
    ...nextText(coverage),
    repairText(paint, coverage),
    ...coverage.merges.map(({ why, of, command, bytesAtMost }) =>
      lines(
        `Worth merging: ${why}. Make one of ${text.plural(of.length, 'image')} (at most ${text.bytes(bytesAtMost)}), then:`,
        `  ${text.shown(command)}`,
      ),
    ),
    ...coverage.former.map(({ number, points }) =>
      lines(
        `Of a removed disk of this name (added at @${number}): ${points.filter(({ state }) => state === 'whole').length} of ${text.plural(points.length, 'point')} can be restored.`,
      ),
    ),
  ]
  return parts.filter((part) => part !== '').join('\n\n')
}

function lines(...words: readonly string[]): string {
  return words.join('\n')
}

function headline({ colors }: Paint, { disk, points, newest, covered }: CoverageReport): string {
  const name = text.shown(disk)
  if (points.length === 0)
    return `${name}: ${colors.red('nothing can be restored')}: no backup of it has succeeded yet.`
  const whole = points.filter(({ state }) => state === 'whole').length
  const count = `${whole} of ${text.plural(points.length, 'point')} can be restored`
  const told = covered ? colors.green(count) : colors.red(count)
  if (newest === null) return `${name}: ${told}.`
  const { bytes, complete } = newest.written
  const written = complete
    ? `${text.bytes(bytes)} written since`
    : 'what was written since is not fully known'
  return lines(
    `${name}: ${told}.`,
    `Newest: ${text.point(newest.point)}, ${text.duration(newest.age)} ago, ${written}.`,
  )
}

function pointTable(paint: Paint, points: readonly RestorePoint[]): string {
  if (points.length === 0) return ''
  const shown = points.slice(-LINES_MAX)
  const rows = shown.map((point): Cell[] => [
    text.place(point.point),
    text.time(point.point.time).slice(0, 19),
    text.cut(point.copies.map(({ id, kept }) => (kept ? id : `(${id})`)).join(' '), 16),
    { text: point.state, color: colorOf(paint, point.state) },
    point.chain.length === 0 ? '-' : text.bytes(point.bytes),
  ])
  const heads = ['point', 'time', 'copies', 'state', '>to lay']
  const width = table(paint, heads, rows)
    .split('\n')
    .reduce((most, line) => Math.max(most, visible(line)), 0)
  const left = Math.max(14, Math.min(paint.width, 100) - width - 2)
  const all = rows.map((row, i) => [...row, text.cut(howOf(shown[i]!), left)])
  const hidden = points.length - shown.length
  const note = hidden === 0 ? [] : [`${text.plural(hidden, 'older point')} not shown; --json has all.`]
  return lines(table(paint, [...heads, 'restored by'], all), ...note)
}

function visible(line: string): number {
  return Array.from(stripVTControlCharacters(line)).length
}

function howOf(point: RestorePoint): string {
  if (point.chain.length > 0) return point.chain.join(' + ')
  if (point.since === null) return 'lost: no whole copy under it'
  return `lost: ${point.since.backup}, forgotten @${point.since.at.position}`
}

function colorOf({ colors }: Paint, state: PointState): (words: string) => string {
  switch (state) {
    case 'whole':
      return colors.green
    case 'doubtful':
      return colors.yellow
    case 'broken':
      return colors.red
    case 'gone':
      return colors.dim
  }
}

function gapText({ colors }: Paint, gap: CoverageGap): string {
  const from = gap.after === null ? 'from the first point on' : `after @${gap.after.position}`
  const to = gap.before === null ? 'and open' : `up to @${gap.before.position}`
  const head = `Gap ${from}, ${to}`
  const { broken, gone, doubtful } = gap.states
  const counts = [
    ...(broken === 0 ? [] : [`${broken} broken`]),
    ...(gone === 0 ? [] : [`${gone} gone`]),
    ...(doubtful === 0 ? [] : [`${doubtful} in doubt`]),
  ]
  const causes = gap.causes.map(
    ({ backup, at, reason }) =>
      `  ${backup} was forgotten at ${text.point(at)}${reason === '' ? '' : `: ${reason}`}`,
  )
  const useless = gap.useless.length === 0 ? [] : [`  of no use as things are: ${gap.useless.join(', ')}`]
  const again = gap.recreate.map(
    (repair) => `  ${repair.of} made again, as of now: ${text.bytes(repair.bytes)}, ${bitsOf(repair)}`,
  )
  return lines(
    `${gap.open ? colors.red(head) : colors.yellow(head)}: ${counts.join(', ')}`,
    ...[...causes, ...useless, `  ${sentence(gap.lost)}`, ...again].map(text.shown),
    ...gap.recreate.map(({ command }) => `    ${text.shown(command)}`),
  )
}

function sentence(words: string): string {
  return words.replace(/; a backup made now.*/, '.')
}

function nextText({ next }: CoverageReport): string[] {
  const stuck = next.filter(({ continues }) => !continues)
  return stuck.map(({ bitmap, why }) =>
    text.shown(`The next increment of ${bitmap} continues nothing: ${why}.`),
  )
}

/** Where the bits of a repair come from, in words. */
export function bitsOf({ merges, liesOn, base }: Repair): string {
  const slices = merges.flatMap((source) => (source.kind === 'slice' ? [String(source.slice)] : []))
  const log = merges.some(({ kind }) => kind === 'log')
  const active = merges.some(({ kind }) => kind === 'active')
  const from = [
    ...(slices.length === 0 ? [] : [`slice${slices.length === 1 ? '' : 's'} ${slices.join(', ')}`]),
    ...(active ? ['the active part'] : []),
    ...(log ? ['the log'] : []),
  ]
  if (base.kind === 'none' || from.length === 0) return 'the whole disk'
  const on = liesOn === null ? '' : `, laid on @${liesOn.position}`
  return `from ${from.join(' and ')}${on}`
}

function repairText({ colors }: Paint, { repairs, hindered }: CoverageReport): string {
  if (repairs.length === 0 && hindered.length === 0) return ''
  const offers = repairs.flatMap((repair, i) => [
    `  ${i === 0 ? colors.green('smallest') : '     or '}  ${text.shown(`${text.bytes(repair.bytes)}, ${bitsOf(repair)}`)}`,
    `            ${text.shown(repair.command)}`,
  ])
  const stops = hindered.map(({ bitmap, message }) => text.shown(`  ${bitmap}: ${message}`))
  return lines(
    'Repair: one of these, made now (begin, copy, succeed), gives a point that can be restored:',
    ...offers,
    ...stops,
  )
}
