/** Serving disks as an operator does: the command line as a process, and the library's face, against programs no one here wrote. */
import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { link, mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { collectDisk, collectDoor } from '../../src/cli/commands/serve.ts'
import { openMemoryStore, openStore, type ServeNbdOptions, serveNbd } from '../../src/index.ts'
import { captured, slicelog } from '../cli/support.ts'
import { cli, folders } from '../owner/support.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'

const exec = promisify(execFile)
const MiB = 2 ** 20
const { path } = folders()
let made = 0

/** A new store's folder. */
async function newStore(): Promise<string> {
  const folder = path(`store-${++made}`)
  await (await openStore(folder)).close()
  return folder
}

async function newFile(size = 8 * MiB, name = `disk-${++made}.raw`): Promise<string> {
  const file = path(name)
  await writeFile(file, '')
  await truncate(file, size)
  return file
}

interface Ready {
  readonly ready: true
  readonly durability: string
  readonly nbd: { readonly socket: string | null; readonly tcp: { host: string; port: number } | null }
  readonly disks: readonly {
    disk: string
    name: string
    size: number
    lost: readonly unknown[]
    uris: readonly string[]
  }[]
}

/** `slicelog serve` in a process of its own, once it says that it is ready. */
async function serving(store: string, ...words: string[]) {
  const served = cli(['--store', store, 'serve', '--json', ...words])
  while (!served.text.out.includes('\n')) {
    if (served.child.exitCode !== null) throw new Error(`it ended: ${(await served.ended).err}`)
    await sleep(10)
  }
  const ready = JSON.parse(served.text.out.split('\n')[0]!) as Ready
  return {
    ...served,
    ready,
    uri: ready.disks[0]!.uris[0]!,
    /** By SIGTERM; the last line. */
    stop: async (signal: NodeJS.Signals = 'SIGTERM') => {
      served.child.kill(signal)
      const { code, out, err } = await served.ended
      return { code, err, last: JSON.parse(out.trimEnd().split('\n').at(-1)!) as Record<string, unknown> }
    },
  }
}

/** Runs a command against a store, open or closed, and gives its JSON. */
async function ask<T = Record<string, unknown>>(store: string, ...words: string[]): Promise<T> {
  const ran = await slicelog(['--store', store, ...words, '--json'], captured())
  expect(ran.code, ran.err).toBe(0)
  return ran.json<T>()
}

async function qemuIo(uri: string, ...commands: string[]): Promise<string> {
  const words = commands.flatMap((command) => ['-c', command])
  const { stdout } = await exec('qemu-io', ['-f', 'raw', '-t', 'writeback', ...words, uri])
  expect(stdout).not.toMatch(/failed|error/i)
  return stdout
}

/** `[offset, length]` of what a map says is dirty. */
async function dirty(uri: string, context: string): Promise<[number, number][]> {
  const { stdout } = await exec('nbdinfo', [`--map=qemu:dirty-bitmap:${context}`, '--json', uri])
  const runs = JSON.parse(stdout) as { offset: number; length: number; type: number }[]
  return runs.filter(({ type }) => type === 1).map(({ offset, length }) => [offset, length])
}

const G = 65_536
const ERASE = '\u001b[K'

describeWithPeers(['qemu-io', 'qemu-img', 'nbdinfo', 'nbdcopy'], 'slicelog serve', () => {
  test('R31, R34: qemu-io writes, nbdinfo reads the dirty map, a backup begins and ends meanwhile, SIGTERM leaves a sound store', async () => {
    const [store, file] = [await newStore(), await newFile()]
    const served = await serving(store, '--disk', `vm-17/vda=${file}`, '--bitmap', 'daily')
    expect(served.ready).toMatchObject({
      ready: true,
      durability: 'power',
      nbd: { socket: join(store, 'nbd.sock'), tcp: null },
      disks: [{ disk: 'vm-17/vda', name: 'vm-17/vda', size: 8 * MiB }],
    })
    await ask(store, 'bitmap', 'retention', 'vm-17/vda', 'daily', '4')
    await qemuIo(served.uri, 'write -P 0xaa 1M 64k', 'write -P 0xbb 3145000 2000', 'flush')
    const first = [
      [MiB, G],
      [3145000 - (3145000 % G), 2 * G],
    ]
    expect(await dirty(served.uri, 'daily')).toEqual(first)

    const words = ['backup', 'begin', 'vm-17/vda', 'daily', '--mode', 'incremental', '--id', 'incr-1']
    const asked = await cli(['--store', store, ...words, '--json']).ended
    const begun = JSON.parse(asked.out) as { extents: unknown }
    expect(begun.extents).toEqual(first)
    await qemuIo(served.uri, 'write -P 0xcc 5M 512')
    await ask(store, 'backup', 'succeed', 'incr-1')
    // α has what came after the begin, the slice what came before, and both are one map since it.
    expect(await dirty(served.uri, 'daily')).toEqual([[5 * MiB, G]])
    expect(await dirty(served.uri, 'daily@since=0')).toEqual([...first, [5 * MiB, G]])
    expect(await dirty(served.uri, '@backup=incr-1')).toEqual([[5 * MiB, G]])
    const door = `driver=nbd,export=vm-17/vda,server.type=unix,server.path=${join(store, 'nbd.sock')}`
    const image = `${door},x-dirty-bitmap=qemu:dirty-bitmap:daily@since=0`
    const { stdout } = await exec('qemu-img', ['map', '--output=json', '--image-opts', image])
    // QEMU tells the map as if it were the disk's data: dirty is false.
    const stretches = JSON.parse(stdout) as { start: number; length: number; data: boolean }[]
    expect(stretches.filter(({ data }) => !data).map(({ start, length }) => [start, length])).toEqual([
      ...first,
      [5 * MiB, G],
    ])

    await ask(store, 'checkpoint', 'create', 'before-upgrade')
    await qemuIo(served.uri, 'write -z 6M 128k', 'discard 7M 64k')
    expect(await dirty(served.uri, '@checkpoint=before-upgrade')).toEqual([
      [6 * MiB, 2 * G],
      [7 * MiB, G],
    ])
    const { code, err, last } = await served.stop()
    expect([code, err]).toEqual([0, ''])
    expect(last).toMatchObject({ stopped: true, clients: 0, writes: 5, errors: 0 })
    expect(existsSync(join(store, 'nbd.sock'))).toBe(false)
    expect(await ask(store, 'verify')).toMatchObject({ findings: [] })
    expect(await ask(store, 'status')).toMatchObject({ opened: { clean: true } })
    expect(await ask(store, 'disk', 'ls')).toMatchObject({ disks: [{ attached: false, lost: [] }] })
    const bytes = await readFile(file)
    expect([bytes[MiB], bytes[3145000], bytes[5 * MiB], bytes[6 * MiB]]).toEqual([0xaa, 0xbb, 0xcc, 0])
  })

  test('R31: what nbdcopy puts on a served disk is there, equal, and dirty; nbdcopy and qemu-img read it back', async () => {
    const [store, file, source] = [await newStore(), await newFile(), await newFile()]
    await writeFile(source, Buffer.alloc(8 * MiB, 'slicelog'))
    const served = await serving(store, '--disk', `vda=${file}`, '--bitmap', 'b', '--durability', 'process')
    await exec('nbdcopy', [source, served.uri])
    expect(await dirty(served.uri, 'b')).toEqual([[0, 8 * MiB]])
    await exec('nbdcopy', [served.uri, path('back.raw')])
    expect((await readFile(path('back.raw'))).equals(await readFile(source))).toBe(true)
    await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', served.uri, source])
    const { stdout } = await exec('qemu-img', ['info', '--output=json', served.uri])
    expect(JSON.parse(stdout)).toMatchObject({ format: 'raw', 'virtual-size': 8 * MiB })
    expect((await served.stop()).code).toBe(0)
    expect((await readFile(file)).equals(await readFile(source))).toBe(true)
  })

  test('spec 5: several disks behind a Unix socket and TCP, each by its id; without a name a client gets none of them', async () => {
    const [store, a, b] = [await newStore(), await newFile(), await newFile(MiB)]
    const socket = path('own.sock')
    const served = await serving(
      store,
      ...['--disk', `vm-17/vda=${a}`, '--disk', `odd name's=${b}`],
      ...['--nbd', `unix:${socket}`, '--nbd', 'tcp:0', '--bitmap', 'b'],
    )
    const { disks, nbd } = served.ready
    expect(nbd).toMatchObject({ socket, tcp: { host: '127.0.0.1', port: expect.any(Number) } })
    expect((await stat(socket)).mode & 0o777).toBe(0o600)
    for (const [i, { size, uris, disk }] of disks.entries()) {
      expect(uris).toHaveLength(2)
      for (const uri of uris) {
        const { stdout } = await exec('nbdinfo', ['--json', uri])
        const info = JSON.parse(stdout) as { exports: Record<string, unknown>[] }
        expect(info.exports[0]).toMatchObject({ 'export-name': disk, 'export-size': size })
      }
      await qemuIo(uris[1]!, `write ${i * G} 512`)
      expect(await dirty(uris[0]!, 'b')).toEqual([[i * G, G]])
    }
    await expect(exec('nbdinfo', [`nbd+unix:///?socket=${socket}`])).rejects.toThrow()
    expect((await served.stop('SIGINT')).code).toBe(0)
  })

  test('R35: a file that changed between two servings is a lost stretch, told at once, and older maps cover the whole disk', async () => {
    const [store, file] = [await newStore(), await newFile()]
    const first = await serving(store, '--disk', `vda=${file}`)
    await ask(store, 'checkpoint', 'create', 'older')
    await qemuIo(first.uri, 'write 0 512')
    await first.stop()
    const untouched = await serving(store, '--disk', `vda=${file}`)
    expect(untouched.ready.disks[0]!.lost).toEqual([])
    expect(await dirty(untouched.uri, '@checkpoint=older')).toEqual([[0, G]])
    await untouched.stop()
    await sleep(20)
    await writeFile(file, 'x', { flag: 'r+' })
    const again = await serving(store, '--disk', `vda=${file}`)
    expect(again.ready.disks[0]!.lost).toHaveLength(1)
    await ask(store, 'checkpoint', 'create', 'newer')
    expect(await dirty(again.uri, '@checkpoint=older')).toEqual([[0, 8 * MiB]])
    expect(await dirty(again.uri, '@checkpoint=newer')).toEqual([])
    expect((await again.stop()).code).toBe(0)
  })

  test('--read-only refuses writes, records nothing, and attaches nothing', async () => {
    const [store, file] = [await newStore(), await newFile()]
    const served = await serving(store, '--disk', `vda=${file}`, '--read-only')
    const { position } = await ask<{ position: number }>(store, 'head')
    await expect(exec('qemu-io', ['-f', 'raw', '-c', 'write 0 512', served.uri])).rejects.toThrow(
      /read.?only|permission/i,
    )
    await exec('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 512', served.uri])
    expect(await ask(store, 'head')).toMatchObject({ position })
    expect(await ask(store, 'disk', 'ls')).toMatchObject({ disks: [{ attached: false }] })
    expect((await served.stop()).code).toBe(0)
  })

  test('R31, R32: killed at random moments under load, a restart knows every granule that differs, and nothing is lost', async () => {
    const rounds = runs(3, 40)
    const used = seed()
    announce('serve, killed under load', rounds, used)
    const random = prng(used)
    let differing = 0
    const [store, file] = [await newStore(), await newFile()]
    for (let round = 0; round < rounds; round++) {
      const before = await readFile(file)
      const served = await serving(store, '--disk', `vda=${file}`, '--durability', 'process')
      await ask(store, 'checkpoint', 'create', `round-${round}`)
      // qemu-io needs some 20 ms to begin: most kills fall among its writes.
      const writes = Array.from({ length: 3000 }, (_, i) => {
        const offset = Math.floor(random() * 2048) * 4096
        return ['-c', `write -P ${(i + round) % 251} ${offset} 4k`]
      })
      const load = spawn('qemu-io', ['-f', 'raw', '-t', 'writeback', ...writes.flat(), served.uri])
      load.stdout.resume()
      load.stderr.resume()
      const gone = new Promise((done) => load.once('close', done))
      await sleep(30 + random() * 300)
      served.child.kill('SIGKILL')
      await served.ended
      await gone
      const after = await readFile(file)
      const reopened = await openStore(store)
      const again = await serveNbd(reopened, { disks: [{ disk: 'vda', file }], socket: path('again.sock') })
      const map = await dirty(again.disks[0]!.uris[0]!, `@checkpoint=round-${round}`)
      const covered = (offset: number) =>
        map.some(([from, length]) => from <= offset && offset < from + length)
      let differ = 0
      for (let offset = 0; offset < after.length; offset += 4096) {
        if (after.subarray(offset, offset + 4096).equals(before.subarray(offset, offset + 4096))) continue
        differ++
        expect(covered(offset), `byte ${offset} of round ${round}`).toBe(true)
      }
      differing += differ
      expect(reopened.disks()).toMatchObject([{ lost: [] }])
      await reopened.close()
    }
    expect(await ask(store, 'verify')).toMatchObject({ findings: [] })
    expect(differing).toBeGreaterThan(0)
  })
})

