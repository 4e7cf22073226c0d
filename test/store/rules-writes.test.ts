/** R1, R3, R8 and R31 at the store's own door: what a write may be, where it lands, and the moves in flight at a point. */
import { describe, expect, test } from 'vitest'
import { openMemoryStore, type Writes } from '../../src/index.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { again, gate, KiB, refused, SIZE, SpyLog, small, T0, turns, typesOf, wrongType } from './support.ts'

const good = { offset: 0, length: 4096 }
const columns = (offsets: number[], lengths: number[]) => ({
  offsets: Float64Array.from(offsets),
  lengths: Float64Array.from(lengths),
})

describe('R1: a bad range refuses the whole call, names the range and records nothing', () => {
  const bad: [string, unknown, unknown, 'RANGE_INVALID' | 'RANGE_OUTSIDE_DISK'][] = [
    ['ends one byte outside', SIZE - 511, 512, 'RANGE_OUTSIDE_DISK'],
    ['begins at the end', SIZE, 1, 'RANGE_OUTSIDE_DISK'],
    ['begins beyond the end, without length', SIZE + 1, 0, 'RANGE_OUTSIDE_DISK'],
    ['is longer than the disk', 0, SIZE + 1, 'RANGE_OUTSIDE_DISK'],
    ['has a sum that overflows', Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 'RANGE_OUTSIDE_DISK'],
    ['has a negative offset', -1, 512, 'RANGE_INVALID'],
    ['has a negative length', 512, -512, 'RANGE_INVALID'],
    ['has a fraction as offset', 0.5, 512, 'RANGE_INVALID'],
    ['has a fraction as length', 0, 512.25, 'RANGE_INVALID'],
    ['has NaN as offset', Number.NaN, 512, 'RANGE_INVALID'],
    ['has NaN as length', 0, Number.NaN, 'RANGE_INVALID'],
    ['has an infinite offset', Number.POSITIVE_INFINITY, 512, 'RANGE_INVALID'],
    ['has an infinite length', 0, Number.POSITIVE_INFINITY, 'RANGE_INVALID'],
    ['has a negative infinity', Number.NEGATIVE_INFINITY, 1, 'RANGE_INVALID'],
    ['begins at 2^53', 2 ** 53, 1, 'RANGE_INVALID'],
    ['has a length of 2^53', 0, 2 ** 53, 'RANGE_INVALID'],
    ['has text as offset', '0', 512, 'RANGE_INVALID'],
    ['has text as length', 0, '512', 'RANGE_INVALID'],
    ['has a bigint', 0n, 512, 'RANGE_INVALID'],
    ['has no length', 0, undefined, 'RANGE_INVALID'],
    ['has null', null, 1, 'RANGE_INVALID'],
  ]
  test.each(bad)('R1: a range that %s', async (_, offset, length, code) => {
    const { store, disk } = await small()
    const list = [good, { offset, length }, good] as Writes
    const error = await refused(store, code, () => disk.recordWrites(list))
    expect(error.facts).toMatchObject({ disk: 'vda', index: 1 })
    const moved: string[] = []
    await refused(store, code, () => disk.recordWrites(list, () => moved.push('moved')))
    expect(moved).toEqual([])
    if (typeof offset === 'number' && typeof length === 'number') {
      expect(
        (await refused(store, code, () => disk.recordWrites(columns([0, offset], [512, length])))).facts
          .index,
      ).toBe(1)
    }
  })

  const types: [string, unknown][] = [
    ['text', 'writes'],
    ['null', null],
    ['a number', 7],
    ['undefined', undefined],
    ['one range without a list', good],
    ['a list with null', [good, null]],
    ['a list with a number', [good, 5]],
    ['plain arrays as columns', { offsets: [0], lengths: [1] }],
    ['columns that differ in length', columns([0, 1], [1])],
    ['columns without lengths', { offsets: Float64Array.of(0) }],
    ['columns without offsets', { offsets: undefined, lengths: Float64Array.of(0) }],
    ['an op that does not exist', [good, { offset: 0, length: 1, op: 'format' }]],
    ['an op code that does not exist', { ...columns([0, 1], [1, 1]), ops: Uint8Array.of(0, 3) }],
    ['too few op codes', { ...columns([0, 1], [1, 1]), ops: Uint8Array.of(0) }],
    ['times that are no column', { ...columns([0], [1]), times: [T0] }],
    [
      'more ranges than one call takes',
      { offsets: new Float64Array(1_048_577), lengths: new Float64Array(1_048_577) },
    ],
    ['a list longer than one call takes', Array.from({ length: 1_048_577 }, () => good)],
  ]
  test.each(types)('R1: %s instead of ranges is a wrong type', async (_, writes) => {
    const { store, disk } = await small()
    await wrongType(store, () => disk.recordWrites(writes as Writes))
    await wrongType(store, () => disk.recordWrites(writes as Writes, () => undefined))
  })

  test('R1: a refused call does not spoil calls before and after it in the same turn', async () => {
    const { store, disk } = await small()
    const head = store.head.position
    const calls = [
      disk.recordWrites([good]),
      disk.recordWrites([
        { offset: 8192, length: 1, op: 'zero' },
        { offset: SIZE, length: 1 },
      ]),
      disk.recordWrites([{ offset: 4096, length: 1 }]),
      disk.recordWrites([{ offset: 0, length: 1, op: 'discard' }]),
      disk.recordWrites([{ offset: 1, length: 1 }]),
    ]
    const ended = await Promise.allSettled(calls)
    expect(ended.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
      'fulfilled',
    ])
    const events = []
    for await (const event of store.log({ from: { position: head + 1 } }))
      events.push([event.position - head, event.data.offset, event.data.op])
    expect(events).toEqual([
      [1, 0, 'write'],
      [2, 4096, 'write'],
      [3, 0, 'discard'],
      [4, 1, 'write'],
    ])
  })

  test('R1: a bad range does not even attach the disk', async () => {
    const { store, disk, log } = await small()
    await store.close()
    const next = await again(log)
    await refused(next, 'RANGE_OUTSIDE_DISK', () =>
      next.disk('vda').recordWrites([{ offset: SIZE, length: 1 }]),
    )
    expect(next.disk('vda').info.attached).toBe(false)
    expect(disk.id).toBe('vda')
  })

  test('R1: a length of 0 is legal, records nothing, and its move is made all the same', async () => {
    const { store, disk } = await small()
    const head = store.head.position
    let moved = 0
    expect(await disk.recordWrites([])).toEqual({ first: head + 1, count: 0 })
    expect(await disk.recordWrites([{ offset: SIZE, length: 0 }])).toEqual({ first: head + 1, count: 0 })
    expect(await disk.recordWrites(columns([0, 5], [0, 0]), () => moved++)).toEqual({
      first: head + 1,
      count: 0,
    })
    expect(await disk.recordWrites([], () => moved++)).toEqual({ first: head + 1, count: 0 })
    expect(moved).toBe(2)
    expect(store.head.position).toBe(head)
    expect(await disk.recordWrites([{ offset: 0, length: 0 }, good, { offset: 9, length: 0 }])).toEqual({
      first: head + 1,
      count: 1,
    })
  })

  test('R1: the arrays are the caller’s again as soon as the call returned', async () => {
    const { store, disk } = await small()
    const reused = columns([0, 4096], [1, 1])
    const list = [{ offset: 8192, length: 1 }]
    const first = disk.recordWrites(reused)
    const moved = disk.recordWrites(reused, () => undefined)
    const third = disk.recordWrites(list)
    reused.offsets.fill(SIZE - 1)
    list[0]!.offset = SIZE - 1
    await Promise.all([first, moved, third])
    const bits = await store.bits('vda', 'daily')
    expect(bits.extents).toEqual([[0, 12288]])
    await store.close()
  })

  test('R1: discards and zeroings are recorded as what they are, and dirty', async () => {
    const { store, disk, bitmap } = await small()
    const { first } = await disk.recordWrites([
      { offset: 0, length: 1, op: 'discard' },
      { offset: 8192, length: 1, op: 'zero' },
      { offset: 16384, length: 1 },
    ])
    const ops = []
    for await (const event of store.log({ from: { position: first } })) ops.push(event.data.op)
    expect(ops).toEqual(['discard', 'zero', 'write'])
    expect((await bitmap.bits()).count).toBe(3 * 4096)
  })
})

