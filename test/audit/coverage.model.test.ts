/** Coverage against a disk whose bytes are known, and restoring by brute force (R19, R24, R25, R35). */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { proof } from '../support/property.ts'
import { nothingSeen, type Step, World } from './coverage-model.ts'

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.nat(63),
  a: fc.nat(1000),
  b: fc.nat(1000),
  c: fc.nat(1000),
})

test('R25: after any history of backups, losses and merges, coverage restores what brute force restores, byte for byte, and every repair it offers gives what it promises', async () => {
  const seen = nothingSeen()
  await fc.assert(
    fc.asyncProperty(
      fc.noBias(fc.array(step, { minLength: 10, maxLength: 70, size: 'max' })),
      fc.noBias(fc.nat()),
      async (steps, choice) => {
        const world = await World.make(seen)
        try {
          for (const one of steps) await world.step(one)
          await world.compare(choice)
        } finally {
          await world.close()
        }
      },
    ),
    proof('coverage against brute force', 300, 5000),
  )
  process.stderr.write(`coverage: ${JSON.stringify(seen)}\n`)
  // A proof of nothing: each kind of outcome has to have been met.
  for (const [what, times] of Object.entries(seen)) expect([what, times > 0]).toEqual([what, true])
})
