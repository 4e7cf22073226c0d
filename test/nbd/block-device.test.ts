/** A block device behind a served disk: real loop devices, written, detached, resized and partitioned behind the server's back. */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { openMemoryStore, type Store } from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { BlockDevice } from '../../src/nbd/block-device.ts'
import { RawFile } from '../../src/nbd/raw-file.ts'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { coreOf } from '../../src/store/store.ts'
import { KiB } from './disk-support.ts'

const MiB = 1024 * KiB
const SIZE = 8 * MiB
const cleanups: (() => unknown)[] = []

afterEach(async () => {
  for (const one of cleanups.splice(0).reverse()) await one()
})

const run = (program: string, ...args: readonly string[]) =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()

function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'slicelog-block-'))
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

interface Loop {
  readonly device: string
  readonly backing: string
}

function loop(size = SIZE, ...options: readonly string[]): Loop {
  const backing = join(scratch(), 'backing.raw')
  writeFileSync(backing, '')
  truncateSync(backing, size)
  const device = run('losetup', '--find', '--show', ...options, backing)
  cleanups.push(() => detach(device))
  return { device, backing }
}

/** Idle already is fine: a test may have done it. */
function detach(device: string): void {
  try {
    run('losetup', '--detach', device)
  } catch {
    return
  }
}