describe('R3: a recorded write has a position and a time of its own', () => {
  test('R3: thousands of writes in one call have consecutive positions, across records', async () => {
    const { store, disk, bitmap } = await small()
    const n = 10_000
    const head = store.head.position
    const offsets = Array.from({ length: n }, (_, i) => (i % 256) * 4096)
    expect(
      await disk.recordWrites(
        columns(
          offsets,
          offsets.map(() => 1),
        ),
      ),
    ).toEqual({ first: head + 1, count: n })
    expect(store.head.position).toBe(head + n)
    expect((await store.at({ position: head + 100 })).bits('vda', 'daily')).toBeInstanceOf(Promise)
    const past = await (await store.at({ position: head + 100 })).bits('vda', 'daily')
    expect(past.count).toBe(100 * 4096)
    expect((await bitmap.bits()).count).toBe(256 * 4096)
  })

  test('R3: a caller’s own times are kept one by one, and answer questions about time', async () => {
    const { store, disk } = await small()
    const times = Float64Array.of(T0 + 10, T0 + 10, T0 + 20, T0 + 30)
    const { first } = await disk.recordWrites({ ...columns([0, 4096, 8192, 12288], [1, 1, 1, 1]), times })
    const seen = []
    for await (const event of store.log({ from: { position: first } })) seen.push(event.time)
    expect(seen).toEqual([...times])
    const count = async (time: number) => (await (await store.at({ time })).bits('vda', 'daily')).count / 4096
    expect(await Promise.all([T0 + 9, T0 + 10, T0 + 19, T0 + 20, T0 + 99].map(count))).toEqual([
      0, 2, 2, 3, 4,
    ])
    const since = async (time: number) =>
      (await disk.changed({ since: { time }, granularity: 4096 })).bytes / 4096
    expect(await Promise.all([T0 + 10, T0 + 11, T0 + 20, T0 + 30, T0 + 31].map(since))).toEqual([
      4, 2, 2, 1, 0,
    ])
  })

  test('R3: times that go back, or lie before the log’s last, are refused', async () => {
    const { store, disk, clock } = await small()
    clock.advance(1000)
    await disk.recordWrites([good])
    const at = (...times: number[]) => ({
      ...columns(
        times.map(() => 0),
        times.map(() => 1),
      ),
      times: Float64Array.from(times),
    })
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(T0 + 999)))
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(T0 + 3000, T0 + 2999)))
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(T0 + 2000.5)))
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(Number.NaN)))
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(-1)))
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(Number.POSITIVE_INFINITY)))
    await refused(store, 'TIME_INVALID', () => disk.recordWrites(at(8.64e15 + 1)))
    await disk.recordWrites(at(T0 + 1000))
    await disk.recordWrites(at(T0 + 5000))
    await disk.recordWrites([good]) // The clock is behind the log now: the last time repeats (R22).
    expect(store.head.time).toBe(T0 + 5000)
  })

  test('R3: a window says its resolution, and points inside it answer for all of it', async () => {
    const { store, disk, bitmap } = await small()
    const before = store.head.position
    await disk.recordWrites([good]) // before + 1
    await disk.recordWindow({ from: { position: before + 1 }, extents: [[65536, 4096]], writes: 9 })
    const window = store.head.position
    expect((await bitmap.bits()).extents).toEqual([
      [0, 4096],
      [65536, 4096],
    ])
    const whole = await disk.changed({ since: { position: before }, granularity: 4096 })
    expect(whole).toMatchObject({ resolution: 'exact', bytes: 8192 })
    const since = await disk.changed({
      since: { position: before + 1 },
      until: { position: window },
      granularity: 4096,
    })
    expect(since).toMatchObject({ resolution: 'exact', bytes: 4096 })
    await disk.recordWrites([{ offset: 0, length: 1 }])
    await store.createCheckpoint('inside')
    await disk.recordWindow({ from: { position: window }, extents: [[131072, 1]] })
    expect(await disk.changed({ since: { checkpoint: 'inside' }, granularity: 4096 })).toMatchObject({
      resolution: 'window',
      bytes: 4096,
    })
    expect(
      await disk.changed({ since: { position: window }, until: { checkpoint: 'inside' }, granularity: 4096 }),
    ).toMatchObject({ resolution: 'window', bytes: 8192 })
    await refused(store, 'RANGE_OUTSIDE_DISK', () => disk.recordWrites([{ offset: SIZE, length: 1 }]))
    await refused(store, 'WINDOW_INVALID', () => disk.recordWindow({ from: 'start', extents: [] }))
    await refused(store, 'WINDOW_INVALID', () =>
      disk.recordWindow({ from: { position: 0 }, extents: [[SIZE, 1]] }),
    )
    await refused(store, 'WINDOW_INVALID', () =>
      disk.recordWindow({ from: { position: 0 }, extents: [[0, -1]] }),
    )
    await refused(store, 'WINDOW_INVALID', () =>
      disk.recordWindow({ from: { position: 0 }, extents: [[0, 1]], writes: 0.5 }),
    )
    await refused(store, 'POINT_NOT_FOUND', () =>
      disk.recordWindow({ from: { position: 999 }, extents: [[0, 1]] }),
    )
  })
})

