/** The server around the protocol: where it listens, what a slow, silent or absent client costs, and how it ends. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { NbdError } from '../../src/nbd/errors.ts'
import { listenNbd } from '../../src/nbd/server.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import {
  Client,
  CMD,
  exportsOf,
  folder,
  held,
  infoData,
  MemoryExport,
  MiB,
  OPT,
  request,
  serving,
} from './support.ts'

const vda = (size = MiB) => new MemoryExport('vda', size)
const exports = exportsOf(vda())

/** Waits until `value` has not changed for a while: for what must stop by itself. */
async function settled(value: () => number): Promise<number> {
  let before = value()
  for (let same = 0; same < 10; ) {
    await sleep(20)
    same = value() === before ? same + 1 : 0
    before = value()
  }
  return before
}
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5)
}

test("the socket is its user's alone from the first moment that it is there, and is gone after close", async () => {
  const where = folder()
  const path = join(where, 's.sock')
  const modes = new Set<string>()
  let looking = true
  const look = (): void => {
    for (const name of existsSync(where) ? readdirSync(where) : []) {
      const found = statSync(join(where, name), { throwIfNoEntry: false })
      if (found !== undefined) modes.add(`${name.slice(0, 5)} ${(found.mode & 0o777).toString(8)}`)
    }
    if (looking) setImmediate(look)
  }
  look()
  for (let i = 0; i < 5; i++) {
    const server = await listenNbd({ exports, socket: path })
    expect(server.socket).toBe(path)
    await sleep(5)
    await server.close()
    expect(readdirSync(where)).toEqual([])
  }
  looking = false
  expect([...modes].filter((mode) => !['s.soc 600', '.nbd- 700'].includes(mode))).toEqual([])
  expect(modes.has('s.soc 600')).toBe(true)
})

test('a path longer than a socket address can be served', async () => {
  const deep = join(folder(), 'd'.repeat(100), 'e'.repeat(100))
  mkdirSync(deep, { recursive: true })
  const server = await listenNbd({ exports, socket: join(deep, 's.sock') })
  expect(lstatSync(join(deep, 's.sock')).isSocket()).toBe(true)
  await server.close()
  expect(readdirSync(deep)).toEqual([])
})

test("a dead server's socket is replaced, a living one's is not, and a file is never", async () => {
  const where = folder()
  const path = join(where, 's.sock')
  const dead = createServer()
  await new Promise<void>((done) => dead.listen(join(where, 'old'), done))
  renameSync(join(where, 'old'), path)
  await new Promise((done) => dead.close(done))
  expect(lstatSync(path).isSocket()).toBe(true)
  const server = await listenNbd({ exports, socket: path })
  await new Client(path).go('vda')
  await expect(listenNbd({ exports, socket: path })).rejects.toMatchObject({
    code: 'ADDRESS_IN_USE',
    facts: { address: path, why: 'answered' },
  })
  await new Client(path).go('vda')
  await server.close()
  writeFileSync(path, 'mine')
  await expect(listenNbd({ exports, socket: path })).rejects.toMatchObject({
    code: 'ADDRESS_IN_USE',
    facts: { why: 'not-a-socket' },
  })
  expect(readFileSync(path, 'utf8')).toBe('mine')
  expect(readdirSync(where)).toEqual(['s.sock'])
})

test('what a killed server left beside its socket goes with the next one: only its own, only what is old, only what is dead', async () => {
  const where = folder()
  const old = (name: string): void => utimesSync(join(where, name), new Date(0), new Date(0))
  const bind = async (name: string, dead: boolean): Promise<() => Promise<unknown>> => {
    const server = createServer()
    const made = join(where, name, dead ? 'living' : 's')
    await new Promise<void>((done) => server.listen(made, done))
    const close = () => new Promise((done) => server.close(done))
    if (!dead) return close
    renameSync(made, join(where, name, 's'))
    await close()
    return async () => undefined
  }
  const folders = ['.nbd-empty1', '.nbd-dead12', '.nbd-living', '.nbd-file12', '.nbd-more12', '.nbd-young1']
  for (const name of [...folders, '.nbd-toolong', '.other-12345', 'nbd-123456']) mkdirSync(join(where, name))
  await bind('.nbd-dead12', true)
  const close = await bind('.nbd-living', false)
  writeFileSync(join(where, '.nbd-file12', 's'), 'no socket')
  await bind('.nbd-more12', true)
  writeFileSync(join(where, '.nbd-more12', 'mine'), '')
  writeFileSync(join(where, '.nbd-a_file'), '')
  writeFileSync(join(where, '.nbd-afile1'), '')
  const before = readdirSync(where)
  for (const name of before) if (name !== '.nbd-young1') old(name)
  const server = await listenNbd({ exports, socket: join(where, 's.sock') })
  await server.close()
  const gone = before.filter((name) => !readdirSync(where).includes(name))
  expect(gone.sort()).toEqual(['.nbd-dead12', '.nbd-empty1'])
  expect(readdirSync(join(where, '.nbd-more12')).sort()).toEqual(['mine', 's'])
  await close()
})

