/**
 * Bitmaps with slices on a QEMU, which has none: made from its own primitives, so that their bits are QEMU's. Freezing
 * is disable + add in one transaction, deleting a slice is merge + remove, what changed since a slice is a disabled
 * bitmap with all of them merged in. Every part is a bitmap of its own with a hidden name.
 */
import { NODE, type QemuDaemon } from '../support/qemu/daemon.ts'
import type { Arguments } from '../support/qemu/qmp.ts'
import type { BitmapStep, BitsView, StepResult, StreamDigests, StreamStep, StreamView } from './format.ts'

/** The parts' names in QEMU begin so; no trace has a plain bitmap with such a name. */
export const HIDDEN = '~'

/** A refusal of an operation that QEMU does not have, by the rules that QEMU has for its own (busy: R6). */
export class SeedRefusal extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

interface Stream {
  readonly granularity: number
  retention: number
  next: number
  /** Names in QEMU. */
  active: string
  frozen: { readonly name: string; readonly kind: string } | null
  slices: { readonly id: number; readonly name: string }[]
}

export class OracleStreams {
  readonly #daemon: QemuDaemon
  /** Count and extents of bitmaps by their name in QEMU. */
  readonly #views: (names: readonly string[]) => Promise<ReadonlyMap<string, BitsView>>
  readonly #streams = new Map<string, Stream>()
  #serial = 0

  constructor(
    daemon: QemuDaemon,
    views: (names: readonly string[]) => Promise<ReadonlyMap<string, BitsView>>,
  ) {
    this.#daemon = daemon
    this.#views = views
  }

