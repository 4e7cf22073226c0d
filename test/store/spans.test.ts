/** The span index against the decode of the log that it stands for: the same bits, whatever happened and whatever is missing. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { describe, expect, onTestFinished, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { openStore, type Store } from '../../src/index.ts'
import { foldWrites } from '../../src/store/fold-writes.ts'
import { coreOf } from '../../src/store/store.ts'
import { announce, prng, runs, seed } from '../support/property.ts'

const KiB = 1024
const EVERY = 10

type Random = () => number
const below = (random: Random, n: number) => Math.floor(random() * n)

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'slicelog-spans-'))
  onTestFinished(() => rm(path, { recursive: true, force: true }))
  return path
}

/** One thing that may happen: writes mostly, and everything that makes spans awkward. */
async function happen(store: Store, random: Random): Promise<void> {
  const id = `d${below(random, 4)}`
  const held = coreOf(store).catalog.disk(id)
  if (held === undefined) {
    await store.ensureDisk(id, { size: (64 + below(random, 4000)) * KiB, quiet: true })
    return
  }
  const disk = await store.ensureDisk(id, { size: held.size, quiet: true })
  const range = () => {
    const offset = below(random, held.size - 1)
    return { offset, length: 1 + below(random, Math.min(held.size - offset, 48 * KiB)) }
  }
  const kind = below(random, 40)
  if (kind < 26) await disk.recordWrites(Array.from({ length: 1 + below(random, 14) }, range))
  else if (kind < 28) await disk.resize((48 + below(random, 4000)) * KiB)
  else if (kind < 29) await store.removeDisk(id)
  else if (kind < 32) {
    const name = `b${below(random, 3)}`
    const bitmap = held.bitmaps.get(name)
    if (bitmap === undefined)
      await disk.addBitmap(name, { granularity: 512 << below(random, 9), retention: 2 })
    else if (kind === 29) await disk.bitmap(name).remove()
    else if (kind === 30) await (bitmap.recording ? disk.bitmap(name).disable() : disk.bitmap(name).enable())
    else await disk.bitmap(name).bank({ forceCycle: true })
  } else if (kind < 34) {
    // A window may only be told right after what it stands for.
    const from = held.last.position
    const extents = [range(), range()]
      .map(({ offset, length }) => [offset, length] as const)
      .sort((a, b) => a[0] - b[0])
    await disk.recordWindow({ from: { position: from }, extents, writes: 2 }).catch(() => undefined)
  } else if (kind < 36) await store.snapshot()
  else if (kind < 38) await store.at({ position: below(random, store.head.position + 1) })
  else await disk.recordWrites([range()])
}

/** Every disk there ever was, with the positions between which it was there. */
async function lives(store: Store) {
  const { catalog, log } = coreOf(store)
  const list: { id: string; number: number; until: number }[] = []
  for await (const records of log.read()) {
    for (const record of records) {
      if (record.kind !== 'events') continue
      record.events.forEach((event, i) => {
        const position = record.first + i
        if (event.type === 'disk-added')
          list.push({ id: event.disk, number: position, until: Number.POSITIVE_INFINITY })
        if (event.type === 'disk-removed') list.findLast((life) => life.id === event.disk)!.until = position
      })
    }
  }
  for (const life of list) expect(catalog.diskByNumber(life.number)?.id).toBe(life.id)
  return list
}

/** Any union asked of the index is what a decode gives. */
async function sameAsTheLog(store: Store, random: Random, rounds: number): Promise<void> {
  const { spans, log, catalog } = coreOf(store)
  const disks = await lives(store)
  for (let i = 0; i < rounds && disks.length > 0; i++) {
    const disk = disks[below(random, disks.length)]!
    const last = Math.min(disk.until, catalog.last.position)
    const a = disk.number + below(random, last - disk.number + 1)
    const b = disk.number + below(random, last - disk.number + 1)
    const span = { disk, after: Math.min(a, b), upTo: Math.max(a, b) }
    const size = (16 + below(random, 5000)) * KiB + below(random, 2) * 512
    const granularity = 512 << below(random, 10)
    const mine = new DirtyBitmap(size, granularity)
    const theirs = new DirtyBitmap(size, granularity)
    await spans.union(span, mine)
    await foldWrites(log, span, theirs)
    expect(mine.digest(), JSON.stringify({ span, size, granularity })).toBe(theirs.digest())
  }
}

