/** Dirty maps by name: the grammar, what each map holds, which are listed, and the runs that answer a block status. */
import { afterEach, describe, expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { openMemoryStore, type Store } from '../../src/index.ts'
import { AllocationContext, BitContext, RUN_BYTES_MAX } from '../../src/nbd/bit-context.ts'
import { parseMapName } from '../../src/nbd/context-name.ts'
import { LISTED_MAX, listContexts, openContext } from '../../src/nbd/contexts.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { dirtyGranules, KiB, mapOf } from './disk-support.ts'

const SIZE = 1024 * KiB
const GRANULE = 4 * KiB
const DIRTY = 'qemu:dirty-bitmap:'
const stores: Store[] = []
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close()
})

async function opened() {
  const clock = manualClock()
  const store = await openMemoryStore({ clock })
  stores.push(store)
  const disk = await store.ensureDisk('vda', { size: SIZE })
  const bitmap = await disk.addBitmap('daily', { granularity: GRANULE, retention: 10 })
  const write = async (...granules: number[]) =>
    await disk.recordWrites(granules.map((granule) => ({ offset: granule * GRANULE + 9, length: 1 })))
  const map = async (name: string, granularity = GRANULE) =>
    await dirtyGranules(await openContext(store, 'vda', SIZE, DIRTY + name), SIZE, granularity)
  const none = async (name: string) => {
    expect([name, await openContext(store, 'vda', SIZE, name)]).toEqual([name, null])
    expect([name, await listContexts(store, 'vda', name)]).toEqual([name, []])
  }
  return { store, disk, bitmap, write, map, none, clock }
}

describe('names', () => {
  const bitmaps = new Set(['daily', 'a@b', 'a', 'daily@since=4', 'x@checkpoint=y', '@time=2026-01-01'])
  const parse = (text: string) => parseMapName(text, (name) => bitmaps.has(name))

  test.each([
    ['daily', { kind: 'active', bitmap: 'daily' }],
    ['a@b', { kind: 'active', bitmap: 'a@b' }],
    ['daily@since=4', { kind: 'active', bitmap: 'daily@since=4' }],
    ['@time=2026-01-01', { kind: 'active', bitmap: '@time=2026-01-01' }],
    ['daily@since=5', { kind: 'since', bitmap: 'daily', from: { slice: 5 } }],
    ['daily@since=17.5', { kind: 'since', bitmap: 'daily', from: { slice: 5, generation: 17 } }],
    ['daily@since=4@since=5', { kind: 'since', bitmap: 'daily@since=4', from: { slice: 5 } }],
    ['a@b@between=2..5', { kind: 'between', bitmap: 'a@b', from: { slice: 2 }, to: { slice: 5 } }],
    ['@checkpoint=now', { kind: 'point', bitmap: null, point: { checkpoint: 'now' } }],
    ['a@checkpoint=b@since=4', { kind: 'point', bitmap: 'a', point: { checkpoint: 'b@since=4' } }],
    ['x@checkpoint=y@backup=z', { kind: 'point', bitmap: 'x@checkpoint=y', point: { backup: 'z' } }],
    ['x@backup=z', null],
    ['@backup=a@b=c', { kind: 'point', bitmap: null, point: { backup: 'a@b=c' } }],
    ['@position=0', { kind: 'point', bitmap: null, point: { position: 0 } }],
    [
      'daily@time=2026-01-01T10:00:00Z',
      { kind: 'point', bitmap: 'daily', point: { time: '2026-01-01T10:00:00Z' } },
    ],
    ['@checkpoint=a\nb', { kind: 'point', bitmap: null, point: { checkpoint: 'a\nb' } }],
  ] as const)('%j means what the longest bitmap that is there leaves of it', (text, meant) => {
    expect(parse(text)).toEqual(meant)
  })

  test.each([
    '',
    '@',
    'nope',
    'daily@',
    'daily@since',
    'daily@since=',
    'daily@since=x',
    'daily@since=-1',
    'daily@since=1.2.3',
    'daily@since=4x',
    'daily@since=99999999999999999999',
    '@since=4',
    '@between=1..2',
    'daily@between=2',
    'daily@between=2..',
    'daily@between=..5',
    'daily@between=2..5..7',
    'daily@between=2...5',
    'daily@between=2-5',
    'nope@since=4',
    '@checkpoint=',
    '@backup=',
    '@position=',
    '@position=-1',
    '@position=x',
    '@position=@4',
    '@time=',
    '@time=now',
    '@time=start',
    '@time=@4',
    '@time=checkpoint:x',
    '@position=checkpoint:x',
    '@until=4',
    'daily@SINCE=4',
    'daily @since=4',
  ])('%j is no map', (text) => {
    expect(parse(text)).toBeNull()
  })
})

