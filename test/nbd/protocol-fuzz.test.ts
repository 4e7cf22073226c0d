/**
 * Whatever comes on the wire: the server answers or ends the connection, calls the export only within its size, and goes on
 * serving others. Handshakes and commands are drawn valid, nearly valid and broken; what is valid is checked against a model.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { announce, proof } from '../support/property.ts'
import {
  type Asked,
  be32,
  Client,
  CMD,
  infoData,
  MemoryExport,
  MiB,
  metaData,
  request,
  serving,
} from './support.ts'

const SIZE = 70_001

/** A proper client is served as if nothing had been. */
async function expectServed(socket: string): Promise<void> {
  const c = await new Client(socket).go('vda')
  expect(await c.call({ type: CMD.read, offset: SIZE - 4, length: 4 })).toMatchObject({ errno: 0 })
  c.socket.destroy()
}

const bytes = fc.uint8Array({ maxLength: 64 }).map((drawn) => Buffer.from(drawn))
const optionData = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  bytes,
  fc.constantFrom(
    infoData('vda'),
    infoData('nope', [0, 3]),
    metaData('vda', ['base:allocation', 'qemu:']),
    metaData('', []),
  ),
  bytes.map((tail) => Buffer.concat([infoData('vda', [1]), tail])),
  fc.integer({ min: 65_530, max: 66_000 }).map((length) => Buffer.alloc(length)),
)
const option = fc
  .tuple(
    fc.constantFrom('IHAVEOPT', 'IHAVEOPT', 'IHAVEOPT', 'IHAVEOPT', 'IHAVEOPU'),
    fc.oneof(fc.integer({ min: 0, max: 13 }), fc.constantFrom(99, 0xffffffff)),
    optionData,
    fc.constantFrom(0, 0, 0, 0, 0, 1, -1, 1000, 40 * MiB, 0xffffffff),
  )
  .map(([magic, number, data, off]) => {
    const length = Math.min(Math.max(data.length + off, 0), 0xffffffff)
    return Buffer.concat([Buffer.from(magic), be32(number), be32(length), data])
  })
const brokenRequest = fc.record({
  type: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constant(0xffff)),
  flags: fc.oneof(fc.constant(0), fc.constantFrom(1, 2, 4, 8, 16, 32, 0x8000)),
  cookie: fc.integer({ min: 0, max: 2 ** 40 }),
  offset: fc.oneof(
    fc.integer({ min: 0, max: SIZE }),
    fc.constantFrom(SIZE - 1, SIZE, SIZE + 1),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  ),
  length: fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.constantFrom(0, 1, SIZE, 0xffffffff)),
})
const soundRequest = fc.record({
  type: fc.constantFrom(CMD.read, CMD.write, CMD.flush, CMD.trim, CMD.cache, CMD.zero, CMD.status),
  flags: fc.constantFrom(0, 0, 1),
  cookie: fc.integer({ min: 0, max: 2 ** 40 }),
  offset: fc.oneof(fc.integer({ min: 0, max: SIZE - 5000 }), fc.constant(SIZE - 5000)),
  length: fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.constant(5000)),
})
const drawnRequest = fc.oneof({ weight: 3, arbitrary: soundRequest }, { weight: 1, arbitrary: brokenRequest })
const piece = fc.oneof(
  { weight: 6, arbitrary: option },
  { weight: 2, arbitrary: drawnRequest.map((asked) => request(asked)) },
  { weight: 1, arbitrary: bytes },
)

test('any stream of bytes in place of a handshake ends, and nobody else notices', async () => {
  const vda = new MemoryExport('vda', SIZE)
  const { socket } = await serving([vda])
  const parameters = proof('NBD handshakes, drawn', 400, 20_000)
  let answered = 0
  let rounds = 0
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(0, 1, 2, 3, 3, 3, 3, 4),
      fc.array(piece, { maxLength: 12 }),
      async (flags, pieces) => {
        const c = new Client(socket)
        c.send(be32(flags), ...pieces)
        c.socket.end()
        const heard = await c.rest()
        expect(heard.toString('latin1', 0, 16)).toBe('NBDMAGICIHAVEOPT')
        if (heard.length > 18) answered++
        if (rounds++ % 50 === 0) await expectServed(socket)
      },
    ),
    parameters,
  )
  announce('NBD handshakes that were answered', answered, parameters.seed)
  expect(answered).toBeGreaterThan(parameters.numRuns / 10)
  expect(vda.outside).toEqual([])
  await expectServed(socket)
})

