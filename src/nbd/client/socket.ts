/**
 * The socket beneath a connection: opened under a deadline that goes on through the handshake, and cut by it, so that nothing
 * ever waits for a server that says nothing. An error of the socket is kept for whoever finds that nothing more comes.
 */
import { createConnection, type Socket } from 'node:net'
import { basename, dirname } from 'node:path'
import { CheckpointError } from '../../errors.ts'
import { shortAddress } from '../../owner/unix-socket.ts'
import { Disconnected } from '../input.ts'
import { type Address, addressText, type Place } from './address.ts'
import { unreachable } from './failures.ts'

export interface Dial {
  readonly handshakeMs: number
  readonly signal: AbortSignal | undefined
}

/**
 * Connects and does `talk` under one deadline. When it fails, the socket is gone.
 * @throws CheckpointError NBD_UNREACHABLE, ABORTED, or what `talk` throws
 */
export async function dialled<T>(
  address: Address,
  { handshakeMs, signal }: Dial,
  talk: (socket: Socket) => Promise<T>,
): Promise<T> {
  const where = addressText(address)
  refuseAborted(signal)
  const { socket, release } = open(address.place, where)
  const failures: NodeJS.ErrnoException[] = []
  socket.on('error', (error) => failures.push(error))
  let late = false
  const timer = setTimeout(() => {
    late = true
    socket.destroy()
  }, handshakeMs)
  const stop = (): void => void socket.destroy()
  signal?.addEventListener('abort', stop, { once: true })
  try {
    await connected(socket)
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 60_000)
    return await talk(socket)
  } catch (error) {
    socket.destroySoon()
    refuseAborted(signal)
    if (late) throw unreachable(where, 'deadline', `no handshake within ${handshakeMs} ms`, error)
    if (!(error instanceof Disconnected)) throw error
    const [failure] = failures
    if (failure === undefined)
      throw unreachable(where, 'closed', 'it closed the connection in the handshake', error)
    // Of several addresses that failed, the message is empty and the code is the first one's.
    throw unreachable(where, 'refused', failure.message || String(failure.code), failure)
  } finally {
    clearTimeout(timer)
    release()
    signal?.removeEventListener('abort', stop)
  }
}

/** A path that is too long for the address of a socket is gone round. */
function open(place: Place, where: string): { readonly socket: Socket; readonly release: () => void } {
  if (place.kind === 'tcp')
    return { socket: createConnection(place.port, place.host), release: () => undefined }
  try {
    const { address, release } = shortAddress(dirname(place.path), basename(place.path))
    return { socket: createConnection(address), release }
  } catch (cause) {
    throw unreachable(where, 'refused', (cause as Error).message, cause)
  }
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const gone = (): void => reject(new Disconnected('there was no connection'))
    socket.once('close', gone)
    socket.once('connect', () => {
      socket.off('close', gone)
      resolve()
    })
  })
}

function refuseAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new CheckpointError('ABORTED', 'connecting was aborted by its signal', {}, signal.reason)
}
