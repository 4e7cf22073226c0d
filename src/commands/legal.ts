/**
 * What may be done to a bitmap in which condition: one table, read by `decide` for its checks and by the docs.
 *
 * Only the condition of the bitmap is here; what also depends on retention, slices or points is decided in the family's
 * own file. A refusal's code is what the table says, so documentation made from it cannot be wrong about it.
 */
import type { BitmapState } from '../../projections/state.ts'
import type { ErrorCode } from '../errors.ts'

/** `busy`: a backup runs on it, or a transaction removes it at its end (R6, R20). */
export type Condition = 'recording' | 'disabled' | 'busy' | 'absent'

/** `nothing`: accepted, and no event follows because nothing would change. */
export type Verdict = 'allowed' | 'nothing' | ErrorCode

export const CONDITIONS: readonly Condition[] = ['recording', 'disabled', 'busy', 'absent']

function row(
  recording: Verdict,
  disabled: Verdict,
  busy: Verdict,
  absent: Verdict,
): Readonly<Record<Condition, Verdict>> {
  return { recording, disabled, busy, absent }
}

/** Operations on one bitmap, by the command's name; a command that touches bitmaps in two roles has a row for each. */
export const LEGAL = {
  'add-bitmap': row('BITMAP_EXISTS', 'BITMAP_EXISTS', 'BITMAP_EXISTS', 'allowed'),
  'remove-bitmap': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'clear-bitmap': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'enable-bitmap': row('nothing', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'disable-bitmap': row('allowed', 'nothing', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'merge-bitmaps': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'merge-bitmaps source': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'set-retention': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  bank: row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'delete-slice': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'begin-backup': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'create-checkpoint': row('allowed', 'allowed', 'BITMAP_BUSY', 'BITMAP_NOT_FOUND'),
  'delete-checkpoint': row('allowed', 'allowed', 'BITMAP_BUSY', 'nothing'),
  'resize-disk': row('allowed', 'allowed', 'BITMAP_BUSY', 'nothing'),
  'remove-disk': row('allowed', 'allowed', 'DISK_BUSY', 'nothing'),
} as const satisfies Readonly<Record<string, Readonly<Record<Condition, Verdict>>>>

export type Operation = keyof typeof LEGAL

export function conditionOf(bitmap: BitmapState | undefined): Condition {
  if (bitmap === undefined) return 'absent'
  if (bitmap.holder !== null) return 'busy'
  return bitmap.recording ? 'recording' : 'disabled'
}
