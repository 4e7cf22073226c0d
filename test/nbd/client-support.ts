/**
 * Servers for the proofs of the NBD client: programs that nobody here wrote, started and stopped, and one that says on the wire
 * whatever it is told to, right or wrong. It shares no code with the client: its numbers are its own.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach } from 'vitest'
import type { NbdClient } from '../../src/nbd/client/client.ts'
import { connectNbd } from '../../src/nbd/client/connect.ts'
import type { ConnectNbdOptions, NbdExtent, NbdTarget } from '../../src/nbd/client/types.ts'
import { isAnswered } from '../../src/owner/unix-socket.ts'
import { peer } from '../support/peers.ts'
import { be16, be32, folder, MiB, OPT, REP, text } from './support.ts'

const clients: NbdClient[] = []
const programs: ChildProcess[] = []
const servers: { server: Server; sockets: Set<Socket> }[] = []
afterEach(async () => {
  for (const { server, sockets } of servers.splice(0)) {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
  await Promise.all(clients.splice(0).map((client) => client.close()))
  await Promise.all(programs.splice(0).map((program) => stopped(program)))
})

/** A client that is closed after the test. */
export async function connected(target: NbdTarget, options?: ConnectNbdOptions): Promise<NbdClient> {
  const client = await connectNbd(target, options)
  clients.push(client)
  return client
}

export async function listOf<T>(all: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const one of all) list.push(one)
  return list
}

export const tuples = (extents: readonly NbdExtent[]) =>
  extents.map(({ offset, length, flags }) => [offset, length, flags])

/** Ends when the program has. */
export function stopped(program: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (program.exitCode !== null || program.signalCode !== null) return Promise.resolve()
  return new Promise((resolve) => {
    program.once('exit', () => resolve())
    program.kill(signal)
  })
}

/** Runs a server program until the test ends; resolves once its socket is answered. */
export async function started(
  name: Parameters<typeof peer>[0],
  socket: string,
  ...args: string[]
): Promise<ChildProcess> {
  const program = spawn(peer(name)!, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  programs.push(program)
  let said = ''
  program.stderr!.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  while (!(await isAnswered(socket))) {
    if (program.exitCode !== null) throw new Error(`${name} ended: ${said}`)
    await sleep(5)
  }
  return program
}

/** nbdkit on a socket of its own. */
export async function nbdkit(...args: string[]): Promise<{ socket: string; program: ChildProcess }> {
  const socket = join(folder(), 'k.sock')
  return { socket, program: await started('nbdkit', socket, '-f', '-U', socket, ...args) }
}

/** qemu-nbd on a socket of its own, for any number of clients. */
export async function qemuNbd(...args: string[]): Promise<{ socket: string; program: ChildProcess }> {
  const socket = join(folder(), 'q.sock')
  return { socket, program: await started('qemu-nbd', socket, '-t', '-e', '8', '-k', socket, ...args) }
}

export interface Asked {
  readonly flags: number
  readonly type: number
  readonly cookie: number
  readonly offset: number
  readonly length: number
  readonly data: Buffer
}

/** One client, seen from its server. */
export class Peer {
  readonly socket: Socket
  #bytes = Buffer.alloc(0)
  #ended = false
  #wake: () => void = () => undefined

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#wake()
    })
    socket.on('close', () => {
      this.#ended = true
      this.#wake()
    })
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts))
  }

  /** Throws when the client has left. */
  async bytes(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      if (this.#ended) throw new Gone()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const taken = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return taken
  }

  async option(): Promise<{ option: number; data: Buffer }> {
    const header = await this.bytes(16)
    return { option: header.readUInt32BE(8), data: await this.bytes(header.readUInt32BE(12)) }
  }

  reply(option: number, type: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(Buffer.from('0003e889045565a9', 'hex'), be32(option), be32(type), be32(data.length), data)
  }

  async request(): Promise<Asked> {
    const header = await this.bytes(28)
    const type = header.readUInt16BE(6)
    const length = header.readUInt32BE(24)
    return {
      flags: header.readUInt16BE(4),
      type,
      cookie: Number(header.readBigUInt64BE(8)),
      offset: Number(header.readBigUInt64BE(16)),
      length,
      data: type === 1 ? await this.bytes(length) : Buffer.alloc(0),
    }
  }

  simple(cookie: number, errno = 0, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(be32(0x67446698), be32(errno), be64(cookie), data)
  }

  chunk(cookie: number, type: number, done: boolean, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(chunk(cookie, type, done, data))
  }
}

/** The client left. */
export class Gone extends Error {}

export function be64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

export function chunk(cookie: number, type: number, done: boolean, data: Uint8Array): Buffer {
  return Buffer.concat([
    be32(0x668e33ef),
    be16(done ? 1 : 0),
    be16(type),
    be64(cookie),
    be32(data.length),
    data,
  ])
}

export const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), be16(3)])
/** All that QEMU's server has. */
export const FLAGS = 0xded

export interface Said {
  size?: number | bigint
  flags?: number
  blockSize?: readonly [number, number, number]
  structured?: boolean
  contexts?: readonly string[]
}

/** A proper handshake, up to transmission. */
export async function agreed(
  peer: Peer,
  { size = MiB, flags = FLAGS, blockSize, structured = true, contexts = [] }: Said = {},
): Promise<void> {
  peer.send(GREETING)
  await peer.bytes(4)
  while (true) {
    const { option } = await peer.option()
    switch (option) {
      case OPT.structured:
        peer.reply(option, structured ? REP.ack : REP.unsupported)
        break
      case OPT.setMeta:
        for (const [i, name] of contexts.entries())
          peer.reply(option, REP.meta, Buffer.concat([be32(i + 7), Buffer.from(name)]))
        peer.reply(option, REP.ack)
        break
      case OPT.go:
        if (blockSize !== undefined)
          peer.reply(option, REP.info, Buffer.concat([be16(3), ...blockSize.map(be32)]))
        peer.reply(option, REP.info, Buffer.concat([be16(0), be64(size), be16(flags)]))
        peer.reply(option, REP.ack)
        return
      case OPT.abort:
        throw new Gone()
      default:
        peer.reply(option, REP.unsupported)
    }
  }
}

/** A server that does this with every client; what it throws, save for `Gone`, is in `errors`. */
export async function scripted(
  script: (peer: Peer, nth: number) => Promise<void>,
): Promise<{ socket: string; errors: unknown[]; clients: () => number; close: () => Promise<void> }> {
  const errors: unknown[] = []
  const sockets = new Set<Socket>()
  let nth = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    script(new Peer(socket), nth++).catch((error: unknown) => {
      if (!(error instanceof Gone)) errors.push(error)
    })
  })
  servers.push({ server, sockets })
  const socket = join(folder(), 'h.sock')
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  const close = async (): Promise<void> => {
    for (const one of sockets) one.destroy()
    await new Promise((resolve) => server.close(resolve))
  }
  return { socket, errors, clients: () => nth, close }
}

/** LIST's answer. */
export const listed = (name: string, description = '') =>
  Buffer.concat([text(name), Buffer.from(description)])
