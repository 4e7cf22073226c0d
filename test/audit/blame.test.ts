/** R27, blame: which writes touched a range, which backups hold them; by hand, then random histories against a naive scan. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Blame, blame, type Store } from '../../src/index.ts'
import { gate, KiB, refused, SIZE, small, turns } from '../store/support.ts'
import { proof } from '../support/property.ts'
import { allEvents, DISKS, randomHistory } from './random-history.ts'

const positions = ({ touches }: Blame) => touches.map(({ position }) => position)

/** Write 1 at 0+512, a full, write 2 at 4K+512, an increment, write 3 at 0+8K. */
async function three() {
  const world = await small()
  const { disk, store } = world
  const first = (await disk.recordWrites([{ offset: 0, length: 512 }])).first
  await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full' })).succeed()
  const second = (await disk.recordWrites([{ offset: 4 * KiB, length: 512 }])).first
  await (await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })).succeed()
  const third = (await disk.recordWrites([{ offset: 0, length: 8 * KiB, op: 'zero' }])).first
  return { ...world, store, first, second, third }
}

describe('R27: blame', () => {
  test('R27: writes come newest first, with what they were and which backups hold them', async () => {
    const { store, first, second, third } = await three()
    const blamed = await blame(store, 'vda', { offset: 0, length: 8 * KiB })
    expect(blamed.touches).toMatchObject([
      {
        kind: 'write',
        op: 'zero',
        position: third,
        offset: 0,
        length: 8 * KiB,
        backups: { in: [], not: ['full', 'incr'] },
      },
      {
        kind: 'write',
        op: 'write',
        position: second,
        offset: 4 * KiB,
        length: 512,
        backups: { in: ['incr'], not: ['full'] },
      },
      { kind: 'write', op: 'write', position: first, backups: { in: ['full'], not: ['incr'] } },
    ])
    expect(blamed).toMatchObject({ covered: { kind: 'not-covered' }, more: false, resolution: 'exact' })
  })

  test('R27: a byte beside a write is not touched by it', async () => {
    const { store, first, second, third } = await three()
    const at = async (offset: number, length: number) =>
      positions(await blame(store, 'vda', { offset, length }))
    expect(await at(511, 1)).toEqual([third, first])
    expect(await at(512, 1)).toEqual([third])
    expect(await at(4 * KiB - 1, 1)).toEqual([third])
    expect(await at(4 * KiB - 1, 2)).toEqual([third, second])
    expect(await at(8 * KiB, 1)).toEqual([])
  })

  test('R27: until and since cut the span, and the range is covered since the first backup that holds the newest', async () => {
    const { store, first, second } = await three()
    const until = await blame(store, 'vda', { offset: 0, length: SIZE }, { until: { backup: 'incr' } })
    expect(positions(until)).toEqual([second, first])
    expect(until.covered).toMatchObject({ kind: 'covered', backup: 'incr' })
    const between = await blame(
      store,
      'vda',
      { offset: 0, length: SIZE },
      { since: { position: first }, until: { position: second } },
    )
    expect(positions(between)).toEqual([second])
    const old = await blame(store, 'vda', { offset: 0, length: 512 }, { until: { position: first } })
    expect(old.covered).toMatchObject({ kind: 'covered', backup: 'full' })
  })

  test('R27: the limit says that there are more', async () => {
    const { store, third } = await three()
    const blamed = await blame(store, 'vda', { offset: 0, length: SIZE }, { limit: 1 })
    expect(positions(blamed)).toEqual([third])
    expect(blamed.more).toBe(true)
    expect((await blame(store, 'vda', { offset: 0, length: SIZE }, { limit: 3 })).more).toBe(false)
  })

  test('R27: nothing touched it', async () => {
    const { store } = await three()
    const blamed = await blame(store, 'vda', { offset: 64 * KiB, length: KiB })
    expect(blamed).toMatchObject({ touches: [], covered: { kind: 'untouched' } })
  })

  test('R10: a backup that runs would hold it, one that failed does not', async () => {
    const { store, disk } = await three()
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'late' })
    const ask = () => blame(store, 'vda', { offset: 0, length: 1 }, { limit: 1 })
    expect(await ask()).toMatchObject({
      covered: { kind: 'pending', backup: 'late' },
      touches: [{ backups: { pending: ['late'] } }],
    })
    await backup.fail('no space')
    expect(await ask()).toMatchObject({
      covered: { kind: 'not-covered' },
      touches: [{ backups: { failed: ['late'] } }],
    })
  })

  test('a copy that was reported gone holds nothing any more', async () => {
    const { store } = await three()
    await store.backup('full').forget({ reason: 'the tape broke' })
    const blamed = await blame(store, 'vda', { offset: 0, length: 1 }, { until: { backup: 'incr' } })
    expect(blamed).toMatchObject({
      covered: { kind: 'not-covered' },
      touches: [{ backups: { in: [], forgotten: ['full'] } }],
    })
  })

  test('R11: a plan that says that it is not complete may miss a write', async () => {
    const { store, disk, bitmap } = await three()
    await bitmap.disable()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await (
      await disk.beginBackup({ bitmap: 'daily', mode: 'differential', since: 'active', id: 'act' })
    ).succeed()
    const blamed = await blame(store, 'vda', { offset: 0, length: 512 }, { limit: 1 })
    expect(blamed).toMatchObject({
      covered: { kind: 'not-covered' },
      touches: [{ backups: { doubtful: ['act'] } }],
    })
  })

  test('R11: the write that a base names is behind it, the next one is not', async () => {
    const { store, disk, third } = await three()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    const since = { position: third }
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'differential', since, id: 'diff' })).succeed()
    const blamed = await blame(store, 'vda', { offset: 0, length: 512 }, { limit: 2 })
    expect(blamed.touches).toMatchObject([
      { backups: { in: ['diff'] } },
      { position: third, backups: { in: [] } },
    ])
  })

  test('R35: a lost stretch stands among the writes, and needs a backup that began after it', async () => {
    const { store, disk } = await three()
    await disk.declareLost('the agent was killed')
    const ask = () => blame(store, 'vda', { offset: SIZE - 512, length: 512 })
    expect(await ask()).toMatchObject({
      touches: [{ kind: 'lost', reason: 'the agent was killed', backups: { in: [] } }],
      covered: { kind: 'not-covered' },
    })
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'after' })).succeed()
    expect(await ask()).toMatchObject({ covered: { kind: 'covered', backup: 'after' } })
  })

  test('R3: a window is one touch, with the ranges of it that touch', async () => {
    const { store, disk } = await three()
    await disk.recordWindow({
      from: { position: store.head.position },
      extents: [
        [0, 512],
        [100 * KiB, 512],
      ],
      writes: 9,
    })
    const blamed = await blame(store, 'vda', { offset: 100 * KiB, length: 1 })
    expect(blamed).toMatchObject({
      resolution: 'window',
      touches: [{ kind: 'window', writes: 9, extents: [[100 * KiB, 512]], position: store.head.position }],
    })
  })

  test('R3: a window that was told after `until`, and reaches back before it, is in the answer', async () => {
    const { store, disk, third } = await three()
    const from = store.head
    await store.ensureDisk('other', { size: SIZE })
    const until = store.head
    await disk.recordWindow({ from: { position: from.position }, extents: [[100 * KiB, 512]], writes: 9 })
    const told = store.head.position
    await disk.recordWrites([{ offset: 100 * KiB, length: 512 }])
    const ask = (point: { position: number }, offset = 100 * KiB) =>
      blame(store, 'vda', { offset, length: 1 }, { until: point })
    expect(await ask(until)).toMatchObject({
      until: { position: until.position },
      resolution: 'window',
      touches: [{ kind: 'window', position: told, writes: 9 }],
      covered: { kind: 'not-covered' },
    })
    expect((await ask(from)).touches).toEqual([])
    expect(positions(await ask(until, 0))[0]).toBe(third)
    await store.removeDisk('vda')
    expect(positions(await ask(until))).toEqual([told])
  })

  test('R35: a stretch that was told lost after `until`, and reaches back before it, is in the answer, also of a removed disk', async () => {
    const { store, disk } = await three()
    const from = store.head
    await store.ensureDisk('other', { size: SIZE })
    const until = store.head
    await disk.declareLost('the agent was killed', { from: { position: from.position } })
    const told = store.head.position
    const ask = (point: { position: number }) =>
      blame(store, 'vda', { offset: SIZE - 512, length: 512 }, { until: point })
    const lost = [{ kind: 'lost', position: told, reason: 'the agent was killed' }]
    expect((await ask(until)).touches).toMatchObject(lost)
    await store.removeDisk('vda')
    expect((await ask(until)).touches).toMatchObject(lost)
    expect((await ask(from)).touches).toEqual([])
    await store.ensureDisk('vda', { size: SIZE })
    expect((await ask(until)).touches).toMatchObject(lost)
    expect((await ask(store.head)).touches).toEqual([])
  })

  test('R8: a write that was recorded again after a point is two touches, one on each side', async () => {
    const { store, disk } = await three()
    const landing = gate()
    const moved = disk.recordWrites([{ offset: 256 * KiB, length: 512 }], () => landing.promise)
    await turns()
    const mid = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'mid' })
    landing.open()
    await moved
    await mid.succeed()
    const blamed = await blame(store, 'vda', { offset: 256 * KiB, length: 1 })
    expect(blamed.touches).toMatchObject([{ backups: { in: [] } }, { backups: { in: ['mid'] } }])
  })

  test('R7: bytes that the disk no longer had at a backup are not in it', async () => {
    const { store, disk } = await three()
    await disk.recordWrites([{ offset: SIZE - 512, length: 512 }])
    await disk.resize(SIZE / 2)
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'cut' })).succeed()
    await disk.resize(SIZE)
    const blamed = await blame(store, 'vda', { offset: SIZE - 512, length: 512 })
    expect(blamed).toMatchObject({
      covered: { kind: 'not-covered' },
      touches: [{ backups: { not: ['full', 'incr', 'cut'] } }],
    })
  })

  test('R24: a disk that was removed is asked about at a moment when it was there; its successor has nothing of it', async () => {
    const { store, third } = await three()
    const before = store.head.position
    await store.removeDisk('vda')
    await refused(store, 'DISK_NOT_FOUND', () => blame(store, 'vda', { offset: 0, length: 1 }))
    await store.ensureDisk('vda', { size: SIZE })
    expect((await blame(store, 'vda', { offset: 0, length: 1 })).touches).toEqual([])
    const past = await blame(store, 'vda', { offset: 0, length: 1 }, { until: { position: before } })
    expect(positions(past)[0]).toBe(third)
  })
})

