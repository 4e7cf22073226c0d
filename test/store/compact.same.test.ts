import { expect, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/index.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { commandPoints, evidence, MINUTE, past, somePolicy } from './compact-support.ts'

test('R26, R29: every bitmap, slice and plan at every command is the same after a compaction, and after a second one', async () => {
  const rounds = runs(6, 150)
  const used = seed()
  announce('compaction changes no digest', rounds, used)
  const random = prng(used)
  let folded = 0
  for (let round = 0; round < rounds; round++) {
    const { folder, clock, store } = await past(random, 100)
    const points = await commandPoints(store)
    const before = await evidence(store, points)
    const { hash } = store.head
    const first = await store.compact({ policy: somePolicy(random) })
    expect(await evidence(store, points), `round ${round}, once`).toEqual(before)
    clock.advance(20 * MINUTE)
    const second = await store.compact({ policy: random() < 0.5 ? '5s:10m' : somePolicy(random) })
    expect(await evidence(store, points), `round ${round}, twice`).toEqual(before)
    expect(store.head.hash === hash).toBe(first.runs + second.runs === 0)
    folded += first.events + second.events
    await store.close()
    expect((await verifyStore(folder)).findings).toEqual([])
    const again = await openStore(folder, { clock })
    expect((await again.status()).opened.rebuilt).toEqual([])
    expect(await evidence(again, points), `round ${round}, reopened`).toEqual(before)
    await again.close()
  }
  expect(folded).toBeGreaterThan(rounds * 100)
})
