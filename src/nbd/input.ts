/**
 * What a client sends, taken in pieces of a known size. A piece that has arrived is a view on the socket's own buffer,
 * without a copy and without a promise; one that has not is waited for. Reading stops while enough waits here to be
 * taken: it costs a connection 256 KiB at most, besides the piece that is being waited for.
 */
import type { Socket } from 'node:net'
import { limits } from '../limits.ts'

/** The client went away, was told to, or broke the protocol: the connection has nothing more to read. */
export class Disconnected extends Error {
  override readonly name = 'Disconnected'
}

export class Input {
  readonly #socket: Socket
  readonly #chunks: Buffer[] = []
  /** Bytes of the first chunk that were taken, and of all chunks that were not. */
  #taken = 0
  #size = 0
  #over: string | null = null
  #wake: (() => void) | null = null
  #paused = false

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', this.#push)
    socket.on('end', this.#ended)
    socket.on('close', this.#gone)
  }

  /** The next `length` bytes if they are all here. */
  take(length: number): Buffer | null {
    if (this.#size < length) return null
    if (length === 0) return Buffer.alloc(0)
    const first = this.#chunks[0]!
    if (first.length - this.#taken < length) {
      const gathered = Buffer.allocUnsafe(length)
      this.#copyTo(gathered, 0)
      return gathered
    }
    const view = first.subarray(this.#taken, this.#taken + length)
    this.#drop(length)
    return view
  }

  /** The next `length` bytes. @throws Disconnected when they do not come */
  async bytes(length: number): Promise<Buffer> {
    const here = this.take(length)
    if (here !== null) return here
    const target = Buffer.allocUnsafe(length)
    let filled = this.#copyTo(target, 0)
    while (filled < length) {
      await this.#more()
      filled += this.#copyTo(target, filled)
    }
    return target
  }

  /** Reads past `length` bytes. @throws Disconnected when they do not come */
  async skip(length: number): Promise<void> {
    let left = length
    while (true) {
      while (left > 0 && this.#size > 0) {
        const step = Math.min(left, this.#chunks[0]!.length - this.#taken)
        this.#drop(step)
        left -= step
      }
      if (left === 0) return
      await this.#more()
    }
  }

  /** Nothing more is taken, not even what is here. */
  stop(reason: string): void {
    this.#chunks.length = 0
    this.#size = 0
    this.#taken = 0
    this.#end(reason)
  }

  /**
   * Leaves the socket to another reader, which gets every byte that comes from now on.
   * @throws Disconnected when something came that was not taken: it would belong to neither
   */
  release(): void {
    const socket = this.#socket
    socket.pause()
    socket.off('data', this.#push)
    socket.off('end', this.#ended)
    const left = this.#size + socket.readableLength
    this.stop('the socket has another reader')
    if (left > 0) throw new Disconnected(`${left} bytes came before they were due`)
    if (socket.readableEnded) throw new Disconnected('the client closed the connection')
  }

  readonly #push = (chunk: Buffer): void => {
    if (this.#over !== null) return // Told to stop: what still comes is thrown away.
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#size >= limits.nbdReadAheadBytes && this.#wake === null) {
      this.#paused = true
      this.#socket.pause()
    }
    this.#awake()
  }

  readonly #ended = (): void => this.#end('the client closed the connection')
  readonly #gone = (): void => this.#end('the connection is gone')

  #end(reason: string): void {
    this.#over ??= reason
    this.#awake()
  }

  #awake(): void {
    const wake = this.#wake
    this.#wake = null
    wake?.()
  }

  #more(): Promise<void> {
    if (this.#over !== null) return Promise.reject(new Disconnected(this.#over))
    if (this.#paused) {
      this.#paused = false
      this.#socket.resume()
    }
    return new Promise((resolve, reject) => {
      this.#wake = () => {
        if (this.#over !== null && this.#size === 0) reject(new Disconnected(this.#over))
        else resolve()
      }
    })
  }

  /** Bytes moved. */
  #copyTo(target: Buffer, from: number): number {
    let at = from
    while (at < target.length && this.#size > 0) {
      const moved = this.#chunks[0]!.copy(target, at, this.#taken)
      this.#drop(moved)
      at += moved
    }
    return at - from
  }

  #drop(length: number): void {
    this.#taken += length
    this.#size -= length
    if (this.#taken === this.#chunks[0]!.length) {
      this.#chunks.shift()
      this.#taken = 0
    }
  }
}
