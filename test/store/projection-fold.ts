/** The fold of the projection tests: counts, sums, and a hash over every event in order, so that a gap or a double shows. */
import { createHash } from 'node:crypto'
import type { EventProjection, RecordProjection } from '../../src/index.ts'

export interface Tally {
  readonly events: number
  readonly bytes: number
  readonly types: Readonly<Record<string, number>>
  /** Over position and type of every event so far. */
  readonly chain: string
}

export const EMPTY: Tally = { events: 0, bytes: 0, types: {}, chain: '' }

export function tally(name: string, version = 1): EventProjection<Tally> {
  return {
    name,
    version,
    seed: () => EMPTY,
    apply: (state, { position, type, data }) => ({
      events: state.events + 1,
      bytes: state.bytes + Number(data.length ?? 0),
      types: { ...state.types, [type]: (state.types[type] ?? 0) + 1 },
      chain: createHash('sha256').update(`${state.chain} ${position} ${type}`).digest('hex'),
    }),
  }
}

/** The same numbers from columns, kept as bytes. */
export interface Sums {
  rows: number
  bytes: number
  others: number
}

export function sums(name: string, version = 1): RecordProjection<Sums> {
  return {
    name,
    version,
    per: 'record',
    seed: () => ({ rows: 0, bytes: 0, others: 0 }),
    apply(state, record) {
      if (record.kind !== 'writes') {
        state.others += record.count
        return state
      }
      for (const { columns } of record.sections) {
        state.rows += columns.lengths.length
        for (const length of columns.lengths) state.bytes += length
      }
      return state
    },
    save: ({ rows, bytes, others }) => new Uint8Array(Float64Array.of(rows, bytes, others).buffer),
    load(saved) {
      const [rows, bytes, others] = new Float64Array((saved as Uint8Array).slice().buffer)
      return { rows: rows!, bytes: bytes!, others: others! }
    },
  }
}
