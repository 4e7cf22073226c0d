/**
 * Which events a reader of the log wants. Rows of writes are tested as columns and made objects only when wanted, so that
 * looking for one write among millions costs the decoding (about 50 ns a write) and nothing more.
 */
import { TOLD_WRITES, type ToldWrites } from '../../events/told.ts'
import { type Extent, type LogRecord, WRITE_OPS } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { eventsOf } from './event-view.ts'
import type { LogFilter, RecordedEvent } from './types.ts'

type Wanted = Pick<
  LogFilter,
  'disk' | 'types' | 'actor' | 'correlationId' | 'commandId' | 'range' | 'reverse'
>
type Writes = Extract<LogRecord, { kind: 'writes' }>

const NO_CAUSE = {}

/** Writes carry no cause, and a filter on types may leave them out: then their records need not be decoded. */
export function wantsWrites({ types, actor, correlationId, commandId }: Wanted): boolean {
  if (actor !== undefined || correlationId !== undefined || commandId !== undefined) return false
  return types === undefined || types.includes('write')
}

/** The record's events of the positions from…to that pass, in order, or newest first with `reverse`. */
export function* matching(
  record: LogRecord,
  filter: Wanted,
  catalog: CatalogReader,
  from: number,
  to: number,
): Generator<RecordedEvent> {
  if (record.kind === 'writes') {
    if (wantsWrites(filter)) yield* writesOf(record, filter, catalog, from, to)
    return
  }
  const all = [...eventsOf(record, catalog)]
  for (const event of filter.reverse === true ? all.reverse() : all) {
    if (event.position >= from && event.position <= to && passes(event, filter)) yield event
  }
}

function* writesOf(
  record: Writes,
  filter: Wanted,
  catalog: CatalogReader,
  from: number,
  to: number,
): Generator<RecordedEvent> {
  let next = record.first
  const placed = record.sections.map((section) => {
    const first = next
    next += section.columns.offsets.length
    return { ...section, first }
  })
  const reverse = filter.reverse === true
  for (const { disk: number, columns, first } of reverse ? placed.reverse() : placed) {
    const disk = catalog.diskByNumber(number)?.id ?? null
    if (filter.disk !== undefined && filter.disk !== disk) continue
    const { offsets, lengths, ops, times } = columns
    const start = Math.max(0, from - first)
    const stop = Math.min(offsets.length, to - first + 1)
    for (let step = start; step < stop; step++) {
      const i = reverse ? start + stop - 1 - step : step
      const offset = offsets[i]!
      const length = lengths[i]!
      if (filter.range !== undefined && !touches(offset, length, filter.range)) continue
      yield {
        position: first + i,
        time: times?.[i] ?? record.time,
        type: 'write',
        disk,
        data: { op: WRITE_OPS[ops?.[i] ?? 0], offset, length },
        cause: NO_CAUSE,
      }
    }
  }
}

function passes(event: RecordedEvent, filter: Wanted): boolean {
  if (filter.disk !== undefined && event.disk !== filter.disk) return false
  if (filter.types !== undefined && !filter.types.includes(event.type)) return false
  if (filter.actor !== undefined && event.cause.actor !== filter.actor) return false
  if (filter.correlationId !== undefined && event.cause.correlationId !== filter.correlationId) return false
  if (filter.commandId !== undefined && event.cause.commandId !== filter.commandId) return false
  const { range } = filter
  if (range === undefined) return true
  // Windows, told by an agent or left by a compaction, stand for the writes that they hold (R3, R29); so does what a power cut took.
  const told = TOLD_WRITES.some((type) => type === event.type)
  return told && extentsOf(event).some(([offset, length]) => touches(offset, length, range))
}

function extentsOf(event: RecordedEvent): readonly Extent[] {
  return (event.data as ToldWrites).extents
}

function touches(
  offset: number,
  length: number,
  range: { readonly offset: number; readonly length: number },
) {
  return offset < range.offset + range.length && range.offset < offset + length
}