describe('what a map holds', () => {
  test("R11: a bitmap's own name is its active part, and @since joins slices with it", async () => {
    const { map, write, bitmap, none } = await opened()
    for (const granule of [1, 2, 3]) {
      await write(granule, 100)
      await bitmap.bank()
    }
    await write(4)
    expect(await map('daily')).toEqual([4])
    expect(await map('daily@since=0')).toEqual([1, 2, 3, 4, 100])
    expect(await map('daily@since=1')).toEqual([2, 3, 4, 100])
    expect(await map('daily@since=2')).toEqual([3, 4, 100])
    expect(await map('daily@since=3'), 'the start of the active part').toEqual([4])
    const { generation } = bitmap.info
    expect(await map(`daily@since=${generation}.2`)).toEqual([3, 4, 100])
    expect(await map(`daily@since=${generation}.3`)).toEqual([4])
    await none(`${DIRTY}daily@since=${generation + 1}.2`)
    await none(`${DIRTY}daily@since=${generation + 1}.3`)
    await none(`${DIRTY}daily@since=4`)
  })

  test('R16: deleted slices are no start any more, and what they held is in the map of the next older one', async () => {
    const { map, write, bitmap, none } = await opened()
    for (const granule of [1, 2, 3]) {
      await write(granule)
      await bitmap.bank()
    }
    await bitmap.deleteSlice(1)
    expect(await map('daily@since=0')).toEqual([1, 2, 3])
    await none(`${DIRTY}daily@since=1`)
    await bitmap.deleteSlice(0)
    await none(`${DIRTY}daily@since=0`)
    expect(await map('daily@since=2')).toEqual([3])
  })

  test('R23: @between is what was written between the starts of two slices', async () => {
    const { map, write, bitmap, none } = await opened()
    for (const granule of [1, 2, 3]) {
      await write(granule)
      await bitmap.bank()
    }
    await write(4)
    expect(await map('daily@between=0..1')).toEqual([1])
    expect(await map('daily@between=0..2')).toEqual([1, 2])
    expect(await map('daily@between=1..3'), 'up to the start of the active part').toEqual([2, 3])
    expect(await map('daily@between=1..1')).toEqual([])
    await none(`${DIRTY}daily@between=2..1`)
    await none(`${DIRTY}daily@between=0..4`)
    await none(`${DIRTY}daily@between=7..9`)
  })

  test('R11: a stretch in which the bitmap was disabled is filled from the log, as in a plan', async () => {
    const { map, write, bitmap } = await opened()
    await write(1)
    await bitmap.bank()
    await bitmap.disable()
    await write(2)
    await bitmap.enable()
    await write(3)
    expect(await map('daily')).toEqual([3])
    expect(await map('daily@since=0')).toEqual([1, 2, 3])
    expect(await map('daily@since=1')).toEqual([2, 3])
  })

  test('R4: bits that were merged in from another bitmap are in @since and @between, though no log has them as writes', async () => {
    const { map, write, bitmap, disk } = await opened()
    const other = await disk.addBitmap('other', { granularity: GRANULE })
    await write(50)
    await bitmap.bank()
    await write(7)
    await bitmap.merge([{ bitmap: 'other' }])
    await other.clear()
    await write(9)
    await bitmap.bank()
    expect(await map('other')).toEqual([9])
    expect(await map('daily@since=1')).toEqual([7, 9, 50])
    expect(await map('daily@between=1..2')).toEqual([7, 9, 50])
  })

  test('R23, R24: checkpoints, backups, positions and times need no bitmap, and answer in granules of 64 KiB', async () => {
    const { map, write, store, disk, bitmap, clock, none } = await opened()
    await write(1)
    clock.advance(1000)
    await store.createCheckpoint('mark')
    const at = store.head
    clock.advance(1000)
    await write(40)
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'night' })
    await backup.succeed()
    await write(80)
    for (const name of [
      '@checkpoint=mark',
      `@position=${at.position}`,
      `@time=${new Date(at.time! + 1).toISOString()}`,
    ]) {
      expect([name, await map(name, 64 * KiB)]).toEqual([name, [2, 5]])
      expect([name, await map(`daily${name}`)]).toEqual([name, [40, 80]])
      expect(await listContexts(store, 'vda', DIRTY + name)).toEqual([DIRTY + name])
    }
    expect(await map('@backup=night', 64 * KiB)).toEqual([5])
    expect(await map('daily@backup=night')).toEqual([80])
    expect(bitmap.info.generation).toBeGreaterThan(0)
    for (const name of ['@checkpoint=nope', '@backup=nope', '@position=9999', 'nope@checkpoint=mark'])
      await none(DIRTY + name)
  })

  test('a bitmap of exactly that name wins over the clause', async () => {
    const { map, write, bitmap, disk } = await opened()
    await write(1)
    await bitmap.bank()
    await write(2)
    expect(await map('daily@since=0')).toEqual([1, 2])
    await disk.addBitmap('daily@since=0', { granularity: GRANULE })
    await write(3)
    expect(await map('daily@since=0')).toEqual([3])
    expect(await map('daily@since=0@position=0')).toEqual(
      await map('daily@position=0'), // The longest bitmap's name, then the clause.
    )
  })

  test('R6: a busy bitmap can be looked at: what is frozen and what came since', async () => {
    const { map, write, disk } = await opened()
    await write(1)
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental' })
    await write(2)
    expect(await map('daily')).toEqual([1, 2])
    expect(await map(`daily@backup=${backup.id}`)).toEqual([2])
    await backup.fail('as a test')
    expect(await map('daily')).toEqual([1, 2])
  })

  test('R35: where a stretch is lost every older map is dirty throughout, and newer ones are untouched', async () => {
    const { map, write, disk, store, bitmap } = await opened()
    const all = Array.from({ length: SIZE / GRANULE }, (_, i) => i)
    await write(1)
    await store.createCheckpoint('before')
    await bitmap.bank()
    await disk.declareLost('as a test')
    await bitmap.bank()
    await store.createCheckpoint('after')
    await write(3)
    expect(await map('daily@since=0')).toEqual(all)
    expect(await map('daily@since=1')).toEqual(all)
    expect(await map('daily@since=2')).toEqual([3])
    expect(await map('daily@between=0..1')).toEqual([1])
    expect(await map('daily@between=1..2')).toEqual(all)
    expect(await map('@checkpoint=before', 64 * KiB)).toEqual(all.slice(0, SIZE / (64 * KiB)))
    expect(await map('@checkpoint=after', 64 * KiB)).toEqual([0])
    expect(await map('daily')).toEqual([3])
    await disk.declareLost('again')
    expect(await map('daily')).toEqual(all)
  })

  test('a map is of the moment when it was opened; opened again it has what came since', async () => {
    const { write, store, map } = await opened()
    await write(1)
    const held = await openContext(store, 'vda', SIZE, `${DIRTY}daily`)
    const since = await openContext(store, 'vda', SIZE, `${DIRTY}daily@position=0`)
    await write(2)
    expect(await dirtyGranules(held, SIZE, GRANULE)).toEqual([1])
    expect(await dirtyGranules(since, SIZE, GRANULE)).toEqual([1])
    expect(await map('daily')).toEqual([1, 2])
  })

  test('R7: after the disk grew or shrank a map still covers the export and no more', async () => {
    const { write, store, disk } = await opened()
    await write(1, 255)
    for (const size of [SIZE - 5000, SIZE + 9000]) {
      await disk.resize(size)
      for (const name of ['daily', 'daily@position=0', '@position=0']) {
        const map = await mapOf(await openContext(store, 'vda', SIZE, DIRTY + name), SIZE)
        expect([name, map.reduce((sum, { length }) => sum + length, 0)]).toEqual([name, SIZE])
      }
    }
  })
})

