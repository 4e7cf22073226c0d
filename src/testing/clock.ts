/** A clock that moves only when it is told to: tests and replays with times of their own. */
import type { Clock } from '../store/types.ts'

export interface ManualClock extends Clock {
  /** Wall and monotonic time go on together. */
  advance(ms: number): void
  /** Both go on to this wall time, if it is later. */
  advanceTo(time: number): void
  /** The wall clock alone is set: a step (R22). */
  step(time: number): void
}

export function manualClock(now = Date.UTC(2026, 0, 1)): ManualClock {
  let wall = now
  let monotonic = 0
  return {
    now: () => wall,
    monotonic: () => monotonic,
    advance(ms) {
      wall += ms
      monotonic += ms
    },
    advanceTo(time) {
      if (time > wall) this.advance(time - wall)
    },
    step(time) {
      wall = time
    },
  }
}
