/** Numbers and moments as people read them. JSON output never comes through here. */
import type { Base, LostStretch, Point } from '../../../events/types.ts'

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

/** At most `columns` characters, the last being an ellipsis where some are missing. */
export function cut(words: string, columns: number): string {
  const chars = Array.from(words)
  return chars.length <= columns ? words : `${chars.slice(0, columns - 1).join('')}…`
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** `64 KiB`, `1.5 MiB`: three figures at most. */
export function bytes(value: number): string {
  let unit = 0
  let rest = value
  while (rest >= 1024 && unit < UNITS.length - 1) {
    rest /= 1024
    unit++
  }
  const digits = Number.isInteger(rest) || rest >= 100 ? 0 : rest >= 10 ? 1 : 2
  return `${rest.toFixed(digits)} ${UNITS[unit]}`
}

export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ' ')
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`
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

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`
  if (ms < 7_200_000) return `${(ms / 60_000).toFixed(1)} min`
  return `${(ms / 3_600_000).toFixed(1)} h`
}

export function shortDigest(digest: string): string {
  return digest.slice(0, 12)
}

export function lost(stretches: readonly LostStretch[]): string {
  return stretches
    .map((stretch) => `${place(stretch.from)} to ${place(stretch.to)}: ${stretch.reason}`)
    .join('; ')
}
