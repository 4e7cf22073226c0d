/**
 * A minimal NBD client for the tests: newstyle handshake, structured replies, one meta context after another for block
 * status. It shares no code with the product's server, so that neither can hide the other's mistakes.
 */
import { connect, type Socket } from 'node:net'
import { ByteStream } from './byte-stream.ts'

export type NbdRange = readonly [offset: number, length: number]

/** The server's refusal of one request: its errno and, with structured replies, its text. */
export class NbdError extends Error {
  override readonly name = 'NbdError'
  constructor(
    readonly errno: number,
    readonly desc: string,
  ) {
    super(`NBD error ${errno}: ${desc}`)
  }
}

const OPTION_MAGIC = 0x49484156454f5054n // IHAVEOPT
const OPTION_REPLY_MAGIC = 0x3e889045565a9n
const REQUEST_MAGIC = 0x25609513
const SIMPLE_REPLY_MAGIC = 0x67446698
const STRUCTURED_REPLY_MAGIC = 0x668e33ef
const OPTION = { go: 7, structuredReply: 8, setMetaContext: 10 } as const
const REPLY = { ack: 1, info: 3, metaContext: 4 } as const
const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const
const CHUNK = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const
/** One WRITE carries at most this much; QEMU disconnects above 32 MiB. */
const WRITE_BYTES_MAX = 16 * 1024 * 1024
const STATUS_BYTES_MAX = 0x7fff0000

interface Reply {
  error: NbdError | undefined
  data: Buffer | undefined
  /** Context id → [length, flags] pairs. */
  readonly status: Map<number, number[]>
}

interface Request {
  readonly type: number
  readonly offset: number
  readonly length: number
  readonly flags?: number
  readonly payload?: Buffer
}

interface Pending {
  readonly offset: number
  readonly reply: Reply
  readonly resolve: (reply: Reply) => void
  readonly reject: (reason: Error) => void
}

export class Nbd {
  readonly #socket: Socket
  readonly #stream: ByteStream
  readonly #pending = new Map<bigint, Pending>()
  readonly #contexts = new Map<string, number>()
  #cookie = 0n
  #size = 0

  private constructor(socket: Socket) {
    this.#socket = socket
    this.#stream = new ByteStream(socket)
  }

  /** Connects and negotiates one export, with the named meta contexts (all must exist). */
  static async connect(path: string, exportName: string, contexts: readonly string[] = []): Promise<Nbd> {
    const socket = connect(path)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    const nbd = new Nbd(socket)
    try {
      await nbd.#negotiate(exportName, contexts)
    } catch (error) {
      socket.destroy()
      throw error
    }
    void nbd.#receive()
    return nbd
  }

  /** Bytes of the export. */
  get size(): number {
    return this.#size
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const reply = await this.#request({ type: COMMAND.read, offset, length })
    const bytes = Buffer.alloc(length) // Holes, at the end as well.
    reply.data?.copy(bytes)
    return bytes
  }

  /** Writes `length` bytes of the value 0xa5. `flags` 1 = FUA. Split above 16 MiB, like real clients do. */
  async write(offset: number, length: number, flags = 0): Promise<void> {
    let done = 0
    do {
      const bytes = Math.min(length - done, WRITE_BYTES_MAX)
      const payload = Buffer.alloc(bytes, 0xa5)
      await this.#request({ type: COMMAND.write, offset: offset + done, length: bytes, flags, payload })
      done += bytes
    } while (done < length)
  }

  async writeZeroes(offset: number, length: number, flags = 0): Promise<void> {
    await this.#request({ type: COMMAND.writeZeroes, offset, length, flags })
  }

  async trim(offset: number, length: number, flags = 0): Promise<void> {
    await this.#request({ type: COMMAND.trim, offset, length, flags })
  }

  async flush(): Promise<void> {
    await this.#request({ type: COMMAND.flush, offset: 0, length: 0 })
  }

  /** For each context: the ranges of the whole export whose flag bit 0 is set, ascending and joined. */
  async status(contexts: readonly string[]): Promise<Map<string, NbdRange[]>> {
    const answer = new Map<string, NbdRange[]>()
    for (const context of contexts) {
      const id = this.#contexts.get(context)
      if (id === undefined) throw new Error(`meta context ${context} was not negotiated`)
      answer.set(context, await this.#statusOf(id))
    }
    return answer
  }

  async #statusOf(id: number): Promise<NbdRange[]> {
    const ranges: [number, number][] = []
    for (let at = 0; at < this.#size; ) {
      const length = Math.min(this.#size - at, STATUS_BYTES_MAX)
      const reply = await this.#request({ type: COMMAND.blockStatus, offset: at, length })
      const pairs = reply.status.get(id) ?? []
      if (pairs.length === 0) throw new Error('block status without an extent')
      for (let i = 0; i < pairs.length; i += 2) {
        const bytes = Math.min(pairs[i]!, this.#size - at)
        if ((pairs[i + 1]! & 1) === 1) {
          const last = ranges.at(-1)
          if (last !== undefined && last[0] + last[1] === at) last[1] += bytes
          else ranges.push([at, bytes])
        }
        at += bytes
      }
    }
    return ranges
  }

  /** Clean end of the connection. */
  async disconnect(): Promise<void> {
    if (this.#socket.destroyed) return
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()))
    this.#socket.write(this.#header({ type: COMMAND.disconnect, offset: 0, length: 0 }, 0n))
    this.#socket.end()
    await closed
  }

  async #negotiate(exportName: string, contexts: readonly string[]): Promise<void> {
    const greeting = await this.#stream.read(18)
    if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('no newstyle NBD server')
    const clientFlags = Buffer.alloc(4)
    clientFlags.writeUInt32BE(greeting.readUInt16BE(16) & 3)
    this.#socket.write(clientFlags)
    await this.#option(OPTION.structuredReply, Buffer.alloc(0))
    const name = Buffer.from(exportName)
    if (contexts.length > 0) {
      const parts = [
        lengthPrefixed(name),
        u32(contexts.length),
        ...contexts.map((c) => lengthPrefixed(Buffer.from(c))),
      ]
      for (const { type, data } of await this.#option(OPTION.setMetaContext, Buffer.concat(parts)))
        if (type === REPLY.metaContext) this.#contexts.set(data.toString('utf8', 4), data.readUInt32BE(0))
    }
    for (const { type, data } of await this.#option(
      OPTION.go,
      Buffer.concat([lengthPrefixed(name), Buffer.alloc(2)]),
    ))
      if (type === REPLY.info && data.readUInt16BE(0) === 0) this.#size = Number(data.readBigUInt64BE(2))
  }

