/**
 * The writes of one disk between two points of the log, as bits: what `changed` answers and what a plan adds for a
 * stretch that no bitmap recorded (R11, R23). Streams; costs one decode of the span (about 18 M writes a second).
 */
import { isToldWrites } from '../../events/told.ts'
import type { LogRecord } from '../../events/types.ts'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { EventLog } from '../log/event-log.ts'

export interface Span {
  readonly disk: { readonly id: string; readonly number: number }
  /** Writes after this position … */
  readonly after: number
  /** … up to and including this one. */
  readonly upTo: number
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((position: number) => void) | undefined
}

export async function foldWrites(log: EventLog, span: Span, target: DirtyBitmap): Promise<void> {
  if (span.upTo <= span.after) return
  const signal = span.signal === undefined ? {} : { signal: span.signal }
  for await (const records of log.read({ from: span.after + 1, to: span.upTo, ...signal })) {
    for (const record of records) foldRecord(record, span, target)
    const last = records.at(-1)
    if (last !== undefined) span.onProgress?.(Math.min(span.upTo, last.first + last.count - 1))
  }
}

function foldRecord(record: LogRecord, { disk, after, upTo }: Span, target: DirtyBitmap): void {
  if (record.kind === 'events') {
    record.events.forEach((event, i) => {
      const position = record.first + i
      if (!isToldWrites(event) || event.disk !== disk.id || position <= after || position > upTo) return
      for (const [offset, length] of event.extents) target.setRange(offset, length)
    })
    return
  }
  if (record.kind === 'windows') {
    for (const window of record.windows) {
      // Points never lie inside a window (R29), so it is folded whole or not at all.
      if (window.first > upTo || window.first + window.count - 1 <= after) continue
      for (const { disk: number, columns } of window.sections)
        if (number === disk.number) target.setColumns(columns, 0, columns.offsets.length)
    }
    return
  }
  if (record.kind === 'gap') return
  let position = record.first
  for (const { disk: number, columns } of record.sections) {
    const rows = columns.offsets.length
    if (number === disk.number) {
      const from = Math.max(0, after + 1 - position)
      const to = Math.min(rows, upTo + 1 - position)
      // A disk that shrank since has writes beyond its end in the log: the bitmap passes over them (R7).
      if (from < to) target.setColumns(columns, from, to)
    }
    position += rows
  }
}
