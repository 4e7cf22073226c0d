/**
 * What goes back to a client. Replies that are ready in the same turn, or while the socket is busy, leave in one write:
 * at depth 32 this is what a burst of answers costs. Holds whatever it is given until the socket took it; that this is
 * bounded is the gate's work (transmission.ts), which lets no more requests in than it has room for.
 */
import type { Socket } from 'node:net'

/** Below this a burst is copied into one buffer; above it the system gathers the pieces. */
const COPIED_BYTES_MAX = 64 * 1024

type Left = () => void

export class Outbox {
  readonly #socket: Socket
  #parts: Uint8Array[] = []
  #bytes = 0
  #left: Left[] = []
  /** Of the write that the socket has; null when it has none. */
  #leaving: Left[] | null = null
  #scheduled = false
  #broken = false
  #idle: Left[] = []

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('close', () => this.#break())
  }

  /** `left` is called once: when the socket has handed the bytes on, or when they can no longer be sent. */
  send(parts: readonly Uint8Array[], left?: Left): void {
    if (this.#broken) {
      left?.()
      return
    }
    for (const part of parts) {
      this.#parts.push(part)
      this.#bytes += part.length
    }
    if (left !== undefined) this.#left.push(left)
    if (this.#leaving !== null || this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#flush()) // Behind everything that this turn of the loop answers.
  }

  /** Resolves when all that was sent has left, or never will. */
  flushed(): Promise<void> {
    if (this.#broken || (this.#leaving === null && this.#parts.length === 0)) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  #flush(): void {
    this.#scheduled = false
    if (this.#broken || this.#parts.length === 0) return
    const parts = this.#parts
    const bytes = this.#bytes
    this.#leaving = this.#left
    this.#parts = []
    this.#left = []
    this.#bytes = 0
    const done = (): void => {
      const left = this.#leaving ?? [] // Empty where the connection broke meanwhile.
      this.#leaving = null
      for (const call of left) call()
      if (this.#parts.length > 0) this.#flush()
      else this.#rest()
    }
    if (bytes <= COPIED_BYTES_MAX) {
      this.#socket.write(parts.length === 1 ? parts[0]! : Buffer.concat(parts, bytes), done)
      return
    }
    this.#socket.cork()
    for (let i = 0; i < parts.length - 1; i++) this.#socket.write(parts[i]!)
    this.#socket.write(parts[parts.length - 1]!, done)
    this.#socket.uncork()
  }

  #break(): void {
    this.#broken = true
    const left = [...(this.#leaving ?? []), ...this.#left]
    this.#parts = []
    this.#left = []
    this.#leaving = null
    for (const call of left) call()
    this.#rest()
  }

  #rest(): void {
    const idle = this.#idle
    this.#idle = []
    for (const call of idle) call()
  }
}
