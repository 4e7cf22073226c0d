/** R22 to R26 and R35: moments, what changed between them, dry runs, and stretches that nobody vouches for. */
import { describe, expect, test } from 'vitest'
import { type DirtyBitmap, openMemoryStore, type PointInput } from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { again, gate, KiB, refused, SIZE, SpyLog, small, T0, turns, typesOf, wrongType } from './support.ts'

const at = (granule: number) => [{ offset: granule * 4096, length: 1 }]
const list = (bits: DirtyBitmap) =>
  bits
    .extentList()
    .flatMap(([offset, length]) =>
      Array.from({ length: Math.ceil(length / 4096) }, (_, i) => offset / 4096 + i),
    )

describe('R22: what a moment means', () => {
  test('R22: events of equal times belong before `at` and `until`, and after `since`', async () => {
    const { store, disk, clock } = await small()
    clock.advance(1000)
    for (const n of [1, 2, 3]) await disk.recordWrites(at(n))
    clock.advance(1000)
    await disk.recordWrites(at(4))
    const past = async (time: number) => list(await (await store.at({ time })).dirty('vda', 'daily'))
    expect(await past(T0 + 999)).toEqual([])
    expect(await past(T0 + 1000)).toEqual([1, 2, 3])
    expect(await past(T0 + 1999.5)).toEqual([1, 2, 3])
    expect(await past(T0 + 9e9)).toEqual([1, 2, 3, 4])
    await expect(past(0), 'there was no disk before the first event').rejects.toMatchObject({
      code: 'DISK_NOT_FOUND',
    })
    const changed = async (since: PointInput, until: PointInput) =>
      (await disk.changed({ since, until, granularity: 4096 })).extents.reduce(
        (sum, { length }) => sum + length / 4096,
        0,
      )
    expect(await changed({ time: T0 + 1000 }, { time: T0 + 1000 })).toBe(3)
    expect(await changed({ time: T0 + 1001 }, { time: T0 + 2000 })).toBe(1)
    expect(await changed({ time: T0 + 1000.5 }, 'now')).toBe(1)
    expect(await changed({ time: new Date(T0 + 2000) }, { time: new Date(T0 + 2000).toISOString() })).toBe(1)
    expect(await changed({ time: T0 + 2001 }, 'now')).toBe(0)
  })

  test('R22: a position means after that event, also as since', async () => {
    const { store, disk } = await small()
    const { first } = await disk.recordWrites([...at(1), ...at(2), ...at(3)])
    expect(list(await (await store.at({ position: first + 1 })).dirty('vda', 'daily'))).toEqual([1, 2])
    expect((await disk.changed({ since: { position: first + 1 }, granularity: 4096 })).extents).toEqual([
      { offset: 12288, length: 4096 },
    ])
    expect(
      (await disk.changed({ since: { position: first - 1 }, until: { position: first }, granularity: 4096 }))
        .extents,
    ).toEqual([{ offset: 4096, length: 4096 }])
  })

  test('R22: while the clock is behind the log the last time repeats; a step back is an event, and answers across it say so', async () => {
    const { store, disk, clock } = await small()
    clock.advance(5000)
    await disk.recordWrites(at(1))
    const { first } = await disk.recordWrites(at(2))
    clock.step(T0 + 2000)
    await disk.recordWrites(at(3))
    expect(store.head.time).toBe(T0 + 5000)
    expect(await typesOf(store, first + 1)).toEqual(['clock-stepped', 'write'])
    clock.advance(1000)
    await store.createCheckpoint('c')
    expect(store.head.time).toBe(T0 + 5000)
    clock.advance(10_000)
    await disk.recordWrites(at(4))
    expect(store.head.time).toBe(T0 + 13_000)
    const across = await disk.changed({ since: { time: T0 + 5000 }, granularity: 4096 })
    expect(across.clockSteps).toMatchObject([{ from: T0 + 5000, to: T0 + 2000 }])
    expect((await disk.changed({ since: { time: T0 + 13_000 } })).clockSteps).toEqual([])
  })

  test('R22: more than a minute against the monotonic clock is a step; less is not', async () => {
    const { store, bitmap, clock } = await small()
    clock.step(T0 + 60_000)
    await bitmap.bank()
    const head = store.head.position
    clock.step(T0 + 60_000 + 60_001)
    await bitmap.bank()
    expect(await typesOf(store, head + 1)).toEqual(['clock-stepped', 'slice-frozen'])
    clock.advance(3_600_000)
    await bitmap.bank()
    expect((await typesOf(store)).filter((type) => type === 'clock-stepped')).toHaveLength(1)
  })

  test('R22: the past is the whole state: disks, bitmaps, slices, backups, checkpoints', async () => {
    const { store, disk, bitmap, log } = await small({ snapshotEvery: 4 })
    await disk.recordWrites(at(1))
    await bitmap.bank()
    await store.createCheckpoint('c')
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'b' })
    const then = store.head.position
    await disk.recordWrites(at(2))
    await backup.succeed()
    await store.deleteCheckpoint('c')
    await store.removeDisk('vda')
    for (const opened of [store, await again(log)]) {
      const past = await opened.at({ position: then })
      expect(past.point).toMatchObject({ position: then })
      expect(past.disks().map(({ disk: id }) => id)).toEqual(['vda'])
      expect((await past.slices('vda', 'daily')).slices).toMatchObject([{ slice: 0, count: 4096 }])
      expect(past.backups()).toMatchObject([{ id: 'b', state: 'running' }])
      expect(past.checkpoints()).toMatchObject([{ name: 'c' }])
      expect((await past.bits('vda', 'daily', { slice: 0 })).extents).toEqual([[4096, 4096]])
      await expect(past.bits('vda', 'daily', { slice: 1 })).rejects.toMatchObject({ code: 'SLICE_NOT_FOUND' })
      await expect(past.bits('vda', 'none')).rejects.toMatchObject({ code: 'BITMAP_NOT_FOUND' })
      expect(opened.disks()).toEqual([])
      expect(
        (
          await opened.changed('vda', {
            since: { position: 0 },
            until: { position: then },
            granularity: 4096,
          })
        ).bytes,
      ).toBe(4096)
      await refused(opened, 'DISK_NOT_FOUND', () => opened.changed('vda', { since: 'start' }))
      expect((await opened.replayPlan('b')).bytes).toBe(SIZE)
    }
  })

  test.each([
    ['a position of the future', { position: 999 }, 'POINT_NOT_FOUND'],
    ['a negative position', { position: -1 }, 'POINT_INVALID'],
    ['half a position', { position: 1.5 }, 'POINT_INVALID'],
    ['text as position', { position: '1' }, 'POINT_INVALID'],
    ['no time', { time: 'soon' }, 'POINT_INVALID'],
    ['an endless time', { time: Number.POSITIVE_INFINITY }, 'POINT_INVALID'],
    ['an invalid date', { time: new Date(Number.NaN) }, 'POINT_INVALID'],
    ['a slice without its bitmap', { slice: 0 }, 'POINT_INVALID'],
    ['an unknown backup', { backup: 'x' }, 'BACKUP_NOT_FOUND'],
    ['an unknown checkpoint', { checkpoint: 'x' }, 'CHECKPOINT_NOT_FOUND'],
  ] as const)('R22: %s is refused as a moment', async (_, point, code) => {
    const { store, disk } = await small()
    await refused(store, code, () => store.at(point as PointInput))
    await refused(store, code, () => disk.changed({ since: point as PointInput }))
    await refused(store, code, () => disk.changed({ since: 'start', until: point as PointInput }))
    for (const bad of [null, 5, 'then', {}, undefined])
      await wrongType(store, () => store.at(bad as unknown as PointInput))
  })
})

