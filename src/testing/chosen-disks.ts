/** An incident of some disks only: what happened to the others leaves its place, and nothing else. */
import type { DomainEvent, LogRecord } from '../../events/types.ts'

/** Stands where an event of another disk was. */
const NOTHING: DomainEvent = { type: 'nothing-changed' }

export class ChosenDisks {
  readonly #disks: ReadonlySet<string> | null
  readonly #numbers = new Set<number>()
  /** Which disk each backup is of: its later events name only the backup. */
  readonly #backups = new Map<string, string>()

  /** Null: all. */
  constructor(disks: ReadonlySet<string> | null) {
    this.#disks = disks
  }

  /** Whether writes to this disk are part of it. */
  has(number: number): boolean {
    return this.#disks === null || this.#numbers.has(number)
  }

  events(record: Extract<LogRecord, { kind: 'events' }>): readonly DomainEvent[] {
    if (this.#disks === null) return record.events
    return record.events.map((event, i) => this.#event(event, record.first + i))
  }

  #event(event: DomainEvent, position: number): DomainEvent {
    if (event.type === 'disk-added' && this.#chosen(event.disk)) this.#numbers.add(position)
    if (event.type === 'backup-begun') this.#backups.set(event.backup, event.disk)
    if (event.type === 'checkpoint-created')
      return { ...event, bitmaps: event.bitmaps.filter(({ disk }) => this.#chosen(disk)) }
    if ('disk' in event) return this.#chosen(event.disk) ? event : NOTHING
    if ('backup' in event) return this.#chosen(this.#backups.get(event.backup) ?? '') ? event : NOTHING
    return event
  }

  #chosen(disk: string): boolean {
    return this.#disks === null || this.#disks.has(disk)
  }
}
