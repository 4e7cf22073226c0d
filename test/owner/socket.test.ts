/** The socket itself: whose it is, when it is there, how it ends, and what a slow or silent asker costs. */
import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { openMemoryStore, openStore, type Store, serveOwner } from '../../src/index.ts'
import { limits } from '../../src/limits.ts'
import { readOwner } from '../../src/log/owner.ts'
import { jsonFrame, KIND, PROTOCOL_VERSION } from '../../src/owner/protocol.ts'
import { captured, slicelog } from '../cli/support.ts'
import { cli, folders, makeStore, owner } from './support.ts'

const { path } = folders()
const open = new Set<Store>()
afterEach(async () => {
  for (const store of open) await store.close()
  open.clear()
})

async function served(folder = path()): Promise<Store> {
  const store = await openStore(folder, { socket: true })
  open.add(store)
  return store
}
const socketOf = (store: Store) => join(store.folder!, 'owner.sock')
const ask = (store: Store, ...words: string[]) => slicelog(['--store', store.folder!, ...words])

/** A connection that said HELLO, and after `words` ASK. */
function asker(store: Store, words?: readonly string[]): Socket {
  const socket = createConnection(socketOf(store))
  socket.on('error', () => undefined)
  socket.write(jsonFrame(KIND.hello, { version: PROTOCOL_VERSION, store: null }))
  const screen = { tty: false, columns: null }
  const argv = ['--store', store.folder!, ...(words ?? [])]
  if (words !== undefined)
    socket.write(jsonFrame(KIND.ask, { argv, cwd: '/', env: {}, stdout: screen, stderr: screen }))
  return socket
}

test('R34: nobody else may enter, from the first moment that the socket is there', async () => {
  const folder = path()
  let looking = true
  const modes = new Set<string>()
  const look = (): void => {
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      if (name !== 'owner.sock' && !name.startsWith('.owner-')) continue
      const found = statSync(join(folder, name), { throwIfNoEntry: false })
      if (found !== undefined) modes.add(`${name.slice(0, 7)} ${(found.mode & 0o777).toString(8)}`)
    }
    if (looking) setImmediate(look)
  }
  look()
  for (let i = 0; i < 5; i++) await (await openStore(folder, { socket: true })).close()
  const store = await served(folder)
  await sleep(20)
  looking = false
  expect([...modes].filter((mode) => !['owner.s 600', '.owner- 700'].includes(mode))).toEqual([])
  expect(modes).toContain('owner.s 600')
  expect(lstatSync(socketOf(store)).isSocket()).toBe(true)
})

test('R34: the socket goes with the store, and without the option there is none', async () => {
  const store = await served()
  expect(existsSync(socketOf(store))).toBe(true)
  await store.close()
  expect(readdirSync(store.folder!).filter((name) => name.includes('owner'))).toEqual([])
  const quiet = await openStore(path())
  expect(existsSync(socketOf(quiet))).toBe(false)
  const refused = await ask(quiet, 'head')
  expect([refused.code, refused.err]).toEqual([11, expect.stringContaining(String(process.pid))])
  await quiet.close()
})

test('R34: a store that is open already can be served, once, and no more when that ends', async () => {
  const store = await openStore(path())
  open.add(store)
  const [first, second] = await Promise.all([serveOwner(store), serveOwner(store)])
  expect(second).toBe(first)
  expect((await ask(store, 'head', '--json')).json()).toEqual(store.head)
  await first.close()
  expect((await ask(store, 'head')).code).toBe(11)
  await serveOwner(store)
  expect((await ask(store, 'head')).code).toBe(0)
})

test('what cannot be served is refused: a store in memory, one that is closed, and an option of a wrong type', async () => {
  const closed = await openStore(path())
  await closed.close()
  await expect(serveOwner(closed)).rejects.toMatchObject({ code: 'STORE_CLOSED' })
  const memory = await openMemoryStore()
  await expect(serveOwner(memory)).rejects.toThrow(TypeError)
  await memory.close()
  await expect(openStore(path(), { socket: 'yes' as never })).rejects.toThrow(TypeError)
})

test('R34: a socket of a dead owner hinders nobody: the store is opened, and the next owner serves it', async () => {
  const folder = path()
  const process = await owner(folder, 'idle')
  await process.kill()
  expect(existsSync(join(folder, 'owner.sock'))).toBe(true)
  await mkdir(join(folder, '.owner-killed'))
  const opened = await slicelog(['--store', folder, 'head', '--json'])
  expect(opened.code).toBe(0)
  expect(existsSync(join(folder, 'owner.sock'))).toBe(false)
  writeFileSync(join(folder, 'owner.sock'), 'in the way')
  const store = await served(folder)
  expect((await ask(store, 'status', '--json')).json()).toMatchObject({ owner: { pid: expect.any(Number) } })
  expect(readdirSync(folder)).not.toContain('.owner-killed')
})