  /** Names in QEMU of every part there is. */
  get parts(): string[] {
    return [...this.#streams.values()].flatMap((stream) => [
      stream.active,
      ...(stream.frozen === null ? [] : [stream.frozen.name]),
      ...stream.slices.map((slice) => slice.name),
    ])
  }

  look(views: ReadonlyMap<string, BitsView>): Record<string, StreamView> {
    return Object.fromEntries([...this.#streams].map(([name, stream]) => [name, viewOf(stream, views)]))
  }

  async digests(): Promise<Record<string, StreamDigests>> {
    const all: Record<string, StreamDigests> = {}
    for (const [name, stream] of this.#streams) {
      const slices: Record<string, string> = {}
      for (const slice of stream.slices) slices[String(slice.id)] = await this.#daemon.digest(slice.name)
      all[name] = { active: await this.#daemon.digest(stream.active), slices }
    }
    return all
  }

  /** @throws SeedRefusal */
  async step(step: StreamStep): Promise<StepResult | undefined> {
    if (step.op === 'stream-create') return this.#create(step)
    const stream = this.#streams.get(step.name)
    if (stream === undefined) throw new SeedRefusal('not-found', 'no such stream')
    switch (step.op) {
      case 'set-retention':
        refuseWhileRunning(stream)
        stream.retention = step.slices
        return undefined
      case 'since':
        return this.#since(stream, step.slice)
      case 'bank':
        return this.#bank(stream, step.force_cycle === true)
      case 'backup-begin':
        return this.#begin(stream, step)
      case 'backup-end':
        return this.#finish(stream, step.outcome)
      case 'slice-delete':
        await this.#delete(stream, step.slice)
        return undefined
    }
  }

  async #create(step: Extract<StreamStep, { op: 'stream-create' }>): Promise<undefined> {
    if (this.#streams.has(step.name)) throw new SeedRefusal('exists', 'the stream exists')
    const active = this.#hiddenName()
    await this.#transaction([{ op: 'add', name: active, granularity: step.granularity }])
    const { granularity, retention } = step
    this.#streams.set(step.name, { granularity, retention, next: 0, active, frozen: null, slices: [] })
  }

  async #since(stream: Stream, since: number | 'active'): Promise<BitsView> {
    if (since !== 'active' && !stream.slices.some((slice) => slice.id === since))
      throw new SeedRefusal('not-found', 'no such slice')
    const slices = since === 'active' ? [] : stream.slices.filter((slice) => slice.id >= since)
    const frozen = stream.frozen === null ? [] : [stream.frozen.name]
    const union = this.#hiddenName()
    await this.#transaction([
      { op: 'add', name: union, granularity: stream.granularity, disabled: true },
      {
        op: 'merge',
        target: union,
        bitmaps: [...slices.map((slice) => slice.name), ...frozen, stream.active],
      },
    ])
    const view = (await this.#views([union])).get(union)!
    await this.#transaction([{ op: 'remove', name: union }])
    return view
  }

  async #bank(stream: Stream, forceCycle: boolean): Promise<StepResult> {
    refuseWhileRunning(stream)
    refuseWhenFull(stream, forceCycle, true)
    const dropped = await this.#makeRoom(stream)
    const frozen = stream.active
    await this.#freeze(stream)
    stream.slices.push({ id: stream.next, name: frozen })
    return { slice: stream.next++, dropped }
  }

  async #begin(
    stream: Stream,
    step: Extract<StreamStep, { op: 'backup-begin' }>,
  ): Promise<StepResult | undefined> {
    refuseWhileRunning(stream)
    if (step.kind === 'incremental') refuseWhenFull(stream, step.force_cycle === true, false)
    const plan = step.kind === 'full' ? undefined : await this.#since(stream, step.since ?? 'active')
    const name = stream.active
    await this.#freeze(stream)
    stream.frozen = { name, kind: step.kind }
    return plan
  }

  async #finish(stream: Stream, outcome: string): Promise<StepResult | undefined> {
    const { frozen } = stream
    if (frozen === null) throw new SeedRefusal('not-running', 'no backup of this stream is running')
    stream.frozen = null
    if (outcome !== 'ok' || frozen.kind === 'differential') {
      await this.#mergeBack(stream, frozen.name)
      return undefined
    }
    if (frozen.kind === 'full') {
      await this.#removeAll([...stream.slices.map((slice) => slice.name), frozen.name])
      stream.slices = []
      stream.next = 0
      return undefined
    }
    if (stream.retention === 0) {
      await this.#removeAll([frozen.name])
      return { slice: null, dropped: [] }
    }
    const dropped = await this.#makeRoom(stream)
    stream.slices.push({ id: stream.next, name: frozen.name })
    return { slice: stream.next++, dropped }
  }

  async #mergeBack(stream: Stream, frozen: string): Promise<void> {
    await this.#transaction([
      { op: 'merge', target: frozen, bitmaps: [stream.active] },
      { op: 'enable', name: frozen },
      { op: 'remove', name: stream.active },
    ])
    stream.active = frozen
  }

  async #delete(stream: Stream, number: number): Promise<void> {
    refuseWhileRunning(stream)
    const at = stream.slices.findIndex((slice) => slice.id === number)
    if (at < 0) throw new SeedRefusal('not-found', 'no such slice')
    const { name } = stream.slices[at]!
    const older = stream.slices[at - 1]
    if (older !== undefined) await this.#transaction([{ op: 'merge', target: older.name, bitmaps: [name] }])
    await this.#removeAll([name])
    stream.slices.splice(at, 1)
  }

  /** The active part stops collecting and a fresh one begins, at one moment. */
  async #freeze(stream: Stream): Promise<void> {
    const successor = this.#hiddenName()
    await this.#transaction([
      { op: 'disable', name: stream.active },
      { op: 'add', name: successor, granularity: stream.granularity },
    ])
    stream.active = successor
  }

  async #makeRoom(stream: Stream): Promise<number[]> {
    const dropped = stream.slices.splice(0, Math.max(0, stream.slices.length - stream.retention + 1))
    await this.#removeAll(dropped.map((slice) => slice.name))
    return dropped.map((slice) => slice.id)
  }

  async #removeAll(names: readonly string[]): Promise<void> {
    if (names.length > 0) await this.#transaction(names.map((name) => ({ op: 'remove', name })))
  }

  #transaction(steps: readonly BitmapStep[]): Promise<unknown> {
    return this.#daemon.qmp.execute('transaction', { actions: steps.map(actionOf) })
  }

  #hiddenName(): string {
    return `${HIDDEN}${this.#serial++}`
  }
}

/** A step as QEMU's transaction takes it; alone, `type` is the command and `data` its arguments. */
export function actionOf(step: BitmapStep): { type: string; data: Arguments } {
  const type = `block-dirty-bitmap-${step.op}`
  if (step.op === 'merge') return { type, data: { node: NODE, target: step.target, bitmaps: step.bitmaps } }
  const { op: _, ...rest } = step
  return { type, data: { node: NODE, ...rest } }
}

function viewOf(stream: Stream, views: ReadonlyMap<string, BitsView>): StreamView {
  return {
    granularity: stream.granularity,
    retention: stream.retention,
    next: stream.next,
    active: views.get(stream.active)!,
    frozen: stream.frozen === null ? null : views.get(stream.frozen.name)!,
    slices: stream.slices.map(({ id, name }) => ({ id, ...views.get(name)! })),
  }
}

function refuseWhileRunning(stream: Stream): void {
  if (stream.frozen !== null) throw new SeedRefusal('busy', 'a backup of this stream is running')
}

function refuseWhenFull(stream: Stream, forceCycle: boolean, banking: boolean): void {
  const full = stream.slices.length >= stream.retention
  const refused = stream.retention === 0 ? banking : full && !forceCycle
  if (refused) throw new SeedRefusal('retention', 'as many slices are kept as the retention allows')
}
