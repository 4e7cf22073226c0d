/**
 * An NBD client: any server's export as bytes at offsets. It checks what is asked, cuts it into requests that the server takes, and
 * keeps as many of them on their way as it may. It costs what is on its way (64 MiB at most, unless told otherwise) and what its
 * callers asked to read.
 */
import { limits } from '../../limits.ts'
import { Calls } from '../calls.ts'
import { NbdError } from '../errors.ts'
import { RUN_BYTES } from '../runs.ts'
import { type Command, FLAG } from '../wire.ts'
import { type Address, addressText } from './address.ts'
import { Done } from './answer.ts'
import { cutExtents, followExtents } from './extents.ts'
import { contextMissing, lost } from './failures.ts'
import type { Agreed } from './handshake.ts'
import { infoOf } from './info.ts'
import type { Lifeline } from './lifeline.ts'
import { checkAligned, checkRange, piecesOf, type Range, widened } from './ranges.ts'
import { ReadAnswer } from './read-answer.ts'
import { type Status, StatusAnswer } from './status-answer.ts'
import { Turns, unlessAborted } from './turns.ts'
import type { ConnectNbdOptions, NbdExportInfo, NbdExtent } from './types.ts'
import type { Shape } from './wire.ts'

/** Requests without bytes of their own may be as long as 32 bits say, in whole blocks of whatever size. */
const SPAN_BYTES_MAX = 2 ** 31

type Changing = Extract<Command, 'write' | 'writeZeroes' | 'trim'>

export class NbdClient {
  /** What the server said about the export. */
  readonly info: NbdExportInfo
  readonly #where: string
  readonly #line: Lifeline
  readonly #turns: Turns
  readonly #contexts: number
  readonly #calls: Calls

  /** For `connectNbd`. */
  constructor(
    address: Address,
    line: Lifeline,
    { requestsMax, bytesMax }: Pick<ConnectNbdOptions, 'requestsMax' | 'bytesMax'>,
  ) {
    this.info = infoOf(address, line.agreed)
    this.#where = addressText(address)
    this.#line = line
    this.#turns = new Turns(requestsMax ?? limits.nbdClientRequestsMax, bytesMax ?? limits.nbdClientBytesMax)
    this.#contexts = this.info.contexts.length
    this.#calls = new Calls(() => lost(this.#where, 'ended', 'it was closed'))
  }

  /**
   * `length` bytes from `offset` on, both in bytes and at any place: where the server has larger blocks, those are read.
   * @throws CheckpointError RANGE_OUTSIDE_DISK, ABORTED, NBD_CONNECTION_LOST, NBD_PROTOCOL; NbdError what the server answers
   */
  async read(offset: number, length: number, { signal }: { signal?: AbortSignal } = {}): Promise<Buffer> {
    checkRange({ offset, length }, this.info.size)
    if (length === 0) return Buffer.alloc(0)
    return this.#calls.run(() => this.#read(offset, length, signal))
  }