/** Why there are no loop devices here; null where there are. */
function lacking(): string | null {
  if (process.getuid?.() !== 0) return 'no root'
  const folder = mkdtempSync(join(tmpdir(), 'slicelog-block-'))
  const backing = join(folder, 'probe.raw')
  try {
    writeFileSync(backing, Buffer.alloc(MiB))
    detach(run('losetup', '--find', '--show', backing))
    return null
  } catch (error) {
    return `no loop devices (${(error as Error).message.split('\n')[0]})`
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** As somebody who does not ask us: through the device, down to it. */
function writeBehind(device: string, offset: number, bytes = 512): void {
  const file = openSync(device, 'r+')
  try {
    writeSync(file, Buffer.alloc(bytes, 0xee), 0, bytes, offset)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

async function memory(log = new MemoryEventLog()): Promise<Store> {
  const store = await openMemoryStore({ log })
  cleanups.push(() => store.close())
  return store
}

async function serve(store: Store, device: string, readOnly = false): Promise<ServedDisk> {
  const disk = await ServedDisk.open(store, { disk: 'vda', file: device, readOnly })
  cleanups.push(() => disk.close())
  return disk
}

const lostOf = (store: Store) => store.diskInfo('vda').lost
const markOf = (store: Store) => coreOf(store).catalog.disk('vda')!.mark!

const missing = lacking()
const title = missing === null ? '' : ` [skipped: ${missing}]`

describe.skipIf(missing !== null)(`real loop devices${title}`, () => {
  test('a block device is served whole: its size, odd ends, zeroes, and what it reads afterwards', async () => {
    const { device, backing } = loop()
    const store = await memory()
    const disk = await serve(store, device)
    expect(disk.size).toBe(SIZE)
    await disk.write(SIZE - 3, Buffer.from([1, 2, 3]), false)
    await disk.write(5000, Buffer.alloc(9000, 7), true)
    await disk.writeZeroes(6000, 10, { fua: false, noHole: false } as never)
    expect([...(await disk.read(SIZE - 3, 3))]).toEqual([1, 2, 3])
    await disk.flush()
    await disk.close()
    const bytes = readFileSync(backing)
    expect([bytes[4999], bytes[5000], bytes[6000], bytes[6010], bytes[13_999], bytes[14_000]]).toEqual([
      0, 7, 0, 7, 7, 0,
    ])
    expect(markOf(store).mark).toMatchObject({
      kind: 'block',
      size: SIZE,
      device: expect.stringMatching(/^7:\d+$/),
    })
    expect(markOf(store).mark.sectorsWritten).toBeGreaterThan(0)
  })

  /** Served, written to and let go of; then `meanwhile`, and served again. */
  async function between(meanwhile: (made: Loop) => unknown, made = loop(), device = made.device) {
    const store = await memory()
    const disk = await serve(store, device)
    await disk.write(64 * KiB, Buffer.alloc(300 * KiB, 1), false)
    await disk.close()
    const { at } = markOf(store)
    await meanwhile(made)
    await serve(store, device)
    return { store, at }
  }

  test('R35: nothing is lost while nobody else writes, however often it is read and served', async () => {
    const { store } = await between(({ device }) => run('dd', `if=${device}`, 'of=/dev/null', 'bs=64k'))
    expect(lostOf(store)).toEqual([])
  })

  test.each<[string, (made: Loop) => unknown, RegExp]>([
    ['a sector written', ({ device }) => writeBehind(device, 3 * MiB), /sectors written to its block device/],
    [
      'a byte of ours written again as it was',
      ({ device }) => writeBehind(device, 64 * KiB, 1),
      /sectors written/,
    ],
    [
      'a discard',
      ({ device }) => run('blkdiscard', '--offset', '0', '--length', String(MiB), device),
      /sectors written/,
    ],
    [
      'detached and attached, the same file behind it',
      ({ device, backing }) => {
        detach(device)
        run('losetup', device, backing)
      },
      /detached and attached/,
    ],
  ])(
    'R35: %s, behind the back of a server that is not there, is lost from the mark on',
    async (_, meanwhile, why) => {
      const { store, at } = await between(meanwhile)
      expect(lostOf(store)).toMatchObject([
        { from: { position: at.position }, reason: expect.stringMatching(why) },
      ])
    },
  )

  test('R35: another file behind the same device is lost', async () => {
    const { store } = await between(({ device, backing }) => {
      detach(device)
      const other = `${backing}.other`
      writeFileSync(other, Buffer.alloc(SIZE, 5))
      run('losetup', device, other)
    })
    expect(lostOf(store)).toHaveLength(1)
  })

  test('R35: a kernel that was told not to count cannot vouch', async () => {
    const { store } = await between(({ device }) => {
      const file = `/sys/block/${device.slice('/dev/'.length)}/queue/iostats`
      writeFileSync(file, '0')
      cleanups.push(() => writeFileSync(file, '1'))
    })
    expect(lostOf(store)).toMatchObject([{ reason: expect.stringMatching(/does not count/) }])
  })

  test('R35: a device that was resized is refused, and after the disk was resized too its stretch is lost', async () => {
    const made = loop()
    const store = await memory()
    await (await serve(store, made.device)).close()
    truncateSync(made.backing, 2 * SIZE)
    run('losetup', '--set-capacity', made.device)
    await expect(serve(store, made.device)).rejects.toMatchObject({
      code: 'DISK_SIZE_MISMATCH',
      facts: { size: SIZE, wanted: 2 * SIZE },
    })
    expect(lostOf(store)).toEqual([])
    await store.disk('vda').resize(2 * SIZE)
    expect((await serve(store, made.device)).size).toBe(2 * SIZE)
    expect(lostOf(store)).toMatchObject([{ reason: expect.stringMatching(/another size/) }])
  })

  test('R32, R35: after an unclean end our own writes are no loss, and more sectors than those are', async () => {
    for (const strange of [false, true]) {
      const { device } = loop()
      const log = new MemoryEventLog()
      const disk = await serve(await memory(log), device)
      for (let i = 0; i < 20; i++) await disk.write(i * 12 * KiB + 7, Buffer.alloc(5000, i), false)
      if (strange) writeBehind(device, 4 * MiB, 2 * MiB)
      const next = await memory(new MemoryEventLog(log.storage))
      await serve(next, device)
      expect(lostOf(next)).toHaveLength(strange ? 1 : 0)
    }
  })

  test('R35: that the device has something else behind it by now is seen while it is served', async () => {
    const { device, backing } = loop()
    const file = await RawFile.open(device, false)
    cleanups.push(() => file.close())
    expect(await file.marks.strayed()).toBeNull()
    const link = join(scratch(), 'disk')
    expect(existsSync(link)).toBe(false)
    run('ln', '-s', device, link)
    const linked = await RawFile.open(link, false)
    cleanups.push(() => linked.close())
    expect(await linked.marks.strayed()).toBeNull()
    run('ln', '-sf', backing, link)
    expect(await linked.marks.strayed()).toMatch(/another device or file/)
    rmSync(link)
    expect(await linked.marks.strayed()).toMatch(/nothing is there/)
  })

  test('a read-only device is served read-only alone', async () => {
    const { device } = loop(SIZE, '--read-only')
    const store = await memory()
    const refused = await serve(store, device).then(
      () => null,
      (error: unknown) => error,
    )
    expect(['SERVED_FILE_INVALID', 'IO_FAILED']).toContain((refused as { code: string }).code)
    expect(store.disks(), 'nothing was recorded').toEqual([])
    const disk = await serve(store, device, true)
    expect((await disk.read(0, 512)).every((byte) => byte === 0)).toBe(true)
  })

  test('an offset into a file is a device like any other', async () => {
    const made = loop(SIZE, '--offset', String(MiB), '--sizelimit', String(2 * MiB))
    const { store } = await between(({ device }) => writeBehind(device, 0), made)
    expect(markOf(store).mark.size).toBe(2 * MiB)
    expect(lostOf(store)).toHaveLength(1)
  })

  test('two paths to one device are not served as two disks', async () => {
    const { serveNbd } = await import('../../src/nbd/serve.ts')
    const { device } = loop()
    const node = join(scratch(), 'node')
    const { length } = device.match(/\d+$/)![0]
    run('mknod', node, 'b', '7', device.slice(device.length - length))
    const disks = [
      { disk: 'a', file: device },
      { disk: 'b', file: node },
    ]
    await expect(serveNbd(await memory(), { disks, socket: join(scratch(), 's') })).rejects.toThrow(
      /are one file/,
    )
  })

  describe('partitions', () => {
    /** Two of 2 MiB each, from 1 MiB on, without a table: the kernel is told. */
    function parted() {
      const made = loop(SIZE, '--partscan')
      run('addpart', made.device, '1', String(MiB / 512), String((2 * MiB) / 512))
      run('addpart', made.device, '2', String((3 * MiB) / 512), String((2 * MiB) / 512))
      const nodes = [1, 2].map((number) => {
        const name = `${made.device.slice('/dev/'.length)}p${number}`
        if (existsSync(`/dev/${name}`)) return `/dev/${name}`
        const [major, minor] = readFileSync(`/sys/class/block/${name}/dev`, 'utf8').trim().split(':')
        const node = join(scratch(), name)
        run('mknod', node, 'b', major!, minor!)
        return node
      })
      cleanups.push(() => {
        for (const number of ['1', '2']) run('delpart', made.device, number)
      })
      return { ...made, one: nodes[0]!, two: nodes[1]! }
    }

    test('R35: a partition is a disk of its own size, and writes to its neighbour are none of its', async () => {
      const made = parted()
      const { store } = await between(() => writeBehind(made.two, 0, 64 * KiB), made, made.one)
      expect(markOf(store).mark.size).toBe(2 * MiB)
      expect(lostOf(store)).toEqual([])
      expect(
        readFileSync(made.backing)
          .subarray(MiB + 64 * KiB, MiB + 64 * KiB + 4)
          .toString('hex'),
      ).toBe('01010101')
    })

    test('R35: a write to it, or through the whole device, is found', async () => {
      for (const through of ['one', 'device'] as const) {
        const made = parted()
        const { store } = await between(() => writeBehind(made[through], MiB), made, made.one)
        expect(lostOf(store), through).toHaveLength(1)
      }
    })
  })

  test('a device that sysfs does not know, or knows otherwise, is refused', async () => {
    const { device } = loop()
    const number = readFileSync(`/sys/class/block/${device.slice('/dev/'.length)}/dev`, 'utf8').trim()
    const refuse = (sys: string) => RawFile.open(device, false, sys)
    await expect(refuse('/nonexistent')).rejects.toMatchObject({
      code: 'SERVED_FILE_INVALID',
      facts: { why: 'no-sysfs' },
    })
    const sys = scratch()
    const at = join(sys, 'dev', 'block', number)
    mkdirSync(at, { recursive: true })
    const cases: [Record<string, string>, string][] = [
      [{ size: 'many\n', ro: '0\n' }, 'no-sysfs'],
      [{ size: `${SIZE / 512}\n`, ro: '1\n' }, 'read-only'],
      [{ size: `${SIZE / 512 + 8}\n`, ro: '0\n' }, 'size-differs'],
      [{ size: `${SIZE / 512 - 8}\n`, ro: '0\n' }, 'size-differs'],
    ]
    for (const [files, why] of cases) {
      for (const [name, content] of Object.entries(files)) writeFileSync(join(at, name), content)
      await expect(refuse(sys), why).rejects.toMatchObject({ code: 'SERVED_FILE_INVALID', facts: { why } })
    }
  })

  test('R35: without counters in sysfs a mark says that nobody counts', async () => {
    const { device } = loop()
    const name = device.slice('/dev/'.length)
    const number = readFileSync(`/sys/class/block/${name}/dev`, 'utf8').trim()
    const sys = scratch()
    const at = join(sys, 'dev', 'block', number)
    mkdirSync(join(at, 'queue'), { recursive: true })
    const put = (file: string, content: string) => writeFileSync(join(at, file), `${content}\n`)
    put('size', String(SIZE / 512))
    put('ro', '0')
    const file = await RawFile.open(device, false, sys)
    cleanups.push(() => file.close())
    const counted = async () => (await file.marks.look()).sectorsWritten
    expect(await counted(), 'no iostats').toBeNull()
    put('queue/iostats', '1')
    expect(await counted(), 'no stat').toBeNull()
    put('stat', '1 2 3 4 5 6 70 8')
    expect(await counted(), 'without discards, as before Linux 4.18').toBe(70)
    put('stat', '1 2 3 4 5 6 70 8 9 10 11 12 13 1000 15 16 17')
    expect(await counted()).toBe(1070)
    put('stat', '1 2 3 4 5 6 x 8')
    expect(await counted()).toBeNull()
    expect((await file.marks.look()).inode, 'no diskseq').toBe('0')
    expect(file.marks).toBeInstanceOf(BlockDevice)
  })
})

test('what is neither a file nor a block device is refused by what it is', async () => {
  const folder = scratch()
  run('mkfifo', join(folder, 'pipe'))
  for (const path of [folder, join(folder, 'pipe'), '/dev/null'])
    await expect(RawFile.open(path, true)).rejects.toMatchObject({
      code: 'SERVED_FILE_INVALID',
      facts: { why: 'not-a-file' },
    })
})
