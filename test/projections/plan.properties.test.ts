import fc from 'fast-check'
import { expect, test } from 'vitest'
import { planReason, planShape } from '../../projections/plan.ts'
import type { BitmapState } from '../../projections/state.ts'
import { given } from '../../src/testing/given.ts'
import { bitmapAdded, diskAdded } from '../commands/kit.ts'
import { REFS, recordOfStep, steps } from '../commands/random-commands.ts'
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
        diskAdded('a', 1_000_000),
        diskAdded('b', 1_000_000),
        REFS.map((ref) => bitmapAdded(ref, { retention: 3 })),
      )
      for (const step of list) {
        const record = recordOfStep(catalog, step)
        if (record !== null) catalog.apply(record)
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
