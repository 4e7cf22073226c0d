/**
 * Carries out a trace's steps on the store, through its public API, and tells what it sees in the trace's words. A
 * stream is a bitmap with retention; a QEMU job is a backup of a bitmap without slices. A refused step must leave the
 * head of the log where it was (R21), which is checked here at every step.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Backup,
  CheckpointError,
  type Disk,
  openMemoryStore,
  openStore,
  type Store,
} from '../../src/index.ts'
import { differences, type Observation, type OwnRefusal } from './compare.ts'
import type { BitmapStep, DiskStep, JobStep, Step, StepResult, StreamStep, Trace } from './format.ts'
import { modeOf, refusedJob } from './job-rules.ts'
import { bitsOfPlan, digestsOf, lookAt } from './look.ts'

/** The one disk's id. */
export const DISK = 'vda'
type Command = Parameters<Store['transaction']>[0][number]

/** QEMU's refusal of a job's arguments, which the store never sees. */
class JobRefusal extends Error {}

export class Replay {
  readonly #folder: string | undefined
  #store: Store
  #size: number
  readonly #streams = new Set<string>()
  /** The last backup of a stream, or of the one job. */
  readonly #backups = new Map<string, { backup: Backup; kind: string }>()
  #job: { backup: Backup; always: boolean; bitmap: string } | undefined

  private constructor(store: Store, size: number, folder: string | undefined) {
    this.#store = store
    this.#size = size
    this.#folder = folder
  }

  /** A fresh store with one disk: in memory, or (needed for a restart) in a temporary folder. */
  static async open(size: number, where: 'memory' | 'folder'): Promise<Replay> {
    const folder = where === 'folder' ? mkdtempSync(join(tmpdir(), 'slicelog-replay-')) : undefined
    const store = folder === undefined ? await openMemoryStore() : await openStore(folder)
    await store.ensureDisk(DISK, { size })
    return new Replay(store, size, folder)
  }

  get store(): Store {
    return this.#store
  }

