/**
 * An orchestration agent on the public API: a full backup first, then an incremental whenever one is due, a retry after a
 * failure, a retention of slices, and a clean continuation after its own crash. Moving bytes is the caller's `copy`.
 *
 * The store remembers everything that matters, so the agent keeps no state of its own: what is due follows from the last
 * succeeded backup, what was under way when it crashed is found as a running backup.
 */
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import {
  type Backup,
  CheckpointError,
  type Clock,
  GiB,
  openStore,
  type Plan,
  type Store,
} from '../src/index.ts'

/** The bytes' side. `snapshot` runs inside the quiet point (R8); a snapshot must outlive the agent to make resuming possible. */
export interface Mover {
  snapshot(backup: string): Promise<void>
  hasSnapshot(backup: string): Promise<boolean>
  copy(backup: string, plan: Plan): Promise<void>
  dropSnapshot(backup: string): Promise<void>
}

export interface AgentOptions {
  readonly disk: string
  readonly size: number
  readonly bitmap: string
  /** Slices to keep; the oldest makes room. */
  readonly retention: number
  /** ms between the beginnings of two backups, and from a failure to the next try. */
  readonly every: number
  readonly retryAfter: number
  readonly clock: Clock
  readonly mover: Mover
  readonly onEvent?: (text: string) => void
}

export class BackupAgent {
  readonly #store: Store
  readonly #options: AgentOptions

  private constructor(store: Store, options: AgentOptions) {
    this.#store = store
    this.#options = options
  }

  /** The same call on a first start and after a crash. `quiet`: nobody wrote to the disk while the agent was away (R32). */
  static async start(store: Store, options: AgentOptions, quiet = false): Promise<BackupAgent> {
    const disk = await store.ensureDisk(options.disk, { size: options.size, quiet })
    await disk.ensureBitmap(options.bitmap, { retention: options.retention })
    const agent = new BackupAgent(store, options)
    await agent.#resume()
    return agent
  }

  /** Begins what is due at this moment and sees it through. Resolves to the backup's id, or null when nothing was due. */
  async tick(): Promise<string | null> {
    if (this.#options.clock.now() < this.#due()) return null
    const { disk, bitmap, mover } = this.#options
    const id = `${bitmap}-${this.#store.backups({ disk, bitmap }).length + 1}`
    const mode = this.#lastSucceeded() === undefined ? 'full' : 'incremental'
    const backup = await this.#store
      .disk(disk)
      .beginBackup(
        { bitmap, mode, forceCycle: true, id, snapshot: () => mover.snapshot(id) },
        { commandId: `begin-${id}` },
      )
    await this.#finish(backup)
    return id
  }

  /** Ticks until the signal fires. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const began = await this.tick().then(
        () => true,
        (error: unknown) => this.#noSnapshot(error),
      )
      const due = began ? this.#due() - this.#options.clock.now() : this.#options.retryAfter
      const wait = Math.min(Math.max(due, 10), 60_000)
      // Stopped while it sleeps: the loop's condition ends it.
      await setTimeout(wait, undefined, { signal }).catch(() => undefined)
    }
  }

  /** Backups that a crash left running: copied again where their snapshot still exists, failed otherwise (R10). */
  async #resume(): Promise<void> {
    const { disk, bitmap, mover } = this.#options
    for (const { id } of this.#store.backups({ disk, bitmap, state: 'running' })) {
      const backup = this.#store.backup(id)
      if (await mover.hasSnapshot(id)) await this.#finish(backup)
      else await backup.fail('the agent restarted and its snapshot is gone', { commandId: `fail-${id}` })
    }
  }

  async #finish(backup: Backup): Promise<void> {
    const { mover } = this.#options
    try {
      await mover.copy(backup.id, await backup.loadPlan())
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      // Everything is as before the begin: the writes of this backup will be in the next one.
      await backup.fail(reason, { commandId: `fail-${backup.id}` })
      this.#tell(`${backup.id} failed: ${reason}`)
      return
    }
    const { slice, droppedSlices } = await backup.succeed({ commandId: `succeed-${backup.id}` })
    await mover.dropSnapshot(backup.id)
    this.#tell(`${backup.id} succeeded, slice ${slice ?? 'none'}, dropped ${JSON.stringify(droppedSlices)}`)
  }

  #lastSucceeded() {
    const { disk, bitmap } = this.#options
    return this.#store.backups({ disk, bitmap, state: 'succeeded' }).at(-1)
  }

  /** When the next backup is due, ms: at once when there is none yet. */
  #due(): number {
    const { disk, bitmap, every, retryAfter } = this.#options
    const last = this.#store.backups({ disk, bitmap }).at(-1)
    if (last === undefined) return 0
    if (last.phase.kind === 'failed' || last.phase.kind === 'cancelled')
      return (last.phase.at.time ?? 0) + retryAfter
    return (last.point.time ?? 0) + every
  }

  /** No snapshot, no backup: nothing was recorded, so it is tried again. Anything else ends the agent. */
  #noSnapshot(error: unknown): false {
    if (!(error instanceof CheckpointError) || error.code !== 'SNAPSHOT_FAILED') throw error
    this.#tell(error.message)
    return false
  }

  #tell(text: string): void {
    this.#options.onEvent?.(text)
  }
}

/** Run directly: backs up a disk that nobody writes to, every two seconds, until Ctrl-C. */
async function main(folder: string): Promise<void> {
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  const store = await openStore(folder, { actor: 'agent' })
  try {
    const agent = await BackupAgent.start(store, {
      disk: 'vm-17/vda',
      size: 64 * GiB,
      bitmap: 'daily',
      retention: 10,
      every: 2000,
      retryAfter: 500,
      clock: { now: () => Date.now(), monotonic: () => performance.now() },
      mover: {
        snapshot: async () => {},
        hasSnapshot: async () => false,
        copy: async (id, plan) => console.log(`${id}: copying ${plan.bytes} bytes, ${plan.reason}`),
        dropSnapshot: async () => {},
      },
      onEvent: (text) => console.log(text),
    })
    await agent.run(stop.signal)
  } finally {
    await store.close()
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  main(process.argv[2] ?? './agent-store').catch((error: unknown) => {
    console.error(error instanceof CheckpointError ? `${error.message} (${error.code})` : error)
    process.exitCode = 1
  })
}
