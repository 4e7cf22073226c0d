/** A served disk: what it records before the file sees it, what it answers when file or log fail, and what a flush means. */
import { execFileSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { CheckpointError, openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { RawFile } from '../../src/nbd/raw-file.ts'
import { ServedDisk, type ServedDiskOptions } from '../../src/nbd/served-disk.ts'
import { SharedFlush } from '../../src/nbd/shared-flush.ts'
import { gate, SpyLog, turns } from '../store/support.ts'
import { dirtyGranules, failsWith, folder, KiB, MemoryBytes, systemError } from './disk-support.ts'

const SIZE = 1024 * KiB
const GRANULE = 4 * KiB
const place = folder()
const open: { close(): Promise<void> }[] = []

afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close().catch(() => undefined)
})
afterAll(() => place.remove())

async function served(
  options: Partial<ServedDiskOptions> & { readonly store?: Store; readonly bytes?: MemoryBytes } = {},
) {
  const store = options.store ?? (await openMemoryStore())
  const bytes = options.bytes ?? new MemoryBytes(SIZE)
  if (options.store === undefined) {
    const disk = await store.addDisk('vda', { size: SIZE })
    await disk.addBitmap('daily', { granularity: GRANULE, retention: 3 })
  }
  const disk = await ServedDisk.over(store, bytes, { disk: 'vda', file: 'vda.raw', ...options })
  open.push(store, disk)
  return { store, disk, bytes }
}

const dirty = async (disk: ServedDisk, name = 'qemu:dirty-bitmap:daily') =>
  await dirtyGranules(await disk.context(name), disk.size, GRANULE)

async function eventsOf(store: Store): Promise<string[]> {
  const events: string[] = []
  for await (const { type, data } of store.log())
    events.push(type === 'write' ? `${data.op} ${data.offset}+${data.length}` : type)
  return events
}

function raw(name: string, size: number): string {
  const path = place.path(name)
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

describe('what is recorded', () => {
  test('R1, R31: writes, zeroes and trims are recorded as what they are, and each reaches the file after its record', async () => {
    const { store, disk, bytes } = await served()
    let recorded = 0
    bytes.before = async (call) => {
      if (!call.startsWith('read')) recorded = (await eventsOf(store)).length
    }
    const before = (await eventsOf(store)).length
    await disk.write(5, Buffer.from('hello'), false)
    expect(recorded).toBe(before + 1)
    await disk.writeZeroes(8 * KiB, 512, { fua: false, noHole: false })
    expect(recorded).toBe(before + 2)
    await disk.writeZeroes(12 * KiB, 1, { fua: false, noHole: true })
    await disk.trim(40 * KiB, 8 * KiB, false)
    expect((await eventsOf(store)).slice(before)).toEqual([
      'write 5+5',
      'zero 8192+512',
      'zero 12288+1',
      'discard 40960+8192',
    ])
    expect(bytes.calls).toEqual(['write 5+5', 'zero 8192+512', 'zero 12288+1 allocate'])
    expect(Buffer.from(await disk.read(5, 5)).toString()).toBe('hello')
    expect(await dirty(disk)).toEqual([0, 2, 3, 10, 11])
  })

  test('R1: a length of 0 is answered and records nothing; reading, flushing and caching record nothing either', async () => {
    const { store, disk, bytes } = await served()
    const before = store.head
    await disk.write(SIZE, Buffer.alloc(0), false)
    await disk.writeZeroes(0, 0, { fua: false, noHole: true })
    await disk.trim(7, 0, false)
    expect(await disk.read(SIZE, 0)).toHaveLength(0)
    await disk.read(0, 4096)
    await disk.cache()
    await disk.flush()
    expect(store.head).toEqual(before)
    expect(bytes.calls.filter((call) => call.startsWith('write') || call.startsWith('zero'))).toEqual([])
  })

  test('R8: a write whose bytes are under way at a point is in the backup and in what follows it', async () => {
    const { store, disk, bytes } = await served()
    const landing = gate()
    bytes.before = (call) => (call.startsWith('write 8192') ? landing.promise : undefined)
    await disk.write(0, Buffer.alloc(10), false)
    const flying = disk.write(8 * KiB, Buffer.alloc(10), false)
    while (!bytes.calls.includes('write 8192+10')) await turns(1)
    const backup = await store.disk('vda').beginBackup({ bitmap: 'daily', mode: 'incremental' })
    expect(backup.plan?.extents).toEqual([
      { offset: 0, length: GRANULE },
      { offset: 8 * KiB, length: GRANULE },
    ])
    landing.open()
    await flying
    await backup.succeed()
    expect(await dirty(disk)).toEqual([2])
  })

  test('R31: a crowd of writes shares few records, and none is lost', async () => {
    const log = new SpyLog(new MemoryEventLog())
    const store = await openMemoryStore({ log })
    const { disk, bytes } = await served({ store })
    log.syncs.length = 0
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => disk.write(i * GRANULE, Buffer.alloc(16, i), false)),
    )
    expect(log.syncs.length).toBeLessThan(20)
    expect(log.syncs.reduce((sum, { count }) => sum + count, 0)).toBe(200)
    expect(bytes.calls).toHaveLength(200)
    for (let i = 0; i < 200; i++) expect(bytes.content[i * GRANULE]).toBe(i)
  })
})