/** What must come of a request: an errno, or null where the connection ends. */
function expected({ type, flags = 0, offset = 0, length = 0 }: Asked): number | null {
  const allowed = [5, 1, 1, 1, 1, 1, 19, 9][type]
  if (type === CMD.disc) return null
  if (type === CMD.write && length > 32 * MiB) return null
  if (allowed === undefined || (flags & ~allowed) !== 0) return 22
  if (type === CMD.flush) return 0
  if (BigInt(offset) + BigInt(length) > BigInt(SIZE)) return 22
  if (type === CMD.status && length === 0) return 22
  return type === CMD.zero && (flags & 16) !== 0 ? 95 : 0
}

test('any sequence of commands is answered as the protocol says, and the bytes are those of a plain buffer', async () => {
  const vda = new MemoryExport('vda', SIZE)
  const { socket } = await serving([vda])
  const parameters = proof('NBD commands, drawn', 200, 10_000)
  const told = { done: 0, refused: 0, ended: 0 }
  await fc.assert(
    fc.asyncProperty(
      fc.array(drawnRequest, { maxLength: 40 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 255 })),
      async (asks, fill) => {
        vda.bytes.fill(0)
        const model = Buffer.alloc(SIZE)
        const c = await new Client(socket).go('vda', ['qemu:dirty-bitmap:b'])
        for (const ask of asks) {
          const errno = expected(ask)
          const writes = ask.type === CMD.write && ask.length <= 32 * MiB
          const data = writes ? Buffer.alloc(ask.length, fill.next().value) : undefined
          const reply = await c.call(data === undefined ? ask : { ...ask, data })
          if (errno === null) {
            expect(reply).toBeNull()
            told.ended++
            break
          }
          expect([ask, reply?.errno, reply?.cookie]).toEqual([ask, errno, ask.cookie])
          if (errno !== 0) told.refused++
          if (errno !== 0) continue
          told.done++
          const offset = Number(ask.offset)
          if (data !== undefined) model.set(data, offset)
          if (ask.type === CMD.zero || ask.type === CMD.trim) model.fill(0, offset, offset + ask.length)
          if (ask.type === CMD.read && ask.length > 0)
            expect(reply!.data.subarray(8).equals(model.subarray(offset, offset + ask.length))).toBe(true)
        }
        c.socket.destroy()
        expect(vda.bytes.equals(model)).toBe(true)
      },
    ),
    parameters,
  )
  expect(vda.outside).toEqual([])
  for (const [what, count] of Object.entries(told)) {
    announce(`NBD commands ${what}`, count, parameters.seed)
    expect(count).toBeGreaterThan(0)
  }
  await expectServed(socket)
})

test('a stream that breaks anywhere after the handshake ends the connection and leaves the disk as the whole requests made it', async () => {
  const vda = new MemoryExport('vda', SIZE)
  const { socket } = await serving([vda])
  const parameters = proof('NBD streams, broken anywhere', 200, 10_000)
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 30 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      bytes,
      async (count, where, junk) => {
        vda.bytes.fill(0)
        const c = await new Client(socket).go('vda')
        const one = (i: number) =>
          Buffer.concat([
            request({ type: CMD.write, cookie: i, offset: i * 100, length: 100 }),
            Buffer.alloc(100, i + 1),
          ])
        const stream = Buffer.concat(Array.from({ length: count }, (_, i) => one(i)))
        const cut = Math.floor(where * stream.length)
        const whole = Math.floor(cut / 128)
        const inPayload = cut % 128 >= 28
        c.send(
          stream.subarray(0, cut),
          Buffer.concat([Buffer.alloc(1, 0xee), junk]).subarray(0, inPayload ? 0 : 65),
        )
        c.socket.end()
        for (let i = 0; i < whole; i++) expect((await c.reply())!.errno).toBe(0)
        expect(await c.rest()).toHaveLength(0)
        const model = Buffer.alloc(SIZE)
        for (let i = 0; i < whole; i++) model.fill(i + 1, i * 100, i * 100 + 100)
        expect(vda.bytes.equals(model)).toBe(true)
      },
    ),
    parameters,
  )
  await expectServed(socket)
})

test('canary: a server that let a range past the end through would be seen', async () => {
  const vda = new MemoryExport('vda', SIZE)
  const { socket } = await serving([
    {
      ...vda,
      name: 'vda',
      size: SIZE + 10,
      description: '',
      readOnly: false,
      contexts: vda.contexts,
      context: vda.context,
    } as MemoryExport,
  ])
  const c = await new Client(socket).go('vda')
  await c.call({ type: CMD.write, offset: SIZE, data: Buffer.alloc(1) })
  expect(vda.outside).toEqual([`write ${SIZE}+1`])
})
