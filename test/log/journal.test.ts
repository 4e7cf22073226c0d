/** The journal in front of LevelDB: what it holds survives a kill, what is damaged in it is never taken for sound (R28, R30). */
import { copyFileSync, cpSync, existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { ContractChain } from '../../src/log/contract.ts'
import type { EventLog } from '../../src/log/event-log.ts'
import { journalPath, readJournal } from '../../src/log/journal.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { openIn } from './open.ts'
import { edit, flipBit, refusal, temporaryFolder, writeAheadFile } from './support.ts'

const existing = { createIfMissing: false }
const journalIn = (root: string) => journalPath(join(root, 'log'))

async function positions(log: EventLog): Promise<string> {
  const seen: string[] = []
  for await (const records of log.read())
    for (const record of records) seen.push(`${record.kind} ${record.first}+${record.count}`)
  return seen.join()
}

/**
 * What a kill leaves right after `records` appends of `rows` writes: LevelDB has those before `put`, the journal has all. Time
 * stands still meanwhile: no moment comes at which LevelDB gets them, and no write takes so long that the next one goes there.
 */
async function killedAfter(records: number, rows = 1, put = 0): Promise<{ root: string; next: number }> {
  const live = await temporaryFolder()
  const { log } = await openIn(live)
  const chain = new ContractChain()
  await log.append([chain.event()], { expected: 0, sync: true })
  const root = await temporaryFolder()
  let reading: Promise<unknown> | undefined
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  try {
    for (let i = 0; i < records; i++) {
      // A reader has LevelDB get what is there. What is appended before it is done keeps the journal from beginning anew.
      if (put > 0 && i === put) reading = positions(log)
      const record = chain.writes(rows)
      await log.append([record], { expected: record.first, sync: false })
    }
    await reading
    cpSync(live, root, { recursive: true })
  } finally {
    vi.useRealTimers()
  }
  await log.close()
  return { root, next: chain.next }
}

async function copied(root: string): Promise<string> {
  const copy = await temporaryFolder()
  cpSync(root, copy, { recursive: true })
  return copy
}

/** Bytes of the journal up to its last whole frame. */
function used(root: string): number {
  return readJournal(join(root, 'log')).reduce((sum, { value }) => sum + 4 + value.length, 0)
}

test('R30: records that only the journal has are there after a kill, in order and in the chain', async () => {
  const { root, next } = await killedAfter(50)
  expect(readJournal(join(root, 'log')).length).toBeGreaterThan(0)
  const { log } = await openIn(root, existing)
  expect(log.head.next).toBe(next)
  expect((await positions(log)).split(',')).toHaveLength(51)
  await log.close()
})

test('R30: the journal begins anew when it is full, again and again, and a kill loses nothing', async () => {
  const { root, next } = await killedAfter(9000, 40)
  const { log } = await openIn(root, existing)
  expect(log.head.next).toBe(next)
  let events = 0
  for await (const records of log.read()) for (const { count } of records) events += count
  expect(events).toBe(next)
  await log.close()
})

test('a clean close leaves no journal, and one that was left by a kill is taken in once', async () => {
  const { root, next } = await killedAfter(20)
  const { log } = await openIn(root, existing)
  await log.close()
  expect(existsSync(journalIn(root))).toBe(false)
  const again = (await openIn(root, existing)).log
  expect(again.head.next).toBe(next)
  await again.close()
})

test('R28: a journal that was cut is LOG_DAMAGED, since the head file knows more', async () => {
  const { root, next } = await killedAfter(30)
  const size = used(root)
  const rounds = runs(12, 200)
  announce('cut journal', rounds, 0)
  for (let round = 0; round < rounds; round++) {
    const copy = await copied(root)
    const kept = Math.floor((size * round) / rounds)
    edit(journalIn(copy), (bytes) => bytes.subarray(0, kept))
    const error = await refusal(openIn(copy, existing))
    expect(error).toMatchObject({ code: 'LOG_DAMAGED', facts: { problem: 'shorter', expected: next } })
  }
})

test('R28: a flipped bit in the journal is LOG_DAMAGED where LevelDB does not have the record', async () => {
  const { root, next } = await killedAfter(30)
  const size = used(root)
  const start = seed()
  const random = prng(start)
  const rounds = runs(25, 400)
  announce('flipped journal', rounds, start)
  for (let round = 0; round < rounds; round++) {
    const copy = await copied(root)
    flipBit(journalIn(copy), Math.floor(random() * size * 8))
    const error = await refusal(openIn(copy, existing))
    expect(error).toMatchObject({ code: 'LOG_DAMAGED', facts: { expected: next } })
  }
})

test('R28: what LevelDB lost of its write-ahead file, the journal makes up for', async () => {
  const { root, next } = await killedAfter(30, 1, 20)
  edit(writeAheadFile(root), (bytes) => bytes.subarray(0, bytes.length - 20))
  const without = await copied(root)
  rmSync(journalIn(without))
  expect(await refusal(openIn(without, existing))).toMatchObject({ code: 'LOG_DAMAGED' })
  const { log } = await openIn(root, existing)
  expect(log.head.next).toBe(next)
  await log.close()
})

test('R28: what LevelDB lost of an event that never was in the journal is LOG_DAMAGED', async () => {
  const { root, next } = await killedAfter(30)
  edit(writeAheadFile(root), (bytes) => bytes.subarray(0, bytes.length - 20))
  const error = await refusal(openIn(root, existing))
  expect(error).toMatchObject({ code: 'LOG_DAMAGED', facts: { expected: next } })
})

test('R28: a journal of another history is not taken, however well it fits in positions', async () => {
  const { root } = await killedAfter(10)
  const other = await temporaryFolder()
  const { log } = await openIn(other)
  const chain = new ContractChain()
  chain.time += 1000
  await log.append([chain.event()], { expected: 0, sync: true })
  const live = await temporaryFolder()
  cpSync(other, live, { recursive: true })
  await log.close()
  copyFileSync(journalIn(root), journalIn(live))
  const found = (await openIn(live, existing)).log
  expect(found.head.next).toBe(1)
  await found.close()
})

test('R28: a journal full of anything is passed over', async () => {
  const start = seed()
  const random = prng(start)
  const rounds = runs(10, 200)
  announce('journal of random bytes', rounds, start)
  for (let round = 0; round < rounds; round++) {
    const root = await temporaryFolder()
    const { log } = await openIn(root)
    await log.append([new ContractChain().event()], { expected: 0, sync: true })
    await log.close()
    const bytes = Uint8Array.from({ length: Math.floor(random() * 5000) }, () => Math.floor(random() * 256))
    edit(writeTo(journalIn(root)), () => bytes)
    const again = (await openIn(root, existing)).log
    expect(again.head.next).toBe(1)
    await again.close()
  }
})

/** Made, so that it can be edited. */
function writeTo(path: string): string {
  if (!existsSync(path)) copyFileSync('/dev/null', path)
  expect(readFileSync(path)).toHaveLength(0)
  return path
}