describe('R8: a write whose move is in flight at a point is on both sides of it', () => {
  const points: [string, (small: Awaited<ReturnType<typeof inFlight>>) => Promise<unknown>][] = [
    ['begin', ({ disk }) => disk.beginBackup({ bitmap: 'daily', mode: 'incremental' })],
    ['a full begin', ({ disk }) => disk.beginBackup({ bitmap: 'daily', mode: 'full' })],
    ['bank', ({ bitmap }) => bitmap.bank()],
    [
      'a checkpoint with the bitmap',
      ({ store }) => store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] }),
    ],
    ['a checkpoint without bitmaps', ({ store }) => store.createCheckpoint('c')],
    ['clear', ({ bitmap }) => bitmap.clear()],
    ['enable', ({ store }) => store.disk('vda').bitmap('off').enable()],
    ['disable', ({ bitmap }) => bitmap.disable()],
    ['resize', ({ disk }) => disk.resize(2 * SIZE)],
    [
      'a transaction that clears',
      ({ store }) => store.transaction([{ type: 'clear-bitmap', disk: 'vda', bitmap: 'daily' }]),
    ],
  ]

  async function inFlight() {
    const made = await small()
    await made.disk.addBitmap('off', { granularity: 4 * KiB, disabled: true })
    const landing = gate()
    const call = made.disk.recordWrites(
      [
        { offset: 20480, length: 1, op: 'zero' },
        { offset: 0, length: 0 },
      ],
      () => landing.promise,
    )
    await turns()
    return { ...made, landing, call, written: made.store.head.position }
  }

  test.each(points)('R8: at %s', async (_, point) => {
    const made = await inFlight()
    const { store, written, landing, call } = made
    await point(made)
    const types = await typesOf(store, written + 1)
    expect(types.at(-1)).toBe('write')
    expect(types.filter((type) => type === 'write')).toHaveLength(1)
    const at = store.head.position - 1
    const changed = (since: number, until: number) =>
      store.changed('vda', { since: { position: since }, until: { position: until }, granularity: 4096 })
    expect((await changed(written - 1, at)).extents).toEqual([{ offset: 20480, length: 4096 }])
    expect((await changed(at, store.head.position)).extents).toEqual([{ offset: 20480, length: 4096 }])
    landing.open()
    await call
    await store.createCheckpoint('later')
    expect((await typesOf(store, at + 2)).filter((type) => type === 'write')).toEqual([])
  })

  test('R8: the plan has the write, and so has what is collected after the begin', async () => {
    const { disk, bitmap, landing, call } = await inFlight()
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental' })
    expect(backup.plan.extents).toEqual([{ offset: 20480, length: 4096 }])
    expect((await bitmap.bits()).successorCount).toBe(4096)
    landing.open()
    await call
    await backup.succeed()
    expect((await bitmap.bits()).extents).toEqual([[20480, 4096]])
  })

  test('R8: commands that are no point record nothing again', async () => {
    const { store, bitmap, disk, landing, call } = await inFlight()
    const head = store.head.position
    await bitmap.setRetention(5)
    await disk.declareLost('told')
    expect(await typesOf(store, head + 1)).toEqual(['retention-set', 'stretch-lost'])
    landing.open()
    await call
  })

  test('R8: other disks are left alone, unless a checkpoint may be asked about them', async () => {
    const { store, landing, call } = await inFlight()
    const other = await store.ensureDisk('vdb', { size: SIZE })
    await other.addBitmap('b', { retention: 1 })
    const head = store.head.position
    await other.bitmap('b').bank()
    expect(await typesOf(store, head + 1)).toEqual(['slice-frozen'])
    landing.open()
    await call
  })

  test('R8: a shrink records again only what is still inside the disk', async () => {
    const { store, disk, landing } = await inFlight()
    const wide = disk.recordWrites([{ offset: 0, length: 32768 }], () => landing.promise)
    await turns()
    const head = store.head.position
    await disk.resize(8192)
    const again = []
    for await (const event of store.log({ from: { position: head + 1 }, types: ['write'] }))
      again.push([event.data.offset, event.data.length])
    expect(again).toEqual([[0, 8192]])
    landing.open()
    await wide
  })

  test('R8: a move that fails is told to its caller; the write stays recorded and is in flight no more', async () => {
    const { store, disk } = await small()
    const head = store.head.position
    await expect(disk.recordWrites([good], () => Promise.reject(new Error('EIO')))).rejects.toThrow('EIO')
    await expect(
      disk.recordWrites([good], () => {
        throw new Error('at once')
      }),
    ).rejects.toThrow('at once')
    await store.createCheckpoint('c')
    expect(await typesOf(store, head + 1)).toEqual(['write', 'write', 'checkpoint-created'])
  })

  test('R31: the bytes move only after the record is acknowledged, and never when it failed', async () => {
    const log = new SpyLog(new MemoryEventLog())
    const { store, disk } = await small({ log })
    const held = gate()
    log.gate = held.promise
    let moved = false
    const call = disk.recordWrites([good], () => {
      moved = true
    })
    await turns()
    expect(moved).toBe(false)
    held.open()
    await call
    expect(moved).toBe(true)
    await store.close()

    const failing = new FaultLog(new MemoryEventLog(), { kind: 'fail', at: 3 })
    const second = await small({ log: failing })
    let also = false
    await expect(
      second.disk.recordWrites([good], () => {
        also = true
      }),
    ).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(also).toBe(false)
  })
})

