/**
 * Whether a system call that is usually a copy in memory (a small buffered write, a read of what the page cache has) may be made
 * on the main thread: while such calls are quick it costs a third of a trip to the thread pool and back. The first slow one sends
 * those that follow to the pool, for longer each time, so a busy or cold device holds the main thread up for one call in many.
 */
const SLOW_MS = 2
const REST_MS = 50
const REST_MS_MAX = 3200
/** Quick calls in a row after which a slow one counts as the first again. */
const FORGIVEN = 1000

export class Pace {
  #restingUntil = 0
  #rest = REST_MS
  #quick = 0

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
      this.#took(performance.now() - from)
    }
  }

  #took(ms: number): void {
    if (ms < SLOW_MS) {
      this.#restingUntil = 0
      if (++this.#quick >= FORGIVEN) this.#rest = REST_MS
      return
    }
    this.#quick = 0
    this.#restingUntil = performance.now() + this.#rest
    this.#rest = Math.min(2 * this.#rest, REST_MS_MAX)
  }
}