describe('which are listed', () => {
  test('all of them, or those of a namespace, or exactly one', async () => {
    const { store, bitmap, disk, write } = await opened()
    await write(1)
    await bitmap.bank()
    await bitmap.bank()
    await disk.addBitmap('a@b')
    await store.createCheckpoint('one')
    await store.createCheckpoint('two')
    const maps = ['daily', 'a@b', 'daily@since=1', 'daily@since=0', '@checkpoint=two', '@checkpoint=one'].map(
      (name) => DIRTY + name,
    )
    expect(await listContexts(store, 'vda')).toEqual(['base:allocation', ...maps])
    expect(await listContexts(store, 'vda', '')).toEqual(['base:allocation', ...maps])
    expect(await listContexts(store, 'vda', 'qemu:')).toEqual(maps)
    expect(await listContexts(store, 'vda', DIRTY)).toEqual(maps)
    expect(await listContexts(store, 'vda', 'base:')).toEqual(['base:allocation'])
    for (const name of ['base:allocation', ...maps, `${DIRTY}daily@between=0..1`]) {
      expect(await listContexts(store, 'vda', name)).toEqual([name])
      expect((await openContext(store, 'vda', SIZE, name))?.name).toBe(name)
    }
  })

  test.each([
    'base:nope',
    'base',
    'qemu',
    'qemu:allocation-depth',
    'qemu:dirty-bitmap',
    `${DIRTY}nope`,
    'x-slicelog:daily',
    'daily',
    '',
    'base:',
    'qemu:',
    DIRTY,
  ])('%j opens nothing: a wildcard is for listing only', async (name) => {
    const { store } = await opened()
    expect(await openContext(store, 'vda', SIZE, name)).toBeNull()
  })

  test('a list is bounded, and what it leaves out can still be asked for', async () => {
    const { store } = await opened()
    await store.transaction(
      Array.from({ length: LISTED_MAX + 5 }, (_, i) => ({
        type: 'create-checkpoint' as const,
        checkpoint: `mark-${i}`,
        bitmaps: [],
      })),
    )
    expect(await listContexts(store, 'vda')).toHaveLength(LISTED_MAX)
    expect(await listContexts(store, 'vda', 'qemu:')).toHaveLength(LISTED_MAX)
    expect(await listContexts(store, 'vda', `${DIRTY}@checkpoint=mark-0`)).toHaveLength(1)
  })
})

