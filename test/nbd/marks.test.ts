/** Marks of a served file (R35): when they are recorded, and what of a file that changed behind the server's back they find. */
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { DiskMark } from '../../events/types.ts'
import { type CheckpointError, openMemoryStore, type Store } from '../../src/index.ts'
import type { EventLog } from '../../src/log/event-log.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { type Difference, differenceOf, type SinceMark } from '../../src/nbd/file-check.ts'
import { deviceNumber, type MarkSource, thisBoot } from '../../src/nbd/file-mark.ts'
import { Marks } from '../../src/nbd/marks.ts'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { coreOf } from '../../src/store/store.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { KiB } from './disk-support.ts'

const SIZE = 64 * KiB
const open: { close(): Promise<void> }[] = []
const folders: string[] = []

afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close().catch(() => undefined)
  for (const one of folders.splice(0)) rmSync(one, { recursive: true, force: true })
})

function image(name = 'vda.raw'): string {
  const folder = mkdtempSync(join(tmpdir(), 'slicelog-marks-'))
  folders.push(folder)
  const path = join(folder, name)
  writeFileSync(path, '')
  truncateSync(path, SIZE)
  return path
}

/** Longer than a tick of the file system's clock. */
const tick = () => new Promise((resolve) => setTimeout(resolve, 25))

async function memory(options: Parameters<typeof openMemoryStore>[0] = {}): Promise<Store> {
  const store = await openMemoryStore(options)
  open.push(store)
  return store
}

async function serve(store: Store, file: string, options: { readonly readOnly?: boolean } = {}) {
  const told: CheckpointError[] = []
  const disk = await ServedDisk.open(store, { disk: 'vda', file, ...options }, (error) => told.push(error))
  open.push(disk)
  return { disk, told }
}

const markOf = (store: Store) => coreOf(store).catalog.disk('vda')?.mark ?? null
const lostOf = (store: Store) => store.diskInfo('vda').lost

async function typesOf(store: Store): Promise<string[]> {
  const types: string[] = []
  for await (const { type } of store.log()) types.push(type)
  return types
}

