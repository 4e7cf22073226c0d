/** A history for people: a line for each transition, in its own words, with who caused it; one block for each life of the name. */
import type { History, HistorySubject, Transition } from '../../audit/history.ts'
import type { Paint } from './paint.ts'
import { wrapped } from './plot.ts'
import * as text from './text.ts'

export function historyReport(paint: Paint, { subject, lives, transitions }: History): string {
  const blocks = lives.map((life) => {
    const own = transitions.filter((transition) => transition.life === life)
    const title = paint.colors.bold(
      `${text.shown(nameOf(subject))}${lives.length > 1 ? `, ${lifeName(subject, life)}` : ''}`,
    )
    return [title, ...lines(paint, own)].join('\n')
  })
  return blocks.join('\n\n')
}

function lines(paint: Paint, transitions: readonly Transition[]): string[] {
  const columns = Math.max(...transitions.map(({ position }) => String(position).length)) + 1
  return transitions.map(({ position, time, says, cause }) => {
    const place = `@${position}`.padStart(columns)
    const head = `${paint.colors.cyan(place)}  ${text.time(time)}  `
    const width = columns + 28
    const why = text.shown(causeWords(cause))
    const words = `${text.shown(says)}${why === '' ? '' : ` (${why})`}`
    return wrapped(words, paint.width, head, width)
  })
}

/** Who did it, by which command, under which ids. */
function causeWords({ actor, command, commandId, correlationId, causationId }: Transition['cause']): string {
  return [
    actor,
    command,
    commandId === undefined ? undefined : `id ${commandId}`,
    correlationId === undefined ? undefined : `for ${correlationId}`,
    causationId === undefined ? undefined : `after ${causationId}`,
  ]
    .filter((word) => word !== undefined)
    .join(', ')
}

function nameOf(subject: HistorySubject): string {
  switch (subject.kind) {
    case 'disk':
      return `disk ${subject.disk}`
    case 'bitmap':
      return `bitmap ${subject.disk} ${subject.bitmap}`
    case 'slice':
      return `slice ${subject.slice} of ${subject.disk} ${subject.bitmap}`
    case 'backup':
      return `backup ${subject.backup}`
    case 'checkpoint':
      return `checkpoint ${subject.checkpoint}`
    default:
      throw new RangeError(`no name for ${JSON.stringify(subject satisfies never)}`)
  }
}

function lifeName({ kind }: HistorySubject, life: number): string {
  return kind === 'bitmap' || kind === 'slice' ? `generation ${life}` : `since @${life}`
}
