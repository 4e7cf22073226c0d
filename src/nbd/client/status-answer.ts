/**
 * The answer of a block status: for each context that was agreed one list of extents. Kept as it stands on the wire, 8 bytes an
 * extent, and looked at in place: there may be a million of them.
 */
import { limits } from '../../limits.ts'
import type { Input } from '../input.ts'
import { RUN_BYTES } from '../runs.ts'
import { CHUNK } from '../wire.ts'
import { type Answer, Unsound } from './answer.ts'

/** `(u32 length | u32 flags)*` by the context's name. */
export type Status = ReadonlyMap<string, Buffer>

const ID_BYTES = 4

export class StatusAnswer implements Answer<Status> {
  readonly simpleBytes = null
  readonly #length: number
  readonly #least: number
  readonly #one: boolean
  readonly #contexts: ReadonlyMap<number, string>
  readonly #found = new Map<string, Buffer>()

  /** `least`: bytes at its start that nobody cares for; an answer must reach beyond them, or asking on would never end. */
  constructor(length: number, least: number, one: boolean, contexts: ReadonlyMap<number, string>) {
    this.#length = length
    this.#least = least
    this.#one = one
    this.#contexts = contexts
  }

  simple(): void {
    throw new Unsound('a simple reply to a block status')
  }

  async chunk(type: number, length: number, input: Input): Promise<void> {
    if (type !== CHUNK.blockStatus) throw new Unsound(`a chunk of type ${type} for a block status`)
    const count = (length - ID_BYTES) / RUN_BYTES
    const max = this.#one ? 1 : limits.nbdClientExtentsMax
    if (!Number.isInteger(count) || count < 1 || count > max)
      throw new Unsound(`a block status in ${length} bytes`)
    const id = (await input.bytes(ID_BYTES)).readUInt32BE()
    const context = this.#contexts.get(id)
    if (context === undefined) throw new Unsound(`a block status of context ${id}, which was not agreed`)
    if (this.#found.has(context)) throw new Unsound(`two lists of extents of ${context}`)
    const extents = await input.bytes(length - ID_BYTES)
    this.#refuse(extents)
    this.#found.set(context, extents)
  }

  whole(): Status {
    for (const context of this.#contexts.values())
      if (!this.#found.has(context)) throw new Unsound(`no extents of ${context}`)
    return this.#found
  }

  /** The last extent may reach beyond what was asked, except where only one was; none may begin there. */
  #refuse(extents: Buffer): void {
    let at = 0
    for (let i = 0; i < extents.length; i += RUN_BYTES) {
      const length = extents.readUInt32BE(i)
      if (length === 0) throw new Unsound('an extent of no bytes')
      if (at >= this.#length) throw new Unsound('extents beyond what was asked')
      at += length
    }
    if (at <= this.#least) throw new Unsound('extents that end within a block')
    if (this.#one && at > this.#length) throw new Unsound('one extent that is longer than what was asked')
  }
}
