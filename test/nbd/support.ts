/**
 * For the proofs of the NBD server: an export in memory that can be told to wait or to fail, and a client that says on the
 * wire whatever it is told to, right or wrong. The client shares no code with the server: its numbers are its own.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'
import type { NbdContext, NbdDescriptor, NbdExport, NbdExports, ZeroHow } from '../../src/nbd/export.ts'
import { Runs } from '../../src/nbd/runs.ts'
import { listenNbd, type NbdServer, type NbdServerOptions } from '../../src/nbd/server.ts'

export const MiB = 1024 * 1024
const GRANULE = 4096

/** Bytes in memory; every granule that is written is dirty in `qemu:dirty-bitmap:a`. */
export class MemoryExport implements NbdExport {
  readonly bytes: Buffer
  readonly calls: string[] = []
  /** Calls that reach beyond the end: there must never be one. */
  readonly outside: string[] = []
  readonly dirty = new Set<number>()
  running = 0
  runningMax = 0
  /** Awaited by each call before it does anything: throw to fail it, wait to hold it. */
  before: (call: string) => Promise<void> | void = () => undefined

  constructor(
    readonly name: string,
    readonly size: number,
    readonly readOnly = false,
    readonly description = '',
  ) {
    this.bytes = Buffer.alloc(size)
  }

  read = (offset: number, length: number) =>
    this.#call(`read ${offset}+${length}`, () => Buffer.from(this.bytes.subarray(offset, offset + length)))
  write = (offset: number, data: Uint8Array, fua: boolean) =>
    this.#call(`write ${offset}+${data.length}${fua ? ' fua' : ''}`, () =>
      this.#set(offset, data.length, data),
    )
  writeZeroes = (offset: number, length: number, { fua, noHole }: ZeroHow) =>
    this.#call(`zero ${offset}+${length}${fua ? ' fua' : ''}${noHole ? ' noHole' : ''}`, () =>
      this.#set(offset, length, null),
    )
  trim = (offset: number, length: number, fua: boolean) =>
    this.#call(`trim ${offset}+${length}${fua ? ' fua' : ''}`, () => this.#set(offset, length, null))
  flush = () => this.#call('flush', () => undefined)
  cache = (offset: number, length: number) => this.#call(`cache ${offset}+${length}`, () => undefined)

  contextNames = ['base:allocation', 'qemu:dirty-bitmap:a', 'qemu:dirty-bitmap:b']
  async contexts(query = ''): Promise<readonly string[]> {
    return this.contextNames.filter((name) =>
      query.endsWith(':') || query === '' ? name.startsWith(query) : name === query,
    )
  }
  async context(name: string): Promise<NbdContext | null> {
    if (!this.contextNames.includes(name)) return null
    const kind = name === 'base:allocation' ? 'data' : name.endsWith(':a') ? 'dirty' : 'stripes'
    return { name, status: async (offset, length, max) => Runs.of(this.#status(kind, offset, length, max)) }
  }

  #status(kind: 'data' | 'dirty' | 'stripes', offset: number, length: number, max: number): NbdDescriptor[] {
    if (kind === 'data') return [{ length, flags: 0 }]
    const flagsAt = (at: number): number => {
      const granule = Math.floor(at / GRANULE)
      return kind === 'stripes' ? granule % 2 : this.dirty.has(granule) ? 1 : 0
    }
    const found: { length: number; flags: number }[] = []
    for (let at = offset; at < offset + length; ) {
      const end = Math.min((Math.floor(at / GRANULE) + 1) * GRANULE, offset + length)
      const last = found.at(-1)
      if (last?.flags === flagsAt(at)) last.length += end - at
      else if (found.length === max) break
      else found.push({ length: end - at, flags: flagsAt(at) })
      at = end
    }
    return found
  }

  #set(offset: number, length: number, data: Uint8Array | null): void {
    if (data === null) this.bytes.fill(0, offset, offset + length)
    else this.bytes.set(data, offset)
    for (let g = Math.floor(offset / GRANULE); g * GRANULE < offset + length; g++) this.dirty.add(g)
  }

  async #call<T>(call: string, does: () => T): Promise<T> {
    this.calls.push(call)
    const [, from, length] = /(\d+)\+(\d+)/.exec(call) ?? [0, 0, 0]
    if (Number(from) + Number(length) > this.size) this.outside.push(call)
    this.runningMax = Math.max(this.runningMax, ++this.running)
    try {
      await this.before(call)
      return does()
    } finally {
      this.running--
    }
  }
}

