/** All times moved by one distance: what lies between two events stays, when it was does not. */
import type { Base, DiskMark, DomainEvent, Point, WriteColumns } from '../../events/types.ts'

export class Shift {
  /** Milliseconds added to every time. */
  constructor(readonly by: number) {}

  time(time: number): number {
    return Math.max(0, time + this.by)
  }

  point(point: Point): Point {
    return point.time === null ? point : { position: point.position, time: this.time(point.time) }
  }

  columns(columns: WriteColumns): WriteColumns {
    const { times } = columns
    return this.by === 0 || times === undefined
      ? columns
      : { ...columns, times: times.map((time) => this.time(time)) }
  }

  event(event: DomainEvent): DomainEvent {
    if (this.by === 0) return event
    switch (event.type) {
      case 'clock-stepped':
        return { ...event, from: this.time(event.from), to: this.time(event.to) }
      case 'stretch-lost':
      case 'window':
      case 'maybe-written':
        return { ...event, from: this.point(event.from) }
      case 'disk-marked':
        return { ...event, mark: this.#mark(event.mark) }
      case 'backup-begun':
        return { ...event, base: this.#base(event.base) }
      default:
        return event
    }
  }

  #mark(mark: DiskMark): DiskMark {
    const moved = (nanoseconds: string) => String(BigInt(nanoseconds) + BigInt(this.by) * 1_000_000n)
    return { ...mark, modified: moved(mark.modified), changed: moved(mark.changed) }
  }

  /** A base that was given as a time is named by it. */
  #base(base: Base): Base {
    const moved = { ...base, ...this.point(base) }
    if (base.kind !== 'time' || base.name === undefined) return moved
    return { ...moved, name: new Date(this.time(Date.parse(base.name))).toISOString() }
  }
}