describe('when they are recorded', () => {
  test('R35: at attach, and at detach after the last write', async () => {
    const file = image()
    const store = await memory()
    const { disk } = await serve(store, file)
    const { ino, size, mtimeNs, ctimeNs, dev } = statSync(file, { bigint: true })
    expect(markOf(store)?.mark).toEqual({
      kind: 'file',
      device: deviceNumber(dev),
      inode: String(ino),
      size: Number(size),
      modified: String(mtimeNs),
      changed: String(ctimeNs),
      boot: thisBoot(),
      sectorsWritten: null,
    })
    await tick()
    await disk.write(0, Buffer.alloc(512, 1), false)
    await disk.close()
    expect(await typesOf(store)).toEqual([
      'disk-added',
      'disk-attached',
      'disk-marked',
      'write',
      'disk-marked',
      'disk-detached',
    ])
    expect(markOf(store)?.mark.changed).toBe(String(statSync(file, { bigint: true }).ctimeNs))
  })

  test('R29, R35: a serving that writes nothing marks nothing anew', async () => {
    const file = image()
    const store = await memory()
    for (let time = 0; time < 3; time++) await (await serve(store, file)).disk.close()
    expect((await typesOf(store)).filter((type) => type === 'disk-marked')).toHaveLength(1)
    expect(lostOf(store)).toEqual([])
  })

  test('R35: a read-only export marks nothing', async () => {
    const store = await memory()
    await (await serve(store, image(), { readOnly: true })).disk.close()
    expect(await typesOf(store)).toEqual(['disk-added'])
  })

  const LOOK: DiskMark = {
    kind: 'file',
    device: '8:1',
    inode: '1',
    size: SIZE,
    modified: '0',
    changed: '0',
    boot: thisBoot(),
    sectorsWritten: null,
  }

  /** A source that counts its looks, and does what it is told to. */
  class Looks implements MarkSource {
    looks = 0
    straying: string | null = null
    during: () => unknown = () => undefined

    async look(): Promise<DiskMark> {
      const inode = String(++this.looks)
      await this.during()
      return { ...LOOK, inode }
    }

    async strayed(): Promise<string | null> {
      return this.straying
    }
  }

  async function marks(
    times: { readonly idleMs?: number; readonly flushMs?: number } = {},
    log: EventLog = new MemoryEventLog(),
  ) {
    const store = await memory({ log })
    await store.ensureDisk('vda', { size: SIZE, recorder: 'store' })
    const source = new Looks()
    const told: CheckpointError[] = []
    const all = { idleMs: 60_000, flushMs: 60_000, ...times }
    const of = new Marks(store, 'vda', source, (error) => told.push(error), all)
    open.push({ close: () => of.end() })
    return { store, source, told, of }
  }

  const change = async (store: Store, of: Marks) => {
    of.changing()
    await store.disk('vda').recordWrites([{ offset: 0, length: 512 }])
    of.changed()
  }

  test('R35: once no write came for a while, and once only', async () => {
    const { store, source, of } = await marks({ idleMs: 20 })
    for (let i = 0; i < 5; i++) await change(store, of)
    await expect.poll(() => markOf(store)?.mark.inode).toBe('1')
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(source.looks).toBe(1)
    await change(store, of)
    await expect.poll(() => markOf(store)?.mark.inode).toBe('2')
  })

  test('R35: at a flush when the last one is old, never at each, and never without a write', async () => {
    const young = await marks()
    await change(young.store, young.of)
    for (let i = 0; i < 5; i++) young.of.flushed()
    await tick()
    expect(young.source.looks).toBe(0)
    const old = await marks({ flushMs: 0 })
    old.of.flushed()
    await tick()
    expect(old.source.looks, 'nothing was written').toBe(0)
    await change(old.store, old.of)
    old.of.flushed()
    await expect.poll(() => markOf(old.store)?.mark.inode).toBe('1')
  })

  test('R35: never while a write is on its way, nor when one begins during the look', async () => {
    const { store, source, of } = await marks({ idleMs: 20, flushMs: 0 })
    of.changing()
    of.flushed()
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(source.looks).toBe(0)
    of.changed()
    let once = true
    source.during = async () => {
      if (once) await change(store, of)
      once = false
    }
    await expect.poll(() => markOf(store)?.mark.inode).toBe('2')
    expect(markOf(store)!.at.position).toBe(coreOf(store).catalog.disk('vda')!.wrote!.position + 1)
  })

  test('R35: that its path leads elsewhere by now is told once for each way in which it does', async () => {
    const { store, source, told, of } = await marks({ flushMs: 0 })
    for (const straying of [
      'nothing is there any more',
      'nothing is there any more',
      'another file is there now',
      null,
    ]) {
      source.straying = straying
      await change(store, of)
      const before = source.looks
      of.flushed()
      await expect.poll(() => markOf(store)?.mark.inode).toBe(String(before + 1))
    }
    await of.end()
    expect(told).toMatchObject([
      { code: 'SERVED_FILE_INVALID', message: expect.stringMatching(/nothing is there any more/) },
      { code: 'SERVED_FILE_INVALID', message: expect.stringMatching(/another file is there now/) },
    ])
  })

  test('a look that fails is told once, and nothing ends by it', async () => {
    const { store, source, told, of } = await marks({ flushMs: 0 })
    source.during = () =>
      Promise.reject(Object.assign(new Error('EIO: as if the system had said so'), { code: 'EIO' }))
    for (let i = 0; i < 3; i++) {
      await change(store, of)
      of.flushed()
      await tick()
    }
    await of.end()
    expect(told).toMatchObject([{ code: 'IO_FAILED', message: expect.stringMatching(/EIO/) }])
    expect(markOf(store)).toBeNull()
  })

  test('R33: with a log that failed there is nothing to tell here', async () => {
    // Appends: the disk, its attach, a write; then the mark.
    const log = new FaultLog(new MemoryEventLog(), { kind: 'fail', at: 4 })
    const { store, told, of } = await marks({ flushMs: 0 }, log)
    await change(store, of)
    await of.end()
    expect(told).toEqual([])
  })

  test('R35: a mark of another size, because the file was cut, is refused and told', async () => {
    const file = image()
    const store = await memory()
    const { disk, told } = await serve(store, file)
    await disk.write(0, Buffer.alloc(512), false)
    truncateSync(file, SIZE / 2)
    await disk.close()
    expect(told).toMatchObject([{ code: 'DISK_SIZE_MISMATCH' }])
    expect(await typesOf(store)).toContain('disk-detached')
  })
})