/** Every write that touches the bytes lies in a range; ranges are apart, newest first, inside what was asked. */
async function touchingHoldsAll(store: Store, random: Random, rounds: number): Promise<void> {
  const { spans, log, catalog } = coreOf(store)
  const disks = await lives(store)
  for (let i = 0; i < rounds && disks.length > 0; i++) {
    const { number } = disks[below(random, disks.length)]!
    const offset = below(random, 4000 * KiB)
    const wanted = {
      disk: number,
      offset,
      length: 1 + below(random, 64 * KiB),
      from: below(random, catalog.last.position + 1),
      to: below(random, catalog.last.position + 1),
    }
    const ranges: { first: number; last: number }[] = []
    for await (const range of spans.touching(wanted)) ranges.push(range)
    ranges.forEach(({ first, last }, at) => {
      expect(first).toBeLessThanOrEqual(last)
      expect(first).toBeGreaterThanOrEqual(wanted.from)
      expect(last).toBeLessThanOrEqual(Math.min(wanted.to, ranges[at - 1]?.first ?? Number.MAX_SAFE_INTEGER))
      expect(last).not.toBe(ranges[at - 1]?.first)
    })
    for await (const records of log.read()) {
      for (const record of records) {
        if (record.kind !== 'writes') continue
        let position = record.first
        for (const { disk, columns } of record.sections) {
          for (let row = 0; row < columns.offsets.length; row++, position++) {
            const start = columns.offsets[row]!
            const touches = start < offset + wanted.length && start + columns.lengths[row]! > offset
            if (disk !== number || !touches || position < wanted.from || position > wanted.to) continue
            expect(ranges.some(({ first, last }) => first <= position && position <= last)).toBe(true)
          }
        }
      }
    }
  }
}

/** The past by way of snapshots is the past from the log alone. */
async function samePast(store: Store, random: Random, rounds: number): Promise<void> {
  const core = coreOf(store)
  for (let i = 0; i < rounds; i++) {
    const position = below(random, core.catalog.last.position + 1)
    const quick = await core.at(position)
    const slow = await core.at(position, { fromLogAlone: true })
    expect(JSON.stringify(quick.catalog.toPlain())).toBe(JSON.stringify(slow.catalog.toPlain()))
    for (const [id, disk] of slow.bits.disks) {
      for (const [name, bits] of disk.bitmaps) {
        const other = quick.bits.bitmap(id, name)
        expect(other?.recording).toBe(bits.recording)
        expect(other?.active.digest(), `${position} ${id}/${name}`).toBe(bits.active.digest())
        expect(other?.successor?.digest()).toBe(bits.successor?.digest())
      }
    }
  }
}

async function values(path: string): Promise<Level<string, Uint8Array>> {
  const db = new Level<string, Uint8Array>(join(path, 'derived'), { valueEncoding: 'view' })
  await db.open()
  return db
}

/** Takes away, cuts or flips some of what is stored. */
async function damage(path: string, random: Random, prefix: RegExp): Promise<number> {
  const db = await values(path)
  let hurt = 0
  for (const [key, value] of await db.iterator().all()) {
    if (!prefix.test(key) || random() < 0.8) continue
    hurt++
    const kind = below(random, 3)
    if (kind === 0) await db.del(key)
    else if (kind === 1) await db.put(key, value.slice(0, below(random, value.length)))
    else {
      const flipped = value.slice()
      flipped[below(random, flipped.length)]! ^= 1 << below(random, 8)
      await db.put(key, flipped)
    }
  }
  await db.close()
  return hurt
}

describe('the span index', () => {
  test('R22, R23: any history, any span, any size: the bits that a decode of the log gives', async () => {
    const rounds = runs(7, 100)
    const used = seed()
    announce('spans and snapshots against the log', rounds, used)
    for (let round = 0; round < rounds; round++) {
      const random = prng(used + round)
      const path = await folder()
      let store = await openStore(path, { snapshotEvery: EVERY })
      for (let step = 0; step < 260; step++) {
        await happen(store, random)
        if (below(random, 60) === 0) {
          await store.close()
          store = await openStore(path, { snapshotEvery: EVERY })
        }
        if (step % 130 === 70) await sameAsTheLog(store, random, 8)
      }
      await coreOf(store).spans.idle()
      expect(coreOf(store).spans.live).toBe(true)
      await sameAsTheLog(store, random, 40)
      await touchingHoldsAll(store, random, 16)
      await samePast(store, random, 12)
      expect((await store.status()).opened.rebuilt).toEqual([])
      await store.close()
    }
  })

  test('R28: whatever of it is missing or damaged, the answers are the same, and it is made anew and told', async () => {
    const rounds = runs(7, 70)
    const used = seed()
    announce('a damaged span index', rounds, used)
    for (let round = 0; round < rounds; round++) {
      const random = prng(used + round)
      const path = await folder()
      let store = await openStore(path, { snapshotEvery: EVERY })
      for (let step = 0; step < 240; step++) await happen(store, random)
      await coreOf(store).spans.idle()
      await store.close()
      const hurt = await damage(path, random, [/^i/, /^c/, /^[ics]/, /^i[hw]/][round % 4]!)
      expect(hurt).toBeGreaterThan(0)
      store = await openStore(path, { snapshotEvery: EVERY })
      await sameAsTheLog(store, random, 30)
      await touchingHoldsAll(store, random, 4)
      await samePast(store, random, 10)
      for (let step = 0; step < 60; step++) await happen(store, random)
      await coreOf(store).spans.idle()
      expect(coreOf(store).spans.live).toBe(true)
      await sameAsTheLog(store, random, 30)
      await samePast(store, random, 10)
      await store.close()
      // A second time nothing of the index is found damaged that was looked at: ask for everything.
      store = await openStore(path, { snapshotEvery: EVERY })
      await coreOf(store).spans.idle()
      expect(coreOf(store).spans.covered).toBeGreaterThan(store.head.position - 4 * EVERY - 20)
      await store.close()
    }
  })
})