describe('R8: a snapshot is taken inside the quiet point', () => {
  test('R8: nothing is recorded while it is taken; writes meanwhile land after the point', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites([good])
    const head = store.head.position
    const seen: number[] = []
    let during: Promise<unknown> = Promise.resolve()
    const backup = await disk.beginBackup({
      bitmap: 'daily',
      mode: 'incremental',
      snapshot: async () => {
        during = disk.recordWrites([{ offset: 40960, length: 1 }])
        await turns()
        seen.push(store.head.position)
      },
    })
    await during
    expect(seen).toEqual([head])
    expect(backup.plan.extents).toEqual([{ offset: 0, length: 4096 }])
    expect(backup.info.point.position).toBe(head + 1)
    expect((await bitmap.bits()).successorCount).toBe(4096)
  })

  test('R8: one that fails refuses the begin', async () => {
    const { store, disk } = await small()
    const reasons = [
      () => Promise.reject(new Error('no space for a snapshot')),
      () => {
        throw new Error('no space for a snapshot')
      },
    ]
    for (const snapshot of reasons) {
      const error = await refused(store, 'SNAPSHOT_FAILED', () =>
        disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'b', snapshot }),
      )
      expect(error.message).toContain('no space for a snapshot')
    }
    await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'b' })
  })

  test('R8: it is not taken for a begin that is refused, nor for one that was begun before', async () => {
    const { store, disk } = await small()
    let taken = 0
    const snapshot = () => {
      taken++
    }
    await refused(store, 'BITMAP_NOT_FOUND', () =>
      disk.beginBackup({ bitmap: 'none', mode: 'full', snapshot }),
    )
    await refused(store, 'SINCE_NOT_ALLOWED', () =>
      disk.beginBackup({ bitmap: 'daily', mode: 'full', since: 'start', snapshot }),
    )
    expect(taken).toBe(0)
    await disk.beginBackup({ bitmap: 'daily', mode: 'full', snapshot }, { commandId: 'one' })
    await disk.beginBackup({ bitmap: 'daily', mode: 'full', snapshot }, { commandId: 'one' })
    expect(taken).toBe(1)
  })

  test('R14: a begin over several disks takes every snapshot in one quiet point', async () => {
    const store = await openMemoryStore({ clock: manualClock() })
    for (const id of ['a', 'b']) await (await store.ensureDisk(id, { size: SIZE })).addBitmap('m')
    const heads: number[] = []
    const snapshot = async () => {
      await turns(2)
      heads.push(store.head.position)
    }
    const head = store.head.position
    const backups = await store.beginBackups(
      ['a', 'b'].map((disk) => ({ disk, bitmap: 'm', mode: 'full' as const, snapshot })),
    )
    expect(heads).toEqual([head, head])
    expect(backups.map((backup) => backup.info.point.position)).toEqual([head + 2, head + 2])
  })
})
