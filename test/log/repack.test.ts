/** Joining small records while others append and read, and while the process dies. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { chainOf, EMPTY_HASH, readHeader } from '../../events/record.ts'
import { ContractChain, readAll } from '../../src/log/contract.ts'
import type { LevelEventLog } from '../../src/log/level-log.ts'
import { announce, runs } from '../support/property.ts'
import { openIn } from './open.ts'
import { kill, startChild, temporaryFolder } from './support.ts'

/** Read after every fifth, so that LevelDB gets them five at a time: else the journal would join them all by itself. */
async function appendSingles(
  log: LevelEventLog,
  chain: ContractChain,
  count: number,
  readEvery = 5,
): Promise<void> {
  for (let i = 0; i < count; i++) {
    const record = chain.writes(1)
    const { next } = await log.append([record], { expected: record.first, sync: false })
    if (i % readEvery === readEvery - 1) for await (const _ of log.read({ from: next - 1 })) break
  }
}

/** Walks every stored value: positions without hole, chain unbroken. Returns the number of values. */
async function proveChain(log: LevelEventLog): Promise<number> {
  let hash: Uint8Array = EMPTY_HASH
  let next = 0
  let values = 0
  for await (const batch of log.rawEntries()) {
    for (const { key, value } of batch) {
      if (key[0] !== 0x65) continue
      const header = readHeader(value)
      expect(header.first).toBe(next)
      hash = chainOf(value, hash)
      expect(hash).toEqual(header.hash)
      next += header.count
      values++
    }
  }
  expect(next).toBe(log.head.next)
  expect(hash).toEqual(log.head.hash)
  return values
}

test('R3, R28: small records are joined in the background while appends and readers go on, and the chain stays whole', async () => {
  const { log } = await openIn(await temporaryFolder(), { repackEvery: 256 })
  const chain = new ContractChain()
  let reading = true
  const readers = (async () => {
    while (reading) {
      await breathe()
      const positions = (await readAll(log)).map((record) => record.first)
      expect(positions).toEqual(positions.map((_, i) => i))
    }
  })()
  await appendSingles(log, chain, runs(3000, 20_000))
  reading = false
  await readers
  await log.repack()
  expect(await proveChain(log)).toBeLessThan(log.head.next / 100)
  await log.close()
})

test('a second repack goes on where the first ended, also after a restart of the process', async () => {
  const root = await temporaryFolder()
  const chain = new ContractChain()
  const first = (await openIn(root)).log
  await appendSingles(first, chain, 2000)
  const { before, after } = await first.repack()
  expect(before).toBeGreaterThanOrEqual(400)
  expect(after).toBeLessThanOrEqual(5)
  expect((await first.repack()).before).toBeLessThanOrEqual(1)
  await first.close()
  const second = (await openIn(root)).log
  await appendSingles(second, chain, 100)
  expect((await second.repack()).before).toBeLessThanOrEqual(101)
  await proveChain(second)
  await second.close()
})

test('an aborted repack leaves the log as it is', async () => {
  const { log } = await openIn(await temporaryFolder())
  await appendSingles(log, new ContractChain(), 600)
  const values = await proveChain(log)
  expect(values).toBeGreaterThanOrEqual(120)
  await expect(log.repack({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
  expect(await proveChain(log)).toBe(values)
  await log.close()
})

test('R30: killed at any time while repacking, the log has every acknowledged event and an unbroken chain', async () => {
  const rounds = runs(3, 25)
  announce('kill while repacking', rounds, 0)
  for (let round = 0; round < rounds; round++) {
    const root = await temporaryFolder()
    const { child, lines, until } = startChild(root, '200', 'forever', '64')
    await until(new RegExp(`^${250 + round * 37}$`))
    await kill(child)
    const { log } = await openIn(root)
    expect(log.head.next).toBeGreaterThanOrEqual(Number(lines.at(-1)))
    await proveChain(log)
    await log.close()
  }
})

test('one write per record costs at most 12 bytes each after a clean close, keys, hashes and all files included', async () => {
  const root = await temporaryFolder()
  const { log } = await openIn(root, { repackEvery: 4096 })
  const chain = new ContractChain()
  await appendSingles(log, chain, 20_000, Number.POSITIVE_INFINITY)
  await log.close()
  const files = readdirSync(join(root, 'log')).map((name) => statSync(join(root, 'log', name)).size)
  expect(files.reduce((sum, size) => sum + size, 0) / 20_000).toBeLessThan(12)
})
