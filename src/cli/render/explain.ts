/** An explanation for people: what it is, what to make of it, then the figures behind that, as pictures where they help. */
import type { ExplainedSource, Explanation, HotRegion } from '../../audit/explain-types.ts'
import type { Paint } from './paint.ts'
import { bar, columnPlot, wrapped } from './plot.ts'
import { stripPicture } from './strip.ts'
import { table } from './table.ts'
import * as text from './text.ts'

const PLOT_ROWS = 8
const PLOT_WIDTH_MAX = 132
const HOT_SHOWN = 5
const SOURCES_SHOWN = 12

export function explainReport(paint: Paint, explained: Explanation): string {
  return [
    head(paint, explained),
    section(paint, 'What to make of it', verdict(paint, explained)),
    section(paint, sourcesTitle(explained), sources(paint, explained)),
    section(paint, whenTitle(explained), when(paint, explained)),
    section(paint, 'Where on the disk', where(paint, explained)),
    section(paint, 'The hottest places', hottest(paint, explained)),
    section(paint, 'What other granules would have copied', granularities(paint, explained)),
  ]
    .filter((part) => part !== '')
    .join('\n\n')
}

function section({ colors }: Paint, title: string, body: string): string {
  return body === '' ? '' : `${colors.bold(title)}\n${body}`
}

function head(paint: Paint, { backup, base, size, written, reason, previous, whole }: Explanation): string {
  const { colors } = paint
  const share = size === 0 ? '' : `, ${text.percent(backup.bytes / size)} of the disk`
  const title = `${colors.bold(text.shown(backup.id))}  ${backup.mode}, ${backup.state}: ${colors.bold(text.bytes(backup.bytes))}${share}`
  const rows: readonly (readonly [name: string, words: string])[] = [
    ['bitmap', `${backup.disk} ${backup.bitmap}, ${text.bytes(backup.granularity)} a granule`],
    ['point', text.point(backup.point)],
    ['base', baseWords(base)],
    ...(previous === null
      ? []
      : ([
          [
            'before it',
            `${previous.backup}: ${text.bytes(previous.bytes)}, ${text.bytes(previous.both)} in both`,
          ],
        ] as const)),
    [whole === null ? 'written' : `since ${text.place(whole.since)}`, writtenWords(written)],
    ['plan', reason],
  ]
  const columns = Math.max(...rows.map(([name]) => name.length)) + 2
  const lines = rows.map(([name, words]) =>
    wrapped(text.shown(words), paint.width, colors.dim(name.padEnd(columns)), columns),
  )
  return [title, ...lines].join('\n')
}

function baseWords(base: Explanation['base']): string {
  const here = [
    ...base.backups.map((id) => `backup ${id}`),
    ...base.checkpoints.map((name) => `checkpoint ${name}`),
  ].slice(0, 3)
  const named = text.base(base)
  return [
    named,
    ...(base.kind === 'none' || named.startsWith('@') ? [] : [text.place(base)]),
    ...(base.age === null ? [] : [`${text.duration(base.age)} before`]),
    ...(here.length === 0 ? [] : [`point of ${here.join(', ')}`]),
  ].join(', ')
}

function writtenWords({ writes, bytes, ops, rewrites }: Explanation['written']): string {
  const kinds = (['zero', 'discard'] as const)
    .filter((op) => ops[op].writes > 0)
    .map((op) => `${text.bytes(ops[op].bytes)} in ${text.plural(ops[op].writes, op)}`)
  return [
    `${text.bytes(bytes)} in ${text.plural(writes, 'write')}`,
    ...kinds,
    ...(rewrites === 0 ? [] : [`${text.count(rewrites)} over places already dirty`]),
  ].join(', ')
}

function verdict(paint: Paint, { findings }: Explanation): string {
  const { colors } = paint
  return findings
    .map(({ bytes, says, todo }) => {
      const cost = bytes === 0 ? '-' : text.bytes(bytes)
      const mark = (bytes === 0 ? colors.dim : colors.yellow)(cost.padStart(8))
      return [
        wrapped(text.shown(says), paint.width, `${mark}  `, 10),
        ...(todo === 'nothing'
          ? []
          : [colors.dim(wrapped(text.shown(todo), paint.width, '          → ', 12))]),
      ].join('\n')
    })
    .join('\n')
}

function sourcesTitle({ whole }: Explanation): string {
  return whole === null
    ? 'What it merged'
    : `What an increment since ${text.place(whole.since)} would have merged`
}

