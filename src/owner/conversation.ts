/** One asker and its command, from HELLO to EXIT. Every way in which it can go wrong ends here, and in nothing else. */
import type { Socket } from 'node:net'
import type { Io, Output } from '../cli/io.ts'
import { limits } from '../limits.ts'
import type { Store } from '../store/store.ts'
import {
  type Ask,
  FROM_ASKER,
  FrameReader,
  jsonFrame,
  KIND,
  PROTOCOL_VERSION,
  ProtocolError,
  readAsk,
  readHello,
  readStop,
  type Screen,
  textFrames,
} from './protocol.ts'

/** Whoever connects says what it wants at once. */
const SILENCE_MS = 10_000
/** An asker says STOP when its user presses Ctrl-C: more often than that is no user. */
const STOPS_MAX = 100

type Stop = 'interrupt' | 'closed-pipe' | 'owner-closing'

export interface ConversationWith {
  readonly store: Store
  readonly storeId: string
  /** So many ask already that this one is refused. */
  readonly tooMany: boolean
  readonly isClosing: () => boolean
}

export class Conversation {
  /** Its command has ended, and so has the connection. Never rejects. */
  readonly ended: Promise<void>
  readonly #socket: Socket
  readonly #with: ConversationWith
  readonly #reader = new FrameReader(FROM_ASKER)
  readonly #silence: NodeJS.Timeout
  #state: 'hello' | 'ask' | 'running' | 'done' = 'hello'
  #running: Promise<void> = Promise.resolve()
  #stopped: Stop | undefined
  #stops = 0
  #listeners = new Set<(why: Stop) => void>()

