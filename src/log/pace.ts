/**
 * Whether a system call that is usually a copy in memory (a small buffered write, a read of what the page cache has) may be made
 * on the main thread: while such calls are quick it costs a third of a trip to the thread pool and back. One that was slow sends
 * those that follow to the pool for a while, so that a busy or cold device holds the main thread up for a fifth of the time at most.
 */
const SLOW_MS = 2
/** How long after a slow call, in what it took. */
const REST = 4

export class Pace {
  #restingUntil = 0

  /** Whether the next call may be made here. */
  get isQuick(): boolean {
    return this.#restingUntil === 0 || this.#restingUntil <= performance.now()
  }

  /** Makes the call here and takes its time. */
  run<T>(call: () => T): T {
    const from = performance.now()
    try {
      return call()
    } finally {
      const to = performance.now()
      this.#restingUntil = to - from < SLOW_MS ? 0 : to + REST * (to - from)
    }
  }
}
