/**
 * How much one connection may have in flight: a request is in from when it is read until its answer has left. A client that
 * does not read its answers therefore stops being read itself, and its memory here has a bound.
 */
import { limits } from '../limits.ts'

export class Gate {
  #requests = 0
  #bytes = 0
  #admit: (() => void) | null = null
  #idle: (() => void) | null = null

  /** Whether it is in. One request is always let in, however large it is. */
  enter(bytes: number): boolean {
    const room = this.#requests < limits.nbdRequestsMax && this.#bytes + bytes <= limits.nbdInFlightBytesMax
    if (!room && this.#requests > 0) return false
    this.#requests++
    this.#bytes += bytes
    return true
  }

  /** Resolves when one that was in has left: time to try again. */
  change(): Promise<void> {
    return new Promise((resolve) => {
      this.#admit = resolve
    })
  }

  leave(bytes: number): void {
    this.#requests--
    this.#bytes -= bytes
    const admit = this.#admit
    this.#admit = null
    admit?.()
    if (this.#requests === 0) this.#idle?.()
  }

  /** Resolves when none is in; nobody enters any more. */
  empty(): Promise<void> {
    if (this.#requests === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#idle = resolve
    })
  }
}
