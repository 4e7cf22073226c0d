/**
 * The owner's side (R34): who connects hands over a command line, and the very same command line runs here, on the open store,
 * its output going back over the socket. So an answer, its refusals and its exit code are what they would be on a closed store.
 *
 * An asker costs the owner one connection: what is sent to a slow one waits in the command that makes it, what a stranger sends
 * ends the connection, and one that goes away ends its command as Ctrl-C would. Nothing of the command line is loaded before
 * somebody asks.
 */
import { createServer, type Socket } from 'node:net'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { coreOf, type Store } from '../store/store.ts'
import { Conversation } from './conversation.ts'
import { bind, socketPath } from './socket.ts'

/** Connections beyond those that are answered with a refusal are dropped without a word. */
const DROPPED_FROM = 2 * limits.ownerConnectionsMax
/** Commands that end by themselves within this are let; the others are cut. */
const GRACE_MS = 500
/** How long a slow reader may take for what it was sent before the store closes. */
const FLUSH_MS = 1000

export interface ServedStore {
  /** Of the socket. */
  readonly path: string
  /** Whoever asks after this is told that the store is in use. Commands that run have half a second to end, then they are cut. */
  close(): Promise<void>
}

const served = new WeakMap<Store, Promise<ServedStore>>()

/** See open.ts. The second call for a store gives the first one's answer. */
export function serve(store: Store): Promise<ServedStore> {
  const before = served.get(store)
  if (before !== undefined) return before
  const made = begin(store)
  served.set(store, made)
  made.catch(() => served.delete(store))
  return made
}

async function begin(store: Store): Promise<ServedStore> {
  const { folder } = store
  if (folder === null) throw new TypeError('a store in memory has no folder to serve it in')
  if (coreOf(store).closing) throw new CheckpointError('STORE_CLOSED', 'the store is closed; open it again')
  const door = new Door(store)
  const server = createServer((socket) => door.take(socket))
  server.maxConnections = DROPPED_FROM
  server.on('error', () => undefined) // Of one connection that could not be taken: its asker is told by the system.
  const bound = bind(server, folder)
  let closing: Promise<void> | undefined
  const close = async (): Promise<void> => {
    const remove = await bound.catch(() => undefined)
    remove?.()
    server.close()
    await door.close()
  }
  // Told before the socket is there, so that a store that is closed meanwhile takes it away.
  const forget = store.beforeClose(() => end())
  const end = (): Promise<void> => {
    closing ??= close()
    forget()
    served.delete(store)
    return closing
  }
  await bound.catch((cause: unknown) => {
    forget()
    throw unservable(folder, cause)
  })
  server.unref() // Being asked is no reason to live on.
  return { path: socketPath(folder), close: end }
}

function unservable(folder: string, cause: unknown): CheckpointError {
  return new CheckpointError(
    'IO_FAILED',
    `the store in ${folder} cannot be served on a socket there: ${(cause as Error).message}; leave the socket out, or put the store on a file system that has sockets`,
    { folder },
    cause,
  )
}

class Door {
  readonly #store: Store
  readonly #conversations = new Set<Conversation>()
  #closing = false

  constructor(store: Store) {
    this.#store = store
  }

  take(socket: Socket): void {
    const conversation = new Conversation(socket, {
      store: this.#store,
      storeId: coreOf(this.#store).storeId,
      tooMany: this.#conversations.size >= limits.ownerConnectionsMax,
      isClosing: () => this.#closing,
    })
    this.#conversations.add(conversation)
    void conversation.ended.then(() => this.#conversations.delete(conversation))
  }

  async close(): Promise<void> {
    this.#closing = true
    const all = [...this.#conversations]
    for (const conversation of all) conversation.endIfIdle()
    const ended = Promise.all(all.map((conversation) => conversation.ended))
    if (await within(GRACE_MS, ended)) return
    for (const conversation of all) conversation.stop('owner-closing')
    if (await within(FLUSH_MS, ended)) return
    for (const conversation of all) conversation.cut()
    await ended
  }
}

/** Whether it ended in time. */
async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, ms, false)
  })
  try {
    return await Promise.race([work.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
