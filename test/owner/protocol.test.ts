/** Bytes that are no question: they end their connection, and nothing else. */
import { randomBytes } from 'node:crypto'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openStore, type Store } from '../../src/index.ts'
import { limits } from '../../src/limits.ts'
import {
  FROM_ASKER,
  FrameReader,
  frame,
  jsonFrame,
  KIND,
  PROTOCOL_VERSION,
  ProtocolError,
  readAsk,
  sentEnvironment,
  textFrames,
} from '../../src/owner/protocol.ts'
import { slicelog } from '../cli/support.ts'
import { announce, prng, proof, runs, seed } from '../support/property.ts'
import { folders } from './support.ts'

const { path } = folders()
let store: Store

beforeAll(async () => {
  store = await openStore(path('store'), { socket: true })
  await store.ensureDisk('vda', { size: 2 ** 20 })
})
afterAll(() => store.close())

const hello = (): Buffer => jsonFrame(KIND.hello, { version: PROTOCOL_VERSION, store: null })
const screen = { tty: false, columns: null }
const goodAsk = (...argv: string[]) => ({ argv, cwd: '/', env: {}, stdout: screen, stderr: screen })
const ask = (...argv: string[]): Buffer => jsonFrame(KIND.ask, goodAsk(...argv))

function connect(): Socket {
  const socket = createConnection(join(store.folder!, 'owner.sock'))
  socket.on('error', () => undefined)
  return socket
}

/** Everything that the owner sends until it ends the connection. */
async function talk(...parts: Buffer[]): Promise<Buffer> {
  const socket = connect()
  const got: Buffer[] = []
  socket.on('data', (chunk) => got.push(chunk))
  const ended = new Promise((resolve) => socket.once('close', resolve))
  for (const part of parts) socket.write(part)
  await ended
  return Buffer.concat(got)
}

const kindsIn = (bytes: Buffer): number[] => {
  const all = new Map(Array.from({ length: 64 }, (_, kind) => [kind, 2 ** 31] as const))
  return [...new FrameReader(all).push(bytes)].map(({ kind }) => kind)
}

test('R34: the protocol as it should be spoken: READY, the answer, EXIT', async () => {
  const answer = await talk(hello(), ask('--store', store.folder!, 'disk', 'ls', '--json'))
  expect(kindsIn(answer)).toEqual([KIND.ready, KIND.out, KIND.exit])
  expect(answer.toString()).toContain('"disk":"vda"')
})

const MALFORMED: Record<string, () => Buffer[]> = {
  'a frame of unknown kind': () => [frame(99 as never, Buffer.alloc(3))],
  'a frame of the owner': () => [jsonFrame(KIND.exit, { code: 0 })],
  'ASK before HELLO': () => [ask('head')],
  'STOP before HELLO': () => [jsonFrame(KIND.stop, { why: 'interrupt' })],
  'HELLO twice': () => [hello(), hello()],
  'HELLO with more bytes than it may have': () => [Buffer.from([0, 0, 0x10, 1, KIND.hello])],
  'ASK with more bytes than it may have': () => [hello(), Buffer.from([0xff, 0xff, 0xff, 0xff, KIND.ask])],
  'HELLO that is no JSON': () => [frame(KIND.hello, Buffer.from('{'))],
  'HELLO that is null': () => [jsonFrame(KIND.hello, null)],
  'HELLO that is a list': () => [jsonFrame(KIND.hello, [])],
  'HELLO without version': () => [jsonFrame(KIND.hello, { store: null })],
  'HELLO with a store that is no text': () => [jsonFrame(KIND.hello, { version: 1, store: 1 })],
  'ASK that is no JSON': () => [hello(), frame(KIND.ask, Buffer.from('\xff\xfe'))],
  'ASK without argv': () => [hello(), jsonFrame(KIND.ask, { ...goodAsk(), argv: undefined })],
  'ASK with a word that is a number': () => [hello(), jsonFrame(KIND.ask, { ...goodAsk(), argv: [1] })],
  'ASK with a relative folder': () => [hello(), jsonFrame(KIND.ask, { ...goodAsk('head'), cwd: 'x' })],
  'ASK with a folder that holds a zero byte': () => [
    hello(),
    jsonFrame(KIND.ask, { ...goodAsk('head'), cwd: '/\0' }),
  ],
  'ASK with an environment beyond what may be sent': () => [
    hello(),
    jsonFrame(KIND.ask, { ...goodAsk('head'), env: { NODE_OPTIONS: '--inspect' } }),
  ],
  'ASK with an environment that is a list': () => [
    hello(),
    jsonFrame(KIND.ask, { ...goodAsk('head'), env: [] }),
  ],
  'ASK without a screen': () => [hello(), jsonFrame(KIND.ask, { ...goodAsk('head'), stdout: null })],
  'ASK with a screen of no columns': () => [
    hello(),
    jsonFrame(KIND.ask, { ...goodAsk('head'), stderr: { tty: true, columns: 0 } }),
  ],
  'ASK twice': () => [hello(), ask('log', '--follow'), ask('head')],
  'STOP for a reason that there is not': () => [
    hello(),
    ask('--store', path('store'), 'log', '--follow'),
    jsonFrame(KIND.stop, { why: 'because' }),
  ],
}

