/** A moment of the past, as `at()` gives it: the whole state as it was (R22). */
import type { ClockStep } from '../../projections/state.ts'
import type { Core } from './core.ts'
import { DerivedMissing } from './derived.ts'
import type { State } from './state.ts'
import { StateView } from './view.ts'

export class PastState extends StateView {
  /**
   * Where the moment was given as a time: steps of the clock between it and now, and any that the time fell into (R22). Of every
   * other point none.
   */
  readonly clockSteps: readonly ClockStep[]

  constructor(core: Core, state: State, clockSteps: readonly ClockStep[] = []) {
    let held = state
    const position = state.catalog.last.position
    super(
      () => held,
      core.derived,
      async (error) => {
        if (!(error instanceof DerivedMissing)) throw error
        held = await core.at(position, { fromLogAlone: true })
      },
    )
    this.clockSteps = clockSteps
  }
}
