/**
 * The whole state at one moment: catalog and bits, folded from the same records. The live store has one; so has every
 * question about the past (R22).
 */
import type { LogRecord } from '../../events/types.ts'
import { BitsFold } from '../../projections/bits.ts'
import { Catalog } from '../../projections/catalog.ts'

export class State {
  readonly catalog: Catalog
  readonly bits: BitsFold

  constructor(catalog = new Catalog(), bits = new BitsFold()) {
    this.catalog = catalog
    this.bits = bits
  }

  apply(record: LogRecord): void {
    this.bits.apply(record)
    this.catalog.apply(record)
  }
}

/** Whole windows only: a point never lies inside one (R29). */
function cutWindows(record: Extract<LogRecord, { kind: 'windows' }>, until: number): LogRecord {
  const windows = record.windows.filter((window) => window.first <= until)
  const last = windows[windows.length - 1]!
  return { ...record, count: last.first + last.count - record.first, lastTime: last.lastTime, windows }
}

/** The part of a record up to position `until`, which must lie inside it; the record itself when it ends there. */
export function cutRecord(record: LogRecord, until: number): LogRecord {
  if (record.first + record.count - 1 <= until) return record
  if (record.kind === 'windows') return cutWindows(record, until)
  if (record.kind !== 'writes') return record
  const sections = []
  let left = until - record.first + 1
  let lastTime = record.time
  for (const section of record.sections) {
    const rows = Math.min(left, section.columns.offsets.length)
    if (rows <= 0) break
    const { offsets, lengths, ops, times } = section.columns
    sections.push({
      disk: section.disk,
      columns: {
        offsets: offsets.subarray(0, rows),
        lengths: lengths.subarray(0, rows),
        ops: ops?.subarray(0, rows),
        times: times?.subarray(0, rows),
      },
    })
    lastTime = times?.[rows - 1] ?? lastTime
    left -= rows
  }
  return {
    kind: 'writes',
    first: record.first,
    count: until - record.first + 1,
    time: record.time,
    lastTime,
    sections,
  }
}
