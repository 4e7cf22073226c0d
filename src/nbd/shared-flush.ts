/**
 * Flushes that wait share one: whoever asks while one runs is served by the next, which begins after it asked. So a crowd of FUA
 * writes costs two syncs, not one each. After a failure every later one fails too: the system forgets which pages it could not
 * write, and a second sync would succeed over bytes that are gone.
 */
export class SharedFlush {
  readonly #sync: () => Promise<unknown>
  /** Rejected once a sync failed, and so is everything behind it. */
  #last: Promise<unknown> = Promise.resolve()
  /** Waits for its turn; null once it has begun. */
  #next: Promise<void> | null = null

  constructor(sync: () => Promise<unknown>) {
    this.#sync = sync
  }

  /** Resolves once a sync that began after the call has ended. */
  run(): Promise<void> {
    if (this.#next === null) {
      this.#next = this.#last.then(() => this.#begin())
      this.#last = this.#next
    }
    return this.#next
  }

  async #begin(): Promise<void> {
    this.#next = null
    await this.#sync()
  }
}
