import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { LogRecord } from '../../events/types.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { CheckpointError, openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { formatPolicy, policyOf } from '../../src/store/policy.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { resealed } from '../audit/support.ts'
import { temporary } from './compact-support.ts'
import { again, KiB, refused, type Small, SpyLog, small, T0 } from './support.ts'

/** `n` calls of `rows` writes, a second apart. */
async function writes({ disk, clock }: Pick<Small, 'disk' | 'clock'>, n: number, rows = 20): Promise<void> {
  for (let i = 0; i < n; i++) {
    clock.advance(1000)
    await disk.recordWrites(
      Array.from({ length: rows }, (_, row) => ({ offset: ((i + row) % 200) * 4 * KiB, length: 4 * KiB })),
    )
  }
}

async function recordsOf(store: Store): Promise<LogRecord[]> {
  const all: LogRecord[] = []
  for await (const records of store.records()) all.push(...records)
  return all
}

/** No window holds this position and the next. */
async function isPoint(store: Store, position: number): Promise<boolean> {
  const records = await recordsOf(store)
  return records.every(
    (record) =>
      record.kind !== 'windows' ||
      record.windows.every(({ first, count }) => position < first || position >= first + count - 1),
  )
}

const kinds = async (store: Store) => (await recordsOf(store)).map(({ kind }) => kind)

test('R29: a policy is a list of ages and windows that both rise', () => {
  expect(policyOf('7d:1m,90d:1h')).toEqual([
    { olderThan: 604_800_000, window: 60_000 },
    { olderThan: 7_776_000_000, window: 3_600_000 },
  ])
  for (const text of ['7d:1m,90d:1h', '0s:1ms', '90m:30s', '1500ms:1s,2d:1d'])
    expect(formatPolicy(policyOf(text))).toBe(text)
  expect(formatPolicy(policyOf(' 1w : 60s '))).toBe('7d:1m')
  for (const bad of [
    '',
    '7d',
    '7d:',
    ':1m',
    '7d:1m:1h',
    '7:1m',
    '7d:1y',
    '-1d:1m',
    '1.5d:1m',
    '7d:0s',
    '90d:1h,7d:1m',
    '7d:1h,90d:1h',
    '7d:1m,7d:1h',
    '9999999999999d:1m',
    Array.from({ length: 17 }, (_, i) => `${i}d:${i + 1}s`).join(),
  ])
    expect(() => policyOf(bad), bad).toThrow(CheckpointError)
  for (const bad of [[], [{ olderThan: -1, window: 1 }], [{ olderThan: 0, window: 0.5 }]])
    expect(() => policyOf(bad)).toThrow(CheckpointError)
  for (const bad of [7, null, {}]) expect(() => policyOf(bad as never)).toThrow(TypeError)
})

test('R29: only what is older than the age is folded, a window at a time, and never a command', async () => {
  const one = await small()
  await writes(one, 300)
  await one.bitmap.bank()
  await writes(one, 200)
  const head = one.store.head.position
  const before = await recordsOf(one.store)
  const { runs, windows, events, upTo, bytesBefore, bytesAfter } = await one.store.compact({
    policy: '2m:1m',
  })
  expect(runs).toBe(2)
  expect(windows).toBeGreaterThanOrEqual(4)
  expect(windows).toBeLessThanOrEqual(9)
  expect(bytesAfter).toBeLessThan(bytesBefore)
  expect(upTo.time!).toBeLessThan(one.clock.now() - 120_000 + 1)
  const after = await recordsOf(one.store)
  const folded = after.filter(({ kind }) => kind === 'windows')
  expect(folded.reduce((sum, { count }) => sum + count, 0)).toBe(events)
  expect(after.filter(({ kind, first }) => kind === 'events' && first <= head)).toEqual(
    before.filter(({ kind }) => kind === 'events'),
  )
  for (const record of folded) {
    expect(record.lastTime).toBeLessThan(one.clock.now() - 120_000)
    if (record.kind === 'windows')
      for (const { time, lastTime } of record.windows)
        expect(Math.floor(lastTime / 60_000)).toBe(Math.floor(time / 60_000))
  }
  const last = after.at(-1)!
  expect(last.kind === 'events' && last.events).toMatchObject([{ type: 'log-compacted', runs: [{}, {}] }])
  expect(last.kind === 'events' && last.meta).toMatchObject({ command: 'compact' })
  // Nothing is left to fold: no event is recorded over nothing.
  const now = one.store.head.position
  expect(await one.store.compact({ policy: '2m:1m' })).toMatchObject({ runs: 0, events: 0 })
  expect(one.store.head.position).toBe(now)
})