describe('what a client is told when something fails', () => {
  test.each([
    ['ENOSPC', 'ENOSPC'],
    ['EDQUOT', 'ENOSPC'],
    ['EFBIG', 'ENOSPC'],
    ['EIO', 'EIO'],
    ['ENOMEM', 'ENOMEM'],
    ['EROFS', 'EPERM'],
    ['EWHATEVER', 'EIO'],
  ] as const)(
    'R31, R33: the file fails with %s after the record: %s, and the bits stay',
    async (code, errno) => {
      const { disk, bytes } = await served()
      bytes.before = (call) => {
        if (!call.startsWith('read')) throw systemError(code)
      }
      await failsWith(errno, () => disk.write(0, Buffer.alloc(1), false))
      await failsWith(errno, () => disk.writeZeroes(GRANULE, 1, { fua: false, noHole: false }))
      bytes.before = () => undefined
      expect(await dirty(disk)).toEqual([0, 1])
      await disk.write(5 * GRANULE, Buffer.alloc(1), false)
      expect(await dirty(disk), 'the store goes on').toEqual([0, 1, 5])
    },
  )

  test.each([
    [systemError('EIO'), 'EIO'],
    [systemError('ENOSPC'), 'ENOSPC'],
    [new Error('IO error: /s/000003.log: No space left on device'), 'ENOSPC'],
  ] as const)(
    'R33: a log that fails (%s) ends writing with %s, the file is not touched, and reading goes on',
    async (cause, errno) => {
      const log = new FaultLog(new MemoryEventLog(), { kind: 'fail', at: 4, cause })
      const store = await openMemoryStore({ log })
      const { disk, bytes } = await served({ store })
      const sizes = [1, 2, 3, 4, 5]
      const failed: string[] = []
      for (const length of sizes)
        await disk
          .write(length * GRANULE, Buffer.alloc(length, 7), false)
          .catch((error) => failed.push(error.errno))
      expect(failed.length).toBeGreaterThan(1)
      expect(new Set(failed)).toEqual(new Set([errno]))
      expect(bytes.calls).toHaveLength(sizes.length - failed.length)
      await failsWith(errno, () => disk.trim(0, 1, false))
      await failsWith(errno, () => disk.writeZeroes(0, 1, { fua: false, noHole: true }))
      await failsWith(errno, () => disk.flush())
      expect(await disk.read(0, 16)).toHaveLength(16)
      await disk.close()
      expect(bytes.closed).toBe(true)
    },
  )

  test.each([
    ['resized', (store: Store) => store.disk('vda').resize(SIZE / 2), 'resize-disk'],
    ['removed', (store: Store) => store.removeDisk('vda'), 'remove-disk'],
    ['detached', (store: Store) => store.disk('vda').detach(), 'detach-disk'],
    [
      'removed in a transaction',
      (store: Store) =>
        store.transaction([
          { type: 'add-bitmap', disk: 'vda', bitmap: 'more' },
          { type: 'remove-disk', disk: 'vda' },
        ]),
      'remove-disk',
    ],
    [
      'served a second time',
      (store: Store) => ServedDisk.over(store, new MemoryBytes(SIZE), { disk: 'vda', file: 'again' }),
      'serve',
    ],
  ])('R21, R31: a disk that is served is not %s under its clients', async (_, take, operation) => {
    const { store, disk, bytes } = await served()
    const before = store.head
    const taken = (take as (store: Store) => Promise<unknown>)(store)
    await expect(taken).rejects.toMatchObject({ code: 'DISK_SERVED', facts: { disk: 'vda', operation } })
    expect(store.head).toEqual(before)
    await disk.write(SIZE - 1, Buffer.alloc(1), false)
    expect(bytes.calls).toEqual([`write ${SIZE - 1}+1`])
  })

  test('R7: a disk that is not served any more is resized and removed, and one that is only read as well', async () => {
    const { store, disk } = await served()
    await disk.close()
    const reading = await served({ store, readOnly: true })
    await store.disk('vda').resize(SIZE / 2)
    await store.removeDisk('vda')
    await reading.disk.close()
  })

  test('a disk whose serving failed to begin is given back', async () => {
    const store = await openMemoryStore()
    await store.addDisk('vda', { size: SIZE })
    const bytes = new MemoryBytes(SIZE)
    const marks = { look: () => Promise.reject(systemError('EIO')), strayed: async () => null }
    const failing = Object.assign(bytes, { marks }) as unknown as MemoryBytes
    await expect(ServedDisk.over(store, failing, { disk: 'vda', file: 'vda.raw' })).rejects.toMatchObject({
      code: 'IO_FAILED',
    })
    await store.disk('vda').resize(SIZE / 2)
    await store.close()
  })

  test('a read-only export refuses every change, records nothing and leaves the disk unattached', async () => {
    const { store, disk, bytes } = await served({ readOnly: true })
    const before = store.head
    expect(disk.readOnly).toBe(true)
    await failsWith('EPERM', () => disk.write(0, Buffer.alloc(1), false))
    await failsWith('EPERM', () => disk.write(0, Buffer.alloc(0), false))
    await failsWith('EPERM', () => disk.writeZeroes(0, 1, { fua: false, noHole: false }))
    await failsWith('EPERM', () => disk.trim(0, 1, true))
    await disk.read(0, 10)
    await disk.flush()
    await disk.close()
    expect(store.head).toEqual(before)
    expect(store.diskInfo('vda').attached).toBe(false)
    expect(bytes.calls).toEqual(['read 0+10'])
  })

  test('after close nothing is taken, what was under way has landed, and the disk is detached', async () => {
    const { store, disk, bytes } = await served()
    const landing = gate()
    bytes.before = (call) => (call.startsWith('write') ? landing.promise : undefined)
    const flying = disk.write(0, Buffer.alloc(10), false)
    while (bytes.calls.length === 0) await turns(1)
    const closing = disk.close()
    await failsWith('ESHUTDOWN', () => disk.read(0, 1))
    await failsWith('ESHUTDOWN', () => disk.write(0, Buffer.alloc(1), false))
    await failsWith('ESHUTDOWN', () => disk.flush())
    expect([bytes.closed, store.diskInfo('vda').attached]).toEqual([false, true])
    landing.open()
    await Promise.all([flying, closing, disk.close()])
    expect([bytes.closed, store.diskInfo('vda').attached]).toEqual([true, false])
    expect(bytes.calls).toEqual(['write 0+10', 'sync'])
  })
})

