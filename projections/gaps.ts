/**
 * Gaps: the parts of a slice's span in which its bitmap collected nothing (disabled), or lost what it had (cleared).
 *
 * A plan fills them from the log (R11), so they must neither overlap nor be forgotten when parts are cut or merged.
 * Lists are ascending; only the last gap of a collecting part may be open. Costs are linear in the number of gaps.
 */
import type { LostStretch, Point } from '../events/types.ts'
import type { ActiveSlice, Gap } from './state.ts'

/** The gap list of a part that begins at `from`: empty, or the open gap of a bitmap that is not recording. */
export function gapsFromStart(recording: boolean, from: Point): readonly Gap[] {
  return recording ? [] : [{ kind: 'disabled', from, to: null }]
}

/** Ends an open gap at `at`. A gap of no length (opened and closed in one record) is no gap. */
export function closeGaps(gaps: readonly Gap[], at: Point): readonly Gap[] {
  if (gaps.every((gap) => gap.to !== null)) return gaps
  return gaps
    .map((gap) => ({ ...gap, to: gap.to ?? at }))
    .filter((gap) => gap.from.position < gap.to.position)
}

/** Adds one gap at the end, joining it to a gap of the same kind that ends where it starts. */
function append(gaps: Gap[], gap: Gap): void {
  const last = gaps.at(-1)
  if (last !== undefined && last.kind === gap.kind && last.to?.position === gap.from.position) {
    gaps[gaps.length - 1] = { kind: gap.kind, from: last.from, to: gap.to }
    return
  }
  gaps.push(gap)
}

/** Gaps of two neighbouring parts as one list; `boundary` is where the older part ends. */
export function joinGaps(older: readonly Gap[], boundary: Point, newer: readonly Gap[]): readonly Gap[] {
  const joined: Gap[] = []
  for (const gap of closeGaps(older, boundary)) append(joined, gap)
  for (const gap of newer) append(joined, gap)
  return joined
}

/** Every lost stretch of two parts, each once: one that spans their boundary is carried by both (R35). */
export function joinLost(
  older: readonly LostStretch[],
  newer: readonly LostStretch[],
): readonly LostStretch[] {
  const added = newer.filter(
    (stretch) =>
      !older.some(
        (known) =>
          known.from.position === stretch.from.position &&
          known.to.position === stretch.to.position &&
          known.reason === stretch.reason,
      ),
  )
  return added.length === 0 ? older : [...older, ...added]
}

/** What a collecting part looks like after `clear` at `at`: its whole span so far is one cleared gap. */
export function clearedGaps(part: ActiveSlice, recording: boolean, at: Point): readonly Gap[] {
  const open = gapsFromStart(recording, at)
  if (part.from.position >= at.position) return open
  return [{ kind: 'cleared', from: part.from, to: at }, ...open]
}