test('R29: windows of minutes become windows of hours, and events join those of the same hour', async () => {
  const one = await small()
  await writes(one, 1200, 8)
  expect((await one.store.compact({ policy: '1m:1m' })).windows).toBeGreaterThan(15)
  await writes(one, 1200, 8)
  const second = await one.store.compact({ policy: '1m:1m,10m:10m' })
  expect(second.runs).toBeGreaterThan(0)
  const windows = (await recordsOf(one.store)).flatMap((record) =>
    record.kind === 'windows' ? record.windows : [],
  )
  expect(windows.length).toBeLessThan(15)
  expect(windows.some(({ count }) => count > 4000)).toBe(true)
})

test('R29: no window crosses a position that a base, a cursor, a told window or a lost stretch refers to', async () => {
  const one = await small()
  await writes(one, 30)
  const base = one.store.head.position - 313
  const cursor = await one.store.cursor('reader')
  await cursor.save(base + 47)
  await one.disk.beginBackup({ bitmap: 'daily', mode: 'differential', since: { position: base }, id: 'b' })
  await one.store.backup('b').succeed()
  const from = one.store.head.position - 200
  await one.disk.declareLost('host down', { from: { position: from } })
  await writes(one, 200)
  one.clock.advance(7_200_000)
  await one.store.compact({ policy: '0s:1h' })
  expect(await kinds(one.store)).toContain('windows')
  for (const position of [base, base + 47, from])
    expect(await isPoint(one.store, position), `${position}`).toBe(true)
  expect(await isPoint(one.store, base - 1)).toBe(false)
  const changed = await one.store.changed('vda', {
    since: { position: base },
    until: { position: base + 47 },
    granularity: 512,
  })
  expect(changed.resolution).toBe('exact')
})

test('R29: a base inside a window is its start, the plan covers more, and its reason says so', async () => {
  const one = await small()
  await one.bitmap.bank()
  await writes(one, 100)
  await one.bitmap.bank()
  const inside = one.store.head.position - 501
  const exact = await one.disk.plan({ bitmap: 'daily', mode: 'differential', since: { position: inside } })
  await one.store.compact({ policy: '0s:10s' })
  const plan = await one.disk.plan({ bitmap: 'daily', mode: 'differential', since: { position: inside } })
  expect(plan.base.position).toBeLessThan(inside)
  expect(plan.reason).toContain('inside a window')
  expect(plan.reason).toContain(String(inside))
  expect(plan.bytes).toBeGreaterThanOrEqual(exact.bytes)
  const covered = (extent: { offset: number; length: number }) =>
    plan.extents.some(
      ({ offset, length }) => offset <= extent.offset && extent.offset + extent.length <= offset + length,
    )
  expect(exact.extents.every(covered)).toBe(true)
  const time = new Date(exact.base.time! + 500)
  const byTime = await one.disk.plan({ bitmap: 'daily', mode: 'differential', since: { time } })
  expect(byTime.reason).toContain('inside a window')
  // Begun on it, the backup replays from the log alone, before and after another compaction (R26).
  const backup = await one.disk.beginBackup({
    bitmap: 'daily',
    mode: 'differential',
    since: { position: inside },
    id: 'on-it',
  })
  const told = await backup.plan
  await backup.succeed()
  await writes(one, 10)
  one.clock.advance(7_200_000)
  await one.store.compact({ policy: '0s:1h' })
  expect(await one.store.replayPlan('on-it')).toMatchObject({
    digest: told.digest,
    bytes: told.bytes,
    reason: told.reason,
  })
})

