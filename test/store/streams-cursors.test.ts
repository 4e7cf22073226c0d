/** Readers with a place of their own: cursors, markers, and the numbers the store keeps by the same kit (issue part 7). */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { encodeWindows } from '../../events/record.ts'
import { type Cursor, type Marked, openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { cursorPositions } from '../../src/store/cursors.ts'
import { Derived } from '../../src/store/derived.ts'
import { pathsOf } from '../../src/store/folder.ts'
import { HOUR_MS } from '../../src/store/stats.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { command, DISKS, drive, prepare, write } from '../audit/drive.ts'
import { prng, proof } from '../support/property.ts'
import { refused, small, T0, turns } from './support.ts'

const root = mkdtempSync(join(tmpdir(), 'slicelog-cursors-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
let folders = 0
const folder = () => join(root, String(folders++))
const at = (granule: number) => [{ offset: granule * 4096, length: 1 }]

async function positions(store: Store, from: Cursor): Promise<number[]> {
  const seen: number[] = []
  for await (const followed of store.follow({ from })) {
    if (followed.kind === 'caughtUp') break
    if (followed.kind !== 'records') continue
    for (const { first, count } of followed.records) for (let i = 0; i < count; i++) seen.push(first + i)
  }
  return seen
}

describe('cursors', () => {
  test('a new one stands before the first event, a saved one goes on behind its position, in each session', async () => {
    const path = folder()
    const first = await openStore(path, { clock: manualClock(T0) })
    await drive(first, prng(1), 20, 'a')
    const cursor = await first.cursor('billing')
    expect(cursor.position).toBe(-1)
    expect(await positions(first, cursor)).toEqual(
      Array.from({ length: first.head.position + 1 }, (_, i) => i),
    )
    await cursor.save(first.head.position)
    expect(await positions(first, cursor)).toEqual([])
    await first.close()
    const second = await openStore(path)
    const again = await second.cursor('billing')
    await drive(second, prng(2), 5, 'b')
    const seen = await positions(second, again)
    expect(seen[0]).toBe(again.position + 1)
    expect(seen.at(-1)).toBe(second.head.position)
    expect(await second.cursors()).toEqual([{ name: 'billing', position: again.position }])
    const events: number[] = []
    second.events$({ from: again }).subscribe(({ position }) => events.push(position))
    await vi.waitFor(() => expect(events).toEqual(seen), { timeout: 20_000 })
    for await (const event of second.log({ from: { position: again.position + 1 }, limit: 1 }))
      expect(event.position).toBe(again.position + 1)
    await again.delete()
    expect(await second.cursors()).toEqual([])
    expect((await second.cursor('billing')).position).toBe(-1)
    await second.close()
    await expect(again.save(0)).rejects.toMatchObject({ code: 'STORE_CLOSED' })
  })

  test('a reader that saves after each record misses none and meets none twice, however often it stops', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 8 }),
        async (seed, stops) => {
          const store = await openMemoryStore({ clock: manualClock(T0) })
          const random = prng(seed)
          await prepare(store)
          const seen: number[] = []
          for (const stop of stops) {
            for (let i = 0; i < 6; i++)
              await (random() < 0.7
                ? write(store, random)
                : command(store, random, `${seed} ${seen.length} ${i}`))
            const cursor = await store.cursor('reader')
            let left = stop
            for await (const followed of store.follow({ from: cursor, bufferRecords: 2 })) {
              if (followed.kind === 'caughtUp') break
              if (followed.kind !== 'records') continue
              for (const { first, count } of followed.records) {
                for (let i = 0; i < count; i++) seen.push(first + i)
                await cursor.save(first + count - 1)
                if (--left === 0) break
              }
              if (left === 0) break
            }
          }
          expect(seen).toEqual(Array.from({ length: seen.length }, (_, i) => i))
          await store.close()
        },
      ),
      proof('readers that stop and go on', 30, 2000),
    )
  })

  test('R28: a damaged cursor, one of another history and a lost folder begin again, and are reported', async () => {
    const path = folder()
    const store = await openStore(path, { clock: manualClock(T0) })
    await drive(store, prng(3), 10, 'a')
    for (const name of ['good', 'foreign', 'future'])
      await (await store.cursor(name)).save(store.head.position)
    await store.close()
    const derived = await Derived.open(pathsOf(path).derived)
    const { Packr } = await import('msgpackr')
    const pack = (position: number, hash: Uint8Array) =>
      new Packr({ useRecords: false }).pack([position, hash])
    await derived.putNamed('k', 'foreign', pack(5, new Uint8Array(32).fill(1)))
    await derived.putNamed('k', 'future', pack(1e6, new Uint8Array(32)))
    await derived.close()
    const again = await openStore(path, { create: false })
    expect((await again.cursor('good')).position).toBeGreaterThan(0)
    expect((await again.cursor('foreign')).position).toBe(-1)
    expect((await again.cursor('future')).position).toBe(-1)
    expect(
      (await again.status()).opened.rebuilt.filter((text) => text.includes('another history')),
    ).toHaveLength(2)
    await again.close()
    rmSync(pathsOf(path).derived, { recursive: true })
    const bare = await openStore(path)
    expect((await bare.cursor('good')).position).toBe(-1)
    await bare.close()
  })

  test('R29: what a compaction must not cross are the places of cursors and of projections', async () => {
    const { store, disk } = await small()
    await disk.recordWrites([...at(1), ...at(2), ...at(3)])
    const path = folder()
    const kept = await openStore(path, { clock: manualClock(T0) })
    await drive(kept, prng(8), 10, 'a')
    await (await kept.cursor('a')).save(7)
    await (await kept.cursor('b')).save(3)
    await (await kept.cursor('c')).save(3)
    await (await kept.cursor('unread')).save(-1)
    const projection = await kept.project({
      name: 'p',
      version: 1,
      seed: () => 0,
      apply: (sum: number) => sum + 1,
    })
    await projection.caughtUp()
    const { cursor } = projection
    await projection.stop()
    const { position } = kept.head
    await kept.stats()
    await kept.close()
    const derived = await Derived.open(pathsOf(path).derived)
    const found = await cursorPositions(derived)
    expect(found.slice(0, 3)).toEqual([3, 7, cursor])
    expect(found.every((held) => held <= position + 3)).toBe(true)
    await derived.close()
    await store.close()
  })

  test('refused: names that are none, positions that are not in the log; nothing is changed', async () => {
    const { store } = await small()
    const cursor = await store.cursor('reader')
    await cursor.save(1)
    await refused(store, 'NAME_EMPTY', () => store.cursor(''))
    await refused(store, 'NAME_TOO_LONG', () => store.cursor('x'.repeat(1024)))
    await refused(store, 'POINT_NOT_FOUND', () => cursor.save(store.head.position + 1))
    for (const position of [-2, 1.5, Number.NaN])
      await expect(cursor.save(position)).rejects.toThrow(RangeError)
    expect(cursor.position).toBe(1)
    await cursor.save(0)
    expect((await store.cursor('reader')).position, 'winding back is allowed').toBe(0)
    await store.close()
  })
})

