/**
 * What every command works with: the store it opens and surely closes, the signal of Ctrl-C, and one way to answer that
 * is JSON for programs and text for people.
 */
import type { Command } from 'commander'
import { openStore } from '../store/open.ts'
import type { Store } from '../store/store.ts'
import type { Clock, CommandOptions } from '../store/types.ts'
import { UsageError } from './exit.ts'
import { type Io, writeOut } from './io.ts'
import { type Paint, paintFor } from './render/paint.ts'
import { type Progress, progressBar } from './render/progress.ts'
import { shown } from './render/text.ts'

export interface GlobalOptions {
  readonly store?: string
  readonly json?: boolean
  readonly actor?: string
  readonly commandId?: string
}

export class Session {
  readonly paint: Paint
  #exit = 0

  constructor(
    readonly io: Io,
    readonly signal: AbortSignal,
    readonly program: Command,
  ) {
    this.paint = paintFor(io.stdout, io.env)
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

  get folder(): string {
    const folder = this.options.store ?? this.io.env.SLICELOG_STORE
    if (folder === undefined || folder === '') {
      throw new UsageError('Which store? Give --store DIR, or set SLICELOG_STORE.')
    }
    return folder
  }

  get commandOptions(): CommandOptions {
    const { commandId } = this.options
    return commandId === undefined ? {} : { commandId }
  }

  /** Opens the store, works, closes it whatever happened. Only `init` makes one. */
  async withStore<T>(
    work: (store: Store) => Promise<T>,
    { create = false, clock }: { readonly create?: boolean; readonly clock?: Clock | undefined } = {},
  ): Promise<T> {
    const store = await openStore(this.folder, {
      create,
      actor: this.options.actor ?? 'cli',
      ...(clock === undefined ? {} : { clock }),
    })
    try {
      return await work(store)
    } finally {
      await store.close()
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

  async print(text: string): Promise<void> {
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