describe('R27: what is refused', () => {
  test.each([
    ['RANGE_INVALID', 'vda', 0, 0],
    ['RANGE_INVALID', 'vda', -1, 512],
    ['RANGE_INVALID', 'vda', 0.5, 512],
    ['RANGE_INVALID', 'vda', 0, Number.NaN],
    ['RANGE_OUTSIDE_DISK', 'vda', SIZE, 1],
    ['RANGE_OUTSIDE_DISK', 'vda', SIZE - 1, 2],
    ['DISK_NOT_FOUND', 'vdb', 0, 1],
  ] as const)('%s: %s %d+%d', async (code, disk, offset, length) => {
    const { store } = await small()
    await refused(store, code, () => blame(store, disk, { offset, length }))
  })

  test('points in the wrong order, points that are not there, a limit of nothing, a caller who gave up', async () => {
    const { store, first, third } = await three()
    const ask = (options: object) => blame(store, 'vda', { offset: 0, length: 1 }, options)
    await refused(store, 'POINT_ORDER', () => ask({ since: { position: third }, until: { position: first } }))
    await refused(store, 'POINT_NOT_FOUND', () => ask({ since: { position: 10_000 } }))
    await refused(store, 'BACKUP_NOT_FOUND', () => ask({ until: { backup: 'nope' } }))
    await refused(store, 'ABORTED', () => ask({ signal: AbortSignal.abort() }))
    await expect(ask({ limit: 0 })).rejects.toThrow(RangeError)
  })
})

