/**
 * What comes back for one request, put together from the pieces in which it comes. Each kind of request has an answer that says
 * which pieces it may have; whatever else a server sends is refused before its bytes are read. An answer holds what was asked
 * for and no more.
 */
import type { NbdErrno } from '../errors.ts'
import { NBD_ERRNO } from '../errors.ts'
import type { Input } from '../input.ts'

/** What a server sent that it must not: the connection ends by it. */
export class Unsound extends Error {
  override readonly name = 'Unsound'
}

export interface Answer<T> {
  /** Bytes that follow a simple reply that went well; null where a simple reply is none (structured replies were agreed). */
  readonly simpleBytes: number | null
  /** They are here. */
  simple(bytes: Buffer): void
  /** Reads the `length` bytes of a chunk that is no error. @throws Unsound for one that cannot be; Disconnected */
  chunk(type: number, length: number, input: Input): Promise<void>
  /** All of it has come. @throws Unsound when something is missing */
  whole(): T
}

/** Of a request that is done or not: write, zero, trim, flush, cache. */
export class Done implements Answer<void> {
  readonly simpleBytes = 0

  simple(): void {}

  async chunk(type: number): Promise<void> {
    throw new Unsound(`a chunk of type ${type} for a request that gives no bytes`)
  }

  whole(): void {}
}

/** What a server says went wrong with one request. */
export interface Refusal {
  readonly errno: NbdErrno
  readonly number: number
  readonly said: string
}

/** Numbers that the protocol does not have read EINVAL, as it wants. */
export function errnoOf(number: number): NbdErrno {
  for (const [name, value] of Object.entries(NBD_ERRNO)) if (value === number) return name as NbdErrno
  return 'EINVAL'
}
