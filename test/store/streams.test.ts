/** Streams: catch-up, then live, without gap or double, whatever happens between (issue part 5). */
import fc from 'fast-check'
import { lastValueFrom, toArray } from 'rxjs'
import { describe, expect, test } from 'vitest'
import type { Followed, RecordedEvent } from '../../src/index.ts'
import { limits } from '../../src/limits.ts'
import { proof } from '../support/property.ts'
import { gate, refused, small, turns } from './support.ts'

const at = (granule: number) => [{ offset: granule * 4096, length: 1 }]

/** Everything from a position on, as the log has it. */
async function logged(store: Awaited<ReturnType<typeof small>>['store'], from = 0): Promise<RecordedEvent[]> {
  const events: RecordedEvent[] = []
  if (from > store.head.position) return events
  for await (const event of store.log({ from: { position: from } })) events.push(event)
  return events
}

describe('events$', () => {
  test('catch-up then live, and the end at close: every event once, in order', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites([...at(1), ...at(2)])
    const all = lastValueFrom(store.events$({ from: 'start' }).pipe(toArray()))
    await turns()
    await disk.recordWrites(at(3))
    await bitmap.bank()
    const expected = await logged(store)
    await turns()
    await store.close()
    const got = await all
    expect(got.slice(0, expected.length)).toEqual(expected)
    expect(got.map(({ position }) => position)).toEqual(got.map((_, i) => i))
  })

  test('what was committed before the close is seen before the end', async () => {
    const { store, disk } = await small()
    const all = lastValueFrom(store.events$({ from: 'start' }).pipe(toArray()))
    await turns()
    await Promise.all(Array.from({ length: 50 }, (_, i) => disk.recordWrites(at(i))))
    await store.close()
    expect((await all).at(-1)).toMatchObject({ type: 'disk-detached' })
  })

  test('at any interleaving of appends and subscriptions', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 3 })), {
          minLength: 1,
          maxLength: 30,
          size: 'max',
        }),
        async (steps) => {
          const { store, disk, bitmap } = await small()
          await bitmap.setRetention(1000)
          const readers: { from: number; got: RecordedEvent[] }[] = []
          const work: Promise<unknown>[] = []
          for (const [kind, n] of steps) {
            if (kind === 0)
              work.push(
                disk.recordWrites(Array.from({ length: n + 1 }, (_, i) => ({ offset: i * 4096, length: 1 }))),
              )
            if (kind === 1) work.push(bitmap.bank())
            if (kind === 2) {
              const from = n === 3 ? store.head.position + 1 : Math.floor((store.head.position * n) / 3)
              const reader = { from, got: [] as RecordedEvent[] }
              readers.push(reader)
              store
                .events$({ from: n === 3 ? 'now' : { position: from } })
                .subscribe((event) => reader.got.push(event))
            }
            if (kind === 3) await turns(n)
          }
          await Promise.all(work)
          await turns(5)
          for (const { from, got } of readers) expect(got).toEqual(await logged(store, from))
          await store.close()
        },
      ),
      proof('subscribe and append interleaved', 100, 3000),
    )
  })

  test('an unsubscribed reader gets nothing more, and others go on', async () => {
    const { store, disk } = await small()
    const seen: number[][] = [[], [], []]
    const subscriptions = seen.map((positions) =>
      store.events$().subscribe(({ position }) => positions.push(position)),
    )
    await disk.recordWrites(at(1))
    await turns()
    subscriptions[0]!.unsubscribe()
    await disk.recordWrites(at(2))
    await turns()
    expect(seen.map(({ length }) => length)).toEqual([1, 2, 2])
    const early = store.events$({ from: 'start' }).subscribe(({ position }) => {
      seen[0]!.push(position)
      early.unsubscribe()
    })
    await turns()
    expect(seen[0]).toHaveLength(2)
  })

  test('a subscriber that throws or writes by itself does not harm the store', async () => {
    const { store, disk } = await small()
    let reactions = 0
    store.events$().subscribe(({ type }) => {
      if (type === 'write' && reactions++ < 3) void disk.recordWrites(at(reactions))
    })
    await disk.recordWrites(at(0))
    await turns()
    expect(reactions).toBe(4)
    expect((await store.bits('vda', 'daily')).count).toBe(4 * 4096)
  })

  test('a stream of state is a fold over it', async () => {
    const { store, disk } = await small()
    const states: number[] = []
    store.fold(0, (sum, { data }) => sum + Number(data.length ?? 0)).subscribe((state) => states.push(state))
    await disk.recordWrites([
      { offset: 0, length: 10 },
      { offset: 0, length: 5 },
    ])
    await turns()
    expect(states).toEqual([0, 0, 0, 10, 15])
  })
})

