/** A blame for people: since when the range is covered, then its writes in a table, newest first. */
import type { Extent } from '../../../events/types.ts'
import type { Blame, BlamedTouch } from '../../audit/blame.ts'
import type { Paint } from './paint.ts'
import { wrapped } from './plot.ts'
import { table } from './table.ts'
import * as text from './text.ts'

const NARROW = 100

export function blameReport(paint: Paint, blamed: Blame): string {
  const { colors } = paint
  const { disk, offset, length, touches, since, until } = blamed
  const title = wrapped(
    `${text.bytes(length)} at ${text.bytes(offset)}, after ${text.place(since)} up to ${text.point(until)}`,
    paint.width,
    `${colors.bold(`${text.shown(disk)}  ${offset}+${length}`)}  `,
    text.shown(disk).length + String(offset).length + String(length).length + 5,
  )
  const lines = [title, wrapped(text.shown(coverage(blamed)), paint.width, '')]
  if (touches.length > 0)
    lines.push(
      '',
      table(
        paint,
        ['>position', 'time', 'what', '>offset', '>length', 'in', 'not in'],
        touches.map((touch) => row(paint, touch, sameDay(touches))),
      ),
    )
  const told = touches.filter(({ kind }) => kind === 'lost')
  for (const touch of told)
    if (touch.kind === 'lost')
      lines.push(
        wrapped(
          text.shown(
            `After ${text.place(touch.from)} up to @${touch.position} writes may have gone unrecorded: ${touch.reason}. Any of them may have touched the range (R35).`,
          ),
          paint.width,
          '',
        ),
      )
  if (blamed.resolution === 'window')
    lines.push(
      colors.dim(
        'A window stands for writes that are known only together; its position and time are those of the last. What is maybe written counts as written: a power cut took the records (R30).',
      ),
    )
  if (blamed.more) lines.push(colors.dim('… and older ones; --limit shows more'))
  return lines.join('\n')
}

function coverage({ covered, touches, since, more }: Blame): string {
  const newest = touches[0]
  switch (covered.kind) {
    case 'covered':
      return `Covered since backup ${covered.backup} (${text.point(covered.point)}): the first that holds the newest of ${more ? 'them' : 'these'}, @${newest?.position}.`
    case 'pending':
      return `Not covered yet: backup ${covered.backup} would hold the newest of them, @${newest?.position}, and has not ended.`
    case 'not-covered':
      return `Not covered yet: no backup holds the newest of them, @${newest?.position}.`
    case 'untouched':
      return since.position < 0
        ? 'Nothing in the log touched it.'
        : `Nothing touched it after ${text.place(since)}; --since start looks further back.`
    default:
      throw new RangeError(`no words for ${JSON.stringify(covered satisfies never)}`)
  }
}

/** Then the day need not stand in every row. */
function sameDay(touches: readonly BlamedTouch[]): boolean {
  return new Set(touches.map(({ time }) => text.time(time).slice(0, 10))).size <= 1
}

function row(paint: Paint, touch: BlamedTouch, dayKnown: boolean): (string | number)[] {
  const { in: held, pending, failed, forgotten, doubtful, not } = touch.backups
  const others = [
    ...pending.map((id) => `${id} (running)`),
    ...doubtful.map((id) => `${id} (doubtful)`),
    ...forgotten.map((id) => `${id} (gone)`),
    ...failed.map((id) => `${id} (failed)`),
    ...not,
  ]
  const ids = paint.width < NARROW ? 1 : 3
  return [
    `@${touch.position}`,
    text
      .time(touch.time)
      .replace(/Z$/, '')
      .slice(dayKnown ? 11 : 0),
    ...what(touch),
    some(held, ids),
    some(others, ids),
  ]
}

function what(touch: BlamedTouch): [string, string | number, string | number] {
  switch (touch.kind) {
    case 'write':
      return [touch.op, touch.offset, text.bytes(touch.length)]
    case 'window':
      return [`window of ${touch.writes === 0 ? '?' : text.count(touch.writes)}`, ...ranges(touch)]
    case 'maybe-written':
      return ['maybe written', ...ranges(touch)]
    case 'lost':
      return ['lost stretch', '?', '?']
  }
}

function ranges({ extents: [first, ...others] }: { readonly extents: readonly Extent[] }) {
  const more = others.length > 0 ? `+${others.length} more` : text.bytes(first?.[1] ?? 0)
  return [first?.[0] ?? '', more] as const
}

function some(ids: readonly string[], most: number): string {
  if (ids.length === 0) return '-'
  const more = ids.length - most
  const shown = ids
    .slice(0, most)
    .map((id) => text.cut(id, 24))
    .join(', ')
  return more > 0 ? `${shown} +${more}` : shown
}