test('R27: blame finds what a naive scan finds, and names the backups whose plans have it', async () => {
  const seen = { writes: 0, windows: 0, lost: 0, in: 0, not: 0, failed: 0, more: 0 }
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 - 1 }), async (seed) => {
      const store = await randomHistory(seed, 120)
      const log = await allEvents(store)
      const plans = new Map(
        await Promise.all(store.backups().map(async ({ id }) => [id, await store.replayPlan(id)] as const)),
      )
      for (let i = 0; i < 8; i++) {
        const disk = DISKS[i % 2]!
        const { size, added, lost } = store.diskInfo(disk)
        const offset = (seed * (i + 1) * 977) % size
        const length = 1 + ((seed * (i + 3)) % Math.min(32 * KiB, size - offset))
        const limit = 1 + ((seed + i * 7) % 40)
        const blamed = await blame(store, disk, { offset, length }, { limit })
        const expected = [
          ...log
            .filter((event) => event.disk === disk && event.position > added.position)
            .filter(({ ranges }) => ranges.some(([at, bytes]) => at < offset + length && at + bytes > offset))
            .map(({ position }) => position),
          ...lost.map(({ to }) => to.position),
        ].sort((a, b) => b - a)
        expect(positions(blamed)).toEqual(expected.slice(0, limit))
        expect(blamed.more).toBe(expected.length > limit)
        if (blamed.more) seen.more++
        holdings(store, blamed, plans, seen)
      }
      await store.close()
    }),
    proof('blame against a naive scan', 12, 400),
  )
  expect(Object.entries(seen).filter(([, times]) => times === 0)).toEqual([])
})