describe('the runs of an answer', () => {
  const bits = new DirtyBitmap(10 * GRANULE + 100, GRANULE)
  bits.setRange(GRANULE, 2 * GRANULE)
  bits.setRange(10 * GRANULE, 1)
  const map = new BitContext('x', bits, bits.size)

  test.each([
    [0, bits.size, 99, ['clean 4096', 'dirty 8192', 'clean 28672', 'dirty 100']],
    [0, bits.size, 2, ['clean 4096', 'dirty 8192']],
    [0, bits.size, 1, ['clean 4096']],
    [4095, 2, 99, ['clean 1', 'dirty 1']],
    [4096, 1, 99, ['dirty 1']],
    [5000, 100, 99, ['dirty 100']],
    [12287, 9000, 99, ['dirty 1', 'clean 8999']],
    [40960, 100, 99, ['dirty 100']],
    [41059, 1, 1, ['dirty 1']],
  ] as const)(
    'from %i on for %i bytes, %i at most: cut to the request at both ends',
    async (offset, length, max, runs) => {
      const got = [...(await map.status(offset, length, max))]
      expect(got.map((run) => `${run.flags === 1 ? 'dirty' : 'clean'} ${run.length}`)).toEqual(runs)
    },
  )

  test.each([1, 2, 3, 131_072])(
    'asked on and on, %i runs at a time, the answers are the bits',
    async (max) => {
      expect(await dirtyGranules(map, bits.size, GRANULE, max)).toEqual([1, 2, 10])
    },
  )

  test('lengths stay within 32 bits: a clean or dirty disk of 1 TiB takes several runs', async () => {
    const size = 2 ** 40
    const huge = new DirtyBitmap(size, 64 * KiB)
    for (const context of [new BitContext('x', huge, size), new AllocationContext(size)]) {
      const runs = await mapOf(context, size)
      expect(runs.reduce((sum, { length }) => sum + length, 0)).toBe(size)
      expect(Math.max(...runs.map(({ length }) => length))).toBeLessThanOrEqual(RUN_BYTES_MAX)
      expect(runs.length).toBeLessThan(300)
    }
    huge.setAll()
    expect((await mapOf(new BitContext('x', huge, size), size)).every(({ flags }) => flags === 1)).toBe(true)
  })

  test('bytes of an export beyond the bits are clean, and bits beyond the export are not told', async () => {
    expect(await mapOf(new BitContext('x', bits, 20 * GRANULE), 20 * GRANULE)).toEqual([
      { length: 4096, flags: 0 },
      { length: 8192, flags: 1 },
      { length: 28_672, flags: 0 },
      { length: 4096, flags: 1 },
      { length: 36_864, flags: 0 },
    ])
    expect(await mapOf(new BitContext('x', bits, 2 * GRANULE), 2 * GRANULE)).toEqual([
      { length: 4096, flags: 0 },
      { length: 4096, flags: 1 },
    ])
  })

  test('base:allocation calls all of it data', async () => {
    expect(await mapOf(new AllocationContext(12_345), 12_345)).toEqual([{ length: 12_345, flags: 0 }])
    expect([...(await new AllocationContext(100).status(40, 1000, 5))]).toEqual([{ length: 60, flags: 0 }])
  })
})
