/** Armed granules at level `power` (R30): which writes are synced, and what an open after a power cut tells of the others. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { journalPath } from '../../src/log/journal.ts'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { ARMED_MS, Arms } from '../../src/store/arms.ts'
import { openStore } from '../../src/store/open.ts'
import { coreOf, type Store } from '../../src/store/store.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'
import { MemoryBytes } from '../nbd/disk-support.ts'
import { proof } from '../support/property.ts'

const KiB = 1024
const GRANULE = 64 * KiB
const SIZE = 64 * GRANULE
const T0 = Date.UTC(2026, 0, 1)

const machine = (boot: string) => ({ bootId: () => boot })
const rows = (...ranges: (readonly [offset: number, length: number])[]) => ({
  offsets: Float64Array.from(ranges, ([offset]) => offset),
  lengths: Float64Array.from(ranges, ([, length]) => length),
})

interface Given {
  readonly root: string
  readonly clock: ManualClock
  readonly store: Store
  readonly served: ServedDisk
  /** Writes a byte and says whether its record was synced. */
  readonly synced: (offset: number, length?: number) => Promise<boolean>
}

async function given(durability: 'process' | 'power' = 'power'): Promise<Given> {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-arms-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const clock = manualClock(T0)
  const store = await openStore(join(root, 'live'), { durability, clock, machine: machine('before') })
  onTestFinished(() => store.close().catch(() => undefined))
  const served = await ServedDisk.over(store, new MemoryBytes(SIZE), { disk: 'vda', file: 'in memory' })
  await store.disk('vda').addBitmap('daily', { retention: 3 })
  const { log } = coreOf(store)
  const synced = async (offset: number, length = 1): Promise<boolean> => {
    await served.write(offset, Buffer.alloc(length, 1), false)
    return log.syncedHead.next === log.head.next
  }
  return { root, clock, store, served, synced }
}

/** What a power cut leaves when nothing unsynced reached the disk, opened on the next boot. */
async function afterCut({ root, clock }: Given, boot = 'after'): Promise<Store> {
  const cut = join(root, `cut-${boot}`)
  cpSync(join(root, 'live'), cut, { recursive: true })
  rmSync(journalPath(join(cut, 'log')), { force: true })
  const store = await openStore(cut, { durability: 'power', clock, machine: machine(boot) })
  onTestFinished(() => store.close())
  return store
}

const maybe = async (store: Store) => {
  const found = []
  for await (const { data } of store.log({ types: ['maybe-written'] })) found.push(data)
  return found
}

describe('which writes are synced', () => {
  test('R30: a first touch of a granule is, those that follow there are not', async () => {
    const { synced } = await given()
    expect(await synced(0)).toBe(true)
    expect(await synced(0)).toBe(false)
    expect(await synced(GRANULE - 1)).toBe(false)
    expect(await synced(GRANULE - 1, 2), 'it reaches into the next one').toBe(true)
    expect(await synced(GRANULE, GRANULE)).toBe(false)
    expect(await synced(10 * GRANULE, 4 * GRANULE)).toBe(true)
    expect(await synced(12 * GRANULE)).toBe(false)
    expect(await synced(14 * GRANULE)).toBe(true)
  })

  test.each(['checkpoint', 'bank', 'backup'] as const)(
    'R30: a %s ends all arms of its disk',
    async (point) => {
      const { store, synced } = await given()
      await synced(0)
      expect(await synced(0)).toBe(false)
      if (point === 'checkpoint')
        await store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
      else if (point === 'bank') await store.disk('vda').bitmap('daily').bank()
      else await store.disk('vda').beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'b' })
      expect(await synced(0)).toBe(true)
      expect(await synced(0)).toBe(false)
    },
  )

  test('R30: an arm is over after five seconds of the log’s time, however often it is written meanwhile', async () => {
    const { clock, synced } = await given()
    await synced(0)
    const seen: boolean[] = []
    for (let ms = 0; ms < 4 * ARMED_MS; ms += 500) {
      clock.advance(500)
      seen.push(await synced(0))
    }
    const gaps = seen
      .join()
      .split('true')
      .map((part) => (part.match(/false/g) ?? []).length)
    expect(seen.filter(Boolean).length).toBeGreaterThanOrEqual(3)
    expect(Math.max(...gaps) * 500).toBeLessThan(ARMED_MS)
  })

  test('R30: what a caller records is synced, whatever is armed, and nothing is at level process', async () => {
    const { store, synced } = await given()
    await synced(0)
    await store.disk('vda').recordWrites([{ offset: 0, length: 1 }])
    expect(coreOf(store).log.syncedHead.next).toBe(store.head.position + 1)
    const process = await given('process')
    expect([await process.synced(0), await process.synced(0)]).toEqual([false, false])
  })

  test('R30: no granule is armed by anything but a row that touched it in the last five seconds', () => {
    const touch = fc.record({
      first: fc.nat(40),
      more: fc.nat(5),
      wait: fc.oneof(fc.nat(3), fc.nat(ARMED_MS)),
    })
    fc.assert(
      fc.property(fc.array(touch, { maxLength: 60 }), (touches) => {
        const arms = new Arms(SIZE)
        const armedAt = new Map<number, number>()
        let time = T0
        for (const { first, more, wait } of touches) {
          time += wait
          const granules = Array.from({ length: more + 1 }, (_, i) => first + i)
          const must = arms.take(rows([first * GRANULE + 7, more * GRANULE + 1]), time)
          const old = granules.filter((granule) => time - (armedAt.get(granule) ?? -Infinity) >= ARMED_MS)
          const young = granules.every((granule) => time - (armedAt.get(granule) ?? -Infinity) < ARMED_MS / 2)
          if (old.length > 0) expect(must, 'one of them is not armed').toBe(true)
          if (young) expect(must, 'all were armed just now').toBe(false)
          if (must) for (const granule of granules) armedAt.set(granule, time)
        }
      }),
      proof('arms', 300, 10_000),
    )
  })
})

