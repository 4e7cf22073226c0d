/** The machine restarted: what was not synced may be gone, what was may not. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ContractChain, readAll } from '../../src/log/contract.ts'
import { OTHER_BOOT, openIn } from './open.ts'
import { copyOf, edit, flipBit, killedFolder, refusal, writeAheadFile } from './support.ts'

const restarted = { createIfMissing: false, bootId: OTHER_BOOT } as const

test('R30: cut after the synced record, the log opens after a restart and says from where it may lack events', async () => {
  const { root, next } = await killedFolder()
  const whole = await openIn(await copyOf(root), restarted)
  expect(whole.end).toMatchObject({ bootChanged: true, clean: false })
  expect(whole.log.head.next).toBe(next)
  const synced = whole.end.syncedHead.next
  await whole.log.close()

  const size = readFileSync(writeAheadFile(root)).length
  for (const kept of [0.3, 0.6, 0.9]) {
    const copy = await copyOf(root)
    edit(writeAheadFile(copy), (bytes) => bytes.subarray(0, Math.floor(size * kept)))
    const { log, end } = await openIn(copy, restarted)
    expect(log.head.next).toBeGreaterThanOrEqual(synced)
    expect(log.head.next).toBeLessThan(next)
    expect(end.recovered).toBeUndefined()
    expect((await readAll(log)).at(-1)!.first).toBeLessThan(log.head.next)
    await log.close()
  }
})

test('R30: cut before the synced record, the log is LOG_DAMAGED even after a restart', async () => {
  const { root } = await killedFolder()
  edit(writeAheadFile(root), (bytes) => bytes.subarray(0, 300))
  expect(await refusal(openIn(root, restarted))).toMatchObject({
    code: 'LOG_DAMAGED',
    facts: { problem: 'shorter' },
  })
})

test('R28, R30: a hole after the synced record is cut off after a restart, kept aside and reported; the same boot refuses it', async () => {
  const { root, next } = await killedFolder(1200)
  // LevelDB drops the rest of a 32 KiB block with a flipped bit, and goes on with the next block.
  flipBit(writeAheadFile(root), 40_000 * 8)
  const sameBoot = await refusal(openIn(await copyOf(root), { createIfMissing: false }))
  expect(sameBoot).toMatchObject({ code: 'LOG_DAMAGED', facts: { problem: 'hole', expected: next } })

  const { log, end } = await openIn(root, restarted)
  const from = log.head.next
  expect(end.recovered).toMatchObject({ from, problem: 'hole' })
  expect(from).toBe(sameBoot.facts.position)
  expect(end.recovered!.values).toBeGreaterThan(100)
  expect(readFileSync(end.recovered!.file).length).toBeGreaterThan(1000)
  const last = (await readAll(log)).at(-1)!
  expect(last.first + last.count).toBe(from)
  // The log goes on from there, and command ids that were cut off are free again.
  const chain = new ContractChain()
  chain.next = from
  chain.time = log.head.time!
  chain.hash = log.head.hash
  await log.append([chain.event('c1194')], { expected: from, sync: true })
  await log.close()
  const again = await openIn(root, restarted)
  expect(again.log.head.next).toBe(from + 1)
  await again.log.close()
})