describe('follow', () => {
  test('a slow reader falls behind, is told so, catches up from the log, and misses nothing', async () => {
    const { store, disk } = await small()
    const stop = new AbortController()
    const positions: number[] = []
    const kinds: string[] = []
    const slow = gate()
    const reading = (async () => {
      for await (const followed of store.follow({ from: 'start', signal: stop.signal })) {
        kinds.push(followed.kind)
        if (followed.kind === 'records')
          for (const { first, count } of followed.records)
            for (let i = 0; i < count; i++) positions.push(first + i)
        if (followed.kind === 'caughtUp' && kinds.filter((kind) => kind === 'caughtUp').length === 1)
          await slow.promise
        if (
          followed.kind === 'caughtUp' &&
          positions.length === store.head.position + 1 &&
          positions.length > limits.subscriberBufferRecords
        )
          stop.abort()
      }
    })()
    await turns()
    for (let i = 0; i < limits.subscriberBufferRecords + 50; i++) await disk.recordWrites(at(i % 256))
    slow.open()
    await reading
    expect(kinds).toContain('fellBehind')
    expect(positions).toEqual(Array.from({ length: store.head.position + 1 }, (_, i) => i))
  })

  test('from a position inside a record, from a checkpoint, from now; until aborted, or closed', async () => {
    const { store, disk } = await small()
    const { first } = await disk.recordWrites([...at(1), ...at(2), ...at(3)])
    await store.createCheckpoint('c')
    await disk.recordWrites(at(4))
    const firstOf = async (from: Parameters<typeof store.follow>[0]) => {
      for await (const followed of store.follow(from)) return followed
      throw new Error('ended')
    }
    expect(await firstOf({ from: { position: first + 1 } })).toMatchObject({
      kind: 'records',
      records: [{ first }, {}, {}],
    })
    expect(await firstOf({ from: { checkpoint: 'c' } })).toMatchObject({
      kind: 'records',
      records: [{ first: first + 4 }],
    })
    expect(await firstOf({})).toMatchObject({ kind: 'caughtUp', next: store.head.position + 1 })
    expect(await firstOf({ from: 'now' })).toMatchObject({ kind: 'caughtUp', next: store.head.position + 1 })
    await refused(store, 'CHECKPOINT_NOT_FOUND', () => firstOf({ from: { checkpoint: 'none' } }))
    await refused(store, 'POINT_NOT_FOUND', () => firstOf({ from: { position: 999 } }))
    const aborted: Followed[] = []
    for await (const followed of store.follow({ from: 'start', signal: AbortSignal.abort() }))
      aborted.push(followed)
    expect(aborted).toEqual([])
    let ended = false
    const following = (async () => {
      for await (const followed of store.follow()) void followed
      ended = true
    })()
    await turns()
    await store.close()
    await following
    expect(ended).toBe(true)
  })
})

test('log: filters, both directions, limits, and nothing twice', async () => {
  const { store, disk } = await small()
  await disk.recordWrites([
    { offset: 0, length: 4096 },
    { offset: 8192, length: 4096 },
    { offset: 4096, length: 1 },
  ])
  await store.createCheckpoint('c', {}, { actor: 'me' })
  const read = async (filter: Parameters<typeof store.log>[0]) => {
    const positions = []
    for await (const { position } of store.log(filter)) positions.push(position)
    return positions
  }
  const all = await read({})
  expect(all).toEqual(Array.from({ length: store.head.position + 1 }, (_, i) => i))
  expect(await read({ reverse: true })).toEqual([...all].reverse())
  expect(await read({ limit: 2 })).toEqual([0, 1])
  expect(await read({ limit: 2, reverse: true })).toEqual([...all].reverse().slice(0, 2))
  expect(await read({ limit: 0 })).toEqual([])
  expect(await read({ types: ['write'], range: { offset: 4096, length: 1 } })).toEqual([5])
  expect(await read({ types: ['write'], range: { offset: 4095, length: 4098 } })).toEqual([3, 4, 5])
  expect(await read({ actor: 'me' })).toEqual([6])
  expect(await read({ disk: 'vdb' })).toEqual([])
  expect(await read({ from: { position: 4 }, to: { position: 5 } })).toEqual([4, 5])
  expect(await read({ from: { checkpoint: 'c' } })).toEqual([])
  expect(await read({ to: 'start' })).toEqual([])
})
