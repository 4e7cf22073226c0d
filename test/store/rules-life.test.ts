/** R30 to R34: levels of durability, ends of every kind, failures, owners; and many callers at once. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openStore, type Store } from '../../src/index.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { again, gate, KiB, refused, SIZE, SpyLog, small, T0, turns, typesOf } from './support.ts'
import { viewOf } from './world.ts'

const at = (granule: number) => [{ offset: granule * 4096, length: 1 }]

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'slicelog-life-'))
})
afterEach(async () => {
  await rm(root, { recursive: true, force: true })
})

test.each(['process', 'power'] as const)(
  'R30: at level %s the log is told when to sync: commands always, writes only at power',
  async (durability) => {
    const log = new SpyLog(new MemoryEventLog())
    const { store, disk, bitmap } = await small({ log, durability })
    log.syncs.length = 0
    await disk.recordWrites(at(1))
    await disk.recordWrites(at(2), () => undefined)
    await bitmap.bank()
    await store.createCheckpoint('c')
    expect(log.syncs.map(({ sync }) => sync)).toEqual([
      durability === 'power',
      durability === 'power',
      true,
      true,
    ])
    expect((await store.status()).durability).toBe(durability)
    expect((await store.status()).synced.position).toBe(store.head.position)
  },
)

test('R31: nothing is shown before it is in the log', async () => {
  const log = new SpyLog(new MemoryEventLog())
  const { store, disk, bitmap } = await small({ log })
  const head = store.head
  const held = gate()
  log.gate = held.promise
  const calls = [disk.recordWrites(at(1)), bitmap.bank()]
  await turns()
  expect(store.head).toEqual(head)
  expect((await bitmap.bits()).count).toBe(0)
  expect((await bitmap.slices()).slices).toEqual([])
  held.open()
  await Promise.all(calls)
  expect((await bitmap.slices()).slices).toMatchObject([{ count: 4096 }])
})

describe('R32: what an unclean end costs', () => {
  const lost = (store: Store) =>
    store.disk('vda').info.lost.map(({ from, to }) => [from.position, to.position])

  test('R32: the stretch from the last event to the first attach is lost, unless it was quiet; then never again', async () => {
    const { disk, log } = await small()
    const { first } = await disk.recordWrites(at(1))
    const loud = await again(log)
    expect(lost(loud)).toEqual([]) // Not before somebody attaches.
    await loud.ensureDisk('vda', { size: SIZE })
    expect(lost(loud)).toEqual([[first, first + 2]]) // The record's end (R20).
    await loud.ensureDisk('vda', { size: SIZE })
    expect(lost(loud)).toHaveLength(1)
    const quiet = await again(log)
    await quiet.ensureDisk('vda', { size: SIZE, quiet: true })
    expect(lost(quiet)).toHaveLength(1)
    await quiet.close()
    const clean = await again(log)
    await clean.ensureDisk('vda', { size: SIZE })
    expect(lost(clean)).toHaveLength(1)
    expect((await clean.bits('vda', 'daily')).extents).toEqual([[4096, 4096]]) // Bitmaps stay and go on recording.
  })

  test('R32: a first write attaches and declares it; sessions without an attach do not forget it', async () => {
    const { disk, log } = await small()
    const { first } = await disk.recordWrites(at(1))
    for (let session = 0; session < 3; session++) {
      const looking = await again(log)
      await looking.createCheckpoint(`c${session}`)
      expect(lost(looking)).toEqual([])
      await looking.close()
    }
    const next = await again(log)
    const recorded = await next.disk('vda').recordWrites(at(2))
    expect(lost(next)).toEqual([[first, recorded.first - 1]])
    expect(
      await next.changed('vda', { since: { position: recorded.first - 1 }, granularity: 4096 }),
    ).toMatchObject({ complete: true, bytes: 4096 })
    expect(await next.changed('vda', { since: { position: first }, granularity: 4096 })).toMatchObject({
      complete: false,
      bytes: SIZE,
    })
  })

  test('R32: a disk that was detached cleanly before the end has lost nothing', async () => {
    const { disk, log } = await small()
    await disk.recordWrites(at(1))
    await disk.detach()
    const next = await again(log)
    await next.ensureDisk('vda', { size: SIZE })
    expect(lost(next)).toEqual([])
    await refused(next, 'DISK_SIZE_MISMATCH', () => next.ensureDisk('vda', { size: 2 * SIZE }))
  })

  test.each([
    ['process', 'same', []],
    ['process', 'other', [true]],
  ] as const)(
    'R32: a disk that only our process writes, at level %s, after a kill and the %s boot',
    async (durability, boot, expected) => {
      const folder = join(root, 'store')
      const store = await openStore(folder, { durability, machine: { bootId: () => 'same' } })
      const disk = await store.ensureDisk('vda', { size: SIZE, recorder: 'store' })
      const synced = store.head.position
      await disk.recordWrites(at(1))
      await cp(folder, join(root, 'killed'), { recursive: true })
      const next = await openStore(join(root, 'killed'), { durability, machine: { bootId: () => boot } })
      expect((await next.status()).opened).toMatchObject({ clean: false, rebooted: boot === 'other' })
      await next.ensureDisk('vda', { size: SIZE })
      expect(next.disk('vda').info.lost.map(({ from }) => from.position === synced)).toEqual(expected)
      await next.close()
      await store.close()
    },
  )
})

describe('R33: after a failed write to the log', () => {
  test('R33: every later command and write is refused with the first cause; reading goes on; opening again continues', async () => {
    const inner = new MemoryEventLog()
    const { store, disk, bitmap } = await small({
      log: new FaultLog(inner, { kind: 'fail', at: 5, cause: new Error('ENOSPC: no space left') }),
    })
    await disk.recordWrites(at(1))
    await bitmap.bank()
    const waiting = await Promise.allSettled([
      disk.recordWrites(at(2)),
      disk.recordWrites(at(3)),
      bitmap.clear(),
      disk.recordWrites(at(4)),
    ])
    expect(waiting.map((ended) => (ended as PromiseRejectedResult).reason.code)).toEqual([
      'OUTCOME_UNKNOWN',
      'OUTCOME_UNKNOWN',
      'STORE_FAILED',
      'OUTCOME_UNKNOWN',
    ])
    const acts: (() => unknown)[] = [
      () => disk.recordWrites(at(5)),
      () => disk.recordWrites(at(5), () => undefined),
      () => bitmap.clear(),
      () => bitmap.bank({ commandId: 'x' }),
      () => store.addDisk('vdb', { size: 1 }),
      () => disk.beginBackup({ bitmap: 'daily', mode: 'full' }),
      () => store.transaction([{ type: 'abort' }]),
      () => store.createCheckpoint('c'),
      () => disk.detach(),
    ]
    for (const act of acts) {
      const error = await refused(store, 'STORE_FAILED', act)
      expect(
        JSON.stringify(error.facts) +
          String((error.cause as Error)?.message) +
          String(((error.cause as Error)?.cause as Error)?.message),
      ).toContain('no space left')
    }
    expect((await bitmap.slices()).slices).toHaveLength(1)
    expect((await (await store.at('now')).slices('vda', 'daily')).slices).toHaveLength(1)
    await store.close()
    const next = await again(inner)
    await next.ensureDisk('vda', { size: SIZE })
    await next.disk('vda').recordWrites(at(2))
    expect((await next.slices('vda', 'daily')).slices).toHaveLength(1)
    expect((await next.bits('vda', 'daily')).count).toBe(4096)
  })
})

describe('R34: one owner', () => {
  test('R34: a second opener in this process is refused, by whom it is told, and after a close it is not', async () => {
    const folder = join(root, 'store')
    const store = await openStore(folder)
    const error = await openStore(folder).catch((caught: unknown) => caught)
    expect(error).toMatchObject({ code: 'STORE_IN_USE' })
    expect(JSON.stringify([(error as Error).message, (error as { facts: object }).facts])).toContain(
      String(process.pid),
    )
    await (await store.ensureDisk('vda', { size: SIZE })).recordWrites(at(1)) // The owner is not disturbed.
    await store.close()
    await store.close()
    await (await openStore(folder)).close()
  })

  test('R34: a second opener in another process is refused', { timeout: 60_000 }, async () => {
    const folder = join(root, 'store')
    const store = await openStore(folder)
    const script = `import { openStore } from ${JSON.stringify(join(import.meta.dirname, '../../src/index.ts'))}
openStore(${JSON.stringify(folder)}).then(() => console.log('opened'), (error) => console.log(error.code + ' ' + error.message))`
    const file = join(root, 'other.ts')
    await writeFile(file, script)
    const run = async () =>
      (await promisify(execFile)(process.execPath, ['--import', import.meta.resolve('tsx'), file])).stdout
    const told = await run()
    expect(told).toContain('STORE_IN_USE')
    expect(told).toContain(String(process.pid))
    await store.close()
    expect(await run()).toContain('opened')
  })

  test('R34: a folder that is no store, or of a newer format, is refused and left alone', async () => {
    await expect(openStore(join(root, 'none'), { create: false })).rejects.toMatchObject({
      code: 'STORE_NOT_FOUND',
    })
    await mkdir(join(root, 'empty'))
    await expect(openStore(join(root, 'empty'), { create: false })).rejects.toMatchObject({
      code: 'STORE_NOT_FOUND',
    })
    await mkdir(join(root, 'other'))
    await writeFile(join(root, 'other', 'file'), 'x')
    await expect(openStore(join(root, 'other'))).rejects.toMatchObject({ code: 'NOT_A_STORE' })
    await expect(openStore(join(root, 'other', 'file'))).rejects.toMatchObject({ code: 'NOT_A_STORE' })
    await expect(openStore('')).rejects.toThrow(TypeError)
    const folder = join(root, 'store')
    await (await openStore(folder)).close()
    const text = await readFile(join(folder, 'store.json'), 'utf8')
    for (const [change, code] of [
      [{ format: 2 }, 'FORMAT_TOO_NEW'],
      [{ format: 'x' }, 'NOT_A_STORE'],
      [{ format: 0 }, 'NOT_A_STORE'],
    ] as const) {
      await writeFile(join(folder, 'store.json'), JSON.stringify({ ...JSON.parse(text), ...change }))
      await expect(openStore(folder)).rejects.toMatchObject({ code })
    }
    await writeFile(join(folder, 'store.json'), '{')
    await expect(openStore(folder)).rejects.toMatchObject({ code: 'NOT_A_STORE' })
    await writeFile(join(folder, 'store.json'), text)
    await (await openStore(folder)).close()
  })
})

describe('R28: stored bits that went missing are made anew', () => {
  /** A store with a snapshot whose slices' bits are gone from `derived`. */
  async function withoutBits(): Promise<{ folder: string; view: string }> {
    const folder = join(root, 'store')
    const store = await openStore(folder)
    const disk = await store.ensureDisk('vda', { size: SIZE })
    const bitmap = await disk.ensureBitmap('daily', { granularity: 4 * KiB, retention: 5 })
    for (const n of [1, 2]) {
      await disk.recordWrites(at(n))
      await bitmap.bank()
    }
    await disk.recordWrites(at(3))
    await store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
    await store.close()
    const opened = await openStore(folder) // Stores the slices' bits, which a snapshot then only names.
    await opened.snapshot()
    const view = await viewOf(opened)
    const empty = (await opened.bits('vda', 'daily')).digest
    await opened.close()
    const db = new Level<string, Uint8Array>(join(folder, 'derived'), { valueEncoding: 'view' })
    // α is empty and its bits stay, so that the snapshot is usable.
    for (const key of await db.keys({ gte: 'b', lt: 'c' }).all())
      if (!key.startsWith(`b${empty}`)) await db.del(key)
    await db.close()
    return { folder, view }
  }

  test('R28: reading, planning and beginning heal and say so', async () => {
    const { folder, view } = await withoutBits()
    const store = await openStore(folder)
    expect(await viewOf(store)).toBe(view)
    expect(
      (await store.plan({ disk: 'vda', bitmap: 'daily', mode: 'differential', since: { slice: 0 } })).bytes,
    ).toBe(3 * 4096)
    expect((await store.status()).opened.rebuilt.length).toBeGreaterThan(0)
    await store.close()
  })

  test('R16, R28: a command that needs a slice’s bits is not stuck over missing ones', async () => {
    const { folder } = await withoutBits()
    const store = await openStore(folder)
    expect((await store.deleteCheckpoint('c')).merged).toMatchObject([{ slice: 3, into: 2 }])
    expect((await store.bits('vda', 'daily')).extents).toEqual([[12288, 4096]])
    await store.createCheckpoint('after')
    await store.close()
    const next = await openStore(folder)
    expect((await next.bits('vda', 'daily')).extents).toEqual([[12288, 4096]])
    await next.close()
  })
})

