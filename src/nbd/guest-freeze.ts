/**
 * Freezes the guest of a served disk before each point of that disk, and thaws it afterwards, whatever became of the point.
 *
 * A point with a frozen guest holds what a backup of a guest should: file systems that were written back and stand still, not
 * the middle of something (R8). A freeze that fails refuses the point, and nothing is recorded (R21); a thaw that fails is tried
 * again once and told, and the point stands. Costs two commands of the operator's a point, and the guest's writes wait between.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { CheckpointError, messageOf } from '../errors.ts'
import type { PointAhead, PointHooks } from '../store/around-points.ts'
import { runShell, type ShellEnd } from './shell-command.ts'
import { guardThaw, type ThawGuard } from './thaw-guard.ts'

export const FREEZE_TIMEOUT_MS = 30_000
const THAW_AGAIN_MS = 500

/** What a function that freezes or thaws is told. */
export interface FreezePoint extends PointAhead {
  /** The disk's file. */
  readonly file: string
  /** Aborted when the time is over: what still freezes then must not. */
  readonly signal: AbortSignal
}

/** Words for /bin/sh, or a function. */
export type FreezeHow = string | ((point: FreezePoint) => unknown)

export interface FreezeOptions {
  readonly file: string
  readonly freeze: FreezeHow
  readonly thaw: FreezeHow
  /** For each of the two, ms. */
  readonly timeoutMs: number
  /** Told of each thaw that failed. */
  readonly onError: (error: CheckpointError) => void
}

/** Why it did not work, in words and facts; null when it did. */
type Trouble = {
  readonly words: string
  readonly facts: Record<string, unknown>
  readonly cause?: unknown
} | null

export class GuestFreeze implements PointHooks {
  readonly #options: FreezeOptions
  #guard: ThawGuard | null = null
  /** Between a `before` that began and the end of its `after`. */
  #under: { readonly over: Promise<void>; readonly end: () => void } | null = null
  /** A function that freezes and did not end in time. */
  #late: Promise<void> | null = null
  #ended = false

  constructor(options: FreezeOptions) {
    this.#options = options
  }

  /** @throws CheckpointError FREEZE_FAILED */
  async before(point: PointAhead): Promise<void> {
    const { freeze } = this.#options
    if (this.#ended) throw this.#refused(point, { words: 'it is not served any more', facts: {} })
    if (this.#late !== null)
      throw this.#refused(point, { words: 'an earlier freeze has not come to its end yet', facts: {} })
    this.#under = underWay()
    if (typeof this.#options.thaw === 'string')
      this.#guard = guardThaw(this.#options.thaw, this.#environment(point))
    const trouble = await this.#try(freeze, point, (late) => this.#thawLate(late, point))
    this.#guard?.frozen()
    if (trouble !== null) throw this.#refused(point, trouble)
  }

  async after(point: PointAhead): Promise<void> {
    if (this.#under === null) return
    try {
      await this.#thaw(point)
    } finally {
      this.#guard?.done()
      this.#guard = null
      this.#under.end()
      this.#under = null
    }
  }

  /** Freezes nothing any more; the point under way comes to its end, and the guest is thawed. */
  async end(): Promise<void> {
    this.#ended = true
    await this.#under?.over
  }

  async #thaw(point: PointAhead): Promise<void> {
    for (const attempt of [1, 2]) {
      if (attempt > 1) await sleep(THAW_AGAIN_MS)
      const trouble = await this.#try(this.#options.thaw, point)
      if (trouble === null) return
      this.#tell(point, trouble, attempt)
    }
  }

  /** Froze after all, when nobody counted on it any more. */
  #thawLate(late: Promise<unknown>, point: PointAhead): void {
    const ended = late.then(
      () => undefined,
      () => undefined,
    )
    this.#late = ended
      .then(() => this.#thaw(point))
      .finally(() => {
        this.#late = null
      })
  }

  async #try(how: FreezeHow, point: PointAhead, onLate?: (late: Promise<unknown>) => void): Promise<Trouble> {
    const { timeoutMs } = this.#options
    if (typeof how === 'string') {
      const end = await runShell(how, {
        environment: this.#environment(point),
        timeoutMs,
        ...(onLate === undefined ? {} : { onStarted: (group) => this.#guard?.freezing(group) }),
      })
      return troubleOf(how, end, timeoutMs)
    }
    return await this.#call(how, point, onLate)
  }

  async #call(
    how: Exclude<FreezeHow, string>,
    point: PointAhead,
    onLate?: (late: Promise<unknown>) => void,
  ): Promise<Trouble> {
    const { file, timeoutMs } = this.#options
    const stop = new AbortController()
    const waiting = new AbortController()
    const called = (async () => how({ ...point, file, signal: stop.signal }))()
    const ended = called.then(
      () => null,
      (cause: unknown): Trouble => ({ words: `the function failed: ${messageOf(cause)}`, facts: {}, cause }),
    )
    const late = sleep(timeoutMs, 'late' as const, { signal: waiting.signal }).catch(() => 'late' as const)
    const first = await Promise.race([ended, late])
    waiting.abort()
    if (first !== 'late') return first
    stop.abort()
    onLate?.(called)
    return { words: `the function took longer than ${timeoutMs} ms`, facts: { timeoutMs } }
  }

  #environment({ disk, command, nth }: PointAhead): Record<string, string> {
    return {
      SLICELOG_DISK: disk,
      SLICELOG_COMMAND: command,
      SLICELOG_FILE: this.#options.file,
      SLICELOG_NTH: String(nth),
    }
  }

  #refused({ disk, command }: PointAhead, { words, facts, cause }: NonNullable<Trouble>): CheckpointError {
    return new CheckpointError(
      'FREEZE_FAILED',
      `the guest of disk "${disk}" could not be frozen for ${command}: ${words}; nothing was recorded and the guest was thawed, so put the freeze right and give the command again`,
      { disk, point: command, ...facts },
      cause,
    )
  }

  #tell({ disk, command }: PointAhead, { words, facts, cause }: NonNullable<Trouble>, attempt: number): void {
    const what = attempt === 1 ? 'it is tried again' : 'it may be frozen still, so thaw it by hand now'
    const error = new CheckpointError(
      'THAW_FAILED',
      `the guest of disk "${disk}" could not be thawed after ${command}: ${words}; the point stands, ${what}`,
      { disk, point: command, attempt, ...facts },
      cause,
    )
    try {
      this.#options.onError(error)
    } catch {
      // Whoever listens must not end the thaw.
    }
  }
}

function underWay() {
  let end = (): void => undefined
  const over = new Promise<void>((resolve) => {
    end = resolve
  })
  return { over, end }
}

function troubleOf(command: string, end: ShellEnd, timeoutMs: number): Trouble {
  const { stderr } = end
  const said = stderr === '' ? '' : `, and said: ${stderr.split('\n').at(-1)}`
  const facts = { command, exit: null, stderr }
  switch (end.kind) {
    case 'ended':
      if (end.code === 0) return null
      return {
        words: `"${command}" ended with exit code ${end.code}${said}`,
        facts: { ...facts, exit: end.code },
      }
    case 'signalled':
      return {
        words: `"${command}" was ended by ${end.signal}${said}`,
        facts: { ...facts, signal: end.signal },
      }
    case 'timeout':
      return {
        words: `"${command}" took longer than ${timeoutMs} ms and was ended${said}`,
        facts: { ...facts, timeoutMs },
      }
    case 'not-started':
      return { words: `"${command}" could not be started: ${end.cause.message}`, facts, cause: end.cause }
    default:
      return end satisfies never
  }
}
