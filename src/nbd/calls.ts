/** The calls that are under way, so that an end can wait for them and let none in after it. */

export class Calls {
  readonly #refusal: () => Error
  #running = 0
  #ended = false
  #idle: () => void = () => undefined

  constructor(refusal: () => Error) {
    this.#refusal = refusal
  }

  /** @throws what `work` throws, or the refusal after the end */
  async run<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.#ended) throw this.#refusal()
    this.#running++
    try {
      return await work()
    } finally {
      if (--this.#running === 0) this.#idle()
    }
  }

  /** Lets no more in, and resolves when none runs or `waitMs` have passed; null: however long it takes. */
  async end(waitMs: number | null): Promise<void> {
    this.#ended = true
    if (this.#running === 0) return
    await new Promise<void>((resolve) => {
      const late = waitMs === null ? undefined : setTimeout(resolve, waitMs)
      this.#idle = () => {
        clearTimeout(late)
        resolve()
      }
    })
  }
}