describe('snapshots by content', () => {
  test('R22: of many disks only one is written: what a snapshot stores does not grow with the disks', async () => {
    const stored: number[] = []
    for (const disks of [100, 1000]) {
      const path = await folder()
      const store = await openStore(path, { snapshotEvery: EVERY })
      const commands = Array.from({ length: disks }, (_, i) => [
        { type: 'add-disk', disk: `d${i}`, size: 1024 * KiB } as const,
        {
          type: 'add-bitmap',
          disk: `d${i}`,
          bitmap: 'b',
          granularity: 64 * KiB,
          recording: true,
          persistent: true,
          retention: 0,
        } as const,
      ]).flat()
      await store.transaction(commands)
      await store.ensureDisk('d7', { size: 1024 * KiB, quiet: true })
      const core = coreOf(store)
      await core.keeper.idle() // One that began by itself lets those asked for pass.
      await store.snapshot()
      await core.spans.idle()
      let puts = 0
      const { write, putBits } = core.derived
      core.derived.write = async (list, drops) => {
        puts += list.length
        return await write.call(core.derived, list, drops)
      }
      core.derived.putBits = async (bitmap) => {
        puts++
        return await putBits.call(core.derived, bitmap)
      }
      for (let i = 0; i < 5; i++) {
        await store.disk('d7').recordWrites([{ offset: i * 64 * KiB, length: 512 }])
        await store.snapshot()
        await core.spans.idle() // Two spans that wait on a busy machine become one.
      }
      stored.push(puts)
      await store.close()
    }
    expect(stored[1]).toBe(stored[0])
    // A span with its end and list; a page of disks, and one of their bits: five a snapshot, while there are not eight spans to join.
    expect(stored[0]).toBe(5 * 5)
  })

  test('R23, R28: a kill between a span and its snapshot: the index is ahead, and goes on from there', async () => {
    const path = await folder()
    const random = prng(11)
    let store = await openStore(path, { snapshotEvery: EVERY })
    for (let step = 0; step < 80; step++) await happen(store, random)
    await coreOf(store).spans.idle()
    await store.close()
    const db = await values(path)
    const snapshots = await db.keys({ gte: 's', lt: 't' }).all()
    await db.batch(snapshots.slice(-3).map((key) => ({ type: 'del', key })))
    await db.close()
    store = await openStore(path, { snapshotEvery: EVERY })
    expect(coreOf(store).spans.live).toBe(true)
    for (let step = 0; step < 40; step++) await happen(store, random)
    await sameAsTheLog(store, random, 30)
    await samePast(store, random, 10)
    await store.close()
  })

  test('R23, R35: of a disk that was removed, and added again under its id, no lost stretch and no window is forgotten', async () => {
    const path = await folder()
    const store = await openStore(path, { snapshotEvery: EVERY })
    const disk = await store.ensureDisk('vda', { size: 1024 * KiB, quiet: true })
    await disk.recordWrites([{ offset: 0, length: 512 }])
    const before = store.head.position
    await disk.recordWrites([{ offset: 64 * KiB, length: 512 }])
    const until = store.head.position
    await disk.declareLost('the tracker was off', { from: { position: before } })
    await store.removeDisk('vda')
    await store.ensureDisk('vda', { size: 1024 * KiB, quiet: true })
    for (const granularity of [4 * KiB, 64 * KiB]) {
      const changed = await store.changed('vda', {
        since: { position: before },
        until: { position: until },
        granularity,
      })
      expect(changed.complete).toBe(false)
      expect(changed.lost.map(({ reason }) => reason)).toEqual(['the tracker was off'])
      expect(changed.bytes).toBe(1024 * KiB)
    }
    await store.close()
  })
})

test('R23: whoever gives up an answer from spans is told ABORTED, with the reason given', async () => {
  const store = await openStore(await folder(), { snapshotEvery: EVERY })
  const { spans } = coreOf(store)
  const disk = await store.ensureDisk('d', { size: 1 << 20 })
  for (let i = 0; i < 5 * EVERY; i++) await disk.recordWrites([{ offset: i * 512, length: 512 }])
  expect(spans.covered).toBeGreaterThan(2 * EVERY)
  const reason = new Error('enough')
  const refusal = { name: 'CheckpointError', code: 'ABORTED', cause: reason }
  const signal = AbortSignal.abort(reason)
  await expect(store.changed('d', { since: { position: 1 }, signal })).rejects.toMatchObject(refusal)
  const { number } = coreOf(store).catalog.disk('d')!
  const wanted = { disk: number, offset: 0, length: 512, from: 0, to: spans.covered, signal }
  await expect(spans.touching(wanted).next()).rejects.toMatchObject(refusal)
  await store.close()
})