describe('flush and FUA', () => {
  test('R30: a flush at level process makes file and log durable, and records nothing', async () => {
    const path = place.path('flush')
    const store = await openStore(path)
    await (await store.addDisk('vda', { size: SIZE })).addBitmap('daily', { granularity: GRANULE })
    const { disk, bytes } = await served({ store })
    await disk.write(0, Buffer.alloc(1), false)
    const { position } = store.head
    expect((await store.status()).synced.position).toBeLessThan(position)
    expect(bytes.calls).not.toContain('sync')
    await disk.flush()
    expect((await store.status()).synced.position).toBe(position)
    expect(bytes.calls.filter((call) => call === 'sync')).toHaveLength(1)
    expect(store.head.position).toBe(position)
  })

  test.each([
    ['write', (disk: ServedDisk) => disk.write(0, Buffer.alloc(1), true)],
    ['zero', (disk: ServedDisk) => disk.writeZeroes(0, 1, { fua: true, noHole: false })],
    ['discard', (disk: ServedDisk) => disk.trim(0, 1, true)],
  ] as const)(
    'R30: FUA on a %s makes the file and the record durable before it is answered',
    async (_, act) => {
      const store = await openStore(place.path(`fua-${_}`))
      const { disk, bytes } = await served({ store })
      await act(disk)
      expect((await store.status()).synced.position).toBe(store.head.position)
      expect(bytes.calls.at(-1)).toBe('sync')
    },
  )

  test('flushes that wait share one sync, which began after each of them asked', async () => {
    const first = gate()
    let begun = 0
    const flushes = new SharedFlush(async () => {
      if (++begun === 1) await first.promise
    })
    const running = flushes.run()
    await turns(1)
    const waiting = Array.from({ length: 50 }, () => flushes.run())
    await turns(2)
    expect(begun).toBe(1)
    first.open()
    await Promise.all([running, ...waiting])
    expect(begun).toBe(2)
    await flushes.run()
    expect(begun).toBe(3)
  })

  test('after a sync that failed no flush ever succeeds again: the system forgets what it could not write', async () => {
    const { disk, bytes } = await served()
    let failing = true
    bytes.before = (call) => {
      if (call === 'sync' && failing) throw systemError('EIO')
    }
    await failsWith('EIO', () => disk.flush())
    failing = false
    await failsWith('EIO', () => disk.flush())
    await failsWith('EIO', () => disk.write(0, Buffer.alloc(1), true))
    await disk.write(0, Buffer.alloc(1), false)
  })
})