describe('slicelog serve, refused', () => {
  let store: string
  let file: string

  beforeAll(async () => {
    store = await newStore()
    file = await newFile()
    await mkdir(path('folder'))
    await newFile(MiB, 'small.raw')
    await link(file, path('same.raw'))
    await ask(store, 'disk', 'add', 'known', '--size', '64M')
  })

  const run = (...words: string[]) => slicelog(['--store', store, 'serve', ...words, '--json'], captured())

  const USAGE: readonly (readonly [string, () => string[]])[] = [
    ['no disk', () => []],
    ['a disk without a file', () => ['--disk', 'vda']],
    ['a file without a disk', () => ['--disk', `=${file}`]],
    ['an empty file', () => ['--disk', 'vda=']],
    ['the same disk twice', () => ['--disk', `vda=${file}`, '--disk', `vda=${path('small.raw')}`]],
    ['a door of no kind', () => ['--disk', `vda=${file}`, '--nbd', 'vsock:1']],
    ['a socket without a path', () => ['--disk', `vda=${file}`, '--nbd', 'unix:']],
    ['a port too large', () => ['--disk', `vda=${file}`, '--nbd', 'tcp:65536']],
    ['a host without a port', () => ['--disk', `vda=${file}`, '--nbd', 'tcp:localhost']],
    ['two sockets', () => ['--disk', `vda=${file}`, '--nbd', 'unix:/a', '--nbd', 'unix:/b']],
    ['a level that is none', () => ['--disk', `vda=${file}`, '--durability', 'hope']],
    ['no time between lines', () => ['--disk', `vda=${file}`, '--every', '0']],
    ['too much time between lines', () => ['--disk', `vda=${file}`, '--every', '9999999']],
    ['a command id', () => ['--disk', `vda=${file}`, '--command-id', 'x']],
  ]

  test.each(USAGE)('2: %s', async (_, words) => {
    const ran = await run(...words())
    expect([ran.code, ran.out, ran.error().code]).toEqual([2, '', 'USAGE'])
  })

  const REFUSED: readonly (readonly [string, () => string[], string])[] = [
    ['a file that is not there', () => [`vda=${path('nowhere.raw')}`], 'IO_FAILED'],
    ['a folder', () => [`vda=${path('folder')}`], 'IO_FAILED'],
    ['a device', () => ['vda=/dev/null'], 'SERVED_FILE_INVALID'],
    ['R35: a file of another size', () => [`known=${file}`], 'DISK_SIZE_MISMATCH'],
    [
      'R31: one file as two disks',
      () => [`a=${file}`, '--disk', `b=${path('same.raw')}`],
      'ARGUMENT_INVALID',
    ],
    ['a place in no folder', () => [`vda=${file}`, '--nbd', 'unix:/nowhere/s'], 'IO_FAILED'],
  ]

  test.each(REFUSED)('1: %s, and nothing is left attached', async (_, words, code) => {
    const ran = await run('--disk', ...words())
    expect([ran.code, ran.out, ran.error().code]).toEqual([1, '', code])
    const { disks } = await ask<{ disks: { disk: string; attached: boolean }[] }>(store, 'disk', 'ls')
    expect(disks.filter(({ attached }) => attached)).toEqual([])
  })

  test('10: no store is made where there is none', async () => {
    const ran = await slicelog(['--store', path('none'), 'serve', '--disk', `vda=${file}`], captured())
    expect([ran.code, existsSync(path('none'))]).toEqual([10, false])
  })

  test('R34: a store that somebody serves already is in use, and that one goes on', async () => {
    const first = await serving(store, '--disk', `vda=${file}`)
    const ran = await run('--disk', `vdb=${path('small.raw')}`)
    expect([ran.code, ran.error().code]).toEqual([11, 'STORE_IN_USE'])
    expect(ran.error().message).toContain(String(first.child.pid))
    expect(await ask(store, 'status')).toMatchObject({ owner: { pid: first.child.pid } })
    expect((await first.stop()).code).toBe(0)
  })

  test('a socket where another program answers is left alone; what lies there and is none, too', async () => {
    const taken = path('taken.sock')
    const other = createServer().listen(taken)
    await new Promise((done) => other.once('listening', done))
    const ran = await run('--disk', `vda=${file}`, '--nbd', `unix:${taken}`)
    expect([ran.code, ran.error().code]).toEqual([1, 'ADDRESS_IN_USE'])
    await new Promise((done) => other.close(done))
    await writeFile(path('letter'), 'dear disk')
    expect((await run('--disk', `vda=${file}`, '--nbd', `unix:${path('letter')}`)).error().code).toBe(
      'ADDRESS_IN_USE',
    )
    expect(await readFile(path('letter'), 'utf8')).toBe('dear disk')
  })
})

