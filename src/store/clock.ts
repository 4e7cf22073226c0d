/**
 * Time along the log never decreases, whatever the wall clock does; a step of the wall clock is told, not hidden (R22).
 */
import type { Clock } from './types.ts'

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
}

/** A wall clock more than this far from where the monotonic one says it should be has stepped. */
export const CLOCK_STEP_MS = 60_000

export interface ClockReading {
  /** The time for the next record, ms: the wall clock's, or the log's last while the clock is behind it. */
  readonly time: number
  /** Set when the wall clock stepped, until `told`. */
  readonly step: { readonly from: number; readonly to: number } | null
}

/** Reads the clock for a log: one per store, one reading per commit. */
export class LogClock {
  readonly #clock: Clock
  #wall: number | null = null
  #monotonic = 0
  #untold: ClockReading['step'] = null
  readonly #toldAt: number | null

  /** `toldAt`: the time that the last step in the log was told at, for a session that finds the clock still behind it. */
  constructor(clock: Clock, toldAt: number | null = null) {
    this.#clock = clock
    this.#toldAt = toldAt
  }

  get now(): number {
    return Math.floor(this.#clock.now())
  }

  read(lastTime: number | null): ClockReading {
    const wall = Math.floor(this.#clock.now())
    const monotonic = this.#clock.monotonic()
    if (this.#wall === null) this.#sinceLastSession(wall, lastTime)
    else {
      const expected = this.#wall + (monotonic - this.#monotonic)
      // Rounding to whole milliseconds may look like one millisecond back; a step is more than that.
      const back = wall < this.#wall - 1
      if (back || Math.abs(wall - expected) > CLOCK_STEP_MS) {
        this.#untold = { from: this.#untold?.from ?? Math.floor(expected), to: wall }
      }
    }
    this.#wall = wall
    this.#monotonic = monotonic
    return { time: lastTime === null ? wall : Math.max(wall, lastTime), step: this.#untold }
  }

  /**
   * No monotonic clock spans two sessions, so forward any time may have passed; but a clock behind what the log has seen went
   * back. Told once: while it is still behind, times repeat that of the event that told it.
   */
  #sinceLastSession(wall: number, lastTime: number | null): void {
    if (lastTime === null || wall >= lastTime - CLOCK_STEP_MS || lastTime === this.#toldAt) return
    this.#untold = { from: lastTime, to: wall }
  }

  /** The step is on its way into the log: a refused command must not have told it (R21), so its reader says when. */
  told(): void {
    this.#untold = null
  }
}
