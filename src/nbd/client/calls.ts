/** The calls that a client has under way, so that its end can wait for them and let none in after it. */
import type { CheckpointError } from '../../errors.ts'

export class Calls {
  readonly #refusal: () => CheckpointError
  #running = 0
  #ended = false
  #idle: () => void = () => undefined

  constructor(refusal: () => CheckpointError) {
    this.#refusal = refusal
  }

  /** @throws what `work` throws, or the refusal after the end */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#ended) throw this.#refusal()
    this.#running++
    try {
      return await work()
    } finally {
      if (--this.#running === 0) this.#idle()
    }
  }

  /** Lets no more in, and resolves when none runs or `waitMs` have passed. */
  async end(waitMs: number): Promise<void> {
    this.#ended = true
    if (this.#running === 0) return
    await new Promise<void>((resolve) => {
      const late = setTimeout(resolve, waitMs)
      this.#idle = () => {
        clearTimeout(late)
        resolve()
      }
    })
  }
}