describe('the file', () => {
  test('R35: a file of another size than the disk is refused before anything is attached or recorded', async () => {
    const store = await openMemoryStore()
    open.push(store)
    await store.addDisk('vda', { size: SIZE })
    const before = store.head
    for (const size of [SIZE - 1, SIZE + 1, 0]) {
      const file = raw('other-size', size)
      const error = await ServedDisk.open(store, { disk: 'vda', file }).catch((caught) => caught)
      expect(error).toBeInstanceOf(CheckpointError)
      expect([error.code, error.facts]).toEqual([
        'DISK_SIZE_MISMATCH',
        { disk: 'vda', size: SIZE, wanted: size, file },
      ])
    }
    expect(store.head).toEqual(before)
  })

  test('what is no regular file, or is not there, is refused, and nothing is recorded', async () => {
    const store = await openMemoryStore()
    open.push(store)
    const before = store.head
    mkdirSync(place.path('dir'))
    execFileSync('mkfifo', [place.path('pipe')])
    const refusals = [
      ['absent', 'IO_FAILED'],
      ['dir', 'IO_FAILED'],
      ['pipe', 'SERVED_FILE_INVALID'],
    ] as const
    for (const [name, code] of refusals) {
      const given = { disk: 'vda', file: place.path(name) }
      const error = await ServedDisk.open(store, given).catch((caught) => caught)
      expect([name, error.code]).toEqual([name, code])
    }
    const readOnly = { disk: 'vda', file: place.path('dir'), readOnly: true }
    await expect(ServedDisk.open(store, readOnly)).rejects.toMatchObject({ code: 'SERVED_FILE_INVALID' })
    const empty = { disk: 'vda', file: raw('empty', 0) }
    await expect(ServedDisk.open(store, empty)).rejects.toMatchObject({ code: 'SIZE_INVALID' })
    expect(store.head).toEqual(before)
  })

  test('a disk that the store does not know is added with the size of the file, and is ours alone (R32)', async () => {
    const store = await openMemoryStore()
    const disk = await ServedDisk.open(store, { disk: 'vda', file: raw('new', 12_345), name: 'root' })
    open.push(store, disk)
    expect([disk.name, disk.disk, disk.size]).toEqual(['root', 'vda', 12_345])
    expect(store.diskInfo('vda')).toMatchObject({ size: 12_345, attached: true, recorder: 'store' })
  })

  test("R32: a disk that was served and let go of cleanly is a caller's when a caller attaches it, whose unclean end costs a stretch", async () => {
    const path = place.path('then-a-caller')
    const store = await openStore(path)
    const first = await ServedDisk.open(store, { disk: 'vda', file: raw('then-a-caller.raw', SIZE) })
    open.push(store, first)
    await first.close()
    await store.ensureDisk('vda', { size: SIZE })
    expect(store.diskInfo('vda').recorder).toBe('caller')
    await store.disk('vda').detach()
    await store.ensureDisk('vda', { size: SIZE, recorder: 'store' })
    await store.disk('vda').detach()
    await store.disk('vda').recordWrites([{ offset: 0, length: 1 }])
    expect(store.diskInfo('vda').recorder).toBe('caller')
    cpSync(path, `${path}-killed`, { recursive: true })
    const next = await openStore(`${path}-killed`)
    open.push(next)
    await next.ensureDisk('vda', { size: SIZE })
    expect(next.diskInfo('vda').lost).toHaveLength(1)
  })

  test('odd ends and long zeroes go through whole, and zeroes leave a sparse file sparse unless it must be allocated', async () => {
    const path = raw('sparse', 4 * 1024 * KiB + 7)
    const file = await RawFile.open(path, false)
    open.push(file)
    await file.write(1024 * KiB - 1, Buffer.from([1, 2, 3]))
    await file.zero(0, file.size, false)
    await file.sync()
    expect(readFileSync(path).every((byte) => byte === 0)).toBe(true)
    expect(statSync(path).blocks * 512).toBeLessThan(1024 * KiB)
    await file.zero(1, file.size - 1, true)
    await file.sync()
    expect(statSync(path).blocks * 512).toBeGreaterThan(4 * 1024 * KiB)
    expect(statSync(path).size).toBe(file.size)
    await file.write(file.size - 1, Buffer.from([9]))
    expect([...(await file.read(file.size - 2, 2))]).toEqual([0, 9])
  })

  describe('R35: between two times of being served', () => {
    const all = Array.from({ length: 16 }, (_, i) => i)
    /** Served once and closed cleanly; then `meanwhile`, and served again. */
    async function again(name: string, meanwhile: (path: string, store: Store) => unknown, readOnly = false) {
      const file = raw(name, 16 * GRANULE)
      const store = await openMemoryStore()
      const first = await ServedDisk.open(store, { disk: 'vda', file })
      open.push(store, first)
      await store.disk('vda').addBitmap('daily', { granularity: GRANULE, retention: 1 })
      await first.write(0, Buffer.alloc(1, 1), false)
      await first.close()
      await new Promise((resolve) => setTimeout(resolve, 25)) // Longer than a tick of the file system's clock.
      await meanwhile(file, store)
      const disk = await ServedDisk.open(store, { disk: 'vda', file, readOnly })
      open.push(disk)
      return { store, disk }
    }

    test.each([
      ['written', (file: string) => writeFileSync(file, Buffer.alloc(16 * GRANULE, 1))],
      [
        'replaced by another',
        (file: string) => {
          writeFileSync(`${file}.new`, Buffer.alloc(16 * GRANULE, 1))
          renameSync(`${file}.new`, file)
        },
      ],
      [
        'written, and its time of writing put back',
        (file: string) => {
          const { atime, mtime } = statSync(file)
          writeFileSync(file, Buffer.alloc(16 * GRANULE, 1))
          utimesSync(file, atime, mtime)
        },
      ],
      [
        'written before the bitmap had an event of its own',
        async (file: string, store: Store) => {
          writeFileSync(file, Buffer.alloc(16 * GRANULE, 1))
          await new Promise((resolve) => setTimeout(resolve, 25))
          await store.disk('vda').bitmap('daily').bank()
        },
      ],
    ] as const)(
      'a file that was %s is told, and every older map is dirty throughout',
      async (what, meanwhile) => {
        const { store, disk } = await again(`changed ${what}`, meanwhile)
        const { lost } = store.diskInfo('vda')
        expect(lost).toHaveLength(1)
        expect(lost[0]!.reason).toMatch(/^its file (changed at|is another one) .* after it was served last/)
        const maps = ['daily@position=0', ...(what.includes('bitmap') ? ['daily@since=0'] : ['daily'])]
        for (const name of maps) expect(await dirty(disk, `qemu:dirty-bitmap:${name}`)).toEqual(all)
        await store.createCheckpoint('after')
        await disk.write(GRANULE, Buffer.alloc(1), false)
        expect(await dirty(disk, 'qemu:dirty-bitmap:daily@checkpoint=after')).toEqual([1])
      },
    )

    test('a file that was only read is not lost, however often it is served', async () => {
      const { store, disk } = await again('only read', (file) => readFileSync(file))
      await disk.write(5 * GRANULE, Buffer.alloc(1), false)
      await disk.close()
      const third = await ServedDisk.open(store, { disk: 'vda', file: place.path('only read') })
      open.push(third)
      expect(store.diskInfo('vda').lost).toEqual([])
      expect(await dirty(third)).toEqual([0, 5])
    })

    test('it is told for a read-only export as well, whose maps would be wrong otherwise', async () => {
      const { store } = await again(
        'read-only',
        (file) => writeFileSync(file, Buffer.alloc(16 * GRANULE, 1)),
        true,
      )
      expect(store.diskInfo('vda').lost).toHaveLength(1)
    })
  })

  test('R35: bytes that somebody cut off the file are an error, never zeroes', async () => {
    const path = raw('cut', 64 * KiB)
    const store = await openMemoryStore()
    const disk = await ServedDisk.open(store, { disk: 'vda', file: path })
    open.push(store, disk)
    truncateSync(path, 10_000)
    expect(await disk.read(0, 10_000)).toHaveLength(10_000)
    await failsWith('EIO', () => disk.read(9_999, 2))
  })
})