test('close takes away its own socket, not one that another server put in its place', async () => {
  const where = folder()
  const path = join(where, 's.sock')
  const first = await listenNbd({ exports, socket: path })
  const second = await listenNbd({ exports, socket: join(where, 'other') })
  renameSync(join(where, 'other'), path)
  await first.close()
  await new Client(path).go('vda')
  await second.close()
})

test('what cannot be listened to is refused by name', async () => {
  const where = join(folder(), 'missing', 's.sock')
  await expect(listenNbd({ exports, socket: where })).rejects.toMatchObject({ code: 'IO_FAILED' })
  await expect(listenNbd({ exports })).rejects.toThrow(TypeError)
  await expect(listenNbd({ exports, tcp: { port: 70_000 } })).rejects.toThrow(RangeError)
  const first = await listenNbd({ exports, tcp: { port: 0 } })
  const port = first.tcp!.port
  const path = join(folder(), 's.sock')
  await expect(listenNbd({ exports, socket: path, tcp: { port } })).rejects.toMatchObject({
    code: 'ADDRESS_IN_USE',
    facts: { address: `127.0.0.1:${port}` },
  })
  expect(() => lstatSync(path)).toThrow('ENOENT')
  await first.close()
})

test('TCP listens on the loopback only, beside the socket, for the same exports', async () => {
  const one = vda()
  const server = await serving([one], { tcp: { port: 0 } })
  expect(server.tcp!.host).toBe('127.0.0.1')
  const [a, b] = [await new Client(server.socket).go('vda'), await new Client(server.tcp!.port).go('vda')]
  await a.call({ type: CMD.write, offset: 8, data: Buffer.from('across') })
  expect((await b.call({ type: CMD.read, offset: 8, length: 6 }))!.data.toString()).toBe('across')
})

test('a client that does not read its answers is not read either: what it holds here is bounded, and others go on', async () => {
  const disk = vda(4 * MiB)
  const server = await serving([disk])
  const c = await new Client(server.socket).go('vda')
  c.socket.pause()
  const asked = 300
  for (let i = 0; i < asked; i++) c.ask({ type: CMD.read, cookie: i, length: MiB })
  const begun = await settled(() => disk.calls.length)
  // Budget, and what the system itself takes over.
  expect(begun).toBeLessThanOrEqual(limits.nbdInFlightBytesMax / MiB + 4)
  const other = await new Client(server.socket).go('vda')
  expect(await other.call({ type: CMD.read, length: MiB })).toMatchObject({ errno: 0 })
  c.socket.resume()
  const cookies = new Set<number>()
  for (let i = 0; i < asked; i++) cookies.add((await c.reply())!.cookie)
  expect(cookies.size).toBe(asked)
})

test('requests that are refused wait for their answers to be read too', async () => {
  const server = await serving([vda()])
  const c = await new Client(server.socket).go('vda')
  c.socket.pause()
  const asked = 20_000
  const bad = Array.from({ length: asked }, (_, cookie) => request({ type: 99, cookie }))
  c.send(...bad)
  const refused = await settled(() => server.counts().errors)
  expect(refused).toBeLessThan(asked / 2)
  c.socket.resume()
  for (let i = 0; i < asked; i++) expect((await c.reply())!.errno).toBe(22)
  expect(server.counts().errors).toBe(asked)
})

test('no more run at once than the limits say, by number and by bytes', async () => {
  const disk = vda(8 * MiB)
  const { wait, release } = held()
  disk.before = () => wait
  const { socket } = await serving([disk])
  const c = await new Client(socket).go('vda')
  for (let i = 0; i < 500; i++) c.ask({ type: CMD.write, cookie: i, data: Buffer.alloc(16) })
  expect(await settled(() => disk.running)).toBe(limits.nbdRequestsMax)
  const big = await new Client(socket).go('vda')
  for (let i = 0; i < 40; i++) big.ask({ type: CMD.write, cookie: i, data: Buffer.alloc(4 * MiB) })
  expect(await settled(() => disk.running)).toBe(
    limits.nbdRequestsMax + limits.nbdInFlightBytesMax / (4 * MiB),
  )
  release()
  for (let i = 0; i < 500; i++) expect((await c.reply())!.errno).toBe(0)
  for (let i = 0; i < 40; i++) expect((await big.reply())!.errno).toBe(0)
})

test('who does not finish the handshake in time is closed; who is through may be silent', async () => {
  const { socket } = await serving([vda()], { handshakeMs: 100 })
  const through = await new Client(socket).go('vda')
  const silent = new Client(socket)
  const slow = new Client(socket)
  await slow.greet()
  slow.send(Buffer.from('IHAVE'))
  expect(await silent.rest()).toHaveLength(18)
  expect(await slow.rest()).toHaveLength(0)
  await sleep(150)
  expect(await through.call({ type: CMD.flush })).toMatchObject({ errno: 0 })
})

