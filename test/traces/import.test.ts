import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { GiB, KiB, MiB, openMemoryStore, type Store } from '../../src/index.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { type Imported, importTrace } from '../../src/traces/import.ts'
import { traceFolder } from './support.ts'

const folder = traceFolder()
const GUEST = fileURLToPath(new URL('../../examples/data/guest-ext4.csv.gz', import.meta.url))
const HEAD = 'offset,length,t_us,op\n'
const START = Date.UTC(2026, 10, 18)

async function withStore<T>(size: number, body: (store: Store) => Promise<T>): Promise<T> {
  const store = await openMemoryStore({ clock: manualClock(START) })
  try {
    await store.ensureDisk('d', { size })
    return await body(store)
  } finally {
    await store.close()
  }
}

async function writes(store: Store): Promise<{ time: number; offset: unknown }[]> {
  const found: { time: number; offset: unknown }[] = []
  for await (const event of store.log({ types: ['write'] }))
    found.push({ time: event.time, offset: event.data.offset })
  return found
}

test("R3, R22: by default the first line happens at the log's clock, and distances are kept", async () => {
  const path = await folder.file('t.csv', `${HEAD}0,512,5000000,w\n512,512,5000999,w\n1024,512,65000000,w\n`)
  await withStore(MiB, async (store) => {
    const imported: Imported = await importTrace(store, 'd', path)
    expect(imported).toMatchObject({ writes: 3, shift: START - 5000, from: START, to: START + 60_000 })
    expect((await writes(store)).map(({ time }) => time - START)).toEqual([0, 0, 60_000])
    // The clock stands still while the trace went on: the next import begins where the log ends.
    expect((await importTrace(store, 'd', path)).from).toBe(START + 60_000)
  })
})

test('R22: a time before the last event is refused, a later one is taken', async () => {
  const path = await folder.file('at.csv', `${HEAD}0,512,0,w\n`)
  await withStore(MiB, async (store) => {
    await expect(importTrace(store, 'd', path, { at: START - 1 })).rejects.toMatchObject({
      code: 'TIME_INVALID',
    })
    expect((await importTrace(store, 'd', path, { at: '2026-11-19T00:00:00Z' })).from).toBe(
      Date.UTC(2026, 10, 19),
    )
  })
})

test('R1, R21: one bad line anywhere refuses the whole trace: the head stays', async () => {
  const rows = Array.from({ length: 40_000 }, (_, i) => `${(i % 2000) * 512},512,${i},w`).join('\n')
  const path = await folder.file('late.csv', `${HEAD}${rows}\n-1,512,99999,w\n0,512,99999,q\n`)
  await withStore(MiB, async (store) => {
    const before = store.head
    await expect(importTrace(store, 'd', path)).rejects.toMatchObject({
      code: 'TRACE_LINE_INVALID',
      facts: { line: 40_002, bad: 2 },
    })
    expect(store.head).toEqual(before)
    const imported = await importTrace(store, 'd', path, { skipBad: true })
    expect(imported).toMatchObject({ lines: 40_003, writes: 40_000, bad: 2 })
    expect(imported.last! - imported.first! + 1).toBe(40_000)
  })
})

test('an import that is stopped says how far it got; what is recorded stays', async () => {
  await withStore(2 * GiB, async (store) => {
    const stop = new AbortController()
    const running = importTrace(store, 'd', GUEST, {
      signal: stop.signal,
      onProgress: ({ phase, writes: done }) => {
        if (phase === 'recording' && done > 20_000) stop.abort()
      },
    })
    const error = await running.catch(
      (reason: unknown) => reason as { code: string; facts: { writes: number } },
    )
    expect(error).toMatchObject({
      code: 'ABORTED',
      facts: { writes: expect.any(Number), last: store.head.position },
    })
    expect((await writes(store)).length).toBe((error as { facts: { writes: number } }).facts.writes)
  })
})

test('R5, R23: what an import of the guest changed is what a real QEMU made of the same trace', async () => {
  const file = new URL('../fixtures/guest-ext4.expect.json', import.meta.url)
  const expected = JSON.parse(await readFile(file, 'utf8')) as Expectation
  await withStore(expected.disk_size, async (store) => {
    await importTrace(store, 'd', GUEST)
    for (const granularity of [4 * KiB, 64 * KiB, MiB]) {
      const { digest } = await store.changed('d', { since: { position: 1 }, granularity })
      expect(digest).toBe(expected.slices[0]!.since[granularity]!.sha256)
    }
  })
})

interface Expectation {
  readonly disk_size: number
  readonly slices: readonly { readonly since: Readonly<Record<number, { readonly sha256: string }>> }[]
}
