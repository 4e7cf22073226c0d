import fc from 'fast-check'
import { expect, test } from 'vitest'
import { planReason, planShape } from '../../projections/plan.ts'
import type { BitmapState } from '../../projections/state.ts'
import { decideTransaction } from '../../src/commands/transaction.ts'
import { CheckpointError } from '../../src/errors.ts'
import { CALM, given, recordOf } from '../../src/testing/given.ts'
import { REFS, steps } from '../commands/random-commands.ts'
import { proof } from '../support/property.ts'

/** Whether a write at `position` is in the bits of some part that `numbers` names. */
function collected(bitmap: BitmapState, numbers: ReadonlySet<number | 'active'>, position: number): boolean {
  const end = { position: Number.MAX_SAFE_INTEGER, time: null }
  const spans = [
    ...bitmap.slices.filter(({ number }) => numbers.has(number)),
    ...(numbers.has('active') ? [{ ...bitmap.active, to: bitmap.successor?.from ?? end }] : []),
    ...(numbers.has('active') && bitmap.successor !== null ? [{ ...bitmap.successor, to: end }] : []),
  ]
  return spans.some(
    ({ from, to, gaps }) =>
      from.position < position &&
      position <= to.position &&
      !gaps.some((gap) => gap.from.position < position && position <= (gap.to ?? to).position),
  )
}

test('R11, R24: whatever happened, a plan since any point holds every position between the base and its own point', () => {
  fc.assert(
    fc.property(steps, fc.noBias(fc.nat()), (list, seed) => {
      const { catalog } = given(
        { type: 'disk-added', disk: 'a', size: 1_000_000 },
        { type: 'disk-added', disk: 'b', size: 1_000_000 },
        REFS.map((ref) => ({
          type: 'bitmap-added',
          ...ref,
          granularity: 65_536,
          recording: true,
          persistent: true,
          retention: 3,
        })),
      )
      for (const step of list) {
        try {
          if (step.kind === 'writes') {
            if (catalog.disk(step.disk) !== undefined)
              catalog.apply(recordOf(catalog, { type: 'writes', disk: step.disk, count: step.count }))
            continue
          }
          const { events } = decideTransaction(
            catalog,
            step.commands.map((draft) => draft(catalog)),
            CALM,
          )
          if (events.length > 0) catalog.apply(recordOf(catalog, events))
        } catch (error) {
          if (!(error instanceof CheckpointError)) throw error
        }
      }
      for (const disk of catalog.disks()) {
        for (const bitmap of disk.bitmaps.values()) {
          const position = seed % (catalog.last.position + 1)
          const base = { kind: 'position', position, time: null } as const
          const shape = planShape(disk, bitmap, base, catalog.last)
          expect(planReason(shape, base).length).toBeGreaterThan(0)
          if (shape.whole !== null) continue
          const numbers = new Set(shape.parts.map((part) => (part.kind === 'slice' ? part.slice : 'active')))
          for (let at = position + 1; at <= catalog.last.position; at++) {
            const fromLog = shape.stretches.some(({ from, to }) => from.position < at && at <= to.position)
            expect(fromLog || collected(bitmap, numbers, at), `position ${at} since ${position}`).toBe(true)
          }
        }
      }
    }),
    proof('plans miss nothing', 200, 5_000),
  )
})
