/** A bitmap as its caller holds it: a name on a disk, looked up at every call. */
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { Answer } from '../commands/answer.ts'
import { needObject, needObjects } from './arguments.ts'
import type { Core } from './core.ts'
import type { BankAnswer, BitmapInfo, BitsInfo, CommandOptions, SlicesInfo } from './types.ts'
import type { SliceSelector, StateView } from './view.ts'

export type DroppedSlices = readonly Readonly<Record<string, number>>[]

export class Bitmap {
  readonly disk: string
  readonly name: string
  readonly #core: Core
  readonly #view: StateView

  constructor(core: Core, view: StateView, disk: string, name: string) {
    this.#core = core
    this.#view = view
    this.disk = disk
    this.name = name
  }

  /** DISK_NOT_FOUND, BITMAP_NOT_FOUND when it is gone. */
  get info(): BitmapInfo {
    return this.#view.bitmap(this.disk, this.name)
  }

  /** R4. BITMAP_BUSY while a backup runs on it (R6); so with every command here. */
  async clear(options: CommandOptions = {}): Promise<void> {
    await this.#run('clear-bitmap', options)
  }

  async enable(options: CommandOptions = {}): Promise<void> {
    await this.#run('enable-bitmap', options)
  }

  async disable(options: CommandOptions = {}): Promise<void> {
    await this.#run('disable-bitmap', options)
  }

  async remove(options: CommandOptions = {}): Promise<void> {
    await this.#run('remove-bitmap', options)
  }

  /** ORs the sources' α into this one's: other granularity and other disk of the same size allowed (R4). SIZES_DIFFER. */
  async merge(
    sources: readonly { readonly disk?: string; readonly bitmap: string }[],
    options: CommandOptions = {},
  ): Promise<void> {
    needObjects('the sources', sources)
    const refs = sources.map((source) => ({ disk: source.disk ?? this.disk, bitmap: source.bitmap }))
    await this.#core.run(
      [{ type: 'merge-bitmaps', disk: this.disk, bitmap: this.name, sources: refs }],
      options,
    )
  }

  /** R15. RETENTION_FULL names the slices in the way; `forceCycle` drops them. */
  async setRetention(
    retention: number,
    options: CommandOptions & { readonly forceCycle?: boolean } = {},
  ): Promise<{ readonly droppedSlices: DroppedSlices }> {
    needObject('the options', options)
    const { forceCycle, ...cause } = options
    const { answers } = await this.#core.run(
      [{ type: 'set-retention', disk: this.disk, bitmap: this.name, retention, forceCycle }],
      cause,
    )
    return { droppedSlices: droppedSlices(answers[0]) }
  }

  /** α becomes a slice without a backup (R17). RETENTION_ZERO, RETENTION_FULL. */
  async bank(options: CommandOptions & { readonly forceCycle?: boolean } = {}): Promise<BankAnswer> {
    needObject('the options', options)
    const { forceCycle, ...cause } = options
    const { answers } = await this.#core.run(
      [{ type: 'bank', disk: this.disk, bitmap: this.name, forceCycle }],
      cause,
    )
    const answer = answers[0]
    if (answer?.kind !== 'banked') throw new Error('slicelog bug: the answer of a bank is a bank')
    return { slice: answer.slice, generation: answer.generation, droppedSlices: droppedSlices(answer) }
  }

  /** Forgets point `slice`: its bits go into the next older slice, `into`; null: it was the oldest and was dropped (R16). */
  async deleteSlice(
    slice: number,
    options: CommandOptions & { readonly generation?: number } = {},
  ): Promise<{ readonly slice: number; readonly into: number | null }> {
    needObject('the options', options)
    const { generation, ...cause } = options
    const { answers } = await this.#core.run(
      [{ type: 'delete-slice', disk: this.disk, bitmap: this.name, slice, generation }],
      cause,
    )
    const answer = answers[0]
    if (answer?.kind !== 'slice-deleted')
      throw new Error('slicelog bug: the answer of a slice deletion is one')
    return { slice, into: answer.into }
  }

  /** α as facts, or one slice (R5). */
  async bits(selector: SliceSelector = {}): Promise<BitsInfo> {
    needObject('the selector', selector)
    return await this.#view.bits(this.disk, this.name, selector)
  }

  /** The bits themselves, as a copy. */
  async dirty(selector: SliceSelector = {}): Promise<DirtyBitmap> {
    needObject('the selector', selector)
    return await this.#view.dirty(this.disk, this.name, selector)
  }

  async slices(): Promise<SlicesInfo> {
    return await this.#view.slices(this.disk, this.name)
  }

  async #run(
    type: 'clear-bitmap' | 'enable-bitmap' | 'disable-bitmap' | 'remove-bitmap',
    options: CommandOptions,
  ): Promise<void> {
    await this.#core.run([{ type, disk: this.disk, bitmap: this.name }], options)
  }
}

/** `[{ daily: 0 }, …]`: the seed's shape. */
function droppedSlices(answer: Answer | undefined): DroppedSlices {
  return answer !== undefined && 'dropped' in answer
    ? answer.dropped.map(({ bitmap, slice }) => ({ [bitmap]: slice }))
    : []
}