test.each(Object.entries(MALFORMED))(
  'R34: %s ends the connection, and the owner goes on',
  async (_, parts) => {
    expect(kindsIn(await talk(...parts()))).not.toContain(KIND.exit)
    expect((await slicelog(['--store', store.folder!, 'head', '--json'])).json()).toEqual(store.head)
  },
)

test('R34: another version of the protocol, and another store, are refused in words', async () => {
  const newer = await talk(jsonFrame(KIND.hello, { version: PROTOCOL_VERSION + 1, store: null }))
  expect(kindsIn(newer)).toEqual([KIND.refused])
  expect(newer.toString()).toContain('OWNER_UNREACHABLE')
  const moved = await talk(jsonFrame(KIND.hello, { version: PROTOCOL_VERSION, store: 'another' }))
  expect(kindsIn(moved)).toEqual([KIND.refused])
  expect(moved.toString()).toContain('the folder was replaced under it')
})

test('R34: random bytes, and frames damaged at random, never harm the owner', async () => {
  const rounds = runs(600, 10_000)
  const used = seed()
  announce('malformed input to an owner', rounds, used)
  const random = prng(used)
  const below = (n: number) => Math.floor(random() * n)
  const damaged = (): Buffer => {
    const bytes = Buffer.concat([hello(), ask('--store', store.folder!, 'disk', 'ls')])
    for (let i = 0; i <= below(4); i++) bytes[below(bytes.length)] = below(256)
    return bytes.subarray(0, below(4) === 0 ? below(bytes.length) : bytes.length)
  }
  const garbage = (): Buffer => Buffer.from(Array.from({ length: below(300) }, () => below(256)))
  const headed = (): Buffer => {
    const bytes = garbage()
    return frame([KIND.hello, KIND.ask, KIND.stop][below(3)]!, bytes)
  }
  const position = store.head.position
  const one = async (): Promise<void> => {
    const socket = connect()
    const ended = new Promise((resolve) => socket.once('close', resolve))
    socket.resume()
    const make = [damaged, garbage, headed][below(3)]!
    const bytes = below(2) === 0 ? Buffer.concat([hello(), make()]) : make()
    // In pieces, cut anywhere; then gone, politely or not.
    const cut = below(bytes.length + 1)
    socket.write(bytes.subarray(0, cut))
    socket.write(bytes.subarray(cut))
    if (below(2) === 0) socket.end()
    else setTimeout(() => socket.destroy(), below(3))
    await ended
  }
  for (let done = 0; done < rounds; done += 20) {
    await Promise.all(Array.from({ length: Math.min(20, rounds - done) }, one))
  }
  expect(store.head.position).toBe(position)
  expect((await slicelog(['--store', store.folder!, 'head', '--json'])).json()).toEqual(store.head)
})

test('R34: frames come out as they went in, however the bytes are cut', () => {
  const payloads = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 })
  fc.assert(
    fc.property(payloads, fc.array(fc.nat(), { maxLength: 20 }), (sent, cuts) => {
      const bytes = Buffer.concat(sent.map((payload) => frame(KIND.stop, payload)))
      const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
      const reader = new FrameReader(FROM_ASKER)
      const got = at.slice(1).flatMap((end, i) => [...reader.push(bytes.subarray(at[i]!, end))])
      expect(got.map(({ payload }) => [...payload])).toEqual(sent.map((payload) => [...payload]))
    }),
    proof('frames in pieces', 300, 5000),
  )
})

test('a header that announces too much is refused before anything of it is kept', () => {
  const reader = new FrameReader(FROM_ASKER)
  const header = Buffer.alloc(5)
  header.writeUInt32BE(limits.ownerAskBytesMax + 1, 0)
  header[4] = KIND.ask
  expect(() => [...reader.push(header)]).toThrow(ProtocolError)
})

test('long text goes in pieces that each side takes, and no more of the environment than is needed', () => {
  const text = `${'ä€😀'.repeat(60_000)}${randomBytes(10).toString('hex')}`
  const frames = [...textFrames(KIND.out, text)]
  expect(frames.length).toBeGreaterThan(5)
  const got = new FrameReader(new Map([[KIND.out, limits.ownerChunkBytes]])).push(Buffer.concat(frames))
  expect(Buffer.concat([...got].map(({ payload }) => payload)).toString()).toBe(text)
  const sent = sentEnvironment({ TZ: 'UTC', SLICELOG_STORE: 's', AWS_SECRET_ACCESS_KEY: 'x', HOME: '/' })
  expect(sent).toEqual({ TZ: 'UTC', SLICELOG_STORE: 's' })
  expect(() => readAsk(Buffer.from(JSON.stringify(goodAsk('head'))))).not.toThrow()
})
