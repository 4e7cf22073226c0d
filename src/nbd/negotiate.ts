/**
 * The handshake, fixed newstyle: the client asks, one option after the other, until it has chosen an export, wants TLS, or
 * leaves. What is wrong with an option is answered and the client may go on; what is no NBD ends the connection. Nothing is kept
 * but the one option at hand and the contexts chosen last, and nothing at all from before TLS.
 */

import { messageOf } from '../errors.ts'
import { limits } from '../limits.ts'
import type { NbdContext, NbdExport, NbdExports } from './export.ts'
import { Disconnected, type Input } from './input.ts'
import { decodeContexts, decodeInfo, decodeName } from './options.ts'
import type { Outbox } from './outbox.ts'
import {
  cutText,
  decodeOption,
  greeting,
  HANDSHAKE,
  INFO,
  OPTION,
  OPTION_HEADER_BYTES,
  type OptionError,
  optionReply,
  REPLY,
  TRANSMISSION,
  u16,
  u32,
  u64,
} from './wire.ts'

/** What was agreed. */
export interface Session {
  readonly served: NbdExport
  readonly structured: boolean
  /** A context's id on the wire is its place here. */
  readonly contexts: readonly NbdContext[]
}

/**
 * What stands between the client and whoever listens: `plain` has no TLS to offer, `offered` and `required` wait for the
 * client to ask for it, `on` is behind it.
 */
export type Security = 'plain' | 'offered' | 'required' | 'on'

/** How a handshake ends. `secure`: STARTTLS was acknowledged, and a new handshake begins behind TLS. */
export type Outcome =
  | { readonly kind: 'session'; readonly session: Session }
  | { readonly kind: 'secure' }
  | { readonly kind: 'left' }

/** Where an option that is too long for us is still read past, so that the client hears why. */
const SKIPPED_BYTES_MAX = limits.nbdPayloadBytesMax

/** Resolves to the client's flags. @throws Disconnected */
export async function greet(input: Input, out: Outbox): Promise<number> {
  out.send([greeting(HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes)])
  const flags = (await input.bytes(4)).readUInt32BE()
  if ((flags & ~(HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes)) !== 0)
    throw new Disconnected(`the client wants handshake flags ${flags}, which are not NBD's`)
  return flags
}

/** After the greeting, and once more behind TLS. @throws Disconnected */
export async function negotiate(
  input: Input,
  out: Outbox,
  exports: NbdExports,
  flags: number,
  security: Security,
): Promise<Outcome> {
  const talk = new Handshake(input, out, exports, flags, security)
  while (true) {
    const outcome = await talk.option()
    if (outcome !== undefined) return outcome
  }
}

class Handshake {
  readonly #input: Input
  readonly #out: Outbox
  readonly #exports: NbdExports
  readonly #fixed: boolean
  readonly #zeroes: boolean
  readonly #security: Security
  #structured = false
  #contexts: readonly NbdContext[] = []
  #contextsOf: NbdExport | null = null

  constructor(input: Input, out: Outbox, exports: NbdExports, flags: number, security: Security) {
    this.#input = input
    this.#out = out
    this.#exports = exports
    this.#fixed = (flags & HANDSHAKE.fixedNewstyle) !== 0
    this.#zeroes = (flags & HANDSHAKE.noZeroes) === 0
    this.#security = security
  }