  async #option(option: number, data: Buffer): Promise<{ type: number; data: Buffer }[]> {
    const head = Buffer.alloc(16)
    head.writeBigUInt64BE(OPTION_MAGIC, 0)
    head.writeUInt32BE(option, 8)
    head.writeUInt32BE(data.length, 12)
    this.#socket.write(Buffer.concat([head, data]))
    const replies: { type: number; data: Buffer }[] = []
    for (;;) {
      const reply = await this.#stream.read(20)
      if (reply.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw new Error('bad magic in an option reply')
      const type = reply.readUInt32BE(12)
      const body = Buffer.from(await this.#stream.read(reply.readUInt32BE(16)))
      if (type >= 0x80000000) throw new NbdError(type - 0x80000000, body.toString())
      if (type === REPLY.ack) return replies
      replies.push({ type, data: body })
    }
  }

  #header(request: Request, cookie: bigint): Buffer {
    const header = Buffer.alloc(28)
    header.writeUInt32BE(REQUEST_MAGIC, 0)
    header.writeUInt16BE(request.flags ?? 0, 4)
    header.writeUInt16BE(request.type, 6)
    header.writeBigUInt64BE(cookie, 8)
    header.writeBigUInt64BE(BigInt(request.offset), 16)
    header.writeUInt32BE(request.length, 24)
    return header
  }

  async #request(request: Request): Promise<Reply> {
    const cookie = ++this.#cookie
    const reply = await new Promise<Reply>((resolve, reject) => {
      const empty: Reply = { error: undefined, data: undefined, status: new Map() }
      this.#pending.set(cookie, { offset: request.offset, reply: empty, resolve, reject })
      this.#socket.write(this.#header(request, cookie))
      if (request.payload !== undefined) this.#socket.write(request.payload)
      if (this.#socket.destroyed) reject(new Error('connection closed'))
    })
    if (reply.error !== undefined) throw reply.error
    return reply
  }

  async #receive(): Promise<void> {
    try {
      for (;;) await this.#receiveOne()
    } catch (error) {
      for (const pending of this.#pending.values()) pending.reject(error as Error)
      this.#pending.clear()
    }
  }

  async #receiveOne(): Promise<void> {
    const magic = (await this.#stream.read(4)).readUInt32BE(0)
    if (magic === SIMPLE_REPLY_MAGIC) {
      const head = await this.#stream.read(12)
      const errno = head.readUInt32BE(0)
      const pending = this.#take(head.readBigUInt64BE(4))
      if (errno !== 0) pending.reply.error = new NbdError(errno, '')
      pending.resolve(pending.reply)
      return
    }
    if (magic !== STRUCTURED_REPLY_MAGIC) throw new Error(`bad reply magic ${magic.toString(16)}`)
    const head = Buffer.from(await this.#stream.read(16))
    const cookie = head.readBigUInt64BE(4)
    const body = Buffer.from(await this.#stream.read(head.readUInt32BE(12)))
    const pending = this.#pending.get(cookie)
    if (pending === undefined) throw new Error('reply to an unknown request')
    takeChunk(pending, head.readUInt16BE(2), body)
    if ((head.readUInt16BE(0) & 1) === 1) {
      this.#pending.delete(cookie)
      pending.resolve(pending.reply)
    }
  }

  #take(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie)
    if (pending === undefined) throw new Error('reply to an unknown request')
    this.#pending.delete(cookie)
    return pending
  }
}

function takeChunk(pending: Pending, type: number, body: Buffer): void {
  switch (type) {
    case CHUNK.none:
    case CHUNK.offsetHole:
      return
    case CHUNK.offsetData: {
      // Several chunks may make one answer; the tests read little, so growing a buffer is cheap enough.
      const at = Number(body.readBigUInt64BE(0)) - pending.offset
      const end = at + body.length - 8
      const data = Buffer.alloc(Math.max(end, pending.reply.data?.length ?? 0))
      pending.reply.data?.copy(data)
      body.copy(data, at, 8)
      pending.reply.data = data
      return
    }
    case CHUNK.blockStatus: {
      const pairs: number[] = []
      for (let i = 4; i < body.length; i += 4) pairs.push(body.readUInt32BE(i))
      pending.reply.status.set(body.readUInt32BE(0), pairs)
      return
    }
    case CHUNK.error:
    case CHUNK.errorOffset:
      pending.reply.error = new NbdError(
        body.readUInt32BE(0),
        body.toString('utf8', 6, 6 + body.readUInt16BE(4)),
      )
      return
    default:
      throw new Error(`unknown reply chunk ${type}`)
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function lengthPrefixed(data: Buffer): Buffer {
  return Buffer.concat([u32(data.length), data])
}
