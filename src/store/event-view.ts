/** Events as objects, for readers that want them so: subscribers, `log`, audits. The write path never makes these. */
import { type DomainEvent, type LogRecord, type LogWindow, WRITE_OPS } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { RecordedEvent } from './types.ts'

const NO_CAUSE = {}

/** The record's events in order. Disk numbers are named by the catalog, which knows removed disks too. */
export function* eventsOf(record: LogRecord, catalog: CatalogReader): Generator<RecordedEvent> {
  if (record.kind === 'events') {
    for (let i = 0; i < record.events.length; i++) {
      yield domainEvent(record.events[i]!, record.first + i, record, catalog)
    }
    return
  }
  if (record.kind === 'windows') {
    for (const window of record.windows) yield* windowEvents(window, catalog)
    return
  }
  if (record.kind === 'gap') {
    yield gapEvent(record)
    return
  }
  let position = record.first
  for (const { disk, columns } of record.sections) {
    const id = catalog.diskByNumber(disk)?.id ?? null
    for (let i = 0; i < columns.offsets.length; i++) {
      yield {
        position: position++,
        time: columns.times?.[i] ?? record.time,
        type: 'write',
        disk: id,
        data: {
          op: WRITE_OPS[columns.ops?.[i] ?? 0],
          offset: columns.offsets[i],
          length: columns.lengths[i],
        },
        cause: NO_CAUSE,
      }
    }
  }
}

/** What is left of folded writes: one event per disk, at the window's end, of type `window` (R29). */
function* windowEvents(window: LogWindow, catalog: CatalogReader): Generator<RecordedEvent> {
  const position = window.first + window.count - 1
  for (const { disk, writes, bytes, columns } of window.sections) {
    yield {
      position,
      time: window.lastTime,
      type: 'window',
      disk: catalog.diskByNumber(disk)?.id ?? null,
      data: {
        from: { position: window.first - 1, time: window.time },
        writes,
        bytes,
        extents: Array.from(columns.offsets, (offset, i) => [offset, columns.lengths[i]]),
      },
      cause: NO_CAUSE,
    }
  }
}

/** What a repair found nothing left of: told, so that nobody takes it for a stretch without events (R28). */
function gapEvent({ first, count, time, lastTime }: Extract<LogRecord, { kind: 'gap' }>): RecordedEvent {
  const data = { from: { position: first - 1, time }, events: count }
  return { position: first + count - 1, time: lastTime, type: 'gap', disk: null, data, cause: NO_CAUSE }
}

function domainEvent(
  event: DomainEvent,
  position: number,
  record: Extract<LogRecord, { kind: 'events' }>,
  catalog: CatalogReader,
): RecordedEvent {
  const { type, ...rest } = event as DomainEvent & { disk?: string }
  const { disk = diskOf(event, catalog), ...data } = rest
  return { position, time: record.time, type, disk: disk ?? null, data, cause: record.meta }
}

/** Time of the event at `position`, which lies inside the record. */
export function timeAt(record: LogRecord, position: number): number {
  if (record.kind === 'windows') {
    const inside = record.windows.find((window) => position < window.first + window.count)
    return inside?.lastTime ?? record.lastTime
  }
  if (record.kind !== 'writes') return record.lastTime
  let first = record.first
  for (const { columns } of record.sections) {
    const rows = columns.offsets.length
    if (position < first + rows) return columns.times?.[position - first] ?? record.time
    first += rows
  }
  return record.lastTime
}

/** The end of a backup names the backup alone; its disk is the one that it began on. */
function diskOf(event: DomainEvent, catalog: CatalogReader): string | undefined {
  return 'backup' in event ? catalog.backup(event.backup)?.disk : undefined
}