test('R34: a socket under a path that is longer than an address is served and asked all the same', async () => {
  const folder = join(path(), 'a'.repeat(100), 'b'.repeat(100))
  await mkdir(folder, { recursive: true })
  const store = await served(folder)
  expect((await ask(store, 'head', '--json')).json()).toEqual(store.head)
  const asked = await cli(['--store', folder, 'status', '--json']).ended
  expect(JSON.parse(asked.out)).toMatchObject({ owner: { pid: process.pid } })
  await store.close()
  expect(existsSync(socketOf(store))).toBe(false)
})

test('R34: a folder that was moved while its store is open is not mistaken for another store', async () => {
  const store = await served()
  const other = await openStore(path())
  await other.close()
  await rename(socketOf(store), socketOf(other))
  const asked = await slicelog(['--store', other.folder!, 'head', '--json'])
  expect([asked.code, asked.error().code]).toEqual([11, 'OWNER_UNREACHABLE'])
})

test('R34: a process that got the pid of a dead owner is not taken for it', async () => {
  const folder = path()
  const store = await openStore(folder)
  open.add(store)
  const file = join(folder, 'owner.json')
  const written = readOwner(file)!
  expect(written).toMatchObject({ pid: process.pid, started: expect.stringMatching(/^\d+$/) })
  // Held by this process; the file names one that began earlier and had the same pid as our parent has now.
  await writeFile(file, JSON.stringify({ ...written, pid: process.ppid, started: '1' }))
  const asked = await cli(['--store', folder, 'head', '--json']).ended
  const { error } = JSON.parse(asked.err) as { error: { code: string; facts: { heldBy: object } } }
  expect([asked.code, error.code]).toEqual([11, 'STORE_IN_USE'])
  expect(error.facts.heldBy).toMatchObject({ pid: process.ppid, life: 'gone' })
  await writeFile(file, JSON.stringify(written))
})

test('R34: closing lets short commands end, cuts those that would go on, and says so', async () => {
  const store = await served()
  await store.ensureDisk('vda', { size: 2 ** 30 })
  const io = captured()
  const following = slicelog(['--store', store.folder!, 'log', '--follow'], io)
  while (!io.text.out.includes('disk-added')) await sleep(5)
  const short = ask(store, 'backup', 'ls')
  const idle = asker(store)
  const ended = new Promise((resolve) => idle.resume().once('close', resolve))
  await sleep(50)
  await store.close()
  await ended
  expect(await short).toMatchObject({ code: 0, err: '' })
  const cut = await following
  expect([cut.code, cut.err]).toEqual([1, expect.stringContaining('code STORE_CLOSED')])
})

test('R34: Ctrl-C reaches the command at the owner: 130, and what it printed holds', async () => {
  const store = await served()
  await store.ensureDisk('vda', { size: 2 ** 30 })
  for (const json of [[], ['--json']]) {
    const io = captured()
    const following = slicelog(['--store', store.folder!, 'log', '--follow', ...json], io)
    while (!io.text.out.includes('disk-added')) await sleep(5)
    io.interrupt()
    const { code, err } = await following
    expect([code, err]).toEqual([
      130,
      json.length > 0 ? '' : 'slicelog: stopping (Ctrl-C again ends at once)\n',
    ])
  }
})

test('R34: an owner that says nothing is left by Ctrl-C', async () => {
  const folder = path()
  await (await openStore(folder)).close()
  const silent = createServer((socket) => socket.resume())
  await new Promise<void>((resolve) => silent.listen(join(folder, 'owner.sock'), resolve))
  const io = captured()
  const asking = slicelog(['--store', folder, 'head'], io)
  await sleep(100)
  io.interrupt()
  expect((await asking).code).toBe(130)
  silent.close()
})

test('R34: an owner that dies is told: of a read what holds, of a write that its outcome is unknown', async () => {
  const folder = path()
  await makeStore(folder)
  const dying = createServer((socket) => {
    let frames = 0
    socket.on('error', () => undefined)
    socket.on('data', () => {
      if (++frames === 1) socket.write(jsonFrame(KIND.ready, { pid: 4711 }))
      else socket.destroy()
    })
  })
  await new Promise<void>((resolve) => dying.listen(join(folder, 'owner.sock'), resolve))
  for (const [words, code] of [
    [['log'], 'OWNER_GONE'],
    [['bitmap', 'show', 'vda', 'daily'], 'OWNER_GONE'],
    [['slice', 'bank', 'vda', 'daily'], 'OUTCOME_UNKNOWN'],
    [['write', 'vda', '0+1'], 'OUTCOME_UNKNOWN'],
  ] as const) {
    const asked = await slicelog(['--store', folder, ...words, '--json'])
    expect([asked.code, asked.error().code]).toEqual([1, code])
    expect(asked.error().message).toContain('4711')
  }
  dying.close()
})

