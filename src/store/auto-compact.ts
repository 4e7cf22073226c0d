/**
 * A compaction policy that runs by itself in an embedded store (R29): every so often, throttled, one pass after the other, and
 * ended by the close. A pass that fails changes nothing (R21): it is told in `status`, and the next one tries again.
 */

import { messageOf } from '../errors.ts'
import type { Compacted, Compactor } from './compactor.ts'
import type { PolicyInput } from './policy.ts'

export interface CompactionOptions {
  /** As `7d:1m,90d:1h`, or as rules in ms. */
  readonly policy: PolicyInput
  /** From the end of one pass to the next, ms. Default one hour; the first begins after a minute at most. */
  readonly everyMs?: number
  /** Pause after each step, ms. Default 100: compaction then takes a tenth of one core at most. */
  readonly pauseMs?: number
}

const EVERY_MS = 3_600_000
const FIRST_MS = 60_000
const PAUSE_MS = 100
/** setTimeout takes no more. */
const EVERY_MS_MAX = 2 ** 31 - 1

/** How the last pass ended; null before the first. */
export type LastPass =
  | { readonly kind: 'done'; readonly at: number; readonly compacted: Compacted }
  | { readonly kind: 'failed'; readonly at: number; readonly error: string }

export class AutoCompaction {
  readonly #compactor: Compactor
  readonly #everyMs: number
  readonly #pauseMs: number
  readonly #now: () => number
  #timer: NodeJS.Timeout | undefined
  #last: LastPass | null = null

  /** `now`: the store's clock, ms. */
  constructor(compactor: Compactor, options: CompactionOptions, now: () => number) {
    this.#compactor = compactor
    this.#everyMs = options.everyMs ?? EVERY_MS
    this.#pauseMs = options.pauseMs ?? PAUSE_MS
    this.#now = now
    this.#wait(Math.min(FIRST_MS, this.#everyMs))
  }

  get last(): LastPass | null {
    return this.#last
  }

  /** No further pass begins; one that runs is ended by the compactor's own stop. */
  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => void this.#pass(), ms)
    this.#timer.unref()
  }

  async #pass(): Promise<void> {
    try {
      const compacted = await this.#compactor.compact({ pauseMs: this.#pauseMs })
      this.#last = { kind: 'done', at: this.#now(), compacted }
    } catch (error) {
      this.#last = {
        kind: 'failed',
        at: this.#now(),
        error: messageOf(error),
      }
    }
    if (this.#timer !== undefined) this.#wait(this.#everyMs)
  }
}

/** Throws TypeError; POLICY_INVALID comes from policyOf. */
export function checkCompactionOptions(options: unknown): void {
  if (typeof options !== 'object' || options === null) throw new TypeError('compaction must be an object')
  const { everyMs, pauseMs } = options as Partial<CompactionOptions>
  if (everyMs !== undefined && !(Number.isSafeInteger(everyMs) && everyMs > 0 && everyMs <= EVERY_MS_MAX))
    throw new TypeError('compaction.everyMs must be a number of ms from 1 to 2147483647')
  if (pauseMs !== undefined && !(Number.isSafeInteger(pauseMs) && pauseMs >= 0 && pauseMs <= EVERY_MS_MAX))
    throw new TypeError('compaction.pauseMs must be a number of ms from 0 to 2147483647')
}
