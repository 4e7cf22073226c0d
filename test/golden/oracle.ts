/**
 * Carries out a trace's steps on a real QEMU and tells the state that QEMU reports after each: the recorder and the
 * live proofs share it.
 */
import { type QemuBitmap, QemuDaemon } from '../support/qemu/daemon.ts'
import { NbdError } from '../support/qemu/nbd.ts'
import { QmpError } from '../support/qemu/qmp.ts'
import type {
  BitmapView,
  BitsView,
  DiskStep,
  Expectation,
  JobStep,
  Range,
  Refusal,
  Step,
  StepResult,
} from './format.ts'
import { actionOf, HIDDEN, OracleStreams, SeedRefusal } from './oracle-streams.ts'

export class Oracle {
  readonly daemon: QemuDaemon
  /** Undefined in traces that say nothing of streams. */
  readonly #streams: OracleStreams | undefined
  #jobRuns = false

  private constructor(daemon: QemuDaemon, withStreams: boolean) {
    this.daemon = daemon
    this.#streams = withStreams ? new OracleStreams(daemon, (names) => this.#views(names)) : undefined
  }

  static async start(disk: { size: number; format: 'raw' | 'qcow2' }, withStreams: boolean): Promise<Oracle> {
    return new Oracle(await QemuDaemon.start(disk.format, disk.size), withStreams)
  }

  stop(): Promise<void> {
    return this.daemon.stop()
  }

  /** Does the step and looks at everything afterwards. Throws only when QEMU itself breaks. */
  async step(step: Step): Promise<Expectation> {
    let error: Refusal | null = null
    let result: StepResult | undefined
    try {
      result = await this.#carryOut(step)
    } catch (reason) {
      error = refusalOf(reason)
    }
    const seen = await this.#look()
    const digests = step.op === 'end' ? await this.digests() : {}
    return { error, ...(result === undefined ? {} : { result }), ...seen, ...digests }
  }

  /** QEMU's digests of everything there is now. */
  async digests(): Promise<Pick<Expectation, 'sha256' | 'stream_sha256'>> {
    const sha256: Record<string, string> = {}
    for (const { name } of await this.#plain()) sha256[name!] = await this.daemon.digest(name!)
    return this.#streams === undefined ? { sha256 } : { sha256, stream_sha256: await this.#streams.digests() }
  }

  async #carryOut(step: Step): Promise<StepResult | undefined> {
    switch (step.op) {
      case 'write':
      case 'zero':
      case 'trim':
      case 'read':
      case 'flush':
      case 'writes':
      case 'resize':
      case 'restart':
        await this.#disk(step)
        return undefined
      case 'add':
      case 'enable':
      case 'disable':
      case 'clear':
      case 'remove':
      case 'merge': {
        const { type, data } = actionOf(step)
        await this.daemon.qmp.execute(type, data)
        return undefined
      }
      case 'transaction':
        await this.daemon.qmp.execute('transaction', { actions: step.actions.map(actionOf) })
        return undefined
      case 'job-start':
      case 'job-end':
        await this.#job(step)
        return undefined
      case 'end':
        return undefined
      default:
        if (this.#streams === undefined) throw new Error(`${step.op} in a run without streams`)
        return this.#streams.step(step)
    }
  }

  async #disk(step: DiskStep): Promise<void> {
    const { nbd } = this.daemon
    switch (step.op) {
      case 'write':
        return nbd.write(step.offset, step.length, step.flags)
      case 'zero':
        return nbd.writeZeroes(step.offset, step.length, step.flags)
      case 'trim':
        return nbd.trim(step.offset, step.length, step.flags)
      case 'read':
        await nbd.read(step.offset, step.length)
        return
      case 'flush':
        return nbd.flush()
      case 'writes':
        for (const [offset, length] of step.list) await nbd.write(offset, length)
        return
      case 'resize':
        return this.daemon.resize(step.size)
      case 'restart':
        return this.daemon.restart()
    }
  }

  /** A job is held after its copying by QEMU's own `auto-finalize: false`; a failure would need a broken target. */
  async #job(step: JobStep): Promise<void> {
    if (step.op === 'job-end') {
      await this.daemon.endJob(step.outcome === 'ok' ? 'finalize' : 'cancel')
      this.#jobRuns = false
      return
    }
    const mode = step.mode === undefined ? {} : { 'bitmap-mode': step.mode }
    await this.daemon.startJob({ sync: step.sync, bitmap: step.bitmap, ...mode })
    this.#jobRuns = true
  }

  /** Bitmaps that belong to no stream, by name. */
  async #plain(): Promise<QemuBitmap[]> {
    const named = (await this.daemon.bitmaps()).filter(
      (bitmap) => bitmap.name !== undefined && !bitmap.name.startsWith(HIDDEN),
    )
    return named.sort((a, b) => (a.name! < b.name! ? -1 : 1))
  }

  async #views(names: readonly string[]): Promise<Map<string, BitsView>> {
    const counts = new Map((await this.daemon.bitmaps()).map((bitmap) => [bitmap.name, bitmap.count]))
    const extents = await (this.#jobRuns ? this.daemon.extentsBesideJob(names) : this.daemon.extents(names))
    return new Map(
      names.map((name) => [name, { count: counts.get(name) ?? 0, extents: extents.get(name) ?? [] }]),
    )
  }

  async #look(): Promise<Pick<Expectation, 'bitmaps' | 'streams'>> {
    const plain = await this.#plain()
    const shown = plain.filter((bitmap) => !bitmap.busy).map((bitmap) => bitmap.name!)
    const views = await this.#views([...shown, ...(this.#streams?.parts ?? [])])
    // The successor is the unnamed one that records; block-copy's own unnamed bitmap does not.
    const successor = (await this.daemon.bitmaps()).find(
      (bitmap) => bitmap.name === undefined && bitmap.recording,
    )
    const bitmaps: Record<string, BitmapView> = {}
    for (const { name, granularity, recording, busy, persistent, count } of plain) {
      const extents: readonly Range[] | null = busy ? null : views.get(name!)!.extents
      const collecting = busy && successor !== undefined ? { successor_count: successor.count } : {}
      bitmaps[name!] = { granularity, recording, busy, persistent, count, extents, ...collecting }
    }
    return this.#streams === undefined ? { bitmaps } : { bitmaps, streams: this.#streams.look(views) }
  }
}

function refusalOf(reason: unknown): Refusal {
  if (reason instanceof QmpError) return { class: reason.errorClass, desc: reason.desc }
  if (reason instanceof NbdError) return { class: 'NBD', errno: reason.errno, desc: reason.desc }
  if (reason instanceof SeedRefusal) return { class: 'Seed', code: reason.code, desc: reason.message }
  throw reason
}
