/**
 * Where the log will go on, counting what is still on its way: position, chain and time of the next record. Records are
 * encoded here one after the other, so the next batch can be made while the one before is being put.
 */
import { type EncodedRecord, encodeEvents, encodeWrites } from '../../events/record.ts'
import type { DomainEvent, LogRecord, RecordMeta, WriteSection } from '../../events/types.ts'
import { limits } from '../limits.ts'
import type { LogHead } from '../log/event-log.ts'
import type { PendingDisk } from './incoming.ts'

/** Records of one append: as they are stored, and as they will be folded. */
export class Draft {
  readonly records: EncodedRecord[] = []
  readonly folded: LogRecord[] = []
}

export class LogTail {
  #next: number
  #hash: Uint8Array
  #time: number | null

  constructor(head: LogHead) {
    this.#next = head.next
    this.#hash = head.hash
    this.#time = head.time
  }

  get next(): number {
    return this.#next
  }

  get time(): number | null {
    return this.#time
  }

  events(time: number, meta: RecordMeta, events: readonly DomainEvent[], draft: Draft): void {
    const record = encodeEvents(this.#next, time, meta, events, this.#hash)
    draft.records.push(record)
    const { first, count, lastTime } = record
    draft.folded.push({ kind: 'events', first, count, time, lastTime, meta, events })
    this.#advance(record)
  }

  /**
   * Splits rows into records of at most `recordWritesMax`, disk after disk, so a call's positions are consecutive. `time` is
   * the record's, unless its rows carry their own.
   */
  rows(disks: readonly PendingDisk[], time: number, draft: Draft): void {
    let sections: WriteSection[] = []
    let room: number = limits.recordWritesMax
    for (const pending of disks) {
      for (let from = 0; from < pending.rows; ) {
        const to = Math.min(pending.rows, from + room)
        sections.push({ disk: pending.disk, columns: pending.columns(from, to) })
        room -= to - from
        from = to
        if (room > 0) continue
        this.#writes(sections, time, draft)
        sections = []
        room = limits.recordWritesMax
      }
    }
    if (sections.length > 0) this.#writes(sections, time, draft)
  }

  #writes(sections: readonly WriteSection[], time: number, draft: Draft): void {
    const base = sections[0]!.columns.times?.[0] ?? time
    const record = encodeWrites(this.#next, base, sections, this.#hash)
    draft.records.push(record)
    const { first, count, lastTime } = record
    draft.folded.push({ kind: 'writes', first, count, time: base, lastTime, sections })
    this.#advance(record)
  }

  #advance(record: EncodedRecord): void {
    this.#next = record.first + record.count
    this.#hash = record.hash
    this.#time = record.lastTime
  }
}
