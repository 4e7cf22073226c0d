/**
 * A QMP client over a unix socket: one JSON object a line, a greeting, a negotiation, then commands with ids. Events
 * are kept until somebody waits for them, because QEMU may tell an event before it answers the command that caused it.
 */
import { connect, type Socket } from 'node:net'

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }
export type Arguments = Readonly<Record<string, Json>>

/** QEMU's refusal, with its own class and text. */
export class QmpError extends Error {
  override readonly name = 'QmpError'
  constructor(
    readonly errorClass: string,
    readonly desc: string,
  ) {
    super(`${errorClass}: ${desc}`)
  }
}

export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, Json>>
}

interface Answer {
  readonly QMP?: unknown
  readonly return?: unknown
  readonly error?: { readonly class: string; readonly desc: string }
  readonly event?: string
  readonly data?: Readonly<Record<string, Json>>
  readonly id?: number
}

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (reason: Error) => void
}

export class Qmp {
  readonly #socket: Socket
  readonly #pending = new Map<number, Pending>()
  readonly #listeners = new Set<() => void>()
  #events: QmpEvent[] = []
  #text = ''
  #id = 0
  #ended: Error | undefined
  #greeted: () => void = () => {}

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => this.#take(chunk))
    socket.on('error', (error) => this.#end(error))
    socket.on('close', () => this.#end(new Error('QMP connection closed')))
  }

  /** Connects to a socket that listens already, waits for the greeting and negotiates. */
  static async connect(path: string): Promise<Qmp> {
    const socket = connect(path)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    const qmp = new Qmp(socket)
    await new Promise<void>((resolve) => {
      qmp.#greeted = resolve
    })
    await qmp.execute('qmp_capabilities')
    return qmp
  }

  /** The answer's `return`. Rejects with QmpError when QEMU refuses, with another Error when the connection ends. */
  execute(command: string, args: Arguments = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended)
      const id = ++this.#id
      this.#pending.set(id, { resolve, reject })
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    })
  }

  /** The first event of that name (also an earlier, unread one) that `matches`; it is then forgotten. */
  async waitFor(name: string, matches: (event: QmpEvent) => boolean = () => true): Promise<QmpEvent> {
    for (;;) {
      const index = this.#events.findIndex((event) => event.event === name && matches(event))
      if (index >= 0) return this.#events.splice(index, 1)[0]!
      if (this.#ended !== undefined) throw this.#ended
      await new Promise<void>((resolve) => {
        const listener = () => {
          this.#listeners.delete(listener)
          resolve()
        }
        this.#listeners.add(listener)
      })
    }
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(chunk: string): void {
    this.#text += chunk
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end).trim()
      this.#text = this.#text.slice(end + 1)
      if (line !== '') this.#dispatch(JSON.parse(line) as Answer)
    }
  }

  #dispatch(answer: Answer): void {
    if (answer.QMP !== undefined) {
      this.#greeted()
      return
    }
    if (answer.event !== undefined) {
      this.#events.push({ event: answer.event, data: answer.data ?? {} })
      if (this.#events.length > 1000) this.#events = this.#events.slice(-500)
      for (const listener of [...this.#listeners]) listener()
      return
    }
    const pending = answer.id === undefined ? undefined : this.#pending.get(answer.id)
    if (pending === undefined || answer.id === undefined) return
    this.#pending.delete(answer.id)
    if (answer.error !== undefined) pending.reject(new QmpError(answer.error.class, answer.error.desc))
    else pending.resolve(answer.return)
  }

  #end(reason: Error): void {
    this.#ended ??= reason
    for (const pending of this.#pending.values()) pending.reject(this.#ended)
    this.#pending.clear()
    for (const listener of [...this.#listeners]) listener()
    this.#greeted()
  }
}
