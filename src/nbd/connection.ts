/**
 * One client from its greeting to its end: the handshake under a deadline, then transmission, then a quiet close. Whatever
 * happens on the wire ends here; nothing of it reaches the process. `ended` means that nothing runs for it any more.
 */
import type { Socket } from 'node:net'
import type { NbdExports } from './export.ts'
import { Disconnected, Input } from './input.ts'
import { negotiate } from './negotiate.ts'
import { Outbox } from './outbox.ts'
import { type Answered, transmit } from './transmission.ts'

/** How long what a client still sends is thrown away, so that it can read our last words before the socket goes. */
const LINGER_MS = 500

export interface ConnectionOptions {
  readonly exports: NbdExports
  readonly handshakeMs: number
  readonly answered: Answered
  /** What is no fault of the client's, and no answer can tell. */
  readonly failed: (error: unknown) => void
}

export class Connection {
  /** Resolves when the client is gone and the last of its requests has ended. Never rejects. */
  readonly ended: Promise<void>
  readonly #socket: Socket
  readonly #input: Input
  readonly #out: Outbox

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket
    socket.on('error', () => undefined) // A client that went away: 'close' follows, and ends what is here.
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 60_000)
    this.#input = new Input(socket)
    this.#out = new Outbox(socket)
    this.ended = this.#run(options)
  }

  /** Reads no more; what was read is answered, then the connection ends. */
  finish(): void {
    this.#input.stop('the server is closing')
  }

  /** Ends the socket now. What runs for it still ends by itself. */
  cut(): void {
    this.#input.stop('the server is closing')
    this.#socket.destroy()
  }

  async #run(options: ConnectionOptions): Promise<void> {
    try {
      await this.#talk(options)
    } catch (error) {
      if (!(error instanceof Disconnected)) options.failed(error)
    }
    await this.#leave()
  }

  async #talk({ exports, handshakeMs, answered }: ConnectionOptions): Promise<void> {
    const late = setTimeout(() => this.#socket.destroy(), handshakeMs)
    const session = await negotiate(this.#input, this.#out, exports).finally(() => clearTimeout(late))
    if (session !== null) await transmit(this.#input, this.#out, session, answered)
  }

  /** Says the last words, and closes without a reset that would take them back. */
  async #leave(): Promise<void> {
    this.#input.stop('the connection has ended')
    await this.#out.flushed()
    const socket = this.#socket
    if (socket.closed) return
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    const linger = setTimeout(() => socket.destroy(), LINGER_MS)
    socket.end()
    socket.resume()
    await closed
    clearTimeout(linger)
  }
}
