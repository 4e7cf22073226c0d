/**
 * Which small values become packs. Both implementations walk their entries through a Packer and replace what it hands out;
 * each replacement is atomic by itself, so an end at any moment costs nothing.
 */
import { packStored, readHeader } from '../../events/record.ts'
import type { StoredEntry } from './entries.ts'

/** A value with fewer events is worth joining. */
export const SMALL_EVENTS = 64
/** A pack is full at so many records (about 3 ms of work), or so many bytes of input. */
const PACK_RECORDS = 512
const PACK_BYTES = 256 * 1024

export interface Replacement {
  /** The entries it replaces, in order; the pack takes the key of the first. */
  readonly entries: readonly StoredEntry[]
  readonly pack: Uint8Array
  readonly records: number
}

export class Packer {
  #group: StoredEntry[] = []
  #records = 0
  #bytes = 0
  #before: Uint8Array | undefined
  #previous: Uint8Array
  /** Where the next repack should begin: the start of what is not full yet. */
  cursor: number

  /** `previous`: the chain's hash before the first entry, at `cursor`. */
  constructor(previous: Uint8Array, cursor: number) {
    this.#previous = previous
    this.cursor = cursor
  }

  /** A replacement, when this entry completes one. Throws what the codec throws at a damaged value. */
  add(entry: StoredEntry): Replacement | undefined {
    const header = readHeader(entry.value)
    // A run stays what it is, whatever its size: its content no longer gives its hash.
    const small =
      header.layout !== 'run' &&
      (header.count < SMALL_EVENTS || (header.layout === 'pack' && header.records < PACK_RECORDS))
    if (!small) {
      const done = this.flush()
      this.#previous = header.hash
      this.cursor = header.first + header.count
      return done
    }
    const full =
      this.#records + header.records > PACK_RECORDS || this.#bytes + entry.value.length > PACK_BYTES
    const done = full ? this.flush() : undefined
    if (this.#group.length === 0) {
      this.#before = this.#previous
      this.cursor = header.first
    }
    this.#group.push(entry)
    this.#records += header.records
    this.#bytes += entry.value.length
    this.#previous = header.hash
    return done
  }

  flush(): Replacement | undefined {
    const entries = this.#group
    const records = this.#records
    this.#group = []
    this.#records = 0
    this.#bytes = 0
    if (entries.length < 2 || this.#before === undefined) return undefined
    const pack = packStored(
      entries.map((entry) => entry.value),
      this.#before,
    )
    return pack && { entries, pack, records }
  }
}