  /** One option and its answer; undefined to go on. */
  async option(): Promise<Outcome | undefined> {
    await this.#out.flushed() // One answer at a time: who does not read them is not read either.
    const header = decodeOption(await this.#input.bytes(OPTION_HEADER_BYTES))
    if (header === null) throw new Disconnected('what came is no option of NBD')
    const { option, length } = header
    if (!this.#fixed && option !== OPTION.exportName)
      throw new Disconnected(`a client of the old handshake sent option ${option}`)
    if (length > SKIPPED_BYTES_MAX) throw new Disconnected(`option ${option} has ${length} bytes`)
    if (this.#security === 'required' && option !== OPTION.startTls && option !== OPTION.abort)
      return this.#withoutTls(option, length)
    if (length > limits.nbdOptionBytesMax && option !== OPTION.exportName) {
      await this.#input.skip(length)
      return this.#refuse(
        option,
        'errTooBig',
        `an option has ${limits.nbdOptionBytesMax} bytes at most, not ${length}`,
      )
    }
    if (option === OPTION.exportName) return this.#exportName(length)
    return this.#answer(option, await this.#input.bytes(length))
  }

  /** Before TLS on a door that requires it: not even the names of the exports are told. */
  async #withoutTls(option: number, length: number): Promise<undefined> {
    if (option === OPTION.exportName) throw new Disconnected('an export was asked for without TLS')
    await this.#input.skip(length)
    return this.#refuse(option, 'errTlsRequired', `option ${option} needs TLS first: STARTTLS`)
  }

  async #answer(option: number, data: Buffer): Promise<Outcome | undefined> {
    switch (option) {
      case OPTION.abort:
        this.#reply(option, REPLY.ack)
        return { kind: 'left' }
      case OPTION.list:
        return this.#list(data)
      case OPTION.info:
      case OPTION.go:
        return this.#info(option, data)
      case OPTION.structuredReply:
        return this.#structuredReply(data)
      case OPTION.listMetaContext:
        return this.#listContexts(data)
      case OPTION.setMetaContext:
        return this.#setContexts(data)
      case OPTION.startTls:
        return this.#startTls(data)
      default:
        return this.#refuse(option, 'errUnsupported', `Unsupported option ${option}`)
    }
  }

