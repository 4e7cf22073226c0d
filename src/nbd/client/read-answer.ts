/**
 * The bytes of a read. They come in one piece or in many, in any order, as data or as holes; each byte must come once. A piece
 * that is all of it is handed on as it is, without a copy.
 */
import type { Input } from '../input.ts'
import { CHUNK } from '../wire.ts'
import { type Answer, Unsound } from './answer.ts'
import { readNumber } from './wire.ts'

const HOLE_BYTES = 12
const OFFSET_BYTES = 8

export class ReadAnswer implements Answer<Buffer> {
  readonly simpleBytes: number | null
  readonly #offset: number
  readonly #length: number
  #bytes: Buffer | null = null
  /** Bytes that came, and where: pairs of first and behind the last, in the order of their coming. */
  #came = 0
  readonly #pieces: number[] = []

  constructor(offset: number, length: number, structured: boolean) {
    this.#offset = offset
    this.#length = length
    this.simpleBytes = structured ? null : length
  }

  simple(bytes: Buffer): void {
    this.#bytes = own(bytes)
    this.#came = bytes.length
  }

  async chunk(type: number, length: number, input: Input): Promise<void> {
    switch (type) {
      case CHUNK.offsetData: {
        if (length <= OFFSET_BYTES) throw new Unsound(`a data chunk of ${length} bytes`)
        const size = length - OFFSET_BYTES
        const at = this.#place(await taken(input, OFFSET_BYTES), size)
        const data = await taken(input, size)
        if (size === this.#length) this.#bytes = own(data)
        else this.#target().set(data, at)
        return
      }
      case CHUNK.offsetHole: {
        if (length !== HOLE_BYTES) throw new Unsound(`a hole in ${length} bytes`)
        const head = await taken(input, HOLE_BYTES)
        const size = head.readUInt32BE(OFFSET_BYTES)
        if (size === 0) throw new Unsound('a hole of no bytes')
        const at = this.#place(head, size)
        this.#target().fill(0, at, at + size)
        return
      }
      default:
        throw new Unsound(`a chunk of type ${type} for a read`)
    }
  }

  whole(): Buffer {
    if (this.#came !== this.#length)
      throw new Unsound(`${this.#came} of ${this.#length} bytes of a read, and the server says it is done`)
    this.#refuseOverlap()
    return this.#bytes!
  }

  /** Where it goes in the buffer. More bytes than were asked for overlap somewhere: that is seen at once. */
  #place(head: Buffer, size: number): number {
    const at = readNumber(head, 0) - this.#offset
    if (at < 0 || at + size > this.#length)
      throw new Unsound(`${size} bytes at ${at + this.#offset}, outside of what was read`)
    this.#came += size
    if (this.#came > this.#length) throw new Unsound('more bytes than were read')
    this.#pieces.push(at, at + size)
    return at
  }

  #target(): Buffer {
    this.#bytes ??= Buffer.allocUnsafe(this.#length)
    return this.#bytes
  }

  /** As many bytes as were asked for came: if none came twice, none is missing. */
  #refuseOverlap(): void {
    const pieces = this.#pieces
    const order = Array.from({ length: pieces.length / 2 }, (_, i) => 2 * i)
    order.sort((a, b) => pieces[a]! - pieces[b]!)
    let end = 0
    for (const i of order) {
      if (pieces[i]! < end) throw new Unsound('the same bytes of a read twice')
      end = pieces[i + 1]!
    }
  }
}

async function taken(input: Input, length: number): Promise<Buffer> {
  return input.take(length) ?? (await input.bytes(length))
}

/** A view that would keep a much larger buffer of the socket's alive is copied. */
function own(bytes: Buffer): Buffer {
  return bytes.buffer.byteLength > 2 * bytes.length ? Buffer.from(bytes) : bytes
}
