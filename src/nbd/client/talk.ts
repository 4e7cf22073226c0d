/**
 * The client's side of fixed newstyle, one option after the other: what is asked, and every reply up to the one that ends it.
 * How many replies there may be and how long they are is bounded here, because a server decides both.
 */
import type { Socket } from 'node:net'
import { CheckpointError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { Input } from '../input.ts'
import { Outbox } from '../outbox.ts'
import { HANDSHAKE, OPTION, REPLY, u32 } from '../wire.ts'
import { type Address, addressText } from './address.ts'
import { broken, saidBy } from './failures.ts'
import { readSecrets, tlsFailed, upgrade } from './tls.ts'
import {
  decodeOptionReply,
  encodeOption,
  GREETING_BYTES,
  greetingStyle,
  isOptionError,
  OPTION_REPLY_BYTES,
  optionErrorName,
} from './wire.ts'

export interface OptionReply {
  readonly reply: number
  readonly data: Buffer
}

export type OptionAnswer =
  | { readonly kind: 'acknowledged'; readonly replies: readonly OptionReply[] }
  | { readonly kind: 'refused'; readonly error: number; readonly said: string }

export class Talk {
  readonly address: Address
  readonly where: string
  /** Without it there is one option, EXPORT_NAME, which is not answered. */
  readonly fixed: boolean
  /** The server leaves out 124 bytes of zeroes behind EXPORT_NAME's answer. */
  readonly noZeroes: boolean
  #socket: Socket
  #input: Input
  #out: Outbox
  /** What TLS ended by: a server that does not take our certificate says so after the handshake. */
  #trouble: Error | null = null
  /** False from the end of the TLS handshake until the server says something: some servers just close then. */
  #heard = true

  /** Reads the greeting and answers it. @throws CheckpointError NBD_PROTOCOL; Disconnected */
  static async begin(socket: Socket, address: Address): Promise<Talk> {
    const input = new Input(socket)
    const where = addressText(address)
    const style = greetingStyle(await input.bytes(GREETING_BYTES))
    if (style === 'old')
      throw new CheckpointError(
        'NBD_PROTOCOL',
        `the server at ${where} speaks the handshake of before 2011; start it with the newstyle one`,
        { address: where, why: 'oldstyle' },
      )
    if (style === null) throw broken(where, 'what came is no greeting')
    const flags = (await input.bytes(2)).readUInt16BE()
    return new Talk(socket, input, address, flags)
  }

  private constructor(socket: Socket, input: Input, address: Address, flags: number) {
    this.#socket = socket
    this.#input = input
    this.#out = new Outbox(socket)
    this.address = address
    this.where = addressText(address)
    this.fixed = (flags & HANDSHAKE.fixedNewstyle) !== 0
    this.noZeroes = (flags & HANDSHAKE.noZeroes) !== 0
    this.#out.send([u32(flags & (HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes))])
  }

  /** What the connection goes on with after the handshake. */
  get wire(): { readonly socket: Socket; readonly input: Input; readonly out: Outbox } {
    return { socket: this.#socket, input: this.#input, out: this.#out }
  }

  /** @throws CheckpointError NBD_PROTOCOL, NBD_TLS_FAILED where the server wants TLS first; Disconnected */
  async ask(option: number, data: Uint8Array = Buffer.alloc(0)): Promise<OptionAnswer> {
    this.send(option, data)
    const replies: OptionReply[] = []
    let bytes = 0
    while (true) {
      const head = decodeOptionReply(await this.bytes(OPTION_REPLY_BYTES))
      if (head === null) throw broken(this.where, 'what came is no reply to an option')
      if (head.option !== option)
        throw broken(this.where, `a reply to option ${head.option}, not to ${option}`)
      bytes += head.length
      if (head.length > limits.nbdOptionBytesMax || bytes > limits.nbdRepliesBytesMax)
        throw broken(this.where, `${bytes} bytes of replies to option ${option}`)
      const reply = { reply: head.reply, data: await this.bytes(head.length) }
      if (isOptionError(head.reply)) return this.#refused(reply)
      if (head.reply === REPLY.ack) return { kind: 'acknowledged', replies }
      if (replies.push(reply) > limits.nbdRepliesMax)
        throw broken(this.where, `more than ${limits.nbdRepliesMax} replies to option ${option}`)
    }
  }

  /** For EXPORT_NAME and ABORT, which nobody waits for. */
  send(option: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.#out.send([encodeOption(option, data)])
  }

  /** A server that does not know them says so, and everything but meta contexts works without. */
  async agreeStructured(): Promise<boolean> {
    const { kind } = await this.ask(OPTION.structuredReply)
    return kind === 'acknowledged'
  }

  /** @throws CheckpointError NBD_TLS_FAILED; Disconnected */
  async bytes(length: number): Promise<Buffer> {
    try {
      const bytes = await this.#input.bytes(length)
      this.#heard = true
      return bytes
    } catch (error) {
      if (this.#trouble === null && this.#heard) throw error
      const why = this.#trouble?.message ?? 'the server closed the connection behind the TLS handshake'
      throw tlsFailed(
        this.where,
        'certificate',
        `${why}; it may want another certificate of this client`,
        this.#trouble ?? error,
      )
    }
  }

  /** Leaves in order; an answer is not waited for. */
  leave(): void {
    if (this.fixed) this.send(OPTION.abort)
    void this.#out.flushed().then(() => this.#socket.destroySoon())
  }

  /** STARTTLS, then everything anew on the upgraded socket. @throws CheckpointError NBD_TLS_FAILED */
  async startTls(): Promise<void> {
    const { tls } = this.address
    if (tls === null) return
    if (!this.fixed) throw tlsFailed(this.where, 'not-offered', 'the server has no options')
    const secrets = await readSecrets(this.where, tls)
    const answer = await this.ask(OPTION.startTls)
    if (answer.kind === 'refused')
      throw tlsFailed(this.where, 'not-offered', `it has none (${answer.said}); nothing is sent in the clear`)
    try {
      this.#input.release()
    } catch (cause) {
      throw broken(this.where, `something came in the clear behind its agreement to TLS (${String(cause)})`)
    }
    this.#socket = await upgrade(this.#socket, this.address, tls, secrets)
    this.#heard = false
    this.#socket.on('error', (error) => {
      this.#trouble ??= error
    })
    this.#input = new Input(this.#socket)
    this.#out = new Outbox(this.#socket)
  }

  #refused({ reply, data }: OptionReply): OptionAnswer {
    const words = saidBy(data.subarray(0, limits.nbdNameBytesMax))
    const said = words === '' ? optionErrorName(reply) : `${optionErrorName(reply)}: ${words}`
    if (reply === REPLY.errTlsRequired)
      throw tlsFailed(
        this.where,
        'required',
        `the server wants it (${said}); ask with nbds:// or the option tls`,
      )
    return { kind: 'refused', error: reply, said }
  }
}
