/**
 * Writes that are recorded and whose bytes have not landed yet, by disk (R8). A point that is taken meanwhile records them
 * again right behind itself, so they are on both sides of it. Costs a set entry for each write in flight, and nothing for one
 * whose bytes landed at once.
 */
import type { DomainEvent, WriteColumns } from '../../events/types.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { PendingDisk } from './incoming.ts'

/** What is in flight, by disk number. */
export type Moving = ReadonlyMap<number, ReadonlySet<WriteColumns>>

export class Moves {
  readonly #moves = new Map<number, Set<WriteColumns>>()

  /** Remembers a write until what it returns is called. */
  track(disk: number, columns: WriteColumns): () => void {
    let moves = this.#moves.get(disk)
    if (moves === undefined) {
      moves = new Set()
      this.#moves.set(disk, moves)
    }
    moves.add(columns)
    return () => moves.delete(columns)
  }

  /** A copy. */
  now(): Moving {
    return new Map([...this.#moves].map(([disk, moves]) => [disk, new Set(moves)]))
  }

  /** The rows to record behind a quiet point of `disks`: what is in flight now, and what was `earlier`. */
  again(
    disks: readonly string[],
    events: readonly DomainEvent[],
    catalog: Catalog,
    earlier: Moving = new Map(),
  ): PendingDisk[] {
    const again: PendingDisk[] = []
    for (const id of disks) {
      const disk = catalog.disk(id)
      if (disk === undefined) continue
      const moves = new Set([...(earlier.get(disk.number) ?? []), ...(this.#moves.get(disk.number) ?? [])])
      if (moves.size === 0) continue
      if (events.some((event) => event.type === 'disk-removed' && event.disk === id)) continue
      const size = events.reduce(
        (now, event) => (event.type === 'disk-resized' && event.disk === id ? event.size : now),
        disk.size,
      )
      const pending = new PendingDisk(disk.number, id, size)
      for (const columns of moves) pending.take(clip(columns, size))
      if (pending.rows > 0) again.push(pending)
    }
    return again
  }
}

function clip(columns: WriteColumns, size: number): WriteColumns {
  const offsets = columns.offsets.map((offset) => Math.min(offset, size))
  const lengths = columns.lengths.map((length, i) => Math.min(length, size - offsets[i]!))
  return { offsets, lengths, ops: columns.ops }
}
