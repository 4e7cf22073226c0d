/** Numbers and moments as people read them. JSON output never comes through here. */
import type { Base, LostStretch, Point } from '../../../events/types.ts'
import type { ClockStep } from '../../../projections/state.ts'

export { bytes, count, duration, percent, plural, times } from '../../audit/figures.ts'
export { cut } from './fit.ts'

const UNSAFE = /[\p{Cc}\p{Cs}\p{Bidi_Control}\u2028\u2029]/gu

/**
 * Words that are not ours, on their way to a terminal: control characters and those that turn the reading direction are
 * shown as `\x1b` or `\u{202e}`, so that a name can neither move the cursor nor pass for other words.
 */
export function shown(words: string): string {
  return words.replace(UNSAFE, (char) => {
    const code = char.codePointAt(0)!
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`
  })
}

export function time(ms: number | null): string {
  return ms === null ? '-' : new Date(ms).toISOString().replace('T', ' ')
}

/** `@17 2026-11-18 18:00:00.000Z`; what can be given back as `@17`. */
export function point(value: Point): string {
  return value.position < 0 ? 'start' : `@${value.position} ${time(value.time)}`
}

/** Only the place, for narrow columns. */
export function place(value: Point): string {
  return value.position < 0 ? 'start' : `@${value.position}`
}

export function base(value: Base): string {
  switch (value.kind) {
    case 'none':
      return 'whole disk'
    case 'slice':
    case 'checkpoint':
    case 'backup':
      return `${value.kind}:${value.name ?? '?'}`
    case 'active':
    case 'start':
      return value.kind
    case 'point':
    case 'position':
    case 'time':
      return place(value)
  }
}

export function shortDigest(digest: string): string {
  return digest.slice(0, 12)
}

export function lost(stretches: readonly LostStretch[]): string {
  return stretches
    .map((stretch) => `${place(stretch.from)} to ${place(stretch.to)}: ${stretch.reason}`)
    .join('; ')
}

/** A line of facts, where there is something to say: who gave a time may mean another moment than the log's clock does (R22). */
export function clockSteps(steps: readonly ClockStep[]): readonly (readonly ['clock steps', string])[] {
  if (steps.length === 0) return []
  const said = steps.map(({ at, from, to }) => `${place(at)} from ${time(from)} to ${time(to)}`)
  return [['clock steps', said.join(', ')]]
}