describe('slicelog serve, its words', () => {
  test.each([
    ['a=b', { disk: 'a', file: 'b' }],
    ['vm-17/vda=/srv/a=b.raw', { disk: 'vm-17/vda', file: '/srv/a=b.raw' }],
  ])('%s is a disk and a file, parted at the first =', (words, disk) => {
    expect(collectDisk(words)).toEqual([disk])
  })

  test.each([
    ['unix:a:b', { socket: 'a:b' }],
    ['tcp:10809', { tcp: { host: '127.0.0.1', port: 10_809 } }],
    ['tcp:example.org:1', { tcp: { host: 'example.org', port: 1 } }],
    ['tcp:[::1]:0', { tcp: { host: '::1', port: 0 } }],
  ])('%s is a door', (words, door) => {
    expect(collectDoor(words)).toEqual(door)
  })

  test('people are told where, how, and what to paste; a terminal gets one line that is written over', async () => {
    const [store, file] = [await newStore(), await newFile()]
    const io = captured()
    Object.assign(io.stderr, { isTTY: true, columns: 60 })
    const words = ['--store', store, 'serve', '--disk', `vm/a=${file}`, '--bitmap', "it's", '--every', '1']
    const running = slicelog(words, io)
    while (!io.text.err.includes('clients')) await sleep(20)
    expect(io.text.out).toContain(`  nbd+unix:///vm/a?socket=${store}/nbd.sock\n`)
    expect(io.text.out).toContain(
      `nbdinfo --map='qemu:dirty-bitmap:it'\\''s' 'nbd+unix:///vm/a?socket=${store}/nbd.sock'`,
    )
    expect(io.text.out).toContain('recorded first, level power')
    io.interrupt()
    const { code, out, err } = await running
    expect([code, out.trimEnd().split('\n').at(-1)]).toEqual([
      0,
      'Stopped. 0 connections, 0 writes (0 B), 0 reads (0 B).',
    ])
    for (const line of err.split('\n')[0]!.split('\r').slice(1)) expect(line.startsWith(ERASE)).toBe(true)
  })

  test('130: stopped before anything is served, it was cancelled', async () => {
    const [store, file] = [await newStore(), await newFile()]
    const io = captured()
    const running = slicelog(['--store', store, 'serve', '--disk', `a=${file}`, '--json'], io)
    io.interrupt()
    const { code, out, error } = await running
    expect([code, out, error().code]).toEqual([130, '', 'ABORTED'])
  })
})

