/** `verify` of a store that is open and written to: what it finds, what it leaves alone, and that it finds nothing that is not there. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { verifyLive } from '../../src/audit/verify-live.ts'
import { openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { coreOf } from '../../src/store/store.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { folders, makeStore } from './support.ts'

const { path, copy } = folders()
const open = new Set<Store>()
afterEach(async () => {
  for (const store of open) await store.close()
  open.clear()
})

test('R28, R34: on the same log the live verify reports what the one of a closed store does', async () => {
  const folder = path()
  await makeStore(folder)
  const closed = await verifyStore(await copy(folder))
  const store = await openStore(folder)
  open.add(store)
  expect(await verifyLive(store)).toEqual(closed)
  expect(closed.findings).toEqual([])
  const { position, hash } = closed.head
  expect((await verifyLive(store, { against: { position, hash } })).findings).toEqual([])
  const other = { position, hash: '0'.repeat(64) }
  expect((await verifyLive(store, { against: other })).findings).toMatchObject([{ code: 'ANCHOR_DIFFERS' }])
})

test('R28: a sound store that is written to, snapshot, packed and banked meanwhile gives no finding', async () => {
  const rounds = runs(4, 10)
  const used = seed()
  announce('live verify of a busy store', rounds, used)
  const random = prng(used)
  const store = await openStore(path(), { snapshotEvery: 300 })
  open.add(store)
  const disk = await store.ensureDisk('vda', { size: 2 ** 30 })
  const bitmap = await disk.ensureBitmap('b', { retention: 60_000 })
  const events: number[] = []
  for (let round = 0; round < rounds; round++) {
    let busy = true
    const work = async (): Promise<void> => {
      for (let i = 0; busy; i++) {
        const writes = Array.from({ length: 1 + Math.floor(random() * 60) }, () => ({
          offset: Math.floor(random() * 10_000) * 65536,
          length: 512,
        }))
        await disk.recordWrites(writes)
        if (i % 10 === 0) await bitmap.bank({ commandId: `bank-${round}-${i}` })
        if (i % 11 === 0) await store.snapshot()
        if (i % 13 === 0) await store.repack()
        await sleep(5)
      }
    }
    const working = work()
    await sleep(100)
    const report = await verifyLive(store)
    busy = false
    await working
    expect(report.findings).toEqual([])
    events.push(report.events)
  }
  expect(events.every((n, i) => i === 0 || n > events[i - 1]!)).toBe(true)
  expect((await store.status()).opened.rebuilt).toEqual([])
})

test('R28, R29: a compaction that reaches the head while a verify has only begun gives no finding', async () => {
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const store = await openStore(path(), { clock })
  open.add(store)
  const disk = await store.ensureDisk('vda', { size: 2 ** 30 })
  await disk.addBitmap('b')
  const writeSome = async () => {
    for (let i = 0; i < 20; i++) {
      clock.advance(100)
      await disk.recordWrites([{ offset: i * 65536, length: 512 }])
    }
  }
  await writeSome()
  const before = await verifyLive(store)
  await writeSome()
  const { head } = store
  // What is derived is looked at before the log is walked: there the store goes on, and folds what the verify began with.
  const { derived } = coreOf(store)
  const view = derived.view.bind(derived)
  let folded = 0
  derived.view = (top) => {
    const seen = view(top)
    const refs = seen.refs.bind(seen)
    seen.refs = async () => {
      await writeSome()
      clock.advance(120_000)
      await disk.recordWrites([{ offset: 0, length: 512 }])
      folded = (await store.compact({ policy: '0s:1m' })).upTo.position
      return await refs()
    }
    return seen
  }
  const report = await verifyLive(store)
  expect(folded).toBeGreaterThan(head.position)
  expect(report.findings).toEqual([])
  expect(report.head.position).toBe(head.position)
  derived.view = view
  // A cursor of before: the place it stood at is folded by now, which is no finding either.
  const since = await verifyLive(store, { since: { ...before.head } })
  expect([since.findings, since.note !== null]).toEqual([[], true])
})

test('R28: a damaged derived value of an open store is reported, and left to the store to find', async () => {
  const folder = path()
  await makeStore(folder)
  const store = await openStore(folder)
  open.add(store)
  await store.snapshot()
  const { derived } = coreOf(store)
  const refs = await derived.refs()
  const snapshots = await derived.snapshots()
  expect(refs.length * snapshots.length).toBeGreaterThan(0)
  await derived.write([[`b${refs[0]}`, new Uint8Array([1, 2, 3])]])
  const { findings } = await verifyLive(store)
  expect(new Set(findings.map(({ code }) => code))).toEqual(new Set(['DERIVED_DAMAGED']))
  expect(await derived.refs()).toEqual(refs)
  expect(await derived.snapshots()).toEqual(snapshots)
  expect(derived.rebuilt).toEqual([])
})

test('R28: a record that was changed under an open store is found', async () => {
  const folder = path()
  await makeStore(folder)
  const store = await openStore(folder)
  open.add(store)
  const { log } = coreOf(store) as unknown as { log: { rawEntries(): AsyncIterable<{ key: Uint8Array }[]> } }
  let first: Uint8Array | undefined
  for await (const entries of log.rawEntries()) first ??= entries[0]?.key
  expect(first).toBeDefined()
  const { db } = await databaseOf(store)
  const value = (await db.get(first!))!
  value[value.length - 1]! ^= 1
  await db.put(first!, value)
  const { findings } = await verifyLive(store)
  expect(findings.length).toBeGreaterThan(0)
  expect(findings[0]).toMatchObject({ code: expect.stringMatching(/^RECORD|^COMMAND|^CHAIN/) })
})

test('R34: a verify that is stopped leaves the store open; one in memory has no files to verify', async () => {
  const folder = path()
  await makeStore(folder)
  const store = await openStore(folder)
  open.add(store)
  await expect(verifyLive(store, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
  await store.disk('vda').recordWrites([{ offset: 0, length: 1 }])
  const memory = await openMemoryStore()
  open.add(memory)
  await expect(verifyLive(memory)).rejects.toThrow(TypeError)
})

interface Db {
  get(key: Uint8Array): Promise<Uint8Array | undefined>
  put(key: Uint8Array, value: Uint8Array): Promise<void>
}

/** LevelDB as the open log has it, which nobody but a test may write to. */
async function databaseOf(store: Store): Promise<{ db: Db }> {
  const { source } = await (
    coreOf(store).log as unknown as { frozen(): Promise<{ source: { db: Db; release(): Promise<void> } }> }
  ).frozen()
  await source.release()
  return { db: source.db }
}
