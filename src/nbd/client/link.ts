/**
 * One connection after its handshake: requests go out as they are asked, gathered into few writes of the socket, and answers are
 * given to whoever waits for them, in whatever order they come. When it ends, for whatever reason, everybody who waits is told;
 * nothing is asked on it again. Waiting requests cost their own bytes and an entry each; how many there are is its user's work.
 */
import { CheckpointError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { NbdError } from '../errors.ts'
import { Disconnected, type Input } from '../input.ts'
import type { Outbox } from '../outbox.ts'
import { CHUNK, CHUNK_DONE, FLAG } from '../wire.ts'
import { type Answer, errnoOf, type Refusal, Unsound } from './answer.ts'
import { broken, lost, saidBy } from './failures.ts'
import type { Agreed } from './handshake.ts'
import type { Talk } from './talk.ts'
import { decodeReplyHead, encodeRequest, REPLY_HEAD_BYTES, type ReplyHead, type Shape } from './wire.ts'

const ERROR_BIT = 0x8000
/** `u32 errno | u16 length | text`, then what later versions may add. */
const ERROR_HEAD_BYTES = 6
const ERROR_BYTES_MAX = ERROR_HEAD_BYTES + limits.nbdNameBytesMax + 64

interface Waiting {
  readonly shape: Shape
  readonly answer: Answer<unknown>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout | null
  /** Of a flush: how many writes had been answered when it was asked. */
  readonly covers: number
  chunks: number
  refusal: Refusal | null
}

export class Link {
  readonly agreed: Agreed
  readonly #where: string
  readonly #talk: Talk
  readonly #input: Input
  readonly #out: Outbox
  readonly #requestMs: number | null
  readonly #waiting = new Map<number, Waiting>()
  #cookie = 0
  #over: CheckpointError | null = null
  /** Writes that were answered without being durable, and how many of them a flush has made so. */
  #answered = 0
  #durable = 0

  constructor(talk: Talk, agreed: Agreed, requestMs: number | null) {
    this.agreed = agreed
    this.#talk = talk
    this.#where = talk.where
    this.#input = talk.wire.input
    this.#out = talk.wire.out
    this.#requestMs = requestMs
    void this.#receive()
  }

  /** Why it ended; null while it lives. */
  get over(): CheckpointError | null {
    return this.#over
  }

  /** Writes that were answered and that no flush has covered. */
  get unflushed(): number {
    return this.#answered - this.#durable
  }

  /**
   * `data` must stay as it is until the promise settles.
   * @throws NbdError what the server answers; CheckpointError NBD_CONNECTION_LOST, NBD_PROTOCOL
   */
  ask<T>(shape: Shape, answer: Answer<T>, data: Uint8Array | null): Promise<T> {
    if (this.#over !== null) return Promise.reject(this.#ended(this.#over))
    const cookie = ++this.#cookie
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(cookie, {
        shape,
        answer,
        resolve: resolve as (value: unknown) => void,
        reject,
        timer: this.#deadline(),
        covers: this.#answered,
        chunks: 0,
        refusal: null,
      })
      const request = encodeRequest(shape, cookie)
      this.#out.send(data === null ? [request] : [request, data])
    })
  }

  /** Leaves in order, within `waitMs`. Whoever still waits is told that it was closed. */
  async close(waitMs: number): Promise<void> {
    if (this.#over !== null) return
    const reason = lost(this.#where, 'ended', 'it was closed')
    const late = setTimeout(() => this.end(reason), waitMs)
    this.#out.send([encodeRequest({ command: 'disc', flags: 0, offset: 0, length: 0 }, ++this.#cookie)])
    await this.#out.flushed()
    clearTimeout(late)
    this.end(reason)
  }

  /** Ends it now; whoever waits is told this. The first reason stays. */
  end(reason: CheckpointError): void {
    if (this.#over !== null) return
    this.#over = reason
    this.#input.stop(reason.message)
    this.#talk.wire.socket.destroy()
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const { timer, reject } of waiting) {
      clearTimeout(timer ?? undefined)
      reject(this.#ended(reason))
    }
  }

  /** Each who waits gets an error of their own: it shows where they asked. */
  #ended({ code, message, facts, cause }: CheckpointError): CheckpointError {
    return new CheckpointError(code, message, facts, cause)
  }

  /** One that hangs hangs the disk: the connection is given up as a whole, since an answer may come for ever after. */
  #deadline(): NodeJS.Timeout | null {
    if (this.#requestMs === null) return null
    const said = `a request was not answered within ${this.#requestMs} ms`
    return setTimeout(() => this.end(lost(this.#where, 'deadline', said)), this.#requestMs)
  }

  async #receive(): Promise<void> {
    try {
      while (this.#over === null) {
        const bytes = this.#input.take(REPLY_HEAD_BYTES) ?? (await this.#input.bytes(REPLY_HEAD_BYTES))
        const head = decodeReplyHead(bytes)
        if (head === null) throw new Unsound('what came is no reply')
        const waiting = this.#waiting.get(head.cookie)
        if (waiting === undefined) throw new Unsound(`a reply to request ${head.cookie}, which nobody asked`)
        if (head.kind === 'simple') await this.#simple(head, waiting)
        else await this.#chunk(head, waiting)
      }
    } catch (error) {
      this.end(
        error instanceof Unsound
          ? broken(this.#where, error.message)
          : lost(
              this.#where,
              'closed',
              error instanceof Disconnected ? 'the server closed it' : String(error),
              {},
              error,
            ),
      )
    }
  }

  async #simple({ errno, cookie }: Extract<ReplyHead, { kind: 'simple' }>, waiting: Waiting): Promise<void> {
    const { answer } = waiting
    if (answer.simpleBytes === null || waiting.chunks > 0)
      throw new Unsound('a simple reply where a structured one was agreed')
    if (errno !== 0) waiting.refusal = { errno: errnoOf(errno), number: errno, said: '' }
    else if (answer.simpleBytes > 0) answer.simple(await this.#input.bytes(answer.simpleBytes))
    this.#settle(cookie, waiting)
  }

  async #chunk(head: Extract<ReplyHead, { kind: 'chunk' }>, waiting: Waiting): Promise<void> {
    if (!this.agreed.structured) throw new Unsound('a structured reply, which was not agreed')
    const { type, flags, cookie } = head
    const length = (this.#input.take(4) ?? (await this.#input.bytes(4))).readUInt32BE()
    const done = (flags & CHUNK_DONE) !== 0
    if (++waiting.chunks > limits.nbdChunksMax) throw new Unsound(`more than ${limits.nbdChunksMax} chunks`)
    if ((type & ERROR_BIT) !== 0) await this.#error(length, waiting)
    else if (type !== CHUNK.none) await waiting.answer.chunk(type, length, this.#input)
    else if (length !== 0 || !done) throw new Unsound('a chunk of nothing that is not the last')
    if (done && this.#over === null) this.#settle(cookie, waiting)
  }

  /** The first one counts. */
  async #error(length: number, waiting: Waiting): Promise<void> {
    if (length < ERROR_HEAD_BYTES || length > ERROR_BYTES_MAX)
      throw new Unsound(`an error of ${length} bytes`)
    const bytes = await this.#input.bytes(length)
    const number = bytes.readUInt32BE()
    const end = ERROR_HEAD_BYTES + bytes.readUInt16BE(4)
    if (number === 0 || end > length) throw new Unsound('an error in a wrong shape')
    waiting.refusal ??= {
      errno: errnoOf(number),
      number,
      said: saidBy(bytes.subarray(ERROR_HEAD_BYTES, end)),
    }
  }

  #settle(cookie: number, { shape, answer, resolve, reject, timer, covers, refusal }: Waiting): void {
    const value = refusal === null ? answer.whole() : null // Throws what makes the connection end, with this one still waiting.
    this.#waiting.delete(cookie)
    clearTimeout(timer ?? undefined)
    if (refusal !== null) reject(asError(shape, refusal))
    else {
      this.#count(shape, covers)
      resolve(value)
    }
  }

  /** Here and not where the promise is awaited: the connection may end before anybody is woken. */
  #count({ command, flags }: Shape, covers: number): void {
    switch (command) {
      case 'write':
      case 'writeZeroes':
      case 'trim':
        if ((flags & FLAG.fua) === 0) this.#answered++
        return
      case 'flush':
        this.#durable = Math.max(this.#durable, covers)
        return
      case 'read':
      case 'cache':
      case 'blockStatus':
      case 'disc':
        return
      default:
        command satisfies never
    }
  }
}

function asError({ command, offset, length }: Shape, { errno, number, said }: Refusal): NbdError {
  const what = command === 'flush' ? 'flush' : `${command} of ${length} bytes at ${offset}`
  return new NbdError(
    errno,
    `the NBD server refused a ${what} with error ${number} (${errno})${said && `: ${said}`}`,
  )
}
