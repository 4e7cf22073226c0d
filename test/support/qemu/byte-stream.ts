/** Reads exact numbers of bytes from a socket, in order: what a binary protocol needs and a socket does not offer. */
import type { Socket } from 'node:net'

interface Waiting {
  readonly bytes: number
  readonly resolve: (data: Buffer) => void
  readonly reject: (reason: Error) => void
}

export class ByteStream {
  #held: Buffer = Buffer.alloc(0)
  #waiting: Waiting | undefined
  #ended: Error | undefined

  constructor(socket: Socket) {
    socket.on('data', (chunk) => {
      this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
      this.#serve()
    })
    socket.on('error', (error) => this.#end(error))
    socket.on('close', () => this.#end(new Error('connection closed by the peer')))
  }

  /** Exactly `bytes` bytes; rejects when the connection ends before. One caller at a time. */
  read(bytes: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting !== undefined) throw new Error('two readers of one stream')
      this.#waiting = { bytes, resolve, reject }
      this.#serve()
    })
  }

  #serve(): void {
    const waiting = this.#waiting
    if (waiting === undefined) return
    if (this.#held.length >= waiting.bytes) {
      this.#waiting = undefined
      const data = this.#held.subarray(0, waiting.bytes)
      this.#held = this.#held.subarray(waiting.bytes)
      waiting.resolve(data)
      return
    }
    if (this.#ended !== undefined) {
      this.#waiting = undefined
      waiting.reject(this.#ended)
    }
  }

  #end(reason: Error): void {
    this.#ended ??= reason
    this.#serve()
  }
}
