/**
 * One client from its greeting to its end: the handshake under a deadline, TLS where the client asks for it, then transmission,
 * then a quiet close. Whatever happens on the wire ends here; nothing of it reaches the process. `ended` means that nothing runs
 * for it any more.
 */
import type { Socket } from 'node:net'
import type { NbdExports } from './export.ts'
import { Disconnected, Input } from './input.ts'
import { greet, negotiate, type Outcome, type Security } from './negotiate.ts'
import { Outbox } from './outbox.ts'
import type { Tls } from './tls.ts'
import { type Answered, transmit } from './transmission.ts'

/** How long what a client still sends is thrown away, so that it can read our last words before the socket goes. */
const LINGER_MS = 500

export interface ConnectionOptions {
  readonly exports: NbdExports
  /** null: STARTTLS is refused. */
  readonly tls: Tls | null
  readonly handshakeMs: number
  readonly answered: Answered
  /** What no answer can tell: a failure of ours, or a client that TLS did not let in. */
  readonly failed: (error: unknown) => void
}

export class Connection {
  /** Resolves when the client is gone and the last of its requests has ended. Never rejects. */
  readonly ended: Promise<void>
  /** With its reader and writer: what the client speaks through, so TLS from the moment that it is there. */
  #socket: Socket
  #input: Input
  #out: Outbox
  #securing = false

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
    if (this.#securing) this.#socket.destroy()
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

  async #talk(options: ConnectionOptions): Promise<void> {
    const late = setTimeout(() => this.#socket.destroy(), options.handshakeMs)
    const outcome = await this.#shakeHands(options).finally(() => clearTimeout(late))
    if (outcome.kind === 'session') await transmit(this.#input, this.#out, outcome.session, options.answered)
  }

  async #shakeHands({ exports, tls }: ConnectionOptions): Promise<Outcome> {
    const flags = await greet(this.#input, this.#out)
    const talk = (security: Security): Promise<Outcome> =>
      negotiate(this.#input, this.#out, exports, flags, security)
    if (tls === null) return talk('plain')
    const outcome = await talk(tls.facts.required ? 'required' : 'offered')
    if (outcome.kind !== 'secure') return outcome
    await this.#secure(tls)
    return talk('on')
  }

  /** From here on everything goes through TLS. The deadline and `finish` reach it through the socket beneath. */
  async #secure(tls: Tls): Promise<void> {
    const beneath = this.#socket
    this.#securing = true
    try {
      await this.#out.flushed()
      if (beneath.destroyed) throw new Disconnected('the connection is gone')
      await tls.upgrade(beneath, (secured) => {
        this.#securing = false
        this.#socket = secured
        this.#input = new Input(secured)
        this.#out = new Outbox(secured)
      })
    } catch (error) {
      beneath.destroy()
      throw error
    } finally {
      this.#securing = false
    }
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
