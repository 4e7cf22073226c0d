/**
 * What every command works with: the store it opens and surely closes, the signal of Ctrl-C, and one way to answer that
 * is JSON for programs and text for people.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { CheckpointError } from '../errors.ts'
import { reachOwner } from '../owner/client.ts'
import { removeStaleSocket } from '../owner/socket.ts'
import { openStore } from '../store/open.ts'
import type { Store } from '../store/store.ts'
import type { Clock, CommandOptions } from '../store/types.ts'
import { OwnerFound } from './ask-owner.ts'
import { UsageError } from './exit.ts'
import { type Io, writeOut } from './io.ts'
import { type Paint, paintFor } from './render/paint.ts'
import { type Progress, progressBar } from './render/progress.ts'
import { shown } from './render/text.ts'

/** A run in the process that owns the store, for another one that asked it (R34). */
export interface RunAt {
  /** Open, and left open. */
  readonly store: Store
  /** Of this process. */
  readonly pid: number
}

export interface GlobalOptions {
  readonly store?: string
  readonly json?: boolean
  readonly actor?: string
  readonly commandId?: string
}

/** An owner that does not answer at once may be busy, or stopped: its asker is told whom it waits for. */
const WAITING_MS = 3000

export class Session {
  readonly paint: Paint
  #exit = 0
  #endsWhenStopped = false
  #action: Command | undefined
  readonly #instead = new Map<string, string>()

  /** `live`: this runs in the process that owns the store, for whoever asked it. */
  constructor(
    readonly io: Io,
    readonly signal: AbortSignal,
    readonly program: Command,
    readonly live?: RunAt,
  ) {
    this.paint = paintFor(io.stdout, io.env)
    program.hook('preAction', (_, action) => {
      this.#action = action
    })
  }

  /** Who answers, when that is not the process that was called. */
  get owner(): { readonly pid: number } | null {
    return this.live === undefined ? null : { pid: this.live.pid }
  }

  /** The command that was called, once it runs. */
  get action(): Command | undefined {
    return this.#action
  }

  /**
   * A file's content in words, for whoever runs this command line next: a pipe is read once, and where it was named is not always
   * where it can be read.
   */
  sayInstead(flag: string, words: string): void {
    this.#instead.set(flag, words)
  }

  /** The command line with what is said instead of its own words. */
  inWords(argv: readonly string[]): string[] {
    return argv.map((word, i) => {
      const whole = this.#instead.get(argv[i - 1] ?? '')
      if (whole !== undefined) return whole
      const [, flag = ''] = /^(--[a-z-]+)=/.exec(word) ?? []
      const joined = this.#instead.get(flag)
      return joined === undefined ? word : `${flag}=${joined}`
    })
  }

  get options(): GlobalOptions {
    return this.program.opts<GlobalOptions>()
  }

  get exit(): number {
    return this.#exit
  }

  /** For answers that are no failure of the command itself: `verify` found something. */
  setExit(code: number): void {
    this.#exit = code
  }

  /** Being stopped is how this command ends, and no cancelling of it. */
  endsWhenStopped(): void {
    this.#endsWhenStopped = true
  }

  get wasCancelled(): boolean {
    return this.signal.aborted && !this.#endsWhenStopped
  }

  get folder(): string {
    const folder = this.options.store ?? this.io.env.SLICELOG_STORE
    if (folder === undefined || folder === '') {
      throw new UsageError('Which store? Give --store DIR, or set SLICELOG_STORE.')
    }
    return folder
  }

  /** A file named on the command line: relative to where that was typed, which is not always where this runs. */
  path(words: string): string {
    if (words === '') throw new UsageError('A file or folder was named by an empty word; give a path.')
    return this.io.cwd === undefined ? words : resolve(this.io.cwd, words)
  }

  /** With the actor: the store may be an owner's, which acts under another name. */
  get commandOptions(): CommandOptions {
    const { commandId } = this.options
    return { actor: this.#actor, ...(commandId === undefined ? {} : { commandId }) }
  }

  get #actor(): string {
    return this.options.actor ?? 'cli'
  }

  /**
   * Opens the store, works, closes it whatever happened. Only `init` makes one. When another process serves the store, the whole
   * command line goes there instead, so nothing may have been printed or changed before this is called.
   */
  async withStore<T>(
    work: (store: Store) => Promise<T>,
    { create = false, clock }: { readonly create?: boolean; readonly clock?: Clock | undefined } = {},
  ): Promise<T> {
    if (this.live !== undefined) return await work(this.live.store)
    const store = await this.#unlessServed((folder) =>
      openStore(folder, { create, actor: this.#actor, ...(clock === undefined ? {} : { clock }) }),
    )
    if (store.folder !== null) removeStaleSocket(store.folder)
    try {
      return await work(store)
    } finally {
      await store.close()
    }
  }

  /** For what looks at a closed store's files itself, and at an open one another way. */
  async withFolder<T>(
    closed: (folder: string) => Promise<T>,
    live: (store: Store) => Promise<T>,
  ): Promise<T> {
    if (this.live !== undefined) return await live(this.live.store)
    return await this.#unlessServed(closed)
  }

  /** An owner that is there is asked; one that comes just then, too. One that went leaves a store to open. */
  async #unlessServed<T>(open: (folder: string) => Promise<T>): Promise<T> {
    const folder = this.path(this.folder)
    await this.#askOwnerOf(folder)
    try {
      return await open(folder)
    } catch (error) {
      if (error instanceof CheckpointError && error.code === 'STORE_IN_USE') await this.#askOwnerOf(folder)
      throw error
    }
  }

  /** Throws OwnerFound where somebody answers. */
  async #askOwnerOf(folder: string): Promise<void> {
    const waiting = setTimeout(
      () => this.note(`slicelog: waiting for the process that owns ${folder} (Ctrl-C gives up)`),
      WAITING_MS,
    )
    try {
      const connection = await reachOwner(folder, this.signal)
      if (connection !== undefined) throw new OwnerFound(connection, folder)
    } finally {
      clearTimeout(waiting)
    }
  }

  /** The command's answer. `text` is asked only when it is for people. */
  async answer(json: unknown, text: () => string): Promise<void> {
    await this.print(this.options.json === true ? JSON.stringify(json) : text())
  }

  /** An answer that is plain words, a line each, with names in them that are not ours. */
  async confirm(json: unknown, words: () => string | readonly string[]): Promise<void> {
    await this.answer(json, () => [words()].flat().map(shown).join('\n'))
  }

  /** Throws once nobody reads any more, so that what would be printed is not made. */
  async print(text: string): Promise<void> {
    if (this.io.stdout.destroyed === true) throw new DOMException('Nobody reads the output.', 'AbortError')
    await writeOut(this.io.stdout, text.endsWith('\n') ? text : `${text}\n`)
  }

  /** A remark beside the answer; never on stdout, never with --json. */
  note(text: string): void {
    if (this.options.json !== true) this.io.stderr.write(`${shown(text)}\n`)
  }

  progress(label: string): Progress {
    return progressBar(this.io.stderr, label)
  }
}
