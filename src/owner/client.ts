/**
 * Asking the owner of a store (R34): connect to the socket in the store's folder, hand over a command line, and pass on what
 * comes back, at the pace of whoever reads it. Before `ask` nothing has happened, so it may be given up and tried again.
 */
import { readFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { StringDecoder } from 'node:string_decoder'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { readOwner } from '../log/owner.ts'
import {
  type Ask,
  FROM_OWNER,
  type Frame,
  FrameReader,
  frame,
  jsonFrame,
  KIND,
  PROTOCOL_VERSION,
  ProtocolError,
  type Refused,
  readExit,
  readReady,
  readRefused,
} from './protocol.ts'
import { isSocketThere, SOCKET_NAME } from './socket.ts'
import { shortAddress } from './unix-socket.ts'

/** Where an answer goes. Resolves once there is room for more, or nobody reads: until then no more is taken from the owner. */
export type Sink = (text: string) => Promise<void>

/** How an asked command ended. */
export type Asked =
  | { readonly kind: 'exit'; readonly code: number }
  /** The owner was closing its store and did nothing. */
  | { readonly kind: 'not-run' }
  | { readonly kind: 'refused'; readonly refused: Refused }
  /** The owner went away while the command ran: how far it came is unknown. */
  | { readonly kind: 'lost' }

export interface OwnerConnection {
  /** Of the owner's process. */
  readonly pid: number
  /** Runs the command line there. Once. */
  ask(request: Ask, out: Sink, err: Sink): Promise<Asked>
  /** Passed on to the command as Ctrl-C, or as a reader that has gone. */
  stop(why: 'interrupt' | 'closed-pipe'): void
  close(): void
}

/**
 * The owner of the store in this folder, if it serves it. Undefined: there is no socket, or nobody listens there.
 * @throws CheckpointError OWNER_UNREACHABLE, ABORTED by the signal
 */
export async function reachOwner(folder: string, signal?: AbortSignal): Promise<OwnerConnection | undefined> {
  if (!isSocketThere(folder)) return undefined
  const { address, release } = shortAddress(folder, SOCKET_NAME)
  const socket = createConnection(address)
  const stop = (): void => void socket.destroy(new CheckpointError('ABORTED', 'Stopped before it was asked.'))
  signal?.addEventListener('abort', stop)
  try {
    await connected(socket)
    socket.write(jsonFrame(KIND.hello, { version: PROTOCOL_VERSION, store: storeId(folder) }))
    return await greeted(socket, folder)
  } catch (error) {
    socket.destroy()
    if (error instanceof CheckpointError) throw error
    if (isNobody(error)) return undefined
    throw unreachable(folder, error)
  } finally {
    signal?.removeEventListener('abort', stop)
    release()
  }
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('connect', resolve)
    socket.on('error', reject) // Stays, so that a later error is never unhandled; the close is what is acted on.
  })
}

function storeId(folder: string): string | null {
  try {
    const { id } = JSON.parse(readFileSync(join(folder, 'store.json'), 'utf8')) as { id?: unknown }
    return typeof id === 'string' ? id : null
  } catch {
    return null
  }
}

/** Gone, going, or about to be there. */
function isNobody(error: unknown): boolean {
  return ['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'ENOTCONN'].includes(reasonOf(error))
}

function reasonOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? (error as Error).message)
}

function unreachable(folder: string, error: unknown): CheckpointError {
  const heldBy = readOwner(join(folder, 'owner.json')) ?? null
  const reason = reasonOf(error)
  const who = heldBy === null ? 'the process that owns it' : `process ${heldBy.pid}, which owns it,`
  const why =
    reason === 'EACCES' || reason === 'EPERM'
      ? `${who} answers only its own user; run this command as that user`
      : `${who} cannot be asked (${reason}); try again, or end it`
  return new CheckpointError(
    'OWNER_UNREACHABLE',
    `${folder} is in use: ${why}`,
    { folder, heldBy, reason },
    error,
  )
}

/** READY makes the connection; its end before that means that nobody answers. */
function greeted(socket: Socket, folder: string): Promise<OwnerConnection | undefined> {
  return new Promise((resolve, reject) => {
    const reader = new FrameReader(FROM_OWNER)
    const end = (): void => resolve(undefined)
    const read = (chunk: Buffer): void => {
      try {
        for (const { kind, payload } of reader.push(chunk)) {
          socket.off('data', read).off('close', end).pause()
          if (kind === KIND.notRun) resolve(undefined)
          else if (kind === KIND.refused) reject(refusal(readRefused(payload)))
          else if (kind !== KIND.ready) throw new ProtocolError(`a frame of kind ${kind} before READY`)
          else resolve(new Connection(socket, readReady(payload)))
          return
        }
      } catch (error) {
        reject(unreachable(folder, error))
      }
    }
    socket.on('data', read).on('close', end)
    socket.once('error', reject)
  })
}

/** Codes of an owner that is newer may be unknown here: then it is told as one that cannot be asked. */
function refusal({ message, facts }: Refused): CheckpointError {
  return new CheckpointError('OWNER_UNREACHABLE', message, facts)
}

class Connection implements OwnerConnection {
  readonly #socket: Socket
  #ended: Asked | undefined

  constructor(
    socket: Socket,
    readonly pid: number,
  ) {
    this.#socket = socket
  }

  async ask(request: Ask, out: Sink, err: Sink): Promise<Asked> {
    const payload = Buffer.from(JSON.stringify(request))
    if (payload.length > limits.ownerAskBytesMax) {
      this.close()
      const message = `the command line has ${payload.length} bytes, and an owner takes ${limits.ownerAskBytesMax}; split it`
      return { kind: 'refused', refused: { code: 'OWNER_UNREACHABLE', message, facts: {} } }
    }
    const socket = this.#socket
    socket.write(frame(KIND.ask, payload))
    const reader = new FrameReader(FROM_OWNER)
    const texts = { out: new StringDecoder('utf8'), err: new StringDecoder('utf8') }
    try {
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        for (const frame of reader.push(chunk)) {
          const text = textOf(frame, texts)
          if (text !== undefined) {
            if (text !== '') await (frame.kind === KIND.out ? out : err)(text)
          } else this.#ended ??= endOf(frame)
        }
      }
    } catch (error) {
      // A connection that was reset ended as one that was closed; bytes that are no answer end it from here.
      if (error instanceof ProtocolError) socket.destroy()
    }
    return this.#ended ?? { kind: 'lost' }
  }

  stop(why: 'interrupt' | 'closed-pipe'): void {
    if (this.#socket.writable) this.#socket.write(jsonFrame(KIND.stop, { why }))
  }

  close(): void {
    this.#socket.destroy()
  }
}

function textOf(
  { kind, payload }: Frame,
  texts: { readonly out: StringDecoder; readonly err: StringDecoder },
): string | undefined {
  if (kind === KIND.out) return texts.out.write(payload)
  return kind === KIND.err ? texts.err.write(payload) : undefined
}

function endOf({ kind, payload }: Frame): Asked {
  switch (kind) {
    case KIND.exit:
      return { kind: 'exit', code: readExit(payload) }
    case KIND.refused:
      return { kind: 'refused', refused: readRefused(payload) }
    case KIND.notRun:
      return { kind: 'not-run' }
    default:
      throw new ProtocolError(`a frame of kind ${kind} in an answer`)
  }
}