describe('R35: what is found at the next serving', () => {
  async function between(meanwhile: (file: string) => unknown) {
    const file = image()
    const store = await memory()
    const { disk } = await serve(store, file)
    await disk.write(0, Buffer.alloc(512, 1), false)
    await disk.close()
    const { at } = markOf(store)!
    await tick()
    await meanwhile(file)
    await serve(store, file)
    return { store, at }
  }

  test('nothing, where nothing happened', async () => {
    expect(lostOf((await between(() => undefined)).store)).toEqual([])
  })

  test.each([
    ['a byte written', (file: string) => writeFileSync(file, 'x', { flag: 'r+' }), /changed at .*ctime/],
    [
      'a copy put in its place, with its times',
      (file: string) => {
        const { atime, mtime } = statSync(file)
        copyFileSync(file, `${file}.copy`)
        utimesSync(`${file}.copy`, atime, mtime)
        renameSync(`${file}.copy`, file)
      },
      /is another one \(inode \d+, it was \d+\)/,
    ],
    ['a chmod, though no byte changed', (file: string) => chmodSync(file, 0o600), /changed at .*ctime/],
    ['its times set', (file: string) => utimesSync(file, 1, 1), /changed at .*ctime/],
  ])('%s is lost from the mark on', async (_, meanwhile, why) => {
    const { store, at } = await between(meanwhile)
    expect(lostOf(store)).toMatchObject([
      { from: { position: at.position }, reason: expect.stringMatching(why) },
    ])
  })

  test('what was found is told once, also where only a read-only export comes', async () => {
    const { store } = await between(() => undefined)
    await open.pop()!.close()
    const file = image()
    for (let time = 0; time < 3; time++) {
      const { disk } = await serve(store, file, { readOnly: true })
      await disk.close()
      expect(lostOf(store)).toHaveLength(1)
    }
  })

  test('a disk without a mark falls back to its last detach', async () => {
    const store = await memory()
    await store.ensureDisk('vda', { size: SIZE, recorder: 'store' })
    await store.disk('vda').detach()
    await tick()
    await serve(store, image())
    expect(lostOf(store)).toMatchObject([{ reason: expect.stringMatching(/until \d{4}-/) }])
  })

  /** Served, written to, and the process gone; `late`: how long the last write is over, ms. */
  async function killed(late: number, meanwhile: (file: string) => unknown = () => undefined) {
    const file = image()
    const log = new MemoryEventLog()
    const store = await memory({ log, clock: manualClock(Date.now() - late) })
    const { disk } = await serve(store, file)
    await disk.write(0, Buffer.alloc(512, 1), false)
    await tick()
    await meanwhile(file)
    const next = await memory({ log: new MemoryEventLog(log.storage) })
    const head = next.head.position
    await serve(next, file)
    return { next, head }
  }

  test('R32: nothing after an unclean end, though the last mark is older than the writes', async () => {
    expect(lostOf((await killed(0)).next)).toEqual([])
    expect(lostOf((await killed(9_000)).next)).toEqual([])
  })

  test('after an unclean end: a change later than the server lived is lost from its last event on', async () => {
    const { next, head } = await killed(20_000, (file) => writeFileSync(file, 'x', { flag: 'r+' }))
    expect(lostOf(next)).toMatchObject([
      { from: { position: head }, reason: expect.stringMatching(/its last recorded write was at/) },
    ])
  })

  test('after an unclean end: another file is lost from the mark on, however young', async () => {
    const { next, head } = await killed(0, (file) => {
      copyFileSync(file, `${file}.copy`)
      renameSync(`${file}.copy`, file)
    })
    expect(lostOf(next)).toMatchObject([{ reason: expect.stringMatching(/another one \(inode/) }])
    expect(lostOf(next)[0]!.from.position).toBeLessThan(head)
  })

  test('a disk that this session serves already is not looked at again', async () => {
    const file = image()
    const store = await memory()
    const { disk } = await serve(store, file)
    await disk.write(0, Buffer.alloc(512, 1), false)
    chmodSync(file, 0o600)
    await serve(store, file, { readOnly: true })
    expect(lostOf(store)).toEqual([])
  })

  test('what a caller recorded since is the caller’s to vouch for', async () => {
    const file = image()
    const store = await memory()
    await (await serve(store, file)).disk.close()
    await store.ensureDisk('vda', { size: SIZE, recorder: 'caller' })
    await store.disk('vda').detach()
    await tick()
    chmodSync(file, 0o600)
    await serve(store, file)
    expect(lostOf(store)).toEqual([])
  })
})

describe('R35: what a mark and a look at it say', () => {
  const FILE: DiskMark = {
    kind: 'file',
    device: '8:1',
    inode: '42',
    size: SIZE,
    modified: '1700000000000000001',
    changed: '1700000000000000002',
    boot: 'ab'.repeat(16),
    sectorsWritten: null,
  }
  const BLOCK: DiskMark = {
    ...FILE,
    kind: 'block',
    device: '7:0',
    inode: '9',
    modified: '0',
    changed: '0',
    sectorsWritten: 100,
  }
  const quiet: SinceMark = { wroteAt: null, wroteBytes: 0, bootedAt: 1_600_000_000_000 }
  const wrote: SinceMark = { ...quiet, wroteAt: 1_700_000_000_000, wroteBytes: 4 * 512 }
  const other = 'cd'.repeat(16)
  const later = (ms: number) => String(BigInt(FILE.changed) + BigInt(ms) * 1_000_000n)

  test.each<[string, DiskMark, Partial<DiskMark>, SinceMark]>([
    ['the same', FILE, {}, quiet],
    [
      'another run of the machine, and a number of the file system given anew',
      FILE,
      { boot: other, device: '8:17' },
      quiet,
    ],
    ['younger by our own writes', FILE, { changed: later(9_000), modified: later(9_000) }, wrote],
    [
      'younger by our own writes, of another run',
      FILE,
      { changed: later(9_000), boot: other },
      { ...wrote, bootedAt: 1_700_000_100_000 },
    ],
    ['a device that nobody wrote to', BLOCK, {}, quiet],
    ['a device with our own writes', BLOCK, { sectorsWritten: 104 }, wrote],
    ['a device with our own writes, many to one place', BLOCK, { sectorsWritten: 101 }, wrote],
  ])('fits: %s', (_, before, now, since) => {
    expect(differenceOf(before, { ...before, ...now }, since)).toBeNull()
  })

  test.each<[string, DiskMark, Partial<DiskMark>, SinceMark, RegExp, boolean?]>([
    ['a block device instead of a file', FILE, { ...BLOCK }, quiet, /is a block device now/],
    ['a file instead of a block device', BLOCK, { ...FILE }, wrote, /is a file now/],
    ['another size', FILE, { size: 512 }, wrote, /another size \(512 bytes, it had 65536\)/],
    ['another inode', FILE, { inode: '43' }, quiet, /inode 43, it was 42/],
    ['another inode, of another run', FILE, { inode: '43', boot: other }, wrote, /inode 43/],
    ['another file system', FILE, { device: '8:2' }, quiet, /device 8:2, it was 8:1/],
    ['another file system, after writes', FILE, { device: '8:2' }, wrote, /device 8:2/],
    ['younger by a nanosecond', FILE, { changed: '1700000000000000003' }, quiet, /ctime, it was/],
    ['older, as rolled back', FILE, { changed: '1600000000000000000' }, quiet, /ctime, it was/],
    ['older after writes', FILE, { changed: '1600000000000000000' }, wrote, /before its last mark/],
    ['of another run, and younger', FILE, { changed: later(1), boot: other }, quiet, /ctime/],
    ['another mtime alone', FILE, { modified: '1' }, quiet, /mtime/],
    ['younger than the server lived', FILE, { changed: later(11_000) }, wrote, /last recorded write/, true],
    [
      'younger than the run of the machine in which it was written to',
      FILE,
      { changed: later(5_000), boot: other },
      { ...wrote, bootedAt: 1_699_999_990_000 },
      /last recorded write/,
      true,
    ],
    ['a device of another run', BLOCK, { boot: other }, quiet, /machine restarted/],
    [
      'a device of another run, after writes',
      BLOCK,
      { boot: other, sectorsWritten: 4 },
      wrote,
      /machine restarted/,
    ],
    ['another device', BLOCK, { device: '7:1' }, quiet, /device 7:1, it was 7:0/],
    ['a device attached anew', BLOCK, { inode: '10' }, quiet, /detached and attached/],
    ['a device that is not counted', BLOCK, { sectorsWritten: null }, quiet, /does not count/],
    [
      'a device that was not counted',
      { ...BLOCK, sectorsWritten: null },
      { sectorsWritten: 100 },
      quiet,
      /does not count/,
    ],
    ['a sector by somebody else', BLOCK, { sectorsWritten: 101 }, quiet, /counts 1 sectors/],
    ['a count that fell', BLOCK, { sectorsWritten: 99 }, wrote, /counts -1 sectors/],
    ['more than we wrote', BLOCK, { sectorsWritten: 105 }, wrote, /counts 5 sectors/],
  ])('differs: %s', (_, before, now, since, why, after = false) => {
    const found = differenceOf(before, { ...before, ...now }, since)
    expect(found?.reason).toMatch(why)
    expect((found as Difference).later).toBe(after)
  })

  test('device numbers are told as the kernel tells them', () => {
    expect(deviceNumber(0x700n)).toBe('7:0')
    expect(deviceNumber(0x811n)).toBe('8:17')
    expect(deviceNumber((5n << 8n) | 0x34n | (0x12n << 20n))).toBe(`5:${0x1234}`)
  })
})