  constructor(socket: Socket, context: ConversationWith) {
    this.#socket = socket
    this.#with = context
    socket.setMaxListeners(0)
    socket.on('error', () => undefined) // The close that follows is what counts.
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    this.#silence = setTimeout(() => socket.destroy(), SILENCE_MS)
    this.#silence.unref()
    const closed = new Promise<void>((resolve) => {
      socket.once('close', () => {
        clearTimeout(this.#silence)
        this.stop('closed-pipe')
        resolve()
      })
    })
    this.ended = closed.then(() => this.#running)
  }

  /** What is under way is told; a second reason changes nothing. */
  stop(why: Stop): void {
    this.#stopped ??= why
    for (const listener of [...this.#listeners]) listener(why)
  }

  /** Nothing runs: the asker looks for another owner, or opens the store itself. */
  endIfIdle(): void {
    if (this.#state === 'hello' || this.#state === 'ask') this.#end(jsonFrame(KIND.notRun, {}))
  }

  cut(): void {
    this.#socket.destroy()
  }

  #end(frame: Buffer): void {
    this.#state = 'done'
    clearTimeout(this.#silence)
    if (!this.#socket.destroyed) this.#socket.end(frame)
  }

  #read(chunk: Buffer): void {
    if (this.#state === 'done') return
    try {
      for (const { kind, payload } of this.#reader.push(chunk)) this.#frame(kind, payload)
    } catch {
      // Whatever it was that could not be read: it costs this connection, never the owner.
      this.#socket.destroy()
    }
  }

  #frame(kind: number, payload: Buffer): void {
    if (this.#state === 'done') return
    if (kind === KIND.stop) this.#stop(payload)
    else if (kind === KIND.hello && this.#state === 'hello') this.#hello(payload)
    else if (kind === KIND.ask && this.#state === 'ask') this.#ask(payload)
    else throw new ProtocolError(`a frame of kind ${kind} out of turn`)
  }

  #hello(payload: Buffer): void {
    const { version, store } = readHello(payload)
    const why = this.#objection(version, store)
    if (this.#with.isClosing()) this.#end(jsonFrame(KIND.notRun, {}))
    else if (why !== null) {
      const facts = { folder: this.#with.store.folder, pid: process.pid, reason: why }
      const message = `process ${process.pid}, which owns the store, cannot answer: ${why}`
      this.#end(refusedFrame(message, facts))
    } else {
      this.#state = 'ask'
      this.#socket.write(jsonFrame(KIND.ready, { pid: process.pid }))
    }
  }

  #ask(payload: Buffer): void {
    const ask = readAsk(payload)
    clearTimeout(this.#silence)
    this.#state = 'running'
    this.#running = this.#run(ask)
  }

  #objection(version: number, store: string | null): string | null {
    if (version !== PROTOCOL_VERSION)
      return `it speaks version ${PROTOCOL_VERSION} of the protocol, not ${version}; use its version of slicelog`
    if (store !== null && store !== this.#with.storeId)
      return `its store has the id ${this.#with.storeId}, and the folder's is ${store}; the folder was replaced under it`
    if (this.#with.tooMany)
      return `${limits.ownerConnectionsMax} others are asking; ask again when they are done`
    return null
  }

  #stop(payload: Buffer): void {
    const why = readStop(payload)
    if (this.#state === 'hello' || ++this.#stops > STOPS_MAX) throw new ProtocolError('STOP out of turn')
    this.stop(why)
  }

  async #run(ask: Ask): Promise<void> {
    try {
      if (this.#with.isClosing()) {
        this.#end(jsonFrame(KIND.notRun, {}))
        return
      }
      const { run } = await import('../cli/run.ts')
      const code = await run(ask.argv, this.#io(ask), { store: this.#with.store, pid: process.pid })
      this.#end(jsonFrame(KIND.exit, { code }))
    } catch (error) {
      // `run` tells every failure itself: this one is of the installation, and the owner goes on.
      this.#end(refusedFrame(`slicelog cannot be loaded there: ${(error as Error).message}`, {}))
    }
  }

  #io(ask: Ask): Io {
    return {
      stdout: new Pipe(this.#socket, KIND.out, ask.stdout),
      stderr: new Pipe(this.#socket, KIND.err, ask.stderr),
      env: ask.env,
      cwd: ask.cwd,
      onInterrupt: (stop) => {
        this.#listeners.add(stop)
        if (this.#stopped !== undefined) stop(this.#stopped)
        return () => void this.#listeners.delete(stop)
      },
    }
  }
}

function refusedFrame(message: string, facts: Readonly<Record<string, unknown>>): Buffer {
  return jsonFrame(KIND.refused, { code: 'OWNER_UNREACHABLE', message, facts })
}

/**
 * One of the asker's streams, seen from here. However fast the asker reads, the command that writes waits after every few pieces
 * until all else in the owner had its turn.
 */
class Pipe implements Output {
  readonly isTTY: boolean
  readonly columns?: number
  readonly #socket: Socket
  readonly #kind: typeof KIND.out | typeof KIND.err
  readonly #waiting = new Map<() => void, () => void>()
  /** Bytes that the system has not taken yet, and bytes since the owner's last turn. */
  #pending = 0
  #inTurn = 0

  constructor(socket: Socket, kind: typeof KIND.out | typeof KIND.err, screen: Screen) {
    this.#socket = socket
    this.#kind = kind
    this.isTTY = screen.tty
    if (screen.columns !== null) this.columns = screen.columns
  }

  get destroyed(): boolean {
    return this.#socket.destroyed
  }

  write(text: string): boolean {
    if (this.#socket.destroyed || !this.#socket.writable) return true
    // An answer is waited for by whoever makes it. Remarks and progress are not, so they must not pile up.
    if (this.#kind === KIND.err && this.#pending > limits.ownerRemarksBytesMax) return false
    for (const frame of textFrames(this.#kind, text)) {
      this.#pending += frame.length
      this.#inTurn += frame.length
      this.#socket.write(frame, () => {
        this.#pending -= frame.length
      })
    }
    return !this.#socket.writableNeedDrain && this.#inTurn < limits.ownerChunkBytes
  }

  once(event: 'drain' | 'close', listener: () => void): unknown {
    if (event === 'close') return this.#socket.once('close', listener)
    const next = (): void => void setImmediate(() => this.#turn(listener))
    this.#waiting.set(listener, next)
    return this.#socket.writableNeedDrain ? this.#socket.once('drain', next) : next()
  }

  off(event: 'drain' | 'close', listener: () => void): unknown {
    if (event === 'close') return this.#socket.off('close', listener)
    const next = this.#waiting.get(listener)
    this.#waiting.delete(listener)
    return next === undefined ? undefined : this.#socket.off('drain', next)
  }

  #turn(listener: () => void): void {
    this.#inTurn = 0
    if (this.#waiting.delete(listener)) listener()
  }
}