describe('events$ with markers', () => {
  test('says when it caught up and when it fell behind, between the events that it gives without them', async () => {
    const { store, disk } = await small()
    await disk.recordWrites([...at(1), ...at(2)])
    const seen: Marked[] = []
    store.events$({ from: 'start', markers: true }).subscribe((item) => seen.push(item))
    await turns()
    const head = store.head.position
    expect(seen.map(({ kind }) => kind)).toEqual([
      ...Array.from({ length: head + 1 }, () => 'event'),
      'caughtUp',
    ])
    expect(seen.at(-1)).toEqual({ kind: 'caughtUp', next: head + 1 })
    await Promise.all(Array.from({ length: 3000 }, (_, i) => disk.recordWrites(at(i % 256))))
    await turns(50)
    const places = seen.flatMap((item) => (item.kind === 'event' ? [item.event.position] : []))
    expect(places).toEqual(Array.from({ length: store.head.position + 1 }, (_, i) => i))
    expect(seen.at(-1)).toEqual({ kind: 'caughtUp', next: store.head.position + 1 })
    await store.close()
  })

  test('R29, R28: windows and gaps are told as what they are', async () => {
    const log = new MemoryEventLog()
    const store = await openMemoryStore({ clock: manualClock(T0), log })
    const disk = await store.ensureDisk('vda', { size: 1 << 20 })
    await disk.recordWrites([...at(1), ...at(1), ...at(3)])
    await store.createCheckpoint('c')
    await store.close()
    const entries = [...log.storage.entries]
    const index = entries.findIndex(({ position }) => position === 2)
    const { readHeader } = await import('../../events/record.ts')
    const { hash, time } = readHeader(entries[index]!.value)
    const columns = { offsets: Float64Array.of(4096, 12288), lengths: Float64Array.of(1, 1) }
    const section = { disk: 0, writes: 3, bytes: 3, last: { position: 4, time }, columns }
    const windows = [{ first: 2, count: 3, time, lastTime: time, sections: [section] }]
    entries[index] = { position: 2, value: encodeWindows(2, windows, hash) }
    const again = await openMemoryStore({ log: new MemoryEventLog({ entries, commands: new Map() }) })
    const seen: unknown[] = []
    again
      .events$({ from: { position: 3 } })
      .subscribe(({ position, type, data }) => seen.push([position, type, data.writes]))
    await turns()
    expect(seen.slice(0, 2)).toEqual([
      [4, 'window', 3],
      [5, 'checkpoint-created', undefined],
    ])
    const { disks } = await again.stats()
    expect(disks[0]?.hours).toMatchObject([{ writes: 3, bytes: 3, windows: true }])
    await again.close()
  })
})