test('R21, R33: a compaction whose append fails leaves everything as it was', async () => {
  const inner = new MemoryEventLog()
  const first = await small({ log: inner })
  await writes(first, 100)
  const before = await recordsOf(first.store)
  const appends = 3
  const log = new FaultLog(new MemoryEventLog(inner.storage), { kind: 'fail', at: appends - 2 })
  const store = await openMemoryStore({ clock: manualClock(first.clock.now()), log })
  await expect(store.compact({ policy: '0s:1m' })).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
  expect(await recordsOf(store)).toEqual(before)
  await expect(store.compact({ policy: '0s:1m' })).rejects.toMatchObject({ code: 'STORE_FAILED' })
  const opened = await again(inner, { clock: manualClock(first.clock.now()) })
  expect(await recordsOf(opened)).toEqual(before)
  expect((await opened.compact({ policy: '0s:1m' })).runs).toBe(1)
})

test('R28, R29: nothing is folded over a record that was edited: damage must not vanish in a window', async () => {
  const inner = new MemoryEventLog()
  const { store, disk, clock } = await small({ log: inner })
  await writes({ disk, clock }, 50)
  const entries = inner.storage.entries as { position: number; value: Uint8Array }[]
  const index = entries.findIndex(({ position }) => position > 300)
  const entry = entries[index]!
  const value = Uint8Array.from(entry.value)
  value[value.length - 1]! ^= 1
  entries[index] = { position: entry.position, value: resealed(value) }
  await refused(store, 'LOG_DAMAGED', () => store.compact({ policy: '0s:10s' }))
  entries[index] = { position: entry.position, value }
  await refused(store, 'LOG_DAMAGED', () => store.compact({ policy: '0s:10s' }))
  entries[index] = entry
  expect((await store.compact({ policy: '0s:10s' })).runs).toBe(1)
  await disk.recordWrites([{ offset: 0, length: 512 }])
})

test('R29: what becomes a point between a step and its record is not folded across', async () => {
  const log = new SpyLog(new MemoryEventLog())
  const one = await small({ log })
  await writes(one, 100)
  const inside = one.store.head.position - 700
  one.clock.advance(7_200_000)
  const cursor = await one.store.cursor('late')
  // Saved while the step is read, before the committer takes it.
  const compacted = one.store.compact({ policy: '0s:1h', onProgress: () => undefined })
  await cursor.save(inside)
  await compacted
  expect(await isPoint(one.store, inside)).toBe(true)
})

test('R29: a dry run and an estimate tell what it would give back, and change nothing', async () => {
  const one = await small()
  await writes(one, 400)
  const before = one.store.head
  const dry = await one.store.compact({ policy: '1m:1m', dryRun: true })
  const estimate = await one.store.compactionEstimate('1m:1m')
  expect(one.store.head).toEqual(before)
  const { growth, compaction } = await one.store.status()
  expect(growth.eventsPerDay).toBeGreaterThan(1_000_000)
  expect(growth.bytesPerDay).toBeGreaterThan(growth.eventsPerDay)
  expect(compaction).toMatchObject({ policy: '7d:1m,90d:1h', events: 0, bytes: 0, exact: true, last: null })
  const done = await one.store.compact({ policy: '1m:1m' })
  expect(dry).toEqual(done)
  expect(estimate).toEqual({
    policy: '1m:1m',
    events: done.events,
    bytes: done.bytesBefore - done.bytesAfter,
    exact: true,
  })
  expect(await one.store.compactionEstimate('1m:1m')).toMatchObject({ events: 0, bytes: 0 })
})