function sources(paint: Paint, { sources: all }: Explanation): string {
  if (all.length === 0) return ''
  const shown =
    all.length <= SOURCES_SHOWN ? all : [...all].sort((a, b) => b.only - a.only).slice(0, SOURCES_SHOWN)
  const rows = shown.map((source) => [
    sourceName(source),
    source.from === null
      ? ''
      : `${text.place(source.from)} to ${source.to === null ? '' : text.place(source.to)}`,
    text.count(source.writes),
    text.bytes(source.written),
    text.bytes(source.bytes),
    text.bytes(source.only),
  ])
  const more =
    all.length > shown.length
      ? `\n${paint.colors.dim(`… and ${text.plural(all.length - shown.length, 'smaller one')}; --json gives all`)}`
      : ''
  return table(paint, ['part', 'after … up to', '>writes', '>written', '>dirty', '>only here'], rows) + more
}

function sourceName({ kind, slice, why }: ExplainedSource): string {
  switch (kind) {
    case 'slice':
      return `slice ${slice}`
    case 'active':
      return 'active'
    case 'log':
      return `log (${why})`
    case 'outside':
      return 'resized'
  }
}

function whenTitle({ timeline, span }: Explanation): string {
  const note = span.resolution === 'window' ? ', windows at their end' : ''
  return `When it was written: bytes in ${text.duration(timeline.width)}${note}`
}

function when(paint: Paint, { timeline: { buckets, width }, written }: Explanation): string {
  const first = buckets[0]
  const last = buckets.at(-1)
  if (first === undefined || last === undefined || written.writes === 0) return ''
  const room = Math.min(paint.width, PLOT_WIDTH_MAX)
  const ends: [string, string] = [shortTime(first.time), shortTime(last.time + width)]
  const bytes = buckets.map((bucket) => bucket.bytes)
  const added = buckets.map((bucket) => bucket.added)
  const labels = [Math.max(...bytes), Math.max(...bytes) / 2, Math.max(...added), Math.max(...added) / 2].map(
    text.bytes,
  )
  const columns = Math.max(...labels.map((label) => label.length))
  const shared = { width: room, format: (value: number) => text.bytes(value).padStart(columns), ends }
  return [
    columnPlot(paint, { values: bytes, rows: PLOT_ROWS, ...shared }),
    paint.colors.bold('Of that, what made the backup grow'),
    columnPlot(paint, { values: added, rows: PLOT_ROWS / 2, ...shared }),
  ].join('\n')
}

function shortTime(ms: number): string {
  return text.time(ms).replace(/\.000Z$/, 'Z')
}

function where(paint: Paint, { bits, previousBits, previous, backup }: Explanation): string {
  const name = (id: string) => text.cut(text.shown(id), 20)
  return stripPicture(paint, [
    ...(previousBits === null || previous === null
      ? []
      : [{ label: name(previous.backup), bits: previousBits }]),
    { label: name(backup.id), bits },
  ])
}

function hottest(paint: Paint, { hot, written }: Explanation): string {
  const row = ({ offset, length, writes, bytes }: HotRegion) => [
    `${text.bytes(offset)} + ${text.bytes(length)}`,
    text.count(writes),
    text.percent(written.writes === 0 ? 0 : writes / written.writes),
    text.bytes(bytes),
    text.percent(written.bytes === 0 ? 0 : bytes / written.bytes),
  ]
  if (hot.byBytes.length === 0) return ''
  const heads = (by: string) => [by, '>writes', '>', '>written', '>']
  return [
    table(paint, heads('by writes'), hot.byWrites.slice(0, HOT_SHOWN).map(row)),
    table(paint, heads('by bytes'), hot.byBytes.slice(0, HOT_SHOWN).map(row)),
  ].join('\n')
}

function granularities(paint: Paint, { granularities: all, backup, written }: Explanation): string {
  if (written.writes === 0) return ''
  const most = Math.max(...all.map(({ bytes }) => bytes ?? 0))
  const label = Math.max(...all.map(({ granularity }) => text.bytes(granularity).length))
  const room = Math.max(10, Math.min(paint.width, PLOT_WIDTH_MAX) - label - 45)
  return all
    .map(({ granularity, bytes, amplification, memory }) => {
      const name = text.bytes(granularity).padStart(label)
      const own = granularity === backup.granularity
      if (bytes === null)
        return `${name}  ${paint.colors.dim(`not counted: it would take ${text.bytes(memory)} of bits`)}`
      const figures = [
        text.bytes(bytes).padStart(8),
        (amplification === null ? '' : text.times(amplification)).padStart(7),
        `bits ${text.bytes(memory)}`.padEnd(14),
      ].join('  ')
      const drawn = bar(paint, most === 0 ? 0 : bytes / most, room)
      const line = `${name}  ${figures}  ${drawn}`
      return own ? paint.colors.bold(`${line}${paint.unicode ? ' ◀ this' : ' < this'}`) : line
    })
    .concat(paint.colors.dim(`${' '.repeat(label)}  × is copied for each byte that the guest wrote`))
    .join('\n')
}
