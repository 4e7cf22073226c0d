/**
 * How much is on its way to a server at the same time: who comes when there is no room waits for a turn, in order. One is always
 * let in, however large, so nobody waits for ever.
 */
import { CheckpointError } from '../../errors.ts'

interface Waiting {
  readonly bytes: number
  readonly enter: () => void
}

export class Turns {
  readonly #requestsMax: number
  readonly #bytesMax: number
  #requests = 0
  #bytes = 0
  readonly #waiting = new Set<Waiting>()

  constructor(requestsMax: number, bytesMax: number) {
    this.#requestsMax = requestsMax
    this.#bytesMax = bytesMax
  }

  /** Does `work` when there is room for it, and holds the room until it is done. @throws CheckpointError ABORTED while it waits */
  async take<T>(bytes: number, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#waiting.size > 0 || !this.#hasRoom(bytes)) await this.#turn(bytes, signal)
    else this.#enter(bytes)
    try {
      return await work()
    } finally {
      this.#requests--
      this.#bytes -= bytes
      this.#admit()
    }
  }

  #hasRoom(bytes: number): boolean {
    if (this.#requests === 0) return true
    return this.#requests < this.#requestsMax && this.#bytes + bytes <= this.#bytesMax
  }

  #enter(bytes: number): void {
    this.#requests++
    this.#bytes += bytes
  }

  #admit(): void {
    for (const first of this.#waiting) {
      if (!this.#hasRoom(first.bytes)) return
      this.#waiting.delete(first)
      this.#enter(first.bytes)
      first.enter()
    }
  }

  #turn(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#waiting.delete(waiting)
        reject(aborted(signal))
        this.#admit() // What stood behind a large one may fit.
      }
      const waiting = {
        bytes,
        enter: () => {
          signal?.removeEventListener('abort', stop)
          resolve()
        },
      }
      this.#waiting.add(waiting)
      signal?.addEventListener('abort', stop, { once: true })
    })
  }
}

export function aborted(signal: AbortSignal | undefined): CheckpointError {
  return new CheckpointError('ABORTED', 'aborted by its signal', {}, signal?.reason)
}

/** The answer to `work`, or ABORTED as soon as the signal says so; `work` itself goes on, and its answer is dropped. */
export async function unlessAborted<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  if (signal === undefined) return work
  let stop = (): void => undefined
  const ended = new Promise<never>((_, reject) => {
    stop = () => reject(aborted(signal))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  work.catch(() => undefined) // Nobody listens any more once the signal was first.
  try {
    return await Promise.race([work, ended])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
