/** SIGKILL at random moments of a compaction: a step happened or it did not, and no digest is another (R29). */
import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import { commandPoints, evidence, past, temporary } from '../store/compact-support.ts'
import { endChildren, tracked } from '../support/children.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { script } from '../support/script.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'compact-child.ts')
afterAll(endChildren)

const start = (): ChildProcess =>
  tracked(spawn(process.execPath, script(CHILD), { stdio: ['pipe', 'pipe', 'inherit'] }))

/** Kills the child `life` ms after it began, or once it has said `steps` steps. Returns how many it said. */
async function live(
  child: ChildProcess,
  order: object,
  life: number,
): Promise<{ steps: number; done: boolean }> {
  const said = { steps: 0, done: false }
  let begun = () => {}
  const ready = new Promise<void>((resolve) => {
    begun = resolve
  })
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const { position, done } = JSON.parse(line) as { position?: number; done?: boolean }
    if (position !== undefined) said.steps++
    if (done === true) said.done = true
    begun()
  })
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()))
  child.stdin!.write(`${JSON.stringify(order)}\n`)
  await Promise.race([ready, closed])
  await delay(life)
  child.kill('SIGKILL')
  await closed
  return said
}

test('R29: killed at any moment of a compaction, a store is sound and every digest of its past is the same', async () => {
  const rounds = runs(12, 120)
  const used = seed()
  announce('kills during compaction', rounds, used)
  const random = prng(used)
  const { folder, clock, store } = await past(random, 90)
  const all = await commandPoints(store)
  const points = all.filter((_, i) => i % Math.ceil(all.length / 10) === 0)
  const before = await evidence(store, points)
  await store.close()
  let steps = 0
  let unfinished = 0
  let next = start()
  for (let round = 0; round < rounds; round++) {
    const child = next
    next = start()
    const copy = temporary()
    cpSync(folder, copy, { recursive: true })
    const policies = ['0s:5s', '0s:20s', '0s:90s']
    const said = await live(child, { folder: copy, time: clock.now(), policies }, random() * 250)
    steps += said.steps
    if (!said.done) unfinished++
    expect((await verifyStore(copy)).findings, `round ${round}`).toEqual([])
    const again = await openStore(copy, { clock })
    expect(await evidence(again, points), `round ${round}`).toEqual(before)
    expect((await again.status()).opened.rebuilt).toEqual([])
    await again.compact({ policy: '0s:90s' })
    expect(await evidence(again, points), `round ${round}, gone on with`).toEqual(before)
    await again.close()
    expect((await verifyStore(copy)).findings, `round ${round}, gone on with`).toEqual([])
  }
  expect(steps).toBeGreaterThan(0)
  expect(unfinished).toBeGreaterThan(0)
})