  #startTls(data: Buffer): Outcome | undefined {
    const option = OPTION.startTls
    if (data.length > 0) return this.#malformed(option, 'STARTTLS')
    const security = this.#security
    switch (security) {
      case 'plain':
        return this.#refuse(option, 'errPolicy', 'TLS not configured')
      case 'on':
        return this.#refuse(option, 'errInvalid', 'TLS already negotiated')
      case 'offered':
      case 'required':
        // What came behind it in the clear may be anybody's: it must not be read as if TLS had protected it.
        this.#input.release()
        this.#reply(option, REPLY.ack)
        return { kind: 'secure' }
      default:
        return security satisfies never
    }
  }

  /** The old way in: no answer that could say no. */
  async #exportName(length: number): Promise<Outcome> {
    if (length > limits.nbdNameBytesMax) throw new Disconnected('the name of the export is too long')
    const name = decodeName(await this.#input.bytes(length))
    const served = name === null ? undefined : this.#exports.find(name)
    if (served === undefined) throw new Disconnected(`no export has the name that was asked for`)
    const tail = this.#zeroes ? 124 : 0
    this.#out.send([u64(served.size), u16(transmissionFlags(served, this.#structured)), Buffer.alloc(tail)])
    return this.#session(served)
  }

  #list(data: Buffer): undefined {
    if (data.length > 0) return this.#malformed(OPTION.list, 'LIST')
    for (const { name, description } of this.#exports.list()) {
      const named = Buffer.from(name)
      const bytes = Buffer.concat([u32(named.length), named, cutText(description)])
      this.#reply(OPTION.list, REPLY.server, bytes)
    }
    this.#reply(OPTION.list, REPLY.ack)
  }

  /** The block sizes are told whether asked for or not: every size goes here, so no client can be surprised. */
  #info(option: number, data: Buffer): Outcome | undefined {
    const asked = decodeInfo(data)
    if (asked === null) return this.#malformed(option, option === OPTION.go ? 'GO' : 'INFO')
    const served = this.#exports.find(asked.name)
    if (served === undefined) return this.#unknown(option, asked.name)
    const info = (type: number, ...fields: Uint8Array[]): void =>
      this.#reply(option, REPLY.info, Buffer.concat([u16(type), ...fields]))
    if (asked.infos.includes(INFO.name)) info(INFO.name, Buffer.from(served.name))
    if (asked.infos.includes(INFO.description)) info(INFO.description, cutText(served.description))
    info(INFO.blockSize, u32(1), u32(4096), u32(limits.nbdPayloadBytesMax))
    info(INFO.export, u64(served.size), u16(transmissionFlags(served, this.#structured)))
    this.#reply(option, REPLY.ack)
    return option === OPTION.go ? this.#session(served) : undefined
  }

  #structuredReply(data: Buffer): undefined {
    if (data.length > 0) return this.#malformed(OPTION.structuredReply, 'STRUCTURED_REPLY')
    if (this.#structured)
      return this.#refuse(OPTION.structuredReply, 'errInvalid', 'structured reply already negotiated')
    this.#structured = true
    this.#reply(OPTION.structuredReply, REPLY.ack)
  }

  async #listContexts(data: Buffer): Promise<undefined> {
    const option = OPTION.listMetaContext
    const asked = decodeContexts(data)
    if (asked === null) return this.#malformed(option, 'LIST_META_CONTEXT')
    const served = this.#exports.find(asked.name)
    if (served === undefined) return this.#unknown(option, asked.name)
    if (asked.queries.length > limits.nbdQueriesMax) return this.#tooMany(option)
    try {
      const names = new Set<string>()
      for (const query of asked.queries.length === 0 ? [''] : new Set(asked.queries))
        for (const name of await served.contexts(query)) names.add(name)
      for (const name of names)
        this.#reply(option, REPLY.metaContext, Buffer.concat([u32(0), Buffer.from(name)]))
      this.#reply(option, REPLY.ack)
    } catch (error) {
      this.#failed(option, error)
    }
  }

  /** What was chosen before is given up, also where this fails. A name that is not there is left out, as in QEMU. */
  async #setContexts(data: Buffer): Promise<undefined> {
    const option = OPTION.setMetaContext
    this.#contexts = []
    this.#contextsOf = null
    if (!this.#structured)
      return this.#refuse(
        option,
        'errInvalid',
        `request option 'set meta context' when structured reply is not negotiated`,
      )
    const asked = decodeContexts(data)
    if (asked === null) return this.#malformed(option, 'SET_META_CONTEXT')
    const served = this.#exports.find(asked.name)
    if (served === undefined) return this.#unknown(option, asked.name)
    const names = new Set(asked.queries)
    if (names.size > limits.nbdQueriesMax) return this.#tooMany(option)
    const chosen: NbdContext[] = []
    try {
      for (const name of names) {
        const context = await served.context(name)
        if (context !== null && chosen.push(context) > limits.nbdContextsMax) return this.#tooMany(option)
      }
    } catch (error) {
      return this.#failed(option, error)
    }
    for (const [id, { name }] of chosen.entries())
      this.#reply(option, REPLY.metaContext, Buffer.concat([u32(id), Buffer.from(name)]))
    this.#reply(option, REPLY.ack)
    this.#contexts = chosen
    this.#contextsOf = served
  }

  /** Contexts of another export say nothing about this one. */
  #session(served: NbdExport): Outcome {
    const contexts = this.#contextsOf?.name === served.name ? this.#contexts : []
    return { kind: 'session', session: { served, structured: this.#structured, contexts } }
  }

  #reply(option: number, reply: number, data?: Uint8Array): void {
    this.#out.send([optionReply(option, reply, data)])
  }

  #refuse(option: number, error: OptionError, message: string): undefined {
    this.#reply(option, REPLY[error], cutText(message))
  }

  #malformed(option: number, name: string): undefined {
    return this.#refuse(option, 'errInvalid', `the data of option ${name} is not of its shape`)
  }

  #unknown(option: number, name: string): undefined {
    return this.#refuse(option, 'errUnknown', `export '${name}' not present`)
  }

  #tooMany(option: number): undefined {
    const message = `at most ${limits.nbdQueriesMax} queries, and ${limits.nbdContextsMax} contexts that are there`
    return this.#refuse(option, 'errTooBig', message)
  }

  /** A context that cannot be had (a bitmap that is not to be trusted, a log that failed): why, for the client's user. */
  #failed(option: number, error: unknown): undefined {
    return this.#refuse(option, 'errInvalid', messageOf(error))
  }
}

/** Several connections are one: a flush makes durable what was answered on any of them. */
function transmissionFlags({ readOnly }: NbdExport, structured: boolean): number {
  const t = TRANSMISSION
  const common = t.hasFlags | t.flush | t.fua | t.multiConn | t.cache | (structured ? t.df : 0)
  return common | (readOnly ? t.readOnly : t.trim | t.writeZeroes | t.fastZero)
}