describe('many callers at once', () => {
  test('a thousand callers get positions of their own, in the order of their calls', async () => {
    const { store, disk, bitmap } = await small()
    const head = store.head.position
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, i) =>
        disk.recordWrites([
          { offset: (i % 256) * 4096, length: 1 },
          { offset: 0, length: i % 2 },
        ]),
      ),
    )
    let next = head + 1
    answers.forEach(({ first, count }, i) => {
      expect([first, count]).toEqual([next, 1 + (i % 2)])
      next += count
    })
    expect((await bitmap.bits()).count).toBe(SIZE)
  })

  test('writes, points and reads race; every write is before or after each point, once', async () => {
    const { store, disk, bitmap, log } = await small()
    await bitmap.setRetention(60_000)
    const work: Promise<unknown>[] = []
    for (let i = 0; i < 300; i++) {
      work.push(disk.recordWrites(at(i % 256), i % 5 === 0 ? () => turns(2) : undefined))
      if (i % 7 === 0) work.push(bitmap.bank())
      if (i % 31 === 0)
        work.push(store.createCheckpoint(`c${i}`, { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] }))
      if (i % 11 === 0) work.push(bitmap.slices(), store.at('now'))
      if (i % 50 === 49) await turns(1)
    }
    await Promise.all(work)
    const { slices } = await bitmap.slices()
    for (const { slice, from, to, digest } of slices) {
      const changed = await disk.changed({
        since: from as { position: number },
        until: to as { position: number },
        granularity: 4096,
      })
      expect([slice, changed.digest]).toEqual([slice, digest])
    }
    expect(await viewOf(await again(log))).toBe(await viewOf(store))
  })

  test('R7: what is written while a resize is on its way is checked against the size that it finds', async () => {
    const log = new SpyLog(new MemoryEventLog())
    const { store, disk } = await small({ log })
    const last = [{ offset: 2 * SIZE - 1, length: 1 }]
    const during = async (resize: number, writes: () => Promise<unknown>[]) => {
      const held = gate()
      log.gate = held.promise
      const resized = disk.resize(resize)
      await turns()
      const ended = Promise.allSettled(writes())
      const after = resized.then(() => disk.recordWrites([{ offset: resize - 1, length: 1 }]))
      await turns()
      held.open()
      await after
      return (await ended).map((one) => (one.status === 'fulfilled' ? 'recorded' : one.reason.code))
    }
    expect(
      await during(2 * SIZE, () => [
        disk.recordWrites(last),
        disk.recordWrites(at(0)),
        disk.recordWrites(at(1), () => undefined),
      ]),
    ).toEqual(['RANGE_OUTSIDE_DISK', 'recorded', 'recorded'])
    expect(
      await during(4096, () => [
        disk.recordWrites(last),
        disk.recordWrites(at(0)),
        disk.recordWrites([{ offset: 4096, length: 1 }], () => undefined),
        disk.recordWrites([{ offset: 0, length: 1 }]),
      ]),
    ).toEqual(['RANGE_OUTSIDE_DISK', 'recorded', 'RANGE_OUTSIDE_DISK', 'recorded'])
    expect((await store.bits('vda', 'daily')).extents).toEqual([[0, 4096]])
  })

  test('R13: the same command id at once is done once', async () => {
    const { store, bitmap } = await small()
    const answers = await Promise.all(Array.from({ length: 20 }, () => bitmap.bank({ commandId: 'one' })))
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
    expect((await bitmap.slices()).slices).toHaveLength(1)
    const added = await Promise.all(Array.from({ length: 20 }, () => store.ensureDisk('vda', { size: SIZE })))
    expect(added).toHaveLength(20)
  })

  test('a close does what was asked before it and refuses what comes after', async () => {
    const { store, disk, bitmap, log } = await small()
    const before = [
      disk.recordWrites(at(1)),
      disk.recordWrites(at(2), () => turns(3)),
      bitmap.bank(),
      disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'b' }),
    ]
    const close = store.close()
    const after = [
      () => disk.recordWrites(at(3)),
      () => disk.recordWrites(at(3), () => undefined),
      () => bitmap.bank(),
      () => store.ensureDisk('vdb', { size: 1 }),
      () => store.transaction([]),
    ]
    const refusals = await Promise.allSettled(after.map(async (act) => await act()))
    expect(refusals.map((ended) => (ended as PromiseRejectedResult).reason?.code)).toEqual(
      after.map(() => 'STORE_CLOSED'),
    )
    await Promise.all([...before, close, store.close()])
    for (const act of after)
      await expect((async () => await act())()).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    const next = await again(log)
    expect((await typesOf(next)).at(-1)).toBe('disk-detached')
    expect(next.backup('b').info.state).toBe('running')
    expect((await next.slices('vda', 'daily')).slices).toMatchObject([{ count: 8192 }])
    await expect(store.at('now')).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    expect(next.disk('vda').info.attached).toBe(false)
  })

  test('R4: transient bitmaps go at the close, by an event; busy ones stay', async () => {
    const { store, disk, log } = await small()
    await disk.addBitmap('transient', { persistent: false })
    await disk.addBitmap('held', { persistent: false })
    await disk.beginBackup({ bitmap: 'held', mode: 'full', id: 'b' })
    await store.close()
    const next = await again(log)
    expect(next.bitmaps('vda').map(({ bitmap }) => bitmap)).toEqual(['daily', 'held'])
    expect(await typesOf(next)).toContain('bitmap-removed')
  })

  test('R3: the clock of the store is the caller’s', async () => {
    const clock = manualClock(T0)
    const store = await openStore(join(root, 'clock'), { clock })
    await store.addDisk('vda', { size: 512 })
    expect([store.head.time, store.now]).toEqual([T0, T0])
    clock.advance(5)
    expect(store.now).toBe(T0 + 5)
    await store.close()
  })
})
