/**
 * What the options of the handshake carry, taken apart. A decoder gives null for data that is not of its shape: too short,
 * too long, a name that is no UTF-8 or longer than the protocol's strings. Pure, and no larger than the option that came.
 */
import { limits } from '../limits.ts'

/** INFO and GO: the export, and which facts about it are asked for. */
export interface InfoAsked {
  readonly name: string
  readonly infos: readonly number[]
}

/** LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface ContextsAsked {
  readonly name: string
  readonly queries: readonly string[]
}

export function decodeInfo(data: Buffer): InfoAsked | null {
  const reader = new Reader(data)
  const name = reader.text()
  const count = reader.u16()
  const infos: number[] = []
  for (let i = 0; i < count && reader.whole; i++) infos.push(reader.u16())
  return reader.done ? { name, infos } : null
}

/** How many queries there are is the asker's to say and not yet to be trusted: those that came are counted. */
export function decodeContexts(data: Buffer): ContextsAsked | null {
  const reader = new Reader(data)
  const name = reader.text()
  const count = reader.u32()
  const queries: string[] = []
  for (let i = 0; i < count && reader.whole; i++) queries.push(reader.text())
  return reader.done ? { name, queries } : null
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export function decodeName(bytes: Buffer): string | null {
  if (bytes.length > limits.nbdNameBytesMax) return null
  try {
    return utf8.decode(bytes)
  } catch {
    return null
  }
}

/** Reads on; after the first thing that was not there, everything is empty and `whole` is false. */
class Reader {
  readonly #data: Buffer
  #at = 0
  whole = true

  constructor(data: Buffer) {
    this.#data = data
  }

  get done(): boolean {
    return this.whole && this.#at === this.#data.length
  }

  u16(): number {
    return this.#next(2)?.readUInt16BE() ?? 0
  }

  u32(): number {
    return this.#next(4)?.readUInt32BE() ?? 0
  }

  text(): string {
    const bytes = this.#next(this.u32())
    const text = bytes === null ? null : decodeName(bytes)
    if (text === null) this.whole = false
    return text ?? ''
  }

  #next(length: number): Buffer | null {
    if (!this.whole || this.#data.length - this.#at < length) {
      this.whole = false
      return null
    }
    this.#at += length
    return this.#data.subarray(this.#at - length, this.#at)
  }
}
