import { describe, test } from 'vitest'
import { CONDITIONS, type Condition, LEGAL, type Operation } from '../../src/commands/legal.ts'
import type { Command } from '../../src/commands/types.ts'
import { given, type Scenario } from '../../src/testing/given.ts'
import { begin, begun, bitmapAdded, daily, diskAdded, frozen, weekly, writes } from './kit.ts'

const scenarios: Record<Condition, () => Scenario> = {
  recording: () => marked(true),
  disabled: () => marked(false),
  busy: () =>
    marked(true)
      .when({ type: 'enable-bitmap', ...weekly })
      .after(begun('b', 'copy')),
  absent: () =>
    marked(true)
      .when({ type: 'remove-bitmap', ...daily })
      .after(),
}

/** `daily` with two slices and a checkpoint at its newest point; `weekly` to merge with. */
function marked(recording: boolean): Scenario {
  return given(
    diskAdded(),
    bitmapAdded(daily, { retention: 9, recording }),
    bitmapAdded(weekly),
    frozen(0, 1),
    writes(1),
    [
      { type: 'checkpoint-created', checkpoint: 'c', bitmaps: [daily] },
      { type: 'slice-frozen', ...daily, slice: 1, next: 2, cause: { kind: 'checkpoint', name: 'c' } },
    ],
  )
}

const commands: Record<Operation, Command> = {
  'add-bitmap': { type: 'add-bitmap', ...daily },
  'remove-bitmap': { type: 'remove-bitmap', ...daily },
  'clear-bitmap': { type: 'clear-bitmap', ...daily },
  'enable-bitmap': { type: 'enable-bitmap', ...daily },
  'disable-bitmap': { type: 'disable-bitmap', ...daily },
  'merge-bitmaps': { type: 'merge-bitmaps', ...daily, sources: [weekly] },
  'merge-bitmaps source': { type: 'merge-bitmaps', ...weekly, sources: [daily] },
  'set-retention': { type: 'set-retention', ...daily, retention: 8 },
  bank: { type: 'bank', ...daily },
  'delete-slice': { type: 'delete-slice', ...daily, slice: 1 },
  'begin-backup': begin('x', 'full'),
  'create-checkpoint': { type: 'create-checkpoint', checkpoint: 'd', bitmaps: [daily] },
  'delete-checkpoint': { type: 'delete-checkpoint', checkpoint: 'c' },
  'resize-disk': { type: 'resize-disk', disk: 'vda', size: 65_536 },
  'remove-disk': { type: 'remove-disk', disk: 'vda' },
}

/** Where the bitmap is only a part of what the command is about, its absence is no reason against the rest. */
const restStays: ReadonlySet<Operation> = new Set(['delete-checkpoint', 'resize-disk', 'remove-disk'])

describe('the table of what is legal when is what decide does', () => {
  for (const operation of Object.keys(LEGAL) as Operation[]) {
    for (const condition of CONDITIONS) {
      const verdict = LEGAL[operation][condition]
      test(`R6, R4: ${operation} on a bitmap that is ${condition}: ${verdict}`, () => {
        const outcome = scenarios[condition]().when(commands[operation])
        if (verdict === 'allowed' || (verdict === 'nothing' && restStays.has(operation))) {
          if (outcome.events.length === 0) throw outcome.error ?? new Error('no event')
        } else if (verdict === 'nothing') outcome.thenNothing()
        else outcome.thenRefused(verdict)
      })
    }
  }
})