export function exportsOf(...all: NbdExport[]): NbdExports {
  return {
    list: () => all,
    find: (name) =>
      all.find((one) => one.name === name) ?? (name === '' && all.length === 1 ? all[0] : undefined),
  }
}

const servers: NbdServer[] = []
const clients: Client[] = []
const folders: string[] = []
afterEach(async () => {
  for (const client of clients.splice(0).reverse()) client.socket.destroy() // TLS before what is beneath it.
  for (const server of servers.splice(0)) await server.close()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** A folder that goes away with the test. */
export function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'slicelog-nbd-'))
  folders.push(made)
  return made
}

/** A server on a Unix socket, closed after the test. */
export async function serving(
  exports: readonly NbdExport[],
  options: Partial<NbdServerOptions> = {},
): Promise<NbdServer & { socket: string }> {
  const server = await listenNbd({
    exports: exportsOf(...exports),
    socket: join(folder(), 's.sock'),
    ...options,
  })
  servers.push(server)
  return server as NbdServer & { socket: string }
}

export interface OptionReply {
  option: number
  type: number
  data: Buffer
}

export const types = (replies: readonly OptionReply[]): number[] => replies.map(({ type }) => type)
/** What the last reply says. */
export const words = (replies: readonly OptionReply[]): string => replies.at(-1)!.data.toString()

/** A reply as it came: simple ones have `type` -1. */
export interface Reply {
  cookie: number
  type: number
  flags: number
  errno: number
  data: Buffer
}

export const OPT = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structured: 8,
  listMeta: 9,
  setMeta: 10,
} as const
export const REP = {
  ack: 1,
  server: 2,
  info: 3,
  meta: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  unknown: 0x80000006,
  tooBig: 0x80000009,
} as const
export const CMD = { read: 0, write: 1, disc: 2, flush: 3, trim: 4, cache: 5, zero: 6, status: 7 } as const
export const EINVAL = 22

export interface Asked {
  type: number
  flags?: number
  cookie?: number
  offset?: number | bigint
  length?: number
  data?: Uint8Array
}

export class Client {
  readonly socket: Socket
  #chunks: Buffer[] = []
  #size = 0
  #ended = false
  #wake: () => void = () => undefined
  /** Lengths of reads by cookie: a simple reply does not say how long it is. */
  readonly #reads = new Map<number, number>()
  structured = false