describe('serveNbd', () => {
  test('the door is closed with its store: clients go first, then the disk is detached', async () => {
    const [folder, file] = [await newStore(), await newFile()]
    const store = await openStore(folder)
    const socket = path('lib.sock')
    const served = await serveNbd(store, { disks: [{ disk: 'vda', file, name: 'n', bitmap: 'b' }], socket })
    expect(served.disks).toEqual([
      {
        name: 'n',
        disk: 'vda',
        file,
        size: 8 * MiB,
        readOnly: false,
        uris: [`nbd+unix:///n?socket=${socket}`],
      },
    ])
    expect(store.bitmaps('vda').map(({ bitmap }) => bitmap)).toEqual(['b'])
    expect(store.disks()).toMatchObject([{ attached: true, recorder: 'store' }])
    await store.close()
    await served.close()
    expect(existsSync(socket)).toBe(false)
    const again = await openStore(folder)
    expect(again.disks()).toMatchObject([{ attached: false }])
    await again.close()
  })

  test('closing the door leaves the store open, and its disks free to be served again', async () => {
    const store = await openMemoryStore()
    const file = await newFile()
    const disks = [{ disk: 'vda', file }]
    for (let i = 0; i < 3; i++) {
      const served = await serveNbd(store, { disks, socket: path('twice.sock') })
      await Promise.all([served.close(), served.close()])
      expect(store.disks()).toMatchObject([{ attached: false }])
    }
    await store.close()
  })

  const WRONG: readonly (readonly [string, unknown])[] = [
    ['no options', undefined],
    ['no disks', { socket: 'x' }],
    ['an empty list', { disks: [], socket: 'x' }],
    ['no door', { disks: [{ disk: 'a', file: 'f' }] }],
    ['an empty socket', { disks: [{ disk: 'a', file: 'f' }], socket: '' }],
    ['a port of words', { disks: [{ disk: 'a', file: 'f' }], tcp: { port: '1' } }],
    ['a port too large', { disks: [{ disk: 'a', file: 'f' }], tcp: { port: 65_536 } }],
    ['a disk of words', { disks: ['a=f'], socket: 'x' }],
    ['a disk without a file', { disks: [{ disk: 'a' }], socket: 'x' }],
    ['readOnly of words', { disks: [{ disk: 'a', file: 'f', readOnly: 'no' }], socket: 'x' }],
    [
      'a disk twice',
      {
        disks: [
          { disk: 'a', file: 'f' },
          { disk: 'a', file: 'g' },
        ],
        socket: 'x',
      },
    ],
    [
      'a name twice',
      {
        disks: [
          { disk: 'a', file: 'f' },
          { disk: 'b', file: 'g', name: 'a' },
        ],
        socket: 'x',
      },
    ],
    ['onError of words', { disks: [{ disk: 'a', file: 'f' }], socket: 'x', onError: 'log' }],
  ]

  test.each(WRONG)('TypeError: %s, before a file is opened', async (_, options) => {
    const store = await openMemoryStore()
    await expect(serveNbd(store, options as ServeNbdOptions)).rejects.toThrow(TypeError)
    await store.close()
  })

  test('when one disk cannot be served none is, and those before it are let go', async () => {
    const store = await openMemoryStore()
    const [file, other] = [await newFile(), await newFile(MiB)]
    await store.addDisk('vdb', { size: 2 * MiB })
    const disks = [
      { disk: 'vda', file },
      { disk: 'vdb', file: other },
    ]
    const socket = path('none.sock')
    await expect(serveNbd(store, { disks, socket })).rejects.toMatchObject({ code: 'DISK_SIZE_MISMATCH' })
    expect(store.disks().map(({ attached }) => attached)).toEqual([false, false])
    expect(existsSync(socket)).toBe(false)
    await store.close()
  })
})