describe('R23, R24: what changed between two points', () => {
  test('R23: at any granularity from 512 up, and in any order but the wrong one', async () => {
    const { store, disk } = await small()
    const { first } = await disk.recordWrites([
      { offset: 1000, length: 100 },
      { offset: SIZE - 1, length: 1 },
    ])
    for (const granularity of [512, 4096, 65536, SIZE, 2 ** 31]) {
      const changed = await disk.changed({ since: { position: first - 1 }, granularity })
      const expected = new Set([1000, 1099, SIZE - 1].map((byte) => Math.floor(byte / granularity)))
      expect(changed.bytes).toBe(
        [...expected].reduce((sum, granule) => sum + Math.min(granularity, SIZE - granule * granularity), 0),
      )
    }
    expect((await disk.changed({ since: 'now' })).extents).toEqual([])
    for (const granularity of [
      0,
      1,
      256,
      511,
      513,
      4095,
      3 * 1024,
      2 ** 32,
      0.5,
      -512,
      Number.NaN,
      Number.POSITIVE_INFINITY,
    ]) {
      await refused(store, 'GRANULARITY_INVALID', () => disk.changed({ since: 'start', granularity }))
    }
    await refused(store, 'POINT_ORDER', () => disk.changed({ since: 'now', until: { position: first } }))
    await refused(store, 'DISK_NOT_FOUND', () => store.changed('vdb', { since: 'start' }))
    await refused(store, 'DISK_NOT_FOUND', () => disk.changed({ since: 'start', until: 'start' }))
  })

  test('R23: 2^32 bits at most', async () => {
    const { store } = await small()
    const huge = await store.addDisk('huge', { size: 2 ** 32 * 512 + 1 })
    await refused(store, 'BITMAP_TOO_LARGE', () => huge.changed({ since: 'now', granularity: 512 }))
    await refused(store, 'BITMAP_TOO_LARGE', () => huge.addBitmap('b', { granularity: 512 }))
    for (const size of [0, -1, 0.5, Number.NaN, 2 ** 53])
      await refused(store, 'SIZE_INVALID', () => store.addDisk('bad', { size }))
    expect((await huge.changed({ since: 'now', granularity: 2 ** 31 })).bytes).toBe(0)
  })

  test('R24: a base older than the disk covers the whole disk, also when the name was used before', async () => {
    const { store, disk } = await small()
    const { first } = await disk.recordWrites(at(1))
    await store.removeDisk('vda')
    const anew = await store.ensureDisk('vda', { size: 8 * KiB })
    await anew.addBitmap('daily', { granularity: 4 * KiB })
    const added = anew.info.added.position
    await anew.recordWrites(at(1))
    expect(await anew.changed({ since: { position: first }, granularity: 4096 })).toMatchObject({
      complete: false,
      bytes: 8 * KiB,
    })
    expect(await anew.changed({ since: { position: added }, granularity: 4096 })).toMatchObject({
      complete: true,
      bytes: 4096,
    })
    expect((await anew.plan({ bitmap: 'daily', mode: 'differential', since: 'start' })).bytes).toBe(8 * KiB)
  })
})

