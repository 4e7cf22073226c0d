/**
 * What a recovery tells after a power cut (R30) as tests need it: a log whose windows are told as `maybe-written` instead. No public
 * command does that, so the records are encoded again, one by one, at the same positions and times.
 */
import { EMPTY_HASH, type EncodedRecord, encodeEvents, encodeWrites } from '../../events/record.ts'
import type { DomainEvent, LogRecord } from '../../events/types.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import type { Store } from '../../src/store/store.ts'

/** The records of a store that was never compacted, as they would be had no window said how many writes it stands for. */
export async function retold(store: Store, type: 'window' | 'maybe-written'): Promise<MemoryEventLog> {
  const log = new MemoryEventLog()
  let hash: Uint8Array = EMPTY_HASH
  for await (const records of store.records()) {
    for (const record of records) {
      const encoded = encode(record, hash, type)
      hash = encoded.hash
      await log.append([encoded], { expected: record.first, sync: false })
    }
  }
  return log
}

function encode(record: LogRecord, hash: Uint8Array, type: 'window' | 'maybe-written'): EncodedRecord {
  const { first, time } = record
  if (record.kind === 'writes') return encodeWrites(first, time, record.sections, hash)
  if (record.kind !== 'events') throw new Error(`a ${record.kind} record cannot be retold`)
  return encodeEvents(
    first,
    time,
    record.meta,
    record.events.map((event) => told(event, type)),
    hash,
  )
}

function told(event: DomainEvent, type: 'window' | 'maybe-written'): DomainEvent {
  if (event.type !== 'window') return event
  const { disk, from, extents } = event
  return type === 'window' ? { ...event, writes: 0 } : { type, disk, from, extents }
}