test('R34: an owner that sends what is no answer is told as lost, and the asker ends', async () => {
  const folder = path()
  await makeStore(folder)
  for (const nonsense of [
    Buffer.alloc(64, 0xff),
    jsonFrame(KIND.ready, { pid: 'x' }),
    jsonFrame(KIND.exit, {}),
  ]) {
    const odd = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.once('data', () => socket.write(nonsense))
    })
    await new Promise<void>((resolve) => odd.listen(join(folder, 'owner.sock'), resolve))
    const asked = await slicelog(['--store', folder, 'head', '--json'])
    expect([asked.code, asked.error().code]).toEqual([11, 'OWNER_UNREACHABLE'])
    await new Promise((resolve) => odd.close(resolve))
  }
})

test('R34: more askers than the owner takes are refused in words, and when some leave there is room', async () => {
  const store = await served()
  const all = Array.from({ length: limits.ownerConnectionsMax }, () => asker(store))
  await Promise.all(all.map((socket) => new Promise((resolve) => socket.once('data', resolve))))
  const refused = await slicelog(['--store', store.folder!, 'head', '--json'])
  expect([refused.code, refused.error().code]).toEqual([11, 'OWNER_UNREACHABLE'])
  for (const socket of all) socket.destroy()
  await sleep(50)
  expect((await ask(store, 'head')).code).toBe(0)
})

test('R34: askers that do not read neither hold up the owner nor fill its memory', async () => {
  const folder = path()
  const store = await openStore(folder)
  const disk = await store.ensureDisk('big', { size: 2 ** 30 })
  const columns = { offsets: new Float64Array(100_000), lengths: new Float64Array(100_000).fill(512) }
  for (let i = 0; i < 4; i++) await disk.recordWrites(columns)
  await store.close()
  const process = await owner(folder, 'writing')
  const quiet = await process.look()
  // Each would be an answer of about 60 MB.
  const askers = Array.from({ length: 8 }, () => asker({ folder } as Store, ['log', '--json']).pause())
  await sleep(2000)
  const before = await process.look()
  await sleep(1000)
  const after = await process.look()
  expect(before.position).toBeGreaterThan(quiet.position)
  expect(after.position).toBeGreaterThan(before.position)
  // What each asker's command holds is a piece of the log; none of it grows.
  expect(before.memory - quiet.memory).toBeLessThan(200 * 2 ** 20)
  expect(after.memory - before.memory).toBeLessThan(32 * 2 ** 20)
  for (const socket of askers) socket.destroy()
  await process.close()
})

test('R28, R34: a head that comes through a pipe is read once, by whoever was asked, even when it is named twice', async () => {
  const store = await served(path())
  await makeSome(store)
  const head = (await ask(store, 'head', '--json')).out
  for (const options of [['--against'], ['--since'], ['--against', '--since']]) {
    const pipe = path(`pipe-${options.join('')}`)
    execFileSync('mkfifo', [pipe])
    const written = writeFile(pipe, head)
    // Whoever opens it a second time waits for ever.
    const named = options.flatMap((option) => [option, pipe])
    const { code, err, out } = await ask(store, 'verify', ...named, '--json')
    await written
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(JSON.parse(out).findings).toEqual([])
  }
}, 20_000)

test("R28: a saved head is told in words too; one that is not the log's is found", async () => {
  const store = await served(path())
  await makeSome(store)
  const { position, hash } = (await ask(store, 'head', '--json')).json<{ position: number; hash: string }>()
  expect((await ask(store, 'verify', `--against=${position}:${hash}`)).code).toBe(0)
  expect((await ask(store, 'verify', '--against', `${position}:${hash.replace(/./g, '0')}`)).code).toBe(12)
  expect((await ask(store, 'verify', '--against', `${position}:${hash}0`)).code).toBe(2)
})

test('R34: a repair is not asked of an owner, dry or not: it needs the store closed', async () => {
  const store = await served(path())
  await makeSome(store)
  for (const words of [['repair'], ['repair', '--dry-run']]) {
    const refused = await ask(store, ...words, '--json')
    expect([refused.code, refused.error().code]).toEqual([11, 'STORE_IN_USE'])
  }
})

async function makeSome(store: Store): Promise<void> {
  const disk = await store.ensureDisk('vda', { size: 2 ** 20 })
  await disk.recordWrites([{ offset: 0, length: 512 }])
}