describe('R25: a plan is a dry run', () => {
  test('R25: it records nothing, holds nothing, and its begin has the same extents and digest', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites(at(1))
    const { hash } = store.head
    const plan = await disk.plan({ bitmap: 'daily', mode: 'incremental' })
    expect(store.head.hash).toBe(hash)
    expect(bitmap.info.busy).toBe(false)
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental' })
    expect({ ...backup.plan, point: null }).toEqual({ ...plan, point: null })
    expect(backup.info).toMatchObject({ digest: plan.digest, bytes: plan.bytes })
    await disk.recordWrites(at(2))
    expect((await disk.plan({ bitmap: 'daily', mode: 'differential' })).bytes).toBe(8192) // A look at a busy bitmap.
    await refused(store, 'DISK_NOT_FOUND', () => store.plan({ disk: 'x', bitmap: 'daily', mode: 'full' }))
    await refused(store, 'BITMAP_NOT_FOUND', () => disk.plan({ bitmap: 'x', mode: 'full' }))
  })

  test('R8, R25: a begin’s plan holds every write committed before its point and none after, while writes go on', async () => {
    const { store, disk, bitmap } = await small()
    await bitmap.disable() // Then the plan comes from the log, whose tail must be topped up.
    await bitmap.enable()
    let go = true
    let written = 0
    const writer = (async () => {
      while (go) {
        await disk.recordWrites(at(written++ % 256))
        if (written > 100_000) throw new Error('the begins never come to an end')
      }
    })()
    for (let round = 0; round < 20; round++) {
      const since = { position: Math.max(bitmap.info.generation, store.head.position - 40) }
      if (round % 2 === 0) await bitmap.disable()
      const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'differential', since })
      const { point } = backup.info
      const changed = await disk.changed({ since, until: point as { position: number }, granularity: 4096 })
      expect(backup.plan.digest).toBe(changed.digest)
      expect((await store.replayPlan(backup.id)).digest).toBe(changed.digest)
      await backup.cancel()
      if (round % 2 === 0) await bitmap.enable()
    }
    go = false
    await writer
    expect(written).toBeGreaterThan(20)
  })

  test('R25: slices that are frozen, read and merged at the same time lose no bits', async () => {
    const { store, disk, bitmap } = await small()
    await bitmap.setRetention(200)
    const reads: Promise<unknown>[] = []
    for (let n = 0; n < 100; n++) {
      await disk.recordWrites(at(n))
      const { slice } = await bitmap.bank()
      reads.push(bitmap.bits({ slice }).then(({ count }) => expect(count).toBe(4096)))
      if (n % 3 === 2) {
        reads.push(
          bitmap
            .slices()
            .then(({ slices }) =>
              expect(slices.reduce((sum, { count }) => sum + count, 0)).toBe((n + 1) * 4096),
            ),
        )
        const merge = bitmap.deleteSlice(slice)
        reads.push(
          bitmap
            .slices()
            .then(({ slices }) =>
              expect(slices.reduce((sum, { count }) => sum + count, 0)).toBe((n + 1) * 4096),
            ),
        )
        reads.push(
          bitmap.bits({ slice: slice - 1 }).then(({ count }) => expect([4096, 8192]).toContain(count)),
        )
        await merge
        reads.push(
          disk
            .plan({ bitmap: 'daily', mode: 'differential', since: { slice: 0 } })
            .then(({ bytes }) => expect(bytes).toBeGreaterThanOrEqual((n + 1) * 4096)),
        )
      }
    }
    await Promise.all(reads)
    expect((await store.changed('vda', { since: { position: 3 }, granularity: 4096 })).bytes).toBe(100 * 4096)
  })

  test('R25: a look at a plan does not stop writes from waiting for the log alone', async () => {
    const log = new SpyLog(new MemoryEventLog())
    const { disk } = await small({ log })
    await disk.recordWrites(at(1))
    const held = gate()
    log.gate = held.promise
    const write = disk.recordWrites(at(2))
    const plan = disk.plan({ bitmap: 'daily', mode: 'incremental' })
    await turns()
    held.open()
    await write
    expect((await plan).bytes).toBe(8192)
  })
})