type Plans = ReadonlyMap<string, Awaited<ReturnType<Store['replayPlan']>>>

/** A succeeded backup holds a write when its plan, made again from the log alone, copies it. */
function holdings(store: Store, blamed: Blame, plans: Plans, seen: Record<string, number>): void {
  for (const touch of blamed.touches) {
    seen[touch.kind === 'write' ? 'writes' : touch.kind === 'window' ? 'windows' : 'lost']!++
    const expected = { in: [] as string[], not: [] as string[], failed: [] as string[] }
    for (const { id, disk, state, base, point } of store.backups()) {
      if (disk !== blamed.disk || state === 'running') continue
      const { extents, bytes } = plans.get(id)!
      const { size } = store.backup(id).info
      const ranges =
        touch.kind === 'write'
          ? [[touch.offset, touch.length] as const]
          : touch.kind === 'window'
            ? touch.extents
            : [[0, size] as const]
      // A disk that was shorter then had nothing at the range (R7).
      const there = blamed.offset < size
      const copied = ranges.every(([offset, length]) =>
        extents.some(
          (extent) =>
            extent.offset <= offset && Math.min(size, offset + length) <= extent.offset + extent.length,
        ),
      )
      const since = base.kind === 'none' || bytes === size ? -1 : base.position
      const holds = there && copied && touch.position <= point.position && touch.position > since
      if (state === 'succeeded') expected[holds ? 'in' : 'not'].push(id)
      else if (holds) expected.failed.push(id)
    }
    const { in: held, not, failed } = touch.backups
    expect({ in: [...held].sort(), not: [...not].sort(), failed: [...failed].sort() }).toEqual({
      in: expected.in.sort(),
      not: expected.not.sort(),
      failed: expected.failed.sort(),
    })
    for (const key of ['in', 'not', 'failed'] as const) seen[key]! += touch.backups[key].length
  }
}