describe('after a power cut', () => {
  test('R30, R31: a write that only the journal had is in every answer since before it, and answers stay complete', async () => {
    const here = await given()
    await here.synced(3 * GRANULE)
    here.clock.advance(1000)
    const between = here.clock.now()
    expect(await here.synced(3 * GRANULE + 5)).toBe(false)
    const store = await afterCut(here)
    expect(await maybe(store)).toMatchObject([{ extents: [[3 * GRANULE, GRANULE]] }])
    const { extents, complete } = await store.changed('vda', {
      since: { time: between },
      granularity: GRANULE,
    })
    expect([extents, complete]).toEqual([[{ offset: 3 * GRANULE, length: GRANULE }], true])
    expect((await store.disk('vda').bitmap('daily').dirty()).count).toBe(GRANULE)
    expect(store.diskInfo('vda').lost).toEqual([])
    await store.close()
    expect((await verifyStore(store.folder!)).findings).toEqual([])
  })

  test('R30: what was written longer ago than an arm lasts is not told', async () => {
    const here = await given()
    await here.synced(0)
    here.clock.advance(2 * ARMED_MS)
    await here.synced(5 * GRANULE)
    expect(await maybe(await afterCut(here))).toMatchObject([{ extents: [[5 * GRANULE, GRANULE]] }])
  })

  test.each([
    ['the same boot: a kill takes nothing', 'before'],
    ['a disk that was detached', 'detached'],
    ['level process, where the stretch is lost instead', 'process'],
  ])('nothing is told of %s', async (_, what) => {
    const here = await given(what === 'process' ? 'process' : 'power')
    await here.synced(0)
    if (what === 'detached') await here.served.close()
    const store = await afterCut(here, what === 'before' ? 'before' : 'after')
    expect(await maybe(store)).toEqual([])
    expect(store.diskInfo('vda').lost.length).toBe(what === 'process' ? 1 : 0)
  })

  test('R30, R31: bytes that a killed server had not flushed are told after a power cut, though somebody looked at the store between', async () => {
    const here = await given()
    await here.synced(7 * GRANULE)
    here.clock.advance(1000)
    await here.store.createCheckpoint('copied')
    const killed = await afterCut(here, 'before')
    const folder = killed.folder!
    await killed.close()
    const store = await openStore(folder, { clock: here.clock, machine: machine('after') })
    onTestFinished(() => store.close())
    expect((await store.status()).opened.clean).toBe(true)
    const { extents } = await store.changed('vda', { since: { checkpoint: 'copied' }, granularity: GRANULE })
    expect(extents).toEqual([{ offset: 7 * GRANULE, length: GRANULE }])
  })

  test('R13, R32: it is told once, however often the store is opened', async () => {
    const here = await given()
    await here.synced(0)
    const cut = await afterCut(here)
    const folder = cut.folder!
    await cut.close()
    const again = await openStore(folder, { durability: 'power', machine: machine('third') })
    onTestFinished(() => again.close())
    expect(await maybe(again)).toHaveLength(1)
  })
})
