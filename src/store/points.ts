/**
 * How a moment is written (spec section 5: POINT) and what it means in the log.
 *
 * Inside, a point is the position of the last event that it includes; -1 is before the first. As `at` or `until` a time
 * means after the last event whose time is ≤ it; as `since`, before the first whose time is ≥ it (R22). A position
 * inside a record of commands means the record's end (R20).
 */
import { CheckpointError } from '../errors.ts'
import type { PointInput, SinceInput } from './types.ts'

export { START } from '../../projections/catalog.ts'

const ISO = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/

/**
 * `start`, `now`, `@POSITION`, an ISO 8601 time, `slice:N`, `slice:GENERATION.N`, `backup:ID`, `checkpoint:NAME`.
 * Throws POINT_INVALID.
 */
export function parsePoint(text: string): PointInput {
  if (text === 'start' || text === 'now') return text
  if (text.startsWith('@')) return { position: wholeNumber(text.slice(1), text) }
  const colon = text.indexOf(':')
  const rest = text.slice(colon + 1)
  switch (text.slice(0, colon)) {
    case 'slice': {
      const [head, tail, more] = rest.split('.')
      if (more !== undefined || head === undefined) throw invalid(text)
      if (tail === undefined) return { slice: wholeNumber(head, text) }
      return { generation: wholeNumber(head, text), slice: wholeNumber(tail, text) }
    }
    case 'backup':
      if (rest === '') throw invalid(text)
      return { backup: rest }
    case 'checkpoint':
      if (rest === '') throw invalid(text)
      return { checkpoint: rest }
    default: {
      const time = ISO.test(text) ? Date.parse(text) : Number.NaN
      if (Number.isNaN(time)) throw invalid(text)
      return { time: text }
    }
  }
}

/** A POINT or `active` (R11). */
export function parseSince(text: string): SinceInput {
  return text === 'active' ? 'active' : parsePoint(text)
}

export function formatPoint(point: SinceInput): string {
  if (typeof point === 'string') return point
  if ('position' in point) return `@${point.position}`
  if ('time' in point) return new Date(timeOf(point.time)).toISOString()
  if ('slice' in point)
    return point.generation === undefined
      ? `slice:${point.slice}`
      : `slice:${point.generation}.${point.slice}`
  return 'backup' in point ? `backup:${point.backup}` : `checkpoint:${point.checkpoint}`
}

/** Milliseconds since the epoch. A text without an offset is UTC when it is a date alone, local time otherwise (ISO 8601). */
export function timeOf(time: string | number | Date): number {
  const ms = typeof time === 'number' ? time : time instanceof Date ? time.getTime() : Date.parse(time)
  if (!Number.isFinite(ms)) {
    throw new CheckpointError(
      'POINT_INVALID',
      `"${String(time)}" is no time; give ISO 8601 such as 2026-11-18T18:00:00Z`,
      { point: String(time) },
    )
  }
  return ms
}

function wholeNumber(digits: string, text: string): number {
  const value = /^\d+$/.test(digits) ? Number(digits) : Number.NaN
  if (!Number.isSafeInteger(value)) throw invalid(text)
  return value
}

function invalid(text: string): CheckpointError {
  return new CheckpointError(
    'POINT_INVALID',
    `"${text}" is no point in time; give start, now, @POSITION, an ISO 8601 time, slice:N, slice:GENERATION.N, backup:ID or checkpoint:NAME`,
    { point: text },
  )
}