  /** At a Unix socket, at a port, or over a connection that is there. */
  constructor(at: string | number | Socket) {
    this.socket =
      typeof at === 'string'
        ? createConnection(at)
        : typeof at === 'number'
          ? createConnection(at, '127.0.0.1')
          : at
    clients.push(this)
    this.socket.on('error', () => undefined)
    this.socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#size += chunk.length
      this.#wake()
    })
    this.socket.on('close', () => {
      this.#ended = true
      this.#wake()
    })
    this.socket.on('end', () => {
      this.#ended = true
      this.#wake()
    })
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts))
  }

  /** null: the server closed before that much came. */
  async bytes(length: number): Promise<Buffer | null> {
    while (this.#size < length && !this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    if (this.#size < length) return null
    if ((this.#chunks[0]?.length ?? 0) < length) this.#chunks = [Buffer.concat(this.#chunks)]
    const first = this.#chunks[0] ?? Buffer.alloc(0)
    if (first.length === length) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(length)
    this.#size -= length
    return first.subarray(0, length)
  }

  /** What still comes until the server closes. */
  async rest(): Promise<Buffer> {
    while (!this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    return Buffer.concat(this.#chunks)
  }

  async greet(flags = 3): Promise<Buffer> {
    const greeting = (await this.bytes(18))!
    this.send(be32(flags))
    return greeting
  }

  sendOption(option: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(Buffer.from('IHAVEOPT'), be32(option), be32(data.length), data)
  }

  /** Replies up to the one that ends them. Empty when the server closed. */
  async option(option: number, data?: Uint8Array): Promise<OptionReply[]> {
    this.sendOption(option, data)
    return this.optionReplies()
  }

  async optionReplies(): Promise<OptionReply[]> {
    const all: OptionReply[] = []
    while (true) {
      const header = await this.bytes(20)
      if (header === null) return all
      const data = (await this.bytes(header.readUInt32BE(16)))!
      const reply = { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data }
      all.push(reply)
      if (header.readBigUInt64BE(0) !== 0x3e889045565a9n) throw new Error('no option reply')
      if (reply.type === REP.ack || reply.type >= 0x80000000) return all
    }
  }

  /** Into transmission. Throws what the server said where it refused. */
  async go(
    name = '',
    contexts: readonly string[] | null = null,
    structured = contexts !== null,
  ): Promise<this> {
    await this.greet()
    if (structured) {
      await this.option(OPT.structured)
      this.structured = true
    }
    if (contexts !== null) await this.option(OPT.setMeta, metaData(name, contexts))
    const replies = await this.option(OPT.go, infoData(name))
    if (replies.at(-1)?.type !== REP.ack) throw new Error(`no go: ${replies.at(-1)?.data}`)
    return this
  }

  ask({ type, flags = 0, cookie = 1, offset = 0, length, data }: Asked): void {
    const bytes = data?.length ?? 0
    if (type === CMD.read) this.#reads.set(cookie, length ?? 0)
    this.send(request({ type, flags, cookie, offset, length: length ?? bytes }), data ?? Buffer.alloc(0))
  }

  /** The next reply; null when the server closed. */
  async reply(): Promise<Reply | null> {
    const magic = await this.bytes(4)
    if (magic === null) return null
    if (magic.readUInt32BE(0) === 0x67446698) {
      const rest = (await this.bytes(12))!
      const cookie = Number(rest.readBigUInt64BE(4))
      const errno = rest.readUInt32BE(0)
      const length = errno === 0 ? (this.#reads.get(cookie) ?? 0) : 0
      this.#reads.delete(cookie)
      return { cookie, type: -1, flags: 1, errno, data: (await this.bytes(length))! }
    }
    if (magic.readUInt32BE(0) !== 0x668e33ef) throw new Error(`no reply: ${magic.toString('hex')}`)
    const rest = (await this.bytes(16))!
    const data = (await this.bytes(rest.readUInt32BE(12)))!
    const type = rest.readUInt16BE(2)
    const cookie = Number(rest.readBigUInt64BE(4))
    this.#reads.delete(cookie)
    return {
      cookie,
      type,
      flags: rest.readUInt16BE(0),
      errno: type >= 0x8000 ? data.readUInt32BE(0) : 0,
      data,
    }
  }

  /** Asks, and gives the first reply. */
  async call(asked: Asked): Promise<Reply | null> {
    this.ask(asked)
    return this.reply()
  }
}

export function request({ type, flags = 0, cookie = 1, offset = 0, length = 0 }: Asked): Buffer {
  const bytes = Buffer.alloc(28)
  bytes.writeUInt32BE(0x25609513, 0)
  bytes.writeUInt16BE(flags, 4)
  bytes.writeUInt16BE(type, 6)
  bytes.writeBigUInt64BE(BigInt(cookie), 8)
  bytes.writeBigUInt64BE(BigInt(offset), 16)
  bytes.writeUInt32BE(length, 24)
  return bytes
}

export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

export function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export const text = (value: string): Buffer =>
  Buffer.concat([be32(Buffer.byteLength(value)), Buffer.from(value)])

export function infoData(name: string, infos: readonly number[] = []): Buffer {
  return Buffer.concat([text(name), be16(infos.length), ...infos.map(be16)])
}

export function metaData(name: string, queries: readonly string[]): Buffer {
  return Buffer.concat([text(name), be32(queries.length), ...queries.map(text)])
}

/** Runs of a block status chunk: its context's id, then length and flags of each. */
export function runsOf({ data }: Reply): { id: number; runs: [length: number, flags: number][] } {
  const runs: [number, number][] = []
  for (let at = 4; at < data.length; at += 8) runs.push([data.readUInt32BE(at), data.readUInt32BE(at + 4)])
  return { id: data.readUInt32BE(0), runs }
}

/** A promise to be resolved from outside: holds a call of an export. */
export function held(): { readonly wait: Promise<void>; readonly release: () => void } {
  let release = (): void => undefined
  const wait = new Promise<void>((resolve) => {
    release = resolve
  })
  return { wait, release }
}