  async close(): Promise<void> {
    await this.#store.close()
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true })
  }

  async step(step: Step): Promise<Observation> {
    const before = JSON.stringify(this.#store.head)
    let error: OwnRefusal | null = null
    let result: StepResult | undefined
    try {
      result = await this.#carryOut(step)
    } catch (reason) {
      error = refusalOf(reason)
      const after = JSON.stringify(this.#store.head)
      if (after !== before) throw new Error(`R21: a refused step moved the head from ${before} to ${after}`)
    }
    const digests = step.op === 'end' ? await this.digests() : {}
    return {
      error,
      ...(result === undefined ? {} : { result }),
      ...(await lookAt(this.#disk, this.#streams)),
      ...digests,
    }
  }

  /** The store's digests of everything there is now (R5). */
  digests(): Promise<Pick<Observation, 'sha256' | 'stream_sha256'>> {
    return digestsOf(this.#disk, this.#streams)
  }

  get #disk(): Disk {
    return this.#store.disk(DISK)
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
        await this.#diskStep(step)
        return undefined
      case 'add':
      case 'enable':
      case 'disable':
      case 'clear':
      case 'remove':
      case 'merge':
        await this.#bitmapStep(step)
        return undefined
      case 'transaction':
        await this.#store.transaction(step.actions.map(commandOf))
        return undefined
      case 'job-start':
      case 'job-end':
        await this.#jobStep(step)
        return undefined
      case 'end':
        return undefined
      default:
        return this.#streamStep(step)
    }
  }

  async #diskStep(step: DiskStep): Promise<void> {
    switch (step.op) {
      case 'read':
      case 'flush':
        return
      case 'writes':
        await this.#disk.recordWrites(step.list.map(([offset, length]) => ({ offset, length })))
        return
      case 'resize':
        await this.#disk.resize(step.size)
        this.#size = step.size
        return
      case 'restart':
        return this.#restart()
      default: {
        const op = step.op === 'trim' ? 'discard' : step.op
        await this.#disk.recordWrites([{ offset: step.offset, length: step.length, op }])
      }
    }
  }

  /** A clean end of the process that tracked the disk: transient bitmaps go with its detach (R4). */
  async #restart(): Promise<void> {
    if (this.#folder === undefined) throw new Error('a store in memory cannot restart')
    await this.#disk.detach()
    await this.#store.close()
    this.#store = await openStore(this.#folder)
    await this.#store.ensureDisk(DISK, { size: this.#size })
  }

  async #bitmapStep(step: BitmapStep): Promise<void> {
    switch (step.op) {
      case 'add': {
        const { name, op: _, ...rest } = step
        await this.#disk.addBitmap(name, { persistent: false, ...rest })
        return
      }
      case 'merge':
        await this.#disk.bitmap(step.target).merge(step.bitmaps.map((bitmap) => ({ bitmap })))
        return
      case 'enable':
      case 'disable':
      case 'clear':
      case 'remove':
        await this.#disk.bitmap(step.name)[step.op]()
    }
  }

  async #jobStep(step: JobStep): Promise<void> {
    if (step.op === 'job-end') return this.#endJob(step.outcome)
    const { bitmap } = step
    const refused = refusedJob(
      step,
      this.#disk.bitmaps().some((info) => info.bitmap === bitmap),
    )
    if (refused !== undefined) throw new JobRefusal(refused)
    const mode = modeOf(step)
    const since = mode === 'full' ? {} : ({ since: 'active' } as const)
    const backup = await this.#disk.beginBackup({ bitmap, mode, ...since })
    this.#job = { backup, always: step.mode === 'always', bitmap }
  }

  async #endJob(outcome: string): Promise<void> {
    const job = this.#job
    if (job === undefined) throw new Error('no job is running')
    this.#job = undefined
    if (outcome === 'ok') await job.backup.succeed()
    else if (outcome === 'cancel') await job.backup.cancel()
    else if (!job.always) await job.backup.fail('Input/output error')
    else {
      // The recorder's failing job stops at its first cluster: nothing was copied (R10).
      const uncopied = (await this.#disk.bitmap(job.bitmap).bits()).extents
      await this.#store.transaction([
        { type: 'fail-backup', backup: job.backup.id, reason: 'Input/output error', uncopied },
      ])
    }
  }

  async #streamStep(step: StreamStep): Promise<StepResult | undefined> {
    const { name } = step
    if (step.op === 'stream-create') {
      await this.#disk.addBitmap(name, {
        granularity: step.granularity,
        retention: step.retention,
        persistent: false,
      })
      this.#streams.add(name)
      return undefined
    }
    const bitmap = this.#disk.bitmap(name)
    switch (step.op) {
      case 'set-retention':
        await bitmap.setRetention(step.slices)
        return undefined
      case 'since':
        return bitsOfPlan(
          await this.#store.plan({
            disk: DISK,
            bitmap: name,
            mode: 'differential',
            since: sinceOf(step.slice),
          }),
          this.#size,
        )
      case 'bank': {
        const { slice, droppedSlices } = await bitmap.bank({ forceCycle: step.force_cycle === true })
        return { slice, dropped: droppedSlices.map((dropped) => dropped[name]!) }
      }
      case 'slice-delete':
        await bitmap.deleteSlice(step.slice)
        return undefined
      case 'backup-begin':
        return this.#begin(step)
      case 'backup-end':
        return this.#end(name, step.outcome)
    }
  }

  async #begin(step: Extract<StreamStep, { op: 'backup-begin' }>): Promise<StepResult | undefined> {
    const since = step.kind === 'full' ? {} : { since: sinceOf(step.since ?? 'active') }
    const forceCycle = step.force_cycle === true
    const backup = await this.#disk.beginBackup({ bitmap: step.name, mode: step.kind, ...since, forceCycle })
    this.#backups.set(step.name, { backup, kind: step.kind })
    return step.kind === 'full' ? undefined : bitsOfPlan(backup.plan, this.#size)
  }

  async #end(name: string, outcome: string): Promise<StepResult | undefined> {
    const last = this.#backups.get(name)
    const { backup, kind } = last ?? { backup: this.#store.backup('no backup was begun'), kind: '' }
    if (outcome === 'fail') await backup.fail('the copy failed')
    else if (outcome === 'cancel') await backup.cancel()
    else {
      const { slice, droppedSlices } = await backup.succeed()
      if (kind === 'incremental') return { slice, dropped: droppedSlices.map((dropped) => dropped[name]!) }
    }
    return undefined
  }
}

/** Replays a trace and says what differed, one line each, with the step's number; none = passed. */
export async function replayTrace(trace: Trace, where?: 'memory' | 'folder'): Promise<string[]> {
  const restarts = trace.steps.some((step) => step.op === 'restart')
  const replay = await Replay.open(trace.disk.size, restarts ? 'folder' : (where ?? 'memory'))
  const found: string[] = []
  try {
    for (const [index, { expect, ...step }] of trace.steps.entries()) {
      const wrong = differences(expect, await replay.step(step as Step))
      found.push(...wrong.map((line) => `step ${index} ${JSON.stringify(step).slice(0, 200)}: ${line}`))
      if (found.length >= 5) break
    }
  } catch (error) {
    found.push(error instanceof Error ? (error.stack ?? error.message) : String(error))
  } finally {
    await replay.close()
  }
  return found
}

function commandOf(step: BitmapStep): Command {
  switch (step.op) {
    case 'add': {
      const { name, op: _, ...rest } = step
      return { type: 'add-bitmap', disk: DISK, bitmap: name, persistent: false, ...rest }
    }
    case 'merge':
      return {
        type: 'merge-bitmaps',
        disk: DISK,
        bitmap: step.target,
        sources: step.bitmaps.map((bitmap) => ({ disk: DISK, bitmap })),
      }
    default:
      return { type: `${step.op}-bitmap`, disk: DISK, bitmap: step.name }
  }
}

function sinceOf(slice: number | 'active'): 'active' | { slice: number } {
  return slice === 'active' ? 'active' : { slice }
}

function refusalOf(reason: unknown): OwnRefusal {
  if (reason instanceof JobRefusal) return { code: 'JOB_REFUSED', qemu: reason.message }
  if (!(reason instanceof CheckpointError)) throw reason
  const qemu = reason.facts.qemu
  return { code: reason.code, ...(typeof qemu === 'string' ? { qemu } : {}) }
}
