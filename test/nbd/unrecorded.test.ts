/** R33, `continue`: a log that fails does not stop the guest; what it wrote without a log is told by the next open, and by nobody lost silently. */
import { cpSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { repairStore } from '../../src/audit/repair.ts'
import { type CheckpointError, openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { recordOrGoOn, syncOrGoOn, WithoutLog } from '../../src/nbd/without-log.ts'
import type { Move } from '../../src/store/core.ts'
import type { Disk } from '../../src/store/disk.ts'
import { coreOf } from '../../src/store/store.ts'
import { spoil } from '../audit/repair-support.ts'
import { entriesIn } from '../audit/support.ts'
import { dirtyGranules, failsWith, folder, KiB, MemoryBytes, systemError } from './disk-support.ts'

const SIZE = 1024 * KiB
const GRANULE = 64 * KiB
const ALL = Array.from({ length: SIZE / GRANULE }, (_, i) => i)

/** A store in a folder, with `vda` served over a file; `fail` makes the log fail from its next write on. */
async function given(onLogError?: 'continue' | 'stop') {
  const place = folder()
  onTestFinished(place.remove)
  const [at, file] = [place.path('store'), place.path('vda.raw')]
  writeFileSync(file, '')
  truncateSync(file, SIZE)
  const store = await openStore(at)
  onTestFinished(() => store.close().catch(() => undefined))
  const told: CheckpointError[] = []
  const served = await ServedDisk.open(
    store,
    { disk: 'vda', file, ...(onLogError === undefined ? {} : { onLogError }) },
    (error) => void told.push(error),
  )
  await store.disk('vda').addBitmap('daily', { granularity: GRANULE })
  await served.write(3 * GRANULE, Buffer.alloc(512, 3), false)
  await store.createCheckpoint('older')
  const number = coreOf(store).catalog.disk('vda')!.number
  const mark = join(at, 'unrecorded', String(number))
  const fail = () => {
    const { log } = coreOf(store)
    log.append = () => Promise.reject(systemError('ENOSPC'))
  }
  const write = (granule: number) => served.write(granule * GRANULE, Buffer.alloc(512, granule), false)
  return { place, at, file, store, served, told, mark, fail, write }
}

/** Closed, as far as a store that failed can be, and opened again. */
async function reopened(at: string, store?: Store): Promise<Store> {
  await store?.close().catch(() => undefined)
  const again = await openStore(at, { create: false })
  onTestFinished(() => again.close())
  return again
}

/** After work of a process that knows no marks: they lie there as they did before it. */
async function reopenedAfter(
  { place, at, store, served }: Awaited<ReturnType<typeof given>>,
  work: (between: Store) => Promise<void>,
): Promise<Store> {
  await served.close()
  await store.close().catch(() => undefined)
  cpSync(join(at, 'unrecorded'), place.path('kept'), { recursive: true })
  const between = await reopened(at)
  await work(between)
  await between.close()
  cpSync(place.path('kept'), join(at, 'unrecorded'), { recursive: true })
  return await reopened(at)
}

/** As a served disk records a byte. */
const recordedOn = (disk: Disk) => async (move: Move) => {
  await disk.recordWrites([{ offset: 0, length: 1 }], move)
}

const since = async (store: Store, checkpoint: string) => {
  const { complete, bytes, lost } = await store.changed('vda', {
    since: { checkpoint },
    granularity: GRANULE,
  })
  return { complete, bytes, reasons: lost.map(({ reason }) => reason) }
}

test('R33: writes, zeroes, flushes and FUA go on; points are refused with the first cause; maps cover the whole disk', async () => {
  const { store, served, told, fail, write } = await given('continue')
  fail()
  await Promise.all([write(5), write(6), served.flush()])
  await served.writeZeroes(0, 4096, { fua: true, noHole: false })
  await served.write(7 * GRANULE, Buffer.alloc(512, 7), true)
  expect((await served.read(5 * GRANULE, 1))[0]).toBe(5)
  expect(told).toMatchObject([{ code: 'WRITES_UNRECORDED', facts: { disk: 'vda' } }])
  expect(told[0]!.message).toContain('ENOSPC')
  const { position } = store.head
  for (const point of [
    () => store.createCheckpoint('c'),
    () => store.disk('vda').beginBackup({ bitmap: 'daily', mode: 'full' }),
    () => store.disk('vda').bitmap('daily').bank(),
    () => store.plan({ disk: 'vda', bitmap: 'daily', mode: 'full' }),
  ])
    await expect(point()).rejects.toMatchObject({
      code: 'STORE_FAILED',
      facts: { cause: expect.stringContaining('ENOSPC') },
    })
  expect(store.head.position).toBe(position)
  for (const map of ['daily', '@checkpoint=older', '@time=2001-01-01'])
    expect(await dirtyGranules(await served.context(`qemu:dirty-bitmap:${map}`), SIZE, GRANULE)).toEqual(ALL)
  expect(await since(store, 'older')).toMatchObject({ complete: false, bytes: SIZE })
})

test('R33, R35: the next open tells the stretch and only then takes the mark away; older bases cover the disk, newer ones are untouched', async () => {
  const { at, file, store, served, mark, fail, write } = await given('continue')
  const { position } = store.head
  fail()
  await write(5)
  await served.close()
  expect(existsSync(mark)).toBe(true)
  const again = await reopened(at, store)
  expect(readdirSync(join(at, 'unrecorded'))).toEqual([])
  expect(again.diskInfo('vda').lost).toMatchObject([
    { from: { position }, reason: expect.stringMatching(/log could not be written \(.*ENOSPC/) },
  ])
  expect(await since(again, 'older')).toMatchObject({ complete: false, bytes: SIZE })
  const disk = await ServedDisk.open(again, { disk: 'vda', file, onLogError: 'continue' })
  expect((await disk.read(5 * GRANULE, 1))[0]).toBe(5)
  await again.createCheckpoint('newer')
  await disk.write(GRANULE, Buffer.alloc(1), false)
  expect(await since(again, 'newer')).toEqual({ complete: true, bytes: GRANULE, reasons: [] })
  await disk.close()
  expect(existsSync(mark)).toBe(false)
  // Told once: another open has nothing to add.
  const third = await reopened(at, again)
  expect(third.diskInfo('vda').lost).toHaveLength(1)
})

describe('a mark is not lost', () => {
  test('R35: a copy of the store made meanwhile tells it too', async () => {
    const { place, at, store, fail, write } = await given('continue')
    fail()
    await write(5)
    await store.copyTo(place.path('copy'))
    const copy = await reopened(place.path('copy'))
    expect(await since(copy, 'older')).toMatchObject({ complete: false, bytes: SIZE })
    const original = await reopened(at, store)
    expect(original.diskInfo('vda').lost).toHaveLength(1)
  })

  test('R35: a process that knows no marks and goes on with the store in between: lost since the log failed all the same', async () => {
    const one = await given('continue')
    const { position } = one.store.head
    one.fail()
    await one.write(5)
    const again = await reopenedAfter(one, async (between) => {
      await between.disk('vda').recordWrites([{ offset: 0, length: 1 }])
      await between.createCheckpoint('between')
    })
    expect(again.diskInfo('vda').lost.at(-1)).toMatchObject({ from: { position } })
    expect(await since(again, 'between')).toMatchObject({ complete: false })
  })

  test('R28, R35: a repair leaves it alone, and what it says is told by the first open of the repaired log', async () => {
    const { place, at: live, fail, write } = await given('continue')
    fail()
    await write(5)
    // As a kill leaves it: a close would join all records into one value.
    const at = place.path('killed')
    cpSync(live, at, { recursive: true, filter: (path) => !path.endsWith('.sock') })
    const [name] = readdirSync(join(at, 'unrecorded'))
    const mark = join(at, 'unrecorded', name!)
    const newest = (await entriesIn(at)).at(-1)!
    const value = Uint8Array.from(newest.value)
    value[value.length - 1]! ^= 1
    await spoil(at, { position: newest.position, value })
    expect(await repairStore(at)).toMatchObject({ state: 'repaired' })
    expect(existsSync(mark)).toBe(true)
    const again = await reopened(at)
    const told = again.diskInfo('vda').lost.filter(({ reason }) => reason.includes('without it'))
    expect(told).toHaveLength(1)
    expect(existsSync(mark)).toBe(false)
  })

  const SPOILED: readonly (readonly [string, (bytes: Buffer) => Buffer])[] = [
    [
      'a flipped bit',
      (bytes) => {
        bytes[20]! ^= 4
        return bytes
      },
    ],
    [
      'a torn sector',
      (bytes) => {
        bytes.fill(0, 256, 512)
        return bytes
      },
    ],
    [
      'another version',
      (bytes) => {
        bytes[4] = 9
        return bytes
      },
    ],
    ['nothing in it', () => Buffer.alloc(0)],
    [
      'a name that nobody can read',
      (bytes) => {
        bytes[514]! ^= 1
        return bytes
      },
    ],
  ]

  test.each(SPOILED)(
    'R35: %s: lost all the same, since ever where nobody knows since when',
    async (what, spoil) => {
      const { at, store, served, mark, fail, write } = await given('continue')
      fail()
      await write(5)
      await served.close()
      await store.close().catch(() => undefined)
      writeFileSync(mark, spoil(readFileSync(mark)))
      const again = await reopened(at)
      const [lost] = again.diskInfo('vda').lost
      expect(lost!.from.position).toBe(what.startsWith('a name') ? store.head.position : -1)
      expect(await since(again, 'older')).toMatchObject({ complete: false, bytes: SIZE })
    },
  )

  test('R28, R35: in a log of another history its position means nothing: lost since ever', async () => {
    const { at, store, served, mark, fail, write } = await given('continue')
    const other = await given('continue')
    for (const one of [{ served, fail, write, store }, other]) {
      one.fail()
      await one.write(5)
      await one.served.close()
      await one.store.close().catch(() => undefined)
    }
    writeFileSync(mark, readFileSync(other.mark))
    const [lost] = (await reopened(at)).diskInfo('vda').lost
    expect(lost!.from.position).toBe(-1)
  })
})

describe('nothing is told', () => {
  test('of a disk that ended well, was killed while its log worked, or is gone', async () => {
    const { at, store, mark, write } = await given('continue')
    await write(5)
    expect(readFileSync(mark).length).toBe(4096)
    await store.close() // Not the disk: its mark stays, clear, as after a kill.
    expect(existsSync(mark)).toBe(true)
    const again = await reopened(at)
    expect(again.diskInfo('vda').lost).toEqual([])
    expect(existsSync(mark)).toBe(false)
  })

  test('of a disk that was removed since', async () => {
    const one = await given('continue')
    one.fail()
    await one.write(5)
    const again = await reopenedAfter(one, (between) => between.removeDisk('vda'))
    expect(again.disks()).toEqual([])
  })
})

describe('stop', () => {
  test.each(['stop', undefined] as const)(
    'R33: %s: writes and flushes fail, nothing reaches the file, reads go on',
    async (how) => {
      const { served, told, mark, file, fail, write } = await given(how)
      const before = readFileSync(file)
      fail()
      await failsWith('ENOSPC', () => write(5))
      await failsWith('ENOSPC', () => served.flush())
      await failsWith('ENOSPC', () => served.writeZeroes(0, 512, { fua: false, noHole: true }))
      expect((await served.read(3 * GRANULE, 1))[0]).toBe(3)
      expect(readFileSync(file).equals(before)).toBe(true)
      expect([told, existsSync(mark)]).toEqual([[], false])
    },
  )

  test('R33: a mark that cannot be made durable: as with stop, told, and no byte is written', async () => {
    const bytes = new MemoryBytes(SIZE)
    for (const failing of ['set', 'later'] as const) {
      const store = await openMemoryStore({
        log: new FaultLog(new MemoryEventLog(), { kind: 'fail', at: 2, cause: systemError('ENOSPC') }),
      })
      const disk = await store.ensureDisk('vda', { size: SIZE, recorder: 'store' })
      const told: CheckpointError[] = []
      let sets = 0
      const mark = {
        set: async () => {
          sets++
          if (failing === 'later') await new Promise((done) => setImmediate(done))
          throw systemError('EIO')
        },
        close: async () => undefined,
      }
      const without = new WithoutLog(store, 'vda', mark, (error) => void told.push(error))
      const write = () => recordOrGoOn(without, recordedOn(disk), () => bytes.write(0, Buffer.alloc(1)))
      const ended = await Promise.allSettled([write(), write(), write()])
      for (const end of ended)
        expect(end).toMatchObject({
          status: 'rejected',
          reason: { code: expect.stringMatching(/^(OUTCOME_UNKNOWN|STORE_FAILED)$/) },
        })
      await expect(syncOrGoOn(store, without)).rejects.toMatchObject({ code: 'STORE_FAILED' })
      expect([sets, bytes.calls, without.going]).toEqual([1, [], false])
      expect(told).toMatchObject([{ code: 'IO_FAILED', message: expect.stringContaining('EIO') }])
      await store.close().catch(() => undefined)
    }
  })

  test('R33: bytes move only once the mark is durable', async () => {
    const log = new FaultLog(new MemoryEventLog(), { kind: 'fail', at: 2 })
    const store = await openMemoryStore({ log })
    const disk = await store.ensureDisk('vda', { size: SIZE, recorder: 'store' })
    const order: string[] = []
    const mark = {
      set: async () => {
        await new Promise((done) => setTimeout(done, 20))
        order.push('mark')
      },
      close: async () => undefined,
    }
    const without = new WithoutLog(store, 'vda', mark, () => undefined)
    const write = () =>
      recordOrGoOn(without, recordedOn(disk), () => {
        order.push('bytes')
        return undefined
      })
    await Promise.all([write(), write()])
    await write()
    expect(order).toEqual(['mark', 'bytes', 'bytes', 'bytes'])
    await store.close().catch(() => undefined)
  })

  test('what is refused for another reason, or fails in the file, sets no mark', async () => {
    const { served, told, store, write } = await given('continue')
    await failsWith('EINVAL', () => served.write(SIZE, Buffer.alloc(1), false))
    expect(told).toEqual([])
    await served.close()
    await expect(write(1)).rejects.toMatchObject({ errno: 'ESHUTDOWN' })
    expect((await store.changed('vda', { since: 'start' })).lost).toEqual([])
  })

  test('continue is refused where no mark can be: a store in memory, a folder that cannot hold one', async () => {
    const memory = await openMemoryStore()
    const { file, place } = await given()
    await expect(ServedDisk.open(memory, { disk: 'm', file, onLogError: 'continue' })).rejects.toThrow(
      TypeError,
    )
    expect(memory.diskInfo('m').attached).toBe(false)
    await memory.close()
    const at = place.path('blocked')
    const store = await openStore(at)
    writeFileSync(join(at, 'unrecorded'), 'in the way')
    await expect(ServedDisk.open(store, { disk: 'vda', file, onLogError: 'continue' })).rejects.toMatchObject(
      { code: 'IO_FAILED' },
    )
    await store.close()
  })
})
