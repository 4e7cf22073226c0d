/**
 * A connection that comes back. What was asked when it was lost is asked again on the next one: reads, and writes too, since each
 * of them says what a place must hold. What cannot be asked again is a promise of the past: a server may have started anew and
 * forgotten what it had answered, so the first flush after a loss is refused if anything was left unflushed by it.
 * It connects again when somebody asks, not before; while it does, all who ask wait for the one attempt.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { CheckpointError, messageOf } from '../../errors.ts'
import { NbdError } from '../errors.ts'
import { type Address, addressText } from './address.ts'
import type { Answer } from './answer.ts'
import { lost } from './failures.ts'
import type { Agreed } from './handshake.ts'
import type { Link } from './link.ts'
import { type LinkOptions, openLink } from './open-link.ts'
import type { NbdReconnect } from './types.ts'
import type { Shape } from './wire.ts'

const DELAY_MS = 100
const DELAY_MAX_MS = 10_000

type State =
  | { readonly kind: 'linked'; readonly link: Link }
  | { readonly kind: 'linking'; readonly link: Promise<Link> }
  | { readonly kind: 'over'; readonly reason: CheckpointError }

export class Lifeline {
  readonly #address: Address
  readonly #where: string
  readonly #options: LinkOptions
  readonly #reconnect: NbdReconnect | null
  readonly #agreed: Agreed
  readonly #closing = new AbortController()
  #state: State
  /** Losses that left writes unflushed, how many of these losses a flush was refused for, and the writes. */
  #losses = 0
  #told = 0
  #unflushed = 0

  constructor(address: Address, options: LinkOptions, reconnect: NbdReconnect | null, first: Link) {
    this.#address = address
    this.#where = addressText(address)
    this.#options = options
    this.#reconnect = reconnect
    this.#agreed = first.agreed
    this.#state = { kind: 'linked', link: first }
  }

  get agreed(): Agreed {
    return this.#agreed
  }

  /**
   * `answer` makes a new one for each time that it is asked, for the connection on which that is.
   * @throws NbdError; CheckpointError NBD_CONNECTION_LOST, NBD_PROTOCOL, or what ended the attempts to connect
   */
  async ask<T>(
    shape: Shape,
    answer: (agreed: Agreed) => Answer<T>,
    data: Uint8Array | null = null,
  ): Promise<T> {
    const told = this.#told
    for (let again = this.#reconnect?.attempts ?? 0; ; again--) {
      const link = await this.#linked()
      if (shape.command === 'flush') this.#refuseDoubt(told)
      try {
        return await link.ask(shape, answer(link.agreed), data)
      } catch (error) {
        if (again <= 0 || !this.#isLoss(link, error)) throw error
      }
    }
  }

  /** Leaves in order, within `waitMs`; nothing can be asked any more. */
  async close(waitMs: number): Promise<void> {
    const state = this.#state
    const reason = lost(this.#where, 'ended', 'it was closed')
    this.#state = { kind: 'over', reason }
    this.#closing.abort(reason)
    if (state.kind === 'linked') await state.link.close(waitMs)
  }

  /** A server that says it is going away is gone. */
  #isLoss(link: Link, error: unknown): boolean {
    if (error instanceof NbdError && error.errno === 'ESHUTDOWN') {
      link.end(lost(this.#where, 'shut-down', error.message, {}, error))
      return true
    }
    return error instanceof CheckpointError && error.code === 'NBD_CONNECTION_LOST'
  }

  #refuseDoubt(told: number): void {
    if (this.#losses <= told) return
    this.#told = this.#losses
    const writes = this.#unflushed
    this.#unflushed = 0
    throw lost(
      this.#where,
      'unflushed',
      `${writes} writes that were answered before may not be on the disk, so this flush cannot make them durable; ` +
        'write again what was written since the last flush that succeeded, then flush',
      { writes },
    )
  }

  async #linked(): Promise<Link> {
    const state = this.#state
    switch (state.kind) {
      case 'over':
        throw new CheckpointError(
          state.reason.code,
          state.reason.message,
          state.reason.facts,
          state.reason.cause,
        )
      case 'linking':
        return state.link
      case 'linked': {
        const { over } = state.link
        if (over === null) return state.link
        this.#remember(state.link)
        if (this.#reconnect === null || over.code !== 'NBD_CONNECTION_LOST') {
          this.#state = { kind: 'over', reason: over }
          throw over
        }
        const link = this.#again(this.#reconnect, over)
        this.#state = { kind: 'linking', link }
        return link
      }
      default:
        return state satisfies never
    }
  }

  #remember({ unflushed }: Link): void {
    if (unflushed === 0) return
    this.#losses++
    this.#unflushed += unflushed
  }

  async #again(reconnect: NbdReconnect, why: CheckpointError): Promise<Link> {
    try {
      const link = await this.#attempts(reconnect, why)
      if (this.#state.kind === 'over') {
        link.end(this.#state.reason)
        throw this.#state.reason
      }
      this.#state = { kind: 'linked', link }
      return link
    } catch (error) {
      if (this.#state.kind === 'over') throw this.#state.reason // Closed meanwhile.
      const reason =
        error instanceof CheckpointError ? error : lost(this.#where, 'attempts', String(error), {}, error)
      this.#state = { kind: 'over', reason }
      throw reason
    }
  }

  async #attempts(
    { attempts, delayMs = DELAY_MS, delayMaxMs = DELAY_MAX_MS }: NbdReconnect,
    why: CheckpointError,
  ): Promise<Link> {
    const { signal } = this.#closing
    let last: unknown = why
    for (let i = 0; i < attempts; i++) {
      await sleep(Math.min(delayMs * 2 ** i, delayMaxMs), undefined, { signal })
      try {
        const link = await openLink(this.#address, { ...this.#options, signal })
        this.#refuseChanged(link)
        return link
      } catch (error) {
        last = error
        if (isFinal(error)) throw error
      }
    }
    throw lost(
      this.#where,
      'attempts',
      `${attempts} attempts to connect again failed: ${saidOf(last)}`,
      { attempts },
      last,
    )
  }

  /** Another disk under the same name must not get this one's writes. */
  #refuseChanged(link: Link): void {
    const before = factsOf(this.#agreed)
    const now = factsOf(link.agreed)
    if (JSON.stringify(before) === JSON.stringify(now)) return
    const reason = lost(this.#where, 'changed', 'connected again, the export is another', { before, now })
    link.end(reason)
    throw reason
  }
}

function factsOf({ size, flags, blockSize, structured }: Agreed) {
  return { size, flags, blockSize, structured }
}

function isFinal(error: unknown): boolean {
  if (!(error instanceof CheckpointError)) return true
  return error.code === 'NBD_PROTOCOL' || error.code === 'ABORTED' || error.facts.why === 'changed'
}

function saidOf(error: unknown): string {
  return messageOf(error)
}
