/**
 * Looks for the next request without sleeping, for a moment after an answer, as QEMU's I/O threads do (`poll-max-ns`). A client that
 * waits for each answer asks again within some ten microseconds; waking a process, and a processor, that went to sleep meanwhile
 * costs several times that on both sides. Only while clients do come back so soon, and not where they would have to wait for
 * this very processor: so it costs at most one window of processor time for every pause that a client makes.
 */
import { availableParallelism } from 'node:os'

const WINDOW_MS = 0.2

export class BusyPoll {
  readonly #windowMs: number
  #answeredAt = 0
  /** Whether the last request came within the window behind an answer. */
  #pays = false
  #until = 0
  #looking = false

  /** `windowMs`: 0 turns it off. */
  constructor(windowMs = availableParallelism() > 1 ? WINDOW_MS : 0) {
    this.#windowMs = windowMs
  }

  /** A request came. */
  asked(): void {
    this.#pays = this.#windowMs > 0 && performance.now() - this.#answeredAt <= this.#windowMs
  }

  /** An answer is on its way. */
  answered(): void {
    this.#answeredAt = performance.now()
    if (!this.#pays) return
    this.#until = this.#answeredAt + this.#windowMs
    if (this.#looking) return
    this.#looking = true
    setImmediate(this.#look)
  }

  readonly #look = (): void => {
    if (performance.now() < this.#until) setImmediate(this.#look)
    else this.#looking = false
  }
}
