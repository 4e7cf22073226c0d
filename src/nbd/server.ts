/**
 * The NBD server: listens on a Unix socket, on TCP, or on both, and gives every client a connection of its own. It knows
 * exports and nothing of disks or stores. Clients cost it what limits.ts says under `nbd`, and those beyond the largest
 * number are closed at once.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { listening } from '../owner/unix-socket.ts'
import { Connection } from './connection.ts'
import type { NbdExports } from './export.ts'
import type { NbdTlsFacts, Tls } from './tls.ts'
import { bindUnix } from './unix-socket.ts'
import type { Request } from './wire.ts'

export interface NbdServerOptions {
  readonly exports: NbdExports
  /** Path of a Unix socket; only its user may connect (0600). */
  readonly socket?: string
  /** `host` is 127.0.0.1 unless given: whoever reaches it reads and writes, unless `tls` has an authority. Port 0: any free one. */
  readonly tcp?: { readonly host?: string; readonly port: number; readonly tls?: Tls }
  /** How long a client may take for its handshake (milliseconds; 10 s). */
  readonly handshakeMs?: number
  /** How long `close` waits for clients to take their answers before it cuts them (milliseconds; 5 s). */
  readonly closeMs?: number
  /** Told of each request that failed for another reason than what the client asked, and of clients that TLS kept out. Must not throw. */
  readonly onError?: (error: unknown) => void
}

/** Where TCP listens; `tls` is null where it has none. */
export interface NbdTcpDoor {
  readonly host: string
  readonly port: number
  readonly tls: NbdTlsFacts | null
}

/** What went through a server since it began; requests that were refused or failed are in `errors` alone. */
export interface NbdCounts {
  /** Clients now, and all that ever came; `refused` of them were too many. */
  readonly connected: number
  readonly connections: number
  readonly refused: number
  readonly reads: number
  readonly writes: number
  readonly readBytes: number
  /** Writes, zeroes and trims together, as are their bytes. */
  readonly writtenBytes: number
  readonly flushes: number
  readonly errors: number
}

export interface NbdServer {
  /** Where the Unix socket is; null without one. */
  readonly socket: string | null
  /** Null without one. */
  readonly tcp: NbdTcpDoor | null
  counts(): NbdCounts
  /** No new clients; requests that were read are answered; then the sockets end. No export is called after it resolves. */
  close(): Promise<void>
}

/**
 * @throws CheckpointError ADDRESS_IN_USE when somebody else serves there, IO_FAILED when the system refuses the address
 */
export async function listenNbd(options: NbdServerOptions): Promise<NbdServer> {
  const { socket, tcp } = options
  if (socket === undefined && tcp === undefined) throw new TypeError('a server needs a socket or a TCP port')
  const door = new Door(options)
  try {
    if (socket !== undefined) await door.listenUnix(socket)
    const bound =
      tcp === undefined ? null : await door.listenTcp(tcp.host ?? '127.0.0.1', tcp.port, tcp.tls ?? null)
    return {
      socket: socket ?? null,
      tcp: bound,
      counts: () => door.counts(),
      close: () => door.close(),
    }
  } catch (error) {
    await door.close()
    throw error
  }
}

class Door {
  readonly #options: NbdServerOptions
  readonly #connections = new Set<Connection>()
  readonly #servers: Server[] = []
  #remove: (() => void) | null = null
  #closing: Promise<void> | null = null
  readonly #counts = {
    connections: 0,
    refused: 0,
    reads: 0,
    writes: 0,
    readBytes: 0,
    writtenBytes: 0,
    flushes: 0,
    errors: 0,
  }

  constructor(options: NbdServerOptions) {
    this.#options = options
  }

  /** Without TLS: who may enter is what the file system says (0600), and nothing leaves the machine. */
  async listenUnix(path: string): Promise<void> {
    const server = this.#server(null)
    try {
      this.#remove = await bindUnix(server, path)
    } catch (cause) {
      throw unservable(path, cause)
    }
    this.#servers.push(server)
  }

  async listenTcp(host: string, port: number, tls: Tls | null): Promise<NbdTcpDoor> {
    const server = this.#server(tls)
    try {
      await listening(server, () => server.listen({ host, port }))
    } catch (cause) {
      throw unservable(`${host}:${port}`, cause)
    }
    this.#servers.push(server)
    return { host, port: (server.address() as AddressInfo).port, tls: tls?.facts ?? null }
  }

  counts(): NbdCounts {
    return { ...this.#counts, connected: this.#connections.size }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#remove?.()
    for (const server of this.#servers) server.close()
    const all = [...this.#connections]
    for (const connection of all) connection.finish()
    const late = setTimeout(() => {
      for (const connection of all) connection.cut()
    }, this.#options.closeMs ?? 5000)
    await Promise.all(all.map(({ ended }) => ended))
    clearTimeout(late)
  }

  #server(tls: Tls | null): Server {
    // Half-open: who has said its last still reads what it asked for.
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#take(socket, tls))
    // Of one connection that could not be taken: its client is told by the system.
    server.on('error', () => undefined)
    return server
  }

  #take(socket: Socket, tls: Tls | null): void {
    this.#counts.connections++
    if (this.#closing !== null || this.#connections.size >= limits.nbdConnectionsMax) {
      this.#counts.refused++
      socket.on('error', () => undefined)
      socket.destroy()
      return
    }
    const { exports, handshakeMs = limits.nbdHandshakeMs, onError } = this.#options
    const connection = new Connection(socket, {
      exports,
      tls,
      handshakeMs,
      answered: (request, error) => this.#answered(request, error),
      failed: (error) => onError?.(error),
    })
    this.#connections.add(connection)
    void connection.ended.then(() => this.#connections.delete(connection))
  }

  #answered({ command, length }: Request, error: unknown): void {
    const counts = this.#counts
    if (error !== null) {
      counts.errors++
      if (!isAsked(error)) this.#options.onError?.(error)
      return
    }
    switch (command) {
      case 'read':
        counts.reads++
        counts.readBytes += length
        return
      case 'write':
      case 'writeZeroes':
      case 'trim':
        counts.writes++
        counts.writtenBytes += length
        return
      case 'flush':
        counts.flushes++
        return
      default:
        return
    }
  }
}

/** What the client asked for cannot be: nobody's trouble but its own. */
function isAsked(error: unknown): boolean {
  const errno = (error as { errno?: unknown }).errno
  return errno === 'EINVAL' || errno === 'EPERM' || errno === 'ENOTSUP' || errno === 'EOVERFLOW'
}

function unservable(address: string, cause: unknown): unknown {
  // A port that is none is the caller's mistake, not the world's.
  if (cause instanceof CheckpointError || cause instanceof RangeError || cause instanceof TypeError)
    return cause
  const { code, message } = cause as NodeJS.ErrnoException
  return code === 'EADDRINUSE'
    ? new CheckpointError(
        'ADDRESS_IN_USE',
        `nothing can be served at ${address}: another program listens there`,
        { address, why: 'answered' },
        cause,
      )
    : new CheckpointError(
        'IO_FAILED',
        `nothing can be served at ${address}: ${message}`,
        { path: address },
        cause,
      )
}
