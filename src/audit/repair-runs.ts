/**
 * Which runs of windows a repair may believe: the chain says nothing of what a run holds, only a `log-compacted` does (R28, R29).
 *
 * One whose event is there must be what it tells. One without any is believed only where damage may have taken its event, and
 * never otherwise: a repair vouches for what it keeps, and must not vouch for what somebody put there.
 * Cost: one reading of what would be kept; some 200 bytes a run.
 */
import { decodeStored, ownHash, type StoredHeader } from '../../events/record.ts'
import type { Piece, Required } from './repair-choose.ts'

/** Why a run cannot be believed, or null. `pieces`: what would be kept if all of them were. */
export async function vouchersOf(
  pieces: AsyncIterable<Piece>,
  required: Required | null,
): Promise<(value: Uint8Array, header: StoredHeader) => string | null> {
  const named = new Map<string, Told>()
  // Nothing tells where the log ended, so its end may be lost.
  let lost = required === null ? Number.POSITIVE_INFINITY : -1
  for await (const piece of pieces) {
    if (piece.kind === 'lost') lost = Math.max(lost, piece.last)
    else if (piece.header.layout !== 'run')
      for (const { first, last, own, after } of runsToldIn(piece.value)) {
        const key = `${first}-${last}`
        const told = named.get(key) ?? { hashes: new Set(), at: 0 }
        told.hashes.add(`${own} ${after}`)
        named.set(key, { ...told, at: piece.header.first })
      }
  }
  return (value, { first, count, hash }) => {
    const last = first + count - 1
    if (decodeStored(value)[0]?.kind !== 'windows') return null
    const told = named.get(`${first}-${last}`)
    if (told?.hashes.has(`${hex(ownHash(value))} ${hex(hash)}`) === true) return null
    // A later event, which may be lost, would have told otherwise.
    if (lost > (told?.at ?? last)) return null
    return told === undefined
      ? 'it is a run of windows that no compaction left there'
      : 'it is not the run of windows that a compaction left there'
  }
}

interface Told {
  /** All that was ever said to be there: a later compaction may have folded it anew. */
  readonly hashes: Set<string>
  /** Where it was said last. */
  readonly at: number
}

function* runsToldIn(value: Uint8Array) {
  for (const record of decodeStored(value))
    if (record.kind === 'events')
      for (const event of record.events) if (event.type === 'log-compacted') yield* event.runs
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}