  /**
   * The bytes must stay as they are until the promise settles. With `fua` they are durable then.
   * @throws CheckpointError RANGE_OUTSIDE_DISK, NBD_UNALIGNED, NBD_CONNECTION_LOST, NBD_PROTOCOL; NbdError what the server answers, EPERM for an export that is read-only
   */
  async write(offset: number, data: Uint8Array, { fua = false }: { fua?: boolean } = {}): Promise<void> {
    if (!(data instanceof Uint8Array)) throw new TypeError('data must be a Uint8Array or a Buffer')
    const range = { offset, length: data.length }
    await this.#change('write', range, this.info.blockSize.maximum, 0, fua, (piece) =>
      data.subarray(piece.offset - offset, piece.offset - offset + piece.length),
    )
  }

  /**
   * `noHole`: the range must stay allocated. `fast`: refuse (ENOTSUP) where it is not faster than a write.
   * @throws as write; NbdError ENOTSUP where the server has no zeroes, or none that are `fast`
   */
  async zero(
    offset: number,
    length: number,
    { fua = false, noHole = false, fast = false }: { fua?: boolean; noHole?: boolean; fast?: boolean } = {},
  ): Promise<void> {
    this.#needs(this.info.canZero, 'zeroes')
    if (fast) this.#needs(this.info.canFastZero, 'fast zeroes')
    const flags = (noHole ? FLAG.noHole : 0) | (fast ? FLAG.fastZero : 0)
    await this.#change('writeZeroes', { offset, length }, this.info.blockSize.maximum, flags, fua)
  }

  /** The bytes there are of no more use; what is read there afterwards is the server's choice. @throws as zero */
  async trim(offset: number, length: number, { fua = false }: { fua?: boolean } = {}): Promise<void> {
    this.#needs(this.info.canTrim, 'discards')
    await this.#change('trim', { offset, length }, SPAN_BYTES_MAX, 0, fua)
  }

  /**
   * What was answered before this call is durable when it resolves.
   * @throws CheckpointError NBD_CONNECTION_LOST (`why: unflushed`) once after a loss that may have taken such writes with it; NbdError ENOTSUP where the server cannot
   */
  async flush(): Promise<void> {
    this.#needs(this.info.canFlush, 'flushes')
    await this.#calls.run(() => this.#flush())
  }

  /** Asks the server to have these bytes at hand. @throws as read; NbdError ENOTSUP */
  async cache(offset: number, length: number): Promise<void> {
    this.#needs(this.info.canCache, 'a cache')
    checkRange({ offset, length }, this.info.size)
    const { minimum, maximum } = this.info.blockSize
    const blocks = widened({ offset, length }, minimum)
    const cache = (piece: Range): Promise<void> =>
      this.#turns.take(0, undefined, () => this.#line.ask(shape('cache', piece), () => new Done()))
    await this.#calls.run(() => this.#each(blocks, maximum, cache))
  }

  /**
   * One question and one answer: for each context extents from `offset` on, in order and without a gap, as far as the server
   * cares to say; `one` asks for a single extent each. `extents` goes on to the end.
   * @throws CheckpointError RANGE_OUTSIDE_DISK, NBD_CONTEXT_MISSING where none was asked for, and as read
   */
  async blockStatus(
    offset: number,
    length: number,
    { one = false, signal }: { one?: boolean; signal?: AbortSignal } = {},
  ): Promise<ReadonlyMap<string, readonly NbdExtent[]>> {
    checkRange({ offset, length }, this.info.size)
    if (length === 0) throw new RangeError('length must be at least 1: nothing has no status')
    const { status, from, asked } = await this.#status({ offset, length }, one, signal)
    return new Map([...status].map(([name, runs]) => [name, [...cutExtents(runs, from, asked)]]))
  }

  /**
   * Extents of one context over a range (default: all of the export), neighbours with the same flags joined, asked for as they are
   * taken. A connection that is lost meanwhile is followed by another one, and what the context says may be of a later moment then.
   * @throws CheckpointError NBD_CONTEXT_MISSING for a context that was not asked for, and as blockStatus
   */
  extents(
    context: string,
    {
      offset = 0,
      length = this.info.size - offset,
      signal,
    }: { offset?: number; length?: number; signal?: AbortSignal } = {},
  ): AsyncIterable<NbdExtent> {
    this.#refuseContext(context)
    checkRange({ offset, length }, this.info.size)
    return followExtents({ offset, length }, async (range) => {
      const { status, from, asked } = await this.#status(range, false, signal)
      return cutExtents(status.get(context)!, from, asked)
    })
  }

  /**
   * Waits for what was asked (5 s at most), then leaves. It flushes nothing: what must be durable has to be flushed before.
   */
  async close(): Promise<void> {
    await this.#calls.end(limits.nbdClientCloseMs)
    await this.#line.close(limits.nbdClientCloseMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #read(offset: number, length: number, signal: AbortSignal | undefined): Promise<Buffer> {
    const { minimum, maximum } = this.info.blockSize
    const blocks = widened({ offset, length }, minimum)
    const read = (piece: Range): Promise<Buffer> => {
      const answer = ({ structured }: Agreed) => new ReadAnswer(piece.offset, piece.length, structured)
      return unlessAborted(
        signal,
        this.#turns.take(piece.length, signal, () => this.#line.ask(shape('read', piece), answer)),
      )
    }
    if (blocks.length <= maximum) {
      const bytes = await read(blocks)
      return bytes.subarray(offset - blocks.offset, offset - blocks.offset + length)
    }
    const all = Buffer.allocUnsafe(blocks.length)
    await this.#each(blocks, maximum, async (piece) => {
      all.set(await read(piece), piece.offset - blocks.offset)
    })
    return all.subarray(offset - blocks.offset, offset - blocks.offset + length)
  }

  async #flush(): Promise<void> {
    await this.#turns.take(0, undefined, () =>
      this.#line.ask(shape('flush', { offset: 0, length: 0 }), () => new Done()),
    )
  }

  /** Whole blocks are asked for; `asked` is what of the range the answer is about. */
  async #status(
    range: Range,
    one: boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly status: Status; readonly from: number; readonly asked: Range }> {
    if (this.#contexts === 0) this.#refuseContext()
    const { minimum } = this.info.blockSize
    const length = Math.min(range.length, SPAN_BYTES_MAX - minimum)
    const asked = widened({ offset: range.offset, length }, minimum)
    const extents = one ? 1 : Math.min(limits.nbdClientExtentsMax, asked.length / minimum)
    const answer = ({ contexts }: Agreed) =>
      new StatusAnswer(asked.length, range.offset - asked.offset, one, contexts)
    const question = shape('blockStatus', asked, one ? FLAG.reqOne : 0)
    const bytes = extents * RUN_BYTES * this.#contexts
    const status = await this.#calls.run(() =>
      unlessAborted(
        signal,
        this.#turns.take(bytes, signal, () => this.#line.ask(question, answer)),
      ),
    )
    // A last extent that reaches further is good for all of the range that it reaches.
    return { status, from: asked.offset, asked: range }
  }

  async #change(
    command: Changing,
    range: Range,
    max: number,
    flags: number,
    fua: boolean,
    data: (piece: Range) => Uint8Array | null = () => null,
  ): Promise<void> {
    const { size, readOnly, canFua, blockSize } = this.info
    checkRange(range, size)
    if (readOnly) throw new NbdError('EPERM', `export "${this.info.name}" at ${this.#where} is read-only`)
    checkAligned(range, blockSize.minimum)
    if (fua && !canFua) this.#needs(this.info.canFlush, 'durable writes')
    const all = flags | (fua && canFua ? FLAG.fua : 0)
    await this.#calls.run(async () => {
      await this.#each(range, max, (piece) => {
        const bytes = data(piece)
        return this.#turns.take(bytes?.length ?? 0, undefined, () =>
          this.#line.ask(shape(command, piece, all), () => new Done(), bytes),
        )
      })
      if (fua && !canFua && range.length > 0) await this.#flush()
    })
  }

  /** Side by side, and done when all of them are: nobody still uses the caller's bytes when one has failed. */
  async #each(range: Range, max: number, ask: (piece: Range) => Promise<void>): Promise<void> {
    const failures: unknown[] = []
    const running = new Set<Promise<void>>()
    for (const piece of piecesOf(range, max)) {
      if (failures.length > 0) break
      const one = ask(piece)
        .catch((error: unknown) => void failures.push(error))
        .finally(() => running.delete(one))
      running.add(one)
      if (running.size >= limits.nbdClientRequestsMax) await Promise.race(running)
    }
    await Promise.all(running)
    if (failures.length > 0) throw failures[0]
  }

  #needs(can: boolean, what: string): void {
    if (!can) throw new NbdError('ENOTSUP', `export "${this.info.name}" at ${this.#where} has no ${what}`)
  }

  #refuseContext(name?: string): void {
    const { contexts } = this.info
    if (name !== undefined && contexts.includes(name)) return
    const why = 'it was not asked for; name it in `contexts` when you connect'
    throw contextMissing(this.#where, this.info.name, name === undefined ? [] : [name], contexts, why)
  }
}

function shape(command: Command, { offset, length }: Range, flags = 0): Shape {
  return { command, flags, offset, length }
}