test('R29: it tells how far it is, stops when asked, and goes on from there', async () => {
  const one = await small()
  await writes(one, 400)
  const stop = new AbortController()
  const seen: number[] = []
  const options = { policy: '1m:30s', stepBytes: 2000 }
  const onProgress = (position: number) => {
    seen.push(position)
    if (seen.length === 3) stop.abort()
  }
  await expect(one.store.compact({ ...options, signal: stop.signal, onProgress })).rejects.toMatchObject({
    code: 'ABORTED',
  })
  expect(seen.length).toBe(3)
  expect([...seen].sort((a, b) => a - b)).toEqual(seen)
  const half = (await recordsOf(one.store)).filter(({ kind }) => kind === 'windows').length
  expect(half).toBeGreaterThan(0)
  const rest = await one.store.compact(options)
  expect(rest.events).toBeGreaterThan(0)
  await expect(one.store.compact({ policy: '7:1' })).rejects.toMatchObject({ code: 'POLICY_INVALID' })
  const closing = one.store.compact({ policy: '0s:45s', stepBytes: 500, pauseMs: 60_000 })
  const closed = one.store.close()
  await expect(closing).rejects.toMatchObject({ code: 'STORE_CLOSED' })
  await closed
  await expect(one.store.compact()).rejects.toMatchObject({ code: 'STORE_CLOSED' })
})

test('R29: readers that began before it see every write, and followers miss nothing', async () => {
  const one = await small()
  await writes(one, 100)
  const stop = new AbortController()
  const positions: number[] = []
  const following = (async () => {
    for await (const followed of one.store.follow({ from: 'start', signal: stop.signal }))
      if (followed.kind === 'records')
        for (const { first, count } of followed.records) positions.push(first, first + count)
  })()
  const reader = one.store.log({ types: ['write'] })
  let count = 0
  await reader.next()
  await one.store.compact({ policy: '0s:1m' })
  await writes(one, 3)
  for (count = 1; (await reader.next()).done !== true; ) count++
  expect(count).toBe(2000)
  while (positions.at(-1) !== one.store.head.position + 1)
    await new Promise((resolve) => setTimeout(resolve, 5))
  stop.abort()
  await following
  for (let i = 2; i < positions.length; i += 2)
    expect(positions[i], 'no gap, no double').toBe(positions[i - 1])
})

function bytesIn(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)
}

test('R29: the space is given back while the store is open, and by itself with a policy of its own', async () => {
  const folder = temporary()
  const clock = manualClock(T0)
  const store = await openStore(folder, { clock, compaction: { policy: '1m:1h', everyMs: 20, pauseMs: 0 } })
  const disk = await store.ensureDisk('vda', { size: 2 ** 30 })
  let state = 1
  const random = () => {
    state = (state * 48271) % 2147483647
    return state
  }
  for (let i = 0; i < 60; i++) {
    const offsets = Float64Array.from({ length: 4096 }, () => (random() % 4000) * 4096)
    await disk.recordWrites({ offsets, lengths: new Float64Array(4096).fill(4096) })
  }
  const before = bytesIn(join(folder, 'log'))
  clock.advance(2 * 3_600_000)
  // A reader holds a view from before: what stands in its way is given back once it is gone.
  const reader = store.log({ types: ['write'] })
  await reader.next()
  const shrunk = () => bytesIn(join(folder, 'log')) < before / 4
  const wait = async (until: () => Promise<boolean> | boolean) => {
    for (let i = 0; !(await until()) && i < 1000; i++) await new Promise((resolve) => setTimeout(resolve, 10))
  }
  await wait(async () => {
    const { last } = (await store.status()).compaction
    return last?.kind === 'done' && last.compacted.upTo.position > 200_000
  })
  expect(shrunk()).toBe(false)
  await reader.return(undefined)
  await wait(shrunk)
  expect(shrunk()).toBe(true)
  await store.close()
  expect((await verifyStore(folder)).findings).toEqual([])
})

test('R29: wrong options are refused before anything is opened', async () => {
  const folder = temporary()
  for (const compaction of [
    {},
    { policy: 7 },
    { policy: '1d:1h', everyMs: 0 },
    { policy: '1d:1h', pauseMs: -1 },
    null,
    'x',
  ])
    await expect(openStore(folder, { compaction: compaction as never })).rejects.toThrow(TypeError)
  await expect(openStore(folder, { compaction: { policy: 'x' } })).rejects.toMatchObject({
    code: 'POLICY_INVALID',
  })
  expect(readdirSync(folder)).toEqual([])
})