describe('stats', () => {
  /** The same numbers, event by event. */
  async function naive(store: Store): Promise<Map<string, Map<number, number[]>>> {
    const all = new Map<string, Map<number, number[]>>()
    for await (const { type, disk, time, data } of store.log()) {
      if (type !== 'write') continue
      const hours = all.get(disk!) ?? new Map<number, number[]>()
      all.set(disk!, hours)
      const hour = Math.floor(time / HOUR_MS) * HOUR_MS
      const row = hours.get(hour) ?? [0, 0, 0, 0]
      hours.set(hour, row)
      const op = ['write', 'zero', 'discard'].indexOf(String(data.op))
      row[op]! += 1
      row[3]! += Number(data.length)
    }
    return all
  }

  async function told(store: Store): Promise<Map<string, Map<number, number[]>>> {
    const { disks, until } = await store.stats()
    expect(until.position).toBe(store.head.position)
    return new Map(
      disks.map(({ disk, hours }) => [
        disk,
        new Map(
          hours.map(({ hour, writes, zeros, discards, bytes }) => [hour, [writes, zeros, discards, bytes]]),
        ),
      ]),
    )
  }

  test('per disk and hour, fed by the committer from the first write or the first question on: always what the log says', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(fc.constantFrom('write', 'ops', 'times', 'command', 'ask', 'reopen'), {
          minLength: 8,
          maxLength: 40,
        }),
        async (seed, steps) => {
          const random = prng(seed)
          const path = folder()
          const clock = manualClock(T0)
          let store = await openStore(path, { clock })
          await prepare(store)
          for (const [i, step] of steps.entries()) {
            clock.advance(Math.floor(random() * HOUR_MS))
            const disk = store.disk(DISKS[i % DISKS.length]!)
            const offsets = Float64Array.from({ length: 20 }, () => Math.floor(random() * 100) * 512)
            const lengths = new Float64Array(20).fill(512)
            if (step === 'write') await write(store, random)
            else if (step === 'ops')
              await disk.recordWrites({
                offsets,
                lengths,
                ops: Uint8Array.from(offsets, () => Math.floor(random() * 3)),
              })
            else if (step === 'times') {
              const times = Float64Array.from(
                { length: 20 },
                (_, row) => clock.now() + row * Math.floor(HOUR_MS / 7),
              )
              await disk.recordWrites({ offsets, lengths, times })
              clock.advance(3 * HOUR_MS)
            } else if (step === 'command') await command(store, random, `${seed}-${i}`)
            else if (step === 'ask') expect(await told(store)).toEqual(await naive(store))
            else {
              await store.close()
              store = await openStore(path, { clock })
            }
          }
          expect(await told(store)).toEqual(await naive(store))
          await store.close()
        },
      ),
      proof('stats against the log', 10, 1000),
    )
  })

  test('of one disk, since a time; a removed disk is said to be one', async () => {
    const clock = manualClock(T0)
    const store = await openMemoryStore({ clock })
    const a = await store.ensureDisk('a', { size: 1 << 20 })
    const b = await store.ensureDisk('b', { size: 1 << 20 })
    await a.recordWrites(at(1))
    await b.recordWrites(at(1))
    clock.advance(2 * HOUR_MS)
    await a.recordWrites([...at(1), ...at(2)])
    await store.removeDisk('b')
    expect((await store.stats({ disk: 'a', since: T0 + HOUR_MS })).disks).toEqual([
      {
        disk: 'a',
        removed: false,
        hours: [{ hour: T0 + 2 * HOUR_MS, writes: 2, zeros: 0, discards: 0, bytes: 2, windows: false }],
      },
    ])
    expect((await store.stats()).disks.map(({ disk, removed }) => [disk, removed])).toEqual([
      ['a', false],
      ['b', true],
    ])
    await store.close()
  })
})

describe('R29: while a compaction replaces stored values', () => {
  test('a reader, however slow, gets every position once: writes by themselves before, inside windows after', async () => {
    let windows = 0
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.integer({ min: 0, max: 6 }), async (seed, pace) => {
        const random = prng(seed)
        const clock = manualClock(T0)
        const log = new MemoryEventLog()
        const store = await openMemoryStore({ clock, log })
        await prepare(store)
        for (let i = 0; i < 160; i++) {
          clock.advance(Math.floor(random() * 40_000))
          if (random() < 0.85) await write(store, random)
          else await command(store, random, `${seed}-${i}`)
        }
        let next = 0
        let compacted: Promise<unknown> | undefined
        let batches = 0
        for await (const followed of log.follow({ from: 0, bufferRecords: 3 })) {
          if (followed.kind === 'caughtUp' && followed.next > store.head.position) break
          if (followed.kind !== 'records') continue
          for (const record of followed.records) {
            expect(record.first, 'no gap, and no event a second time').toBe(next)
            next = record.first + record.count
            if (record.kind === 'windows') windows++
          }
          if (batches++ === 0) compacted = store.compact({ policy: '1s:1m', stepBytes: 2048 })
          if (batches < 8) await write(store, random)
          await turns(pace * 4)
          if (pace > 2) await compacted
          // Longer than a reader may keep its view of the log: what comes next is read from what the compaction left.
          if (pace > 2 && batches === 1) await new Promise((resolve) => setTimeout(resolve, 300))
        }
        await compacted
        await store.close()
      }),
      proof('followers during a compaction', 8, 1000),
    )
    expect(windows, 'some were read as windows').toBeGreaterThan(0)
  })
})
