/** Write ranges that child and parent both make from a number, so that an acknowledgement is one short line. */
import { MiB } from '../../src/limits.ts'
import { prng } from '../support/property.ts'

export const LEDGER = 'vm/ledger'
export const LEDGER_SIZE = 32 * MiB
/** On the ledger's disk: records always, never cleared, never backed up. */
export const LEDGER_BITMAP = 'all'
export const LEDGER_GRANULARITY = 4096

export interface Rows {
  readonly offsets: Float64Array
  readonly lengths: Float64Array
}

/** One row or a few hundred, inside 32 MiB. */
export function rowsOf(number: number): Rows {
  const random = prng(number)
  const rows = random() < 0.6 ? 1 : 1 + Math.floor(random() * 200)
  const offsets = new Float64Array(rows)
  const lengths = new Float64Array(rows)
  for (let i = 0; i < rows; i++) {
    offsets[i] = Math.floor(random() * (LEDGER_SIZE / 512 - 16)) * 512
    lengths[i] = 512 * (1 + Math.floor(random() * 16))
  }
  return { offsets, lengths }
}
