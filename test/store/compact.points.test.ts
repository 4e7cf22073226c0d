import { expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import type { Store } from '../../src/index.ts'
import { DISKS, pick, type Random, whole } from '../audit/drive.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { type OneWrite, past, somePolicy, writesOf } from './compact-support.ts'

const GRANULARITY = 4096

interface Window {
  readonly first: number
  readonly last: number
  readonly time: number
  readonly lastTime: number
}

async function windowsOf(store: Store): Promise<Window[]> {
  const windows: Window[] = []
  for await (const records of store.records())
    for (const record of records)
      if (record.kind === 'windows')
        for (const { first, count, time, lastTime } of record.windows)
          windows.push({ first, last: first + count - 1, time, lastTime })
  return windows
}

/** Bits of the writes after `since` up to `until`, one by one. */
function naive(
  writes: readonly OneWrite[],
  disk: string,
  size: number,
  since: number,
  until: number,
): DirtyBitmap {
  const bits = new DirtyBitmap(size, GRANULARITY)
  for (const write of writes)
    if (write.disk === disk && since < write.position && write.position <= until)
      bits.setRange(write.offset, write.length)
  return bits
}

/** What R29 says a position means, from the windows alone. */
function snap(windows: readonly Window[], position: number, side: 'since' | 'until') {
  const window = windows.find(({ first, last }) => first <= position && position < last)
  if (window === undefined) return { position, snapped: false }
  return { position: side === 'since' ? window.first - 1 : window.last, snapped: true }
}

async function compare(
  store: Store,
  random: Random,
  writes: readonly OneWrite[],
  windows: readonly Window[],
) {
  const disk = pick(random, DISKS)
  const head = store.head.position
  const some = () =>
    random() < 0.6 && windows.length > 0 ? pick(random, windows).last : whole(random, head + 1)
  const at = [some(), some()].sort((a, b) => a - b)
  const since = snap(windows, at[0]!, 'since')
  const until = snap(windows, at[1]!, 'until')
  // A point inside a record of commands means its end (R20): both sides ask the store for that.
  const from = (await store.resolvePoint({ position: at[0]! }, 'since')).position
  const to = (await store.resolvePoint({ position: at[1]! }, 'at')).position
  if (since.snapped)
    expect(from).toBe(
      (await store.resolvePoint(since.position < 0 ? 'start' : { position: since.position }, 'at')).position,
    )
  if (until.snapped) expect(to).toBe(until.position)
  if (from > to) return 'order'
  const { size } = (await store.at({ position: to })).diskInfo(disk)
  const changed = await store.changed(disk, {
    since: { position: at[0]! },
    until: { position: at[1]! },
    granularity: GRANULARITY,
  })
  expect(changed.since.position).toBe(from)
  expect(changed.until.position).toBe(to)
  expect(changed.resolution).toBe(since.snapped || until.snapped ? 'window' : 'exact')
  expect(changed.reason.includes('window')).toBe(since.snapped || until.snapped)
  if (!changed.complete) return 'incomplete'
  expect(changed.digest, 'between its edges the answer is exact').toBe(
    naive(writes, disk, size, from, to).digest(),
  )
  const exact = naive(writes, disk, size, at[0]!, at[1]!)
  const answer = naive([], disk, size, 0, 0)
  for (const { offset, length } of changed.extents) answer.setRange(offset, length)
  answer.or(exact)
  expect(answer.digest(), 'inside a window it holds what was written').toBe(changed.digest)
  return changed.resolution
}

test('R23, R29: changed is exact between windows, and covers what it stands for inside one', async () => {
  const rounds = runs(6, 100)
  const used = seed()
  announce('changed over compacted history', rounds, used)
  const random = prng(used)
  const seen = new Map<string, number>()
  for (let round = 0; round < rounds; round++) {
    const { store } = await past(random, 80)
    const writes = await writesOf(store)
    await store.compact({ policy: somePolicy(random) })
    const windows = await windowsOf(store)
    for (let i = 0; i < 60; i++) {
      const kind = await compare(store, random, writes, windows)
      seen.set(kind, (seen.get(kind) ?? 0) + 1)
    }
    await store.close()
  }
  expect(seen.get('exact') ?? 0).toBeGreaterThan(rounds)
  expect(seen.get('window') ?? 0).toBeGreaterThan(rounds)
})

test('R22, R29: a time inside a window means its start as since and its end elsewhere; its own edges are exact', async () => {
  const rounds = runs(4, 60)
  const used = seed()
  announce('times over compacted history', rounds, used)
  const random = prng(used)
  let inside = 0
  for (let round = 0; round < rounds; round++) {
    const { store } = await past(random, 60)
    const writes = await writesOf(store)
    await store.compact({ policy: '0s:40s' })
    const windows = await windowsOf(store)
    for (let i = 0; i < 40; i++) {
      const window = pick(random, windows)
      const time = window.time + whole(random, window.lastTime - window.time + 1)
      const around = (position: number) =>
        windows.find(({ first, last }) => first <= position && position < last)
      const firstAt = (limit: number) => {
        const index = writes.findIndex((write) => write.time >= limit)
        return index < 0 ? null : writes[index]!.position
      }
      const sinceFirst = firstAt(time)!
      const since = await store.resolvePoint({ time }, 'since')
      const sinceWindow = around(sinceFirst - 1)
      if (sinceWindow !== undefined) {
        inside++
        expect(since.position, 'a window that holds the moment is taken from its start').toBeLessThan(
          sinceWindow.first,
        )
      }
      expect(since.position, 'nothing at or after the time is left out').toBeLessThan(sinceFirst)
      const untilFirst = firstAt(time + 1)
      const until = await store.resolvePoint({ time }, 'at')
      if (untilFirst !== null && around(untilFirst - 1) !== undefined)
        expect(until.position).toBe(around(untilFirst - 1)!.last)
    }
    await store.close()
  }
  expect(inside).toBeGreaterThan(0)
})
