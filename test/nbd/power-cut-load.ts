/**
 * The load of the proofs of power cuts, by a client on the server's Unix socket: writes of up to 256 KiB, many on the same few
 * places, zeroes, discards, flushes and FUA, with checkpoints, backups and a trace of another disk by the command line in between.
 * It notes when each was sent and answered.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PointInput } from '../../src/store/types.ts'
import { captured, slicelog } from '../cli/support.ts'
import { KiB } from './disk-support.ts'
import { Client, CMD } from './support.ts'

export const SIZE = 8 * 1024 * KiB - 777
export const GRANULE = 4 * KiB
const FUA = 1
const NO_HOLE = 2

/** Times are ms since the epoch; `sent` is not after the request was sent, `acked` not before it was answered. */
export interface Change {
  readonly kind: 'write' | 'zero' | 'trim'
  readonly offset: number
  readonly length: number
  readonly fua: boolean
  readonly sent: number
  acked: number
  /** When its bytes were promised to survive: answered itself with FUA, or a flush that was sent after it was answered. */
  durable: number
}

/** A point that was taken and answered. */
export interface Marked {
  readonly kind: 'checkpoint' | 'backup'
  readonly name: string
  readonly since: PointInput
  readonly acked: number
}

export interface LoadOptions {
  readonly requests: number
  /** Requests in flight at the same time. */
  readonly depth: number
  /** So many writes of another disk come in by a trace meanwhile, for LevelDB to change its files. Default 0. */
  readonly imported?: number
}

/** What the client does. No two requests in flight touch the same bytes, so the recording tells what the file holds. */
export class Load {
  readonly changes: Change[] = []
  readonly marks: Marked[] = []
  readonly #random: () => number
  readonly #busy = new Map<number, Change | { readonly kind: 'flush'; readonly sent: number }>()
  readonly #hot: readonly number[]
  #client: Client | undefined
  #cookie = 0
  #answered: () => void = () => undefined

  constructor(
    readonly path: string,
    readonly root: string,
    readonly options: LoadOptions,
    random: () => number,
  ) {
    this.#random = random
    this.#hot = Array.from({ length: 5 }, () => this.#below(SIZE / GRANULE) * GRANULE)
  }

  async run(): Promise<void> {
    const client = await new Client(join(this.path, 'nbd.sock')).go('vda')
    this.#client = client
    const { requests, depth, imported = 0 } = this.options
    const listening = this.#listen(client)
    const others = [this.#points(requests / 40), imported > 0 ? this.#import(imported) : undefined]
    let marking = true
    const marked = Promise.all(others).finally(() => {
      marking = false
    })
    while (marking || this.#cookie < requests) {
      while (this.#busy.size >= depth)
        await new Promise<void>((resolve) => {
          this.#answered = resolve
        })
      this.#send()
      // Points are slower than writes: what comes while the last of them are taken need not be much.
      if (this.#cookie > requests) await sleep(20)
      else if (this.#random() < 0.1) await sleep(this.#below(4))
    }
    await marked
    // What is in flight at the end stays so: the process is killed, or stopped, over it.
    client.socket.destroy()
    await listening
  }

  #below = (n: number): number => Math.floor(this.#random() * n)

  #send(): void {
    const cookie = ++this.#cookie
    const kind = this.#random()
    if (kind < 0.06) {
      this.#busy.set(cookie, { kind: 'flush', sent: Date.now() })
      this.#client!.ask({ type: CMD.flush, cookie })
      return
    }
    const { offset, length } = this.#place()
    if (
      [...this.#busy.values()].some(
        (one) => one.kind !== 'flush' && one.offset < offset + length && offset < one.offset + one.length,
      )
    )
      return
    const fua = this.#random() < 0.05
    const change: Change = {
      kind: kind < 0.8 ? 'write' : kind < 0.92 ? 'zero' : 'trim',
      offset,
      length,
      fua,
      sent: Date.now(),
      acked: Number.POSITIVE_INFINITY,
      durable: Number.POSITIVE_INFINITY,
    }
    this.changes.push(change)
    this.#busy.set(cookie, change)
    const flags = (fua ? FUA : 0) | (change.kind === 'zero' && this.#random() < 0.5 ? NO_HOLE : 0)
    if (change.kind === 'write')
      this.#client!.ask({ type: CMD.write, cookie, flags, offset, data: this.#bytes(length) })
    else
      this.#client!.ask({ type: change.kind === 'zero' ? CMD.zero : CMD.trim, cookie, flags, offset, length })
  }

  #place(): { offset: number; length: number } {
    const hot = this.#random() < 0.4
    const offset = hot ? this.#hot[this.#below(this.#hot.length)]! : this.#below(SIZE / 512) * 512
    const length =
      hot || this.#random() < 0.6 ? 1 + this.#below(2 * GRANULE) : GRANULE * (1 + this.#below(64))
    return { offset, length: Math.min(length, SIZE - offset) }
  }

  /** Never twice the same. */
  #bytes(length: number): Buffer {
    const word = Buffer.alloc(8)
    word.writeDoubleLE(this.#random())
    return Buffer.alloc(length, word)
  }

  async #listen(client: Client): Promise<void> {
    for (let reply = await client.reply(); reply !== null; reply = await client.reply()) {
      const asked = this.#busy.get(reply.cookie)
      if (asked === undefined || reply.errno !== 0) throw new Error(`an answer with errno ${reply.errno}`)
      this.#busy.delete(reply.cookie)
      const now = Date.now() + 1
      if (asked.kind === 'flush') {
        for (const change of this.changes)
          if (change.acked <= asked.sent && change.durable > now) change.durable = now
      } else {
        asked.acked = now
        if (asked.fua) asked.durable = now
      }
      this.#answered()
    }
  }

  async #points(count: number): Promise<void> {
    for (let i = 1; i <= count; i++) {
      await sleep(this.#below(60))
      if (this.#random() < 0.5) {
        await this.#ask('checkpoint', 'create', `point-${i}`)
        this.#mark('checkpoint', `point-${i}`, { checkpoint: `point-${i}` })
        continue
      }
      const id = `backup-${i}`
      const mode = ['full', 'incremental', 'differential'][this.#below(3)]!
      await this.#ask('backup', 'begin', 'vda', 'daily', '--mode', mode, '--id', id)
      this.#mark('backup', id, { backup: id })
      await sleep(this.#below(40))
      await this.#ask('backup', this.#random() < 0.7 ? 'succeed' : 'fail', id)
    }
  }

  #mark(kind: Marked['kind'], name: string, since: PointInput): void {
    this.marks.push({ kind, name, since, acked: Date.now() + 1 })
  }

  async #import(count: number): Promise<void> {
    const file = join(this.root, 'other.csv')
    // Nothing that a record could shorten.
    const row = () => `${this.#below(2 ** 26) * 512},${512 * (1 + this.#below(2 ** 16))},0,w`
    const lines = Array.from({ length: count }, row)
    writeFileSync(file, `offset,length,t_us,op\n${lines.join('\n')}\n`)
    await this.#ask('import', 'other', file)
  }

  async #ask(...words: string[]): Promise<void> {
    const { code, err } = await slicelog(['--store', this.path, ...words], captured())
    if (code !== 0) throw new Error(`slicelog ${words.join(' ')}: ${err}`)
  }
}