describe('R35: declared stretches', () => {
  test('R35: changed and plans with an older base cover the whole disk and say why; newer ones are untouched', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites(at(1))
    const before = store.head.position
    await disk.recordWrites(at(2))
    await disk.declareLost('the tracker was off', { from: { position: before } })
    const after = store.head.position
    await disk.recordWrites(at(3))
    for (const since of [{ position: before - 1 }, { position: before }, { position: before + 1 }]) {
      const changed = await disk.changed({ since, granularity: 4096 })
      expect(changed).toMatchObject({
        complete: false,
        bytes: SIZE,
        lost: [{ reason: 'the tracker was off' }],
      })
      expect(changed.reason).toContain('the tracker was off')
      const plan = await disk.plan({ bitmap: 'daily', mode: 'differential', since })
      expect(plan).toMatchObject({ bytes: SIZE, lost: [{ reason: 'the tracker was off' }] })
      expect(plan.reason).toContain('the tracker was off')
    }
    expect(await disk.changed({ since: { position: after }, granularity: 4096 })).toMatchObject({
      complete: true,
      bytes: 4096,
      lost: [],
    })
    expect(
      await disk.plan({ bitmap: 'daily', mode: 'differential', since: { position: after } }),
    ).toMatchObject({ bytes: 4096, lost: [] })
    expect(
      await disk.changed({ since: { position: before - 1 }, until: { position: before }, granularity: 4096 }),
    ).toMatchObject({ complete: true, bytes: 4096 })
    expect(await disk.plan({ bitmap: 'daily', mode: 'incremental', since: 'active' })).toMatchObject({
      bytes: 3 * 4096,
      complete: false,
    })
    expect((await bitmap.bits()).count).toBe(3 * 4096) // Bits are what they are.
    await refused(store, 'POINT_NOT_FOUND', () => disk.declareLost('x', { from: { position: 999 } }))
    await wrongType(store, () => disk.declareLost(5 as unknown as string))
  })

  test('R35, R16: a slice that holds one carries it, through merges', async () => {
    const { disk, bitmap } = await small()
    await bitmap.bank()
    await disk.recordWrites(at(1))
    await disk.declareLost('told')
    await bitmap.bank()
    await bitmap.bank()
    const carried = async () => (await bitmap.slices()).slices.map(({ slice, lost }) => [slice, lost.length])
    expect(await carried()).toEqual([
      [0, 0],
      [1, 1],
      [2, 0],
    ])
    await bitmap.deleteSlice(2)
    expect(await carried()).toEqual([
      [0, 0],
      [1, 1],
    ])
    await bitmap.deleteSlice(1)
    expect(await carried()).toEqual([[0, 1]])
  })
})

test('R26: a plan of long ago is made again from the log alone, with the same extents and digest', async () => {
  const { store, disk, bitmap, log } = await small()
  const plans = []
  for (const mode of ['incremental', 'differential', 'full', 'copy', 'incremental'] as const) {
    await disk.recordWrites(at(plans.length + 1))
    const backup = await disk.beginBackup({
      bitmap: 'daily',
      mode,
      ...(mode === 'full' || mode === 'copy' ? {} : { since: 'active' as const }),
      forceCycle: true,
    })
    plans.push(backup)
    if (plans.length % 2 === 0) await backup.fail('so')
    else await backup.succeed()
  }
  await bitmap.remove()
  await store.removeDisk('vda')
  const next = await again(log)
  for (const { id, plan } of plans) expect(await next.replayPlan(id)).toEqual(plan)
  await expect(next.replayPlan('none')).rejects.toMatchObject({ code: 'BACKUP_NOT_FOUND' })
  const stop = AbortSignal.abort()
  await expect(next.at({ position: 5 }, { signal: stop })).rejects.toBeDefined()
})

test('R22: an empty store has a past too: nothing', async () => {
  const store = await openMemoryStore()
  for (const point of ['start', 'now', { time: 0 }, { time: 9e12 }] as PointInput[])
    expect((await store.at(point)).point).toEqual({ position: -1, time: null })
  expect(store.head).toMatchObject({ position: -1, time: null, hash: '0'.repeat(64) })
  expect(await store.status()).toMatchObject({ events: 0 })
  await store.snapshot()
  await store.close()
})
