/** A moment of the past, as `at()` gives it: the whole state as it was (R22). */

import type { Core } from './core.ts'
import { DerivedMissing } from './derived.ts'
import type { State } from './state.ts'
import { StateView } from './view.ts'

export class PastState extends StateView {
  constructor(core: Core, state: State) {
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
  }
}