test('connections dropped at any moment leave nothing behind', async () => {
  const count = runs(500, 10_000)
  const used = seed()
  announce('NBD connections opened and dropped', count, used)
  const random = prng(used)
  const disk = vda()
  const server = await serving([disk])
  const drop = async (): Promise<void> => {
    const c = new Client(server.socket)
    const stage = Math.floor(random() * 7)
    if (stage === 1) await c.bytes(18)
    if (stage === 2) await c.greet()
    if (stage === 3) {
      await c.greet()
      c.sendOption(OPT.go, infoData('vda').subarray(0, 3))
    }
    if (stage >= 4) await c.go('vda')
    if (stage === 5) c.ask({ type: CMD.read, length: MiB })
    if (stage === 6)
      c.send(request({ type: CMD.write, length: MiB }), Buffer.alloc(Math.floor(random() * MiB)))
    if (random() < 0.5) c.socket.destroy()
    else c.socket.end().resume()
  }
  for (let left = count; left > 0; left -= 50)
    await Promise.all(Array.from({ length: Math.min(left, 50) }, () => drop()))
  await until(() => server.counts().connected === 0)
  expect(server.counts()).toMatchObject({ connections: count, refused: 0, writes: 0 })
  expect(disk.running).toBe(0)
  expect(await (await new Client(server.socket).go('vda')).call({ type: CMD.flush })).toMatchObject({
    errno: 0,
  })
})

test('clients beyond the limit are closed at once, and there is room again when others go', async () => {
  const server = await serving([vda()])
  const all = Array.from({ length: limits.nbdConnectionsMax }, () => new Client(server.socket))
  for (const c of all) await c.go('vda')
  for (let i = 0; i < 3; i++) expect(await new Client(server.socket).rest()).toHaveLength(0)
  expect(server.counts()).toMatchObject({ connected: limits.nbdConnectionsMax, refused: 3 })
  all[0]!.socket.destroy()
  await until(() => server.counts().connected < limits.nbdConnectionsMax)
  expect(await (await new Client(server.socket).go('vda')).call({ type: CMD.flush })).toMatchObject({
    errno: 0,
  })
})

test('close lets what runs end and answers it; afterwards no export is called and nobody is let in', async () => {
  const disk = vda()
  const { wait, release } = held()
  disk.before = () => wait
  const server = await serving([disk])
  const [c, idle, early] = [
    await new Client(server.socket).go('vda'),
    await new Client(server.socket).go('vda'),
    new Client(server.socket),
  ]
  await early.greet()
  for (let i = 0; i < 5; i++) c.ask({ type: CMD.write, cookie: i, data: Buffer.alloc(16, i) })
  await until(() => disk.running === 5)
  const closing = server.close()
  expect(await idle.rest()).toHaveLength(0)
  expect(await early.rest()).toHaveLength(0)
  expect(() => lstatSync(server.socket)).toThrow('ENOENT')
  c.ask({ type: CMD.write, cookie: 9, data: Buffer.alloc(16) })
  release()
  for (let i = 0; i < 5; i++) expect(await c.reply()).toMatchObject({ errno: 0 })
  expect(await c.rest()).toHaveLength(0)
  await closing
  await server.close()
  expect([disk.calls.length, disk.running]).toEqual([5, 0])
  expect(await new Client(server.socket).rest()).toHaveLength(0)
})

test('close cuts who does not take its answers, and still waits for the export', async () => {
  const disk = vda(4 * MiB)
  const server = await serving([disk], { closeMs: 50 })
  const c = await new Client(server.socket).go('vda')
  c.socket.pause()
  for (let i = 0; i < 200; i++) c.ask({ type: CMD.read, cookie: i, length: MiB })
  await settled(() => disk.calls.length)
  const { wait, release } = held()
  disk.before = () => wait
  const writer = await new Client(server.socket).go('vda')
  writer.ask({ type: CMD.write, data: Buffer.alloc(16) })
  await until(() => disk.running > 0)
  let closed = false
  const closing = server.close().then(() => {
    closed = true
  })
  await sleep(150)
  expect(closed).toBe(false)
  release()
  await closing
  expect([disk.running, server.counts().connected]).toEqual([0, 0])
})

test('counts tell what went through, and what failed is told apart from what was asked wrongly', async () => {
  const disk = vda()
  const failures: unknown[] = []
  const server = await serving([disk], { onError: (error) => failures.push(error) })
  const c = await new Client(server.socket).go('vda')
  await c.call({ type: CMD.write, data: Buffer.alloc(100) })
  await c.call({ type: CMD.trim, length: 50 })
  await c.call({ type: CMD.read, length: 70 })
  await c.call({ type: CMD.flush })
  await c.call({ type: CMD.read, offset: MiB, length: 70 })
  expect(failures).toEqual([])
  const failure = new NbdError('ENOSPC', 'no room')
  disk.before = () => {
    throw failure
  }
  await c.call({ type: CMD.write, data: Buffer.alloc(100) })
  expect(failures).toEqual([failure])
  expect(server.counts()).toEqual({
    connected: 1,
    connections: 1,
    refused: 0,
    reads: 1,
    writes: 2,
    readBytes: 70,
    writtenBytes: 150,
    flushes: 1,
    errors: 2,
  })
})
