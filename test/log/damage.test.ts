/** Logs that lost something: each loss is found at open or when it is read, and nothing is deleted. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { expect, test } from 'vitest'
import { ContractChain, readAll } from '../../src/log/contract.ts'
import { eventKey } from '../../src/log/keys.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { openIn } from './open.ts'
import { copyOf, edit, flipBit, killedFolder, refusal, temporaryFolder, writeAheadFile } from './support.ts'

const existing = { createIfMissing: false } as const

test('R30: after kill -9 every acknowledged event is there, and nothing is kept aside', async () => {
  const { root, next } = await killedFolder()
  const { log, end } = await openIn(root, existing)
  expect(log.head.next).toBe(next)
  expect(end).toMatchObject({ clean: false, bootChanged: false })
  expect(end.syncedHead.next).toBeLessThan(next)
  expect((await readAll(log)).reduce((sum, record) => sum + record.count, 0)).toBe(next)
  expect(existsSync(join(root, 'aside')) ? readdirSync(join(root, 'aside')) : []).toEqual([])
  await log.close()
})

test('R28: a write-ahead file cut after kill -9 is LOG_DAMAGED, naming what is missing and where the files were kept', async () => {
  const { root, next } = await killedFolder()
  const size = readFileSync(writeAheadFile(root)).length
  const rounds = runs(12, 200)
  announce('cut write-ahead file', rounds, 0)
  for (let round = 0; round < rounds; round++) {
    const copy = await copyOf(root)
    const kept = Math.floor((size * round) / rounds)
    edit(writeAheadFile(copy), (bytes) => bytes.subarray(0, kept))
    const error = await refusal(openIn(copy, existing))
    expect(error.code).toBe('LOG_DAMAGED')
    expect(error.facts).toMatchObject({ problem: 'shorter', expected: next })
    if (kept > 0)
      expect(readdirSync(String(error.facts.aside)).some((name) => name.endsWith('.log'))).toBe(true)
    const again = await refusal(openIn(copy, existing))
    expect(again.code, 'a second open says so too').toBe('LOG_DAMAGED')
    expect(again.facts.aside).toBe(error.facts.aside)
  }
})

test('R28: a flipped bit in a write-ahead file after kill -9 is LOG_DAMAGED, wherever it is', async () => {
  const { root, next } = await killedFolder()
  const size = readFileSync(writeAheadFile(root)).length
  const rounds = runs(25, 400)
  const used = seed()
  announce('flipped write-ahead file', rounds, used)
  const random = prng(used)
  const problems = new Set<unknown>()
  for (let round = 0; round < rounds; round++) {
    const copy = await copyOf(root)
    flipBit(writeAheadFile(copy), Math.floor(random() * size * 8))
    const error = await refusal(openIn(copy, existing))
    expect(error.code).toBe('LOG_DAMAGED')
    expect(error.facts.expected).toBe(next)
    problems.add(error.facts.problem)
  }
  for (const problem of problems) expect(['shorter', 'hole']).toContain(problem)
})

async function closedFolder(): Promise<{ root: string; chain: ContractChain }> {
  const root = await temporaryFolder()
  const { log } = await openIn(root)
  const chain = new ContractChain()
  for (let i = 0; i < 30; i++) {
    const record = chain.writes(100)
    await log.append([record], { expected: record.first, sync: false })
  }
  await log.close()
  return { root, chain }
}

test('a clean close leaves nothing in a write-ahead file, so cutting it costs nothing', async () => {
  const { root, chain } = await closedFolder()
  edit(writeAheadFile(root), () => new Uint8Array(0))
  const { log, end } = await openIn(root, existing)
  expect(log.head).toEqual({ next: chain.next, time: chain.time - 1, hash: chain.hash })
  expect(end.clean).toBe(true)
  await log.close()
})

test('R28: a flipped bit in a table file is never served: the open or the read refuses it', async () => {
  const { root, chain } = await closedFolder()
  const table = readdirSync(join(root, 'log')).find((name) => /\.(ldb|sst)$/.test(name))!
  const size = readFileSync(join(root, 'log', table)).length
  const rounds = runs(25, 400)
  const used = seed()
  announce('flipped table file', rounds, used)
  const random = prng(used)
  for (let round = 0; round < rounds; round++) {
    const copy = await copyOf(root)
    flipBit(join(copy, 'log', table), Math.floor(random() * size * 8))
    try {
      const { log } = await openIn(copy, existing)
      try {
        const records = await readAll(log)
        expect(records.reduce((sum, record) => sum + record.count, 0)).toBe(chain.next)
      } finally {
        await log.close()
      }
    } catch (error) {
      expect(error).toMatchObject({ code: expect.stringMatching(/^(LOG_DAMAGED|IO_FAILED)$/) })
    }
  }
})

test.each(['CURRENT', 'MANIFEST', 'ldb'])(
  'R28: a missing %s file is LOG_DAMAGED, not a new log',
  async (part) => {
    const { root } = await closedFolder()
    for (const name of readdirSync(join(root, 'log')))
      if (name.includes(part)) rmSync(join(root, 'log', name))
    expect((await refusal(openIn(root, existing))).code).toBe('LOG_DAMAGED')
    expect((await refusal(openIn(root, { createIfMissing: true }))).code).toBe('LOG_DAMAGED')
  },
)

test.each([
  ['another name', 'MANIFEST-999999\n'],
  ['a name with a zero in it', 'M\0\0\0FEST-000002\n'],
  ['a folder', '..\n'],
  ['nothing', ''],
])('R28: CURRENT with %s in it is LOG_DAMAGED, and no error of the disk', async (_, content) => {
  const { root } = await closedFolder()
  edit(join(root, 'log/CURRENT'), () => Buffer.from(content))
  const error = await refusal(openIn(root, existing))
  expect(error).toMatchObject({ code: 'LOG_DAMAGED', facts: { problem: 'missing-files' } })
})

test('R28: a log that lost its last record, or has another one in its place, is LOG_DAMAGED', async () => {
  const { root, chain } = await closedFolder()
  const db = new ClassicLevel<Uint8Array, Uint8Array>(join(root, 'log'), {
    keyEncoding: 'view',
    valueEncoding: 'view',
  })
  const last = await db.get(eventKey(2900))
  await db.del(eventKey(2900))
  await db.close()
  expect((await refusal(openIn(root, existing))).facts).toMatchObject({
    problem: 'shorter',
    expected: chain.next,
    found: 2900,
  })
  const again = new ClassicLevel<Uint8Array, Uint8Array>(join(root, 'log'), {
    keyEncoding: 'view',
    valueEncoding: 'view',
  })
  const other = new ContractChain()
  other.next = 2900
  await again.put(eventKey(2900), other.writes(100).bytes)
  await again.close()
  expect((await refusal(openIn(root, existing))).facts).toMatchObject({ problem: 'chain' })
  expect(last).toBeDefined()
})

test('R28: a hole in the middle is found when it is read, and named', async () => {
  const { root } = await closedFolder()
  const db = new ClassicLevel<Uint8Array, Uint8Array>(join(root, 'log'), {
    keyEncoding: 'view',
    valueEncoding: 'view',
  })
  await db.del(eventKey(500))
  await db.close()
  const { log } = await openIn(root, existing)
  for (const options of [{}, { from: 550 }, { reverse: true }, { to: 599 }, { from: 500, to: 510 }]) {
    const error = await refusal(readAll(log, options))
    expect(error, JSON.stringify(options)).toMatchObject({ code: 'LOG_DAMAGED', facts: { problem: 'hole' } })
  }
  await log.close()
})

test('verify can look into a damaged log: inspect opens it, says what is wrong, and changes nothing', async () => {
  const { root, chain } = await closedFolder()
  const db = new ClassicLevel<Uint8Array, Uint8Array>(join(root, 'log'), {
    keyEncoding: 'view',
    valueEncoding: 'view',
  })
  await db.del(eventKey(2900))
  await db.close()
  const head = readFileSync(join(root, 'head'))
  const { log, end, heads } = await openIn(root, { ...existing, inspect: true })
  expect(end.damage).toMatchObject({ code: 'LOG_DAMAGED', facts: { problem: 'shorter' } })
  expect(heads).toMatchObject({ kind: 'good', slot: { acknowledged: { next: chain.next } } })
  let keys = 0
  for await (const batch of log.rawEntries()) keys += batch.length
  expect(keys).toBe(29)
  expect((await readAll(log)).length).toBe(29)
  await log.close()
  expect(readFileSync(join(root, 'head'))).toEqual(head)
})
