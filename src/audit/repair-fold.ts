/**
 * What of the chosen values can follow from what is before: every event legal in its state, every write on a disk that is there.
 * The first that cannot is lost alone; behind damage it ends the log, because what is missing is what it stood on (R28).
 *
 * Cost: the catalog's fold of the log, no bits.
 */
import { decodeStored } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import { messageOf } from '../errors.ts'
import { objectionTo, objectionToEnd, objectionToWrites } from './legal.ts'
import type { Kept, Lost, Piece, TakenOut } from './repair-choose.ts'

export class RepairFold {
  catalog = new Catalog()
  /** Set once nothing more can follow. */
  #ended: string | undefined
  #damaged = false
  #end = 0

  /** What goes into the log for this piece. */
  async take(piece: Piece, takeOut: (out: TakenOut) => Promise<void>): Promise<Piece> {
    if (piece.kind === 'lost') return this.#lose(piece)
    if (this.#ended === undefined) {
      const objection = this.#fold(piece.value)
      if (objection === null) return piece
      if (this.#damaged) this.#ended = objection
      else return await this.#out(piece, objection, takeOut)
    }
    return await this.#out(piece, `it cannot follow from what is left before it (${this.#ended})`, takeOut)
  }

  async #out({ value, header }: Kept, why: string, takeOut: (out: TakenOut) => Promise<void>): Promise<Lost> {
    await takeOut({ position: header.first, value, why })
    const lost = { first: header.first, last: header.first + header.count - 1, hash: header.hash }
    return this.#lose({ kind: 'lost', ...lost, why: [`at position ${header.first} ${why}`] })
  }

  #lose(piece: Lost): Lost {
    this.#damaged = true
    const { position, time } = this.catalog.last
    const first = position + 1
    const count = piece.last + 1 - first
    // The catalog follows positions, so that what comes behind is judged as it will be.
    if (count > 0) this.catalog.apply({ kind: 'gap', first, count, time: time ?? 0, lastTime: time ?? 0 })
    return piece
  }

  /** All of the value's records, or none. */
  #fold(value: Uint8Array): string | null {
    const fork = this.catalog.fork()
    const records = decodeStored(value)
    for (const record of records) {
      const objection = foldOn(fork, record)
      if (objection !== null) return objection
    }
    for (const record of records) this.catalog.apply(record)
    this.#end = this.catalog.last.position + 1
    return null
  }

  get next(): number {
    return this.#end
  }
}

/** Folds one record, each of its events asked whether it can be. Why not, or null; then the catalog is of no use any more. */
export function foldOn(catalog: Catalog, record: LogRecord): string | null {
  try {
    if (record.kind === 'writes') {
      const objection = objectionToWrites(record, catalog)
      if (objection !== null) return objection
    }
    if (record.kind !== 'events') {
      catalog.apply(record)
      return null
    }
    const last = catalog.last.position
    const at = { position: record.first + record.count - 1, time: record.lastTime }
    for (const [i, event] of record.events.entries()) {
      const objection = objectionTo(event, catalog, last)
      if (objection !== null) return `${event.type}: ${objection}`
      catalog.applyEvent(event, record.first + i, at)
    }
    return objectionToEnd(record, catalog)
  } catch (error) {
    return messageOf(error)
  }
}
