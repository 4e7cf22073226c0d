/** The commands, one by one, and what is refused: flags, ranges, rights, sizes. Refusals leave the bytes as they were. */
import { expect, test } from 'vitest'
import { NbdError } from '../../src/nbd/errors.ts'
import { Runs } from '../../src/nbd/runs.ts'
import {
  be32,
  Client,
  CMD,
  EINVAL,
  held,
  infoData,
  MemoryExport,
  MiB,
  metaData,
  OPT,
  REP,
  type Reply,
  request,
  runsOf,
  serving,
} from './support.ts'

const FUA = 1
const NO_HOLE = 2
const DF = 4
const REQ_ONE = 8
const FAST_ZERO = 16
const DATA = Buffer.from('sixteen bytes ok')

async function client(
  served = new MemoryExport('vda', MiB),
  contexts: readonly string[] | null = null,
  structured = true,
): Promise<{ c: Client; vda: MemoryExport }> {
  const { socket } = await serving([served])
  return { c: await new Client(socket).go('vda', contexts, structured), vda: served }
}
const why = (reply: Reply | null) => reply!.data.toString('utf8', 6)

test('a read is one data chunk that says where it begins, with and without DF', async () => {
  const { c, vda } = await client()
  vda.bytes.fill(7, 100, 200)
  for (const flags of [0, DF, FUA]) {
    const reply = await c.call({ type: CMD.read, flags, cookie: 9, offset: 99, length: 3 })
    expect(reply).toMatchObject({ type: 1, flags: 1, cookie: 9 })
    expect(reply!.data).toEqual(Buffer.concat([be32(0), be32(99), Buffer.from([0, 7, 7])]))
  }
})

test('a client without structured replies reads by simple ones, and hears bare numbers', async () => {
  const { c, vda } = await client(new MemoryExport('vda', MiB), null, false)
  vda.bytes.write('hello', 5)
  expect(await c.call({ type: CMD.read, offset: 5, length: 5 })).toMatchObject({
    type: -1,
    data: Buffer.from('hello'),
  })
  expect(await c.call({ type: CMD.read, offset: MiB, length: 1 })).toMatchObject({ type: -1, errno: EINVAL })
  expect(await c.call({ type: CMD.read, flags: DF, length: 1 })).toMatchObject({ type: -1, errno: EINVAL })
  expect(await c.call({ type: CMD.status, length: 1 })).toMatchObject({ type: -1, errno: EINVAL })
})

test('what is written is read again; FUA and the other flags reach the export', async () => {
  const { c, vda } = await client()
  expect(await c.call({ type: CMD.write, offset: 511, data: DATA })).toMatchObject({ type: -1, errno: 0 })
  await c.call({ type: CMD.write, flags: FUA, offset: 4096, data: DATA })
  expect((await c.call({ type: CMD.read, offset: 511, length: 16 }))!.data.subarray(8)).toEqual(DATA)
  await c.call({ type: CMD.zero, flags: FUA | NO_HOLE, offset: 512, length: 4 })
  await c.call({ type: CMD.trim, flags: FUA, offset: 0, length: MiB })
  await c.call({ type: CMD.cache, offset: 1, length: 2 })
  await c.call({ type: CMD.flush })
  expect(vda.calls).toEqual([
    'write 511+16',
    'write 4096+16 fua',
    'read 511+16',
    'zero 512+4 fua noHole',
    `trim 0+${MiB} fua`,
    'cache 1+2',
    'flush',
  ])
})

test('the last byte of a disk of odd size can be written and read, the one after it cannot', async () => {
  const { c, vda } = await client(new MemoryExport('vda', 1_050_113))
  expect(await c.call({ type: CMD.write, offset: 1_050_112, data: Buffer.from([9]) })).toMatchObject({
    errno: 0,
  })
  expect(vda.bytes[1_050_112]).toBe(9)
  const past = await c.call({ type: CMD.write, offset: 1_050_113, data: Buffer.from([9]) })
  expect(past).toMatchObject({ errno: EINVAL })
  expect(why(past)).toBe('operation past EOF; From: 1050113, Len: 1, Size: 1050113')
})

const outside: [string, number | bigint, number][] = [
  ['one byte past the end', MiB, 1],
  ['across the end', MiB - 1, 2],
  ['far outside', 2n ** 53n + 1n, 1],
  ['at the last offset there is', 2n ** 64n - 1n, 1],
  ['wrapping around', 2n ** 64n - 512n, 1024],
  ['empty, but outside', MiB + 1, 0],
]
test.each(outside)(
  'a range %s is refused for every command, and no byte moves',
  async (_, offset, length) => {
    const { c, vda } = await client(undefined, ['base:allocation'])
    for (const type of [CMD.read, CMD.trim, CMD.cache, CMD.zero, CMD.status])
      expect(await c.call({ type, offset, length })).toMatchObject({ errno: EINVAL })
    expect(await c.call({ type: CMD.write, offset, data: Buffer.alloc(length, 1) })).toMatchObject({
      errno: EINVAL,
    })
    expect(vda.calls).toEqual([])
    expect(await c.call({ type: CMD.flush, offset: 77, length: 99 })).toMatchObject({ errno: 0 })
  },
)

test('commands of no bytes succeed without asking the export; block status needs some', async () => {
  const { c, vda } = await client(undefined, ['base:allocation'])
  expect(await c.call({ type: CMD.read, offset: MiB })).toMatchObject({ type: 0, flags: 1, errno: 0 })
  for (const type of [CMD.write, CMD.trim, CMD.cache, CMD.zero])
    expect(await c.call({ type, offset: MiB })).toMatchObject({ errno: 0 })
  expect(why(await c.call({ type: CMD.status }))).toBe('need non-zero length')
  expect(vda.calls).toEqual([])
})

const wrongFlags: [keyof typeof CMD, number][] = [
  ['read', NO_HOLE],
  ['read', REQ_ONE],
  ['read', 0x100],
  ['write', DF],
  ['write', NO_HOLE],
  ['write', 0x100],
  ['write', 0x20],
  ['flush', DF],
  ['trim', NO_HOLE],
  ['trim', FAST_ZERO],
  ['cache', 0x8000],
  ['zero', REQ_ONE],
  ['status', NO_HOLE],
  ['status', 0x20],
]
test.each(wrongFlags)('%s with flags %i is refused, what came with it is read past', async (name, flags) => {
  const { c, vda } = await client(undefined, ['base:allocation'])
  const data = name === 'write' ? DATA : undefined
  const refused = await c.call({ type: CMD[name], flags, cookie: 5, length: 16, ...(data && { data }) })
  expect(refused).toMatchObject({ errno: EINVAL, cookie: 5, type: 0x8001 })
  expect(why(refused)).toContain('unsupported flags')
  expect(await c.call({ type: CMD.flush, cookie: 6 })).toMatchObject({ errno: 0, cookie: 6 })
  expect(vda.calls).toEqual(['flush'])
})

test.each([8, 99, 0xffff])('command %i does not exist, and the client may go on', async (type) => {
  const { c } = await client()
  expect(why(await c.call({ type, length: 5 }))).toBe(`invalid request type (${type}) received`)
  expect(await c.call({ type: CMD.flush })).toMatchObject({ errno: 0 })
})

test('a read-only export refuses writes, zeroes and trims with EPERM, and serves the rest', async () => {
  const { c, vda } = await client(new MemoryExport('vda', MiB, true))
  for (const type of [CMD.write, CMD.zero, CMD.trim])
    expect(await c.call({ type, length: 16, ...(type === CMD.write && { data: DATA }) })).toMatchObject({
      errno: 1,
    })
  for (const type of [CMD.read, CMD.flush, CMD.cache])
    expect(await c.call({ type, length: 16 })).toMatchObject({ errno: 0 })
  expect(vda.calls).toEqual(['read 0+16', 'flush', 'cache 0+16'])
})

test('32 MiB are read and written at once; a longer read is refused, a longer write ends the connection', async () => {
  const { c } = await client(new MemoryExport('vda', 64 * MiB))
  expect((await c.call({ type: CMD.write, data: Buffer.alloc(32 * MiB, 3) }))!.errno).toBe(0)
  const read = await c.call({ type: CMD.read, length: 32 * MiB })
  expect(read!.data.subarray(8).equals(Buffer.alloc(32 * MiB, 3))).toBe(true)
  expect(why(await c.call({ type: CMD.read, length: 32 * MiB + 1 }))).toContain('larger than max len')
  c.send(request({ type: CMD.write, length: 32 * MiB + 1 }))
  expect(await c.rest()).toHaveLength(0)
})

test('fast zeroes are not to be had: ENOTSUP, and nothing is zeroed', async () => {
  const { c, vda } = await client()
  expect(await c.call({ type: CMD.zero, flags: FAST_ZERO, length: 4096 })).toMatchObject({ errno: 95 })
  expect(vda.calls).toEqual([])
})

test.each([
  ['ENOSPC', 28],
  ['EIO', 5],
  ['ESHUTDOWN', 108],
  ['ENOMEM', 12],
] as const)('an export that fails with %s is heard as %i with its reason', async (errno, number) => {
  const { c, vda } = await client()
  vda.before = () => {
    throw new NbdError(errno, 'why it failed')
  }
  for (const type of [CMD.read, CMD.write, CMD.zero, CMD.trim, CMD.flush, CMD.cache]) {
    const reply = await c.call({ type, length: 16, ...(type === CMD.write && { data: DATA }) })
    expect([reply!.errno, why(reply)]).toEqual([number, 'why it failed'])
  }
})

test('any other failure is EIO, a long reason is cut between characters, and the connection goes on', async () => {
  const { c, vda } = await client()
  vda.before = () => {
    throw new TypeError('é'.repeat(5000))
  }
  const reply = await c.call({ type: CMD.read, length: 1 })
  expect([reply!.errno, why(reply)]).toEqual([5, 'é'.repeat(2048)])
  vda.before = () => undefined
  expect(await c.call({ type: CMD.read, length: 1 })).toMatchObject({ errno: 0 })
})

test('block status answers one chunk for each context, under its id, cut to what was asked', async () => {
  const { c, vda } = await client(undefined, [
    'base:allocation',
    'qemu:dirty-bitmap:a',
    'qemu:dirty-bitmap:b',
  ])
  vda.dirty.add(1)
  c.ask({ type: CMD.status, offset: 1000, length: 10_000 })
  const replies = [(await c.reply())!, (await c.reply())!, (await c.reply())!]
  expect(replies.map(({ type, flags }) => [type, flags])).toEqual([
    [5, 0],
    [5, 0],
    [5, 1],
  ])
  expect(replies.map(runsOf)).toEqual([
    { id: 0, runs: [[10_000, 0]] },
    {
      id: 1,
      runs: [
        [3096, 0],
        [4096, 1],
        [2808, 0],
      ],
    },
    {
      id: 2,
      runs: [
        [3096, 0],
        [4096, 1],
        [2808, 0],
      ],
    },
  ])
  c.ask({ type: CMD.status, flags: REQ_ONE, offset: 1000, length: 10_000 })
  const ones = [(await c.reply())!, (await c.reply())!, (await c.reply())!]
  expect(ones.map((reply) => runsOf(reply).runs)).toEqual([[[10_000, 0]], [[3096, 0]], [[3096, 0]]])
})

test('block status has at most 131072 runs, and the client asks on from their end', async () => {
  const { c } = await client(new MemoryExport('vda', 600 * MiB), ['qemu:dirty-bitmap:b'])
  const { runs } = runsOf((await c.call({ type: CMD.status, length: 600 * MiB }))!)
  expect(runs).toHaveLength(131_072)
  expect(runs.reduce((sum, [length]) => sum + length, 0)).toBe(512 * MiB)
  const more = runsOf((await c.call({ type: CMD.status, offset: 512 * MiB, length: 88 * MiB }))!).runs
  expect(more).toHaveLength(22_528)
})

test('a stretch beyond 32 bits is told as far as 32 bits go', async () => {
  const served = new MemoryExport('vda', MiB)
  served.context = async (name) => ({
    name,
    status: async () => Runs.of([{ length: 5 * 2 ** 32, flags: 1 }]),
  })
  const { c } = await client(served, ['qemu:dirty-bitmap:a'])
  expect(runsOf((await c.call({ type: CMD.status, length: 4096 }))!).runs).toEqual([[0xffffffff, 1]])
})

test.each([
  ['nothing', []],
  ['an empty run', [{ length: 0, flags: 1 }]],
  ['more than was asked for', [{ length: 4097, flags: 1 }]],
  [
    'two runs for one',
    [
      { length: 1, flags: 1 },
      { length: 1, flags: 0 },
    ],
  ],
])('a context that answers %s is an error, not a wrong map', async (_, found) => {
  const served = new MemoryExport('vda', MiB)
  served.context = async (name) => ({ name, status: async () => Runs.of(found) })
  const { c } = await client(served, ['qemu:dirty-bitmap:a'])
  expect(await c.call({ type: CMD.status, flags: REQ_ONE, length: 4096 })).toMatchObject({ errno: 5 })
})

test('block status without a context is refused: none chosen, another export, a choice that failed', async () => {
  const { socket } = await serving([new MemoryExport('vda', MiB), new MemoryExport('vdb', MiB)])
  const refusedAfter = async (set: (c: Client) => Promise<unknown>) => {
    const c = new Client(socket)
    await c.greet()
    await c.option(OPT.structured)
    await set(c)
    expect((await c.option(OPT.go, infoData('vda'))).at(-1)!.type).toBe(REP.ack)
    expect(why(await c.call({ type: CMD.status, length: 4096 }))).toBe('CMD_BLOCK_STATUS not negotiated')
  }
  const good = metaData('vda', ['base:allocation'])
  await refusedAfter(async () => undefined)
  await refusedAfter((c) => c.option(OPT.setMeta, metaData('vda', ['nope'])))
  await refusedAfter((c) => c.option(OPT.setMeta, metaData('vdb', ['base:allocation'])))
  await refusedAfter(async (c) => {
    await c.option(OPT.setMeta, good)
    await c.option(OPT.setMeta, metaData('vda', []))
  })
  await refusedAfter(async (c) => {
    await c.option(OPT.setMeta, good)
    await c.option(OPT.setMeta, good.subarray(0, 9))
  })
})

test('answers leave when they are ready, not in the order of the requests', async () => {
  const { c, vda } = await client()
  const { wait, release } = held()
  vda.before = (call) => (call.startsWith('write') ? wait : undefined)
  c.ask({ type: CMD.write, cookie: 1, data: DATA })
  expect(await c.call({ type: CMD.read, cookie: 2, length: 16 })).toMatchObject({ cookie: 2, errno: 0 })
  release()
  expect(await c.reply()).toMatchObject({ cookie: 1, errno: 0 })
})

test('DISC waits for what is in flight, then the connection ends', async () => {
  const { c, vda } = await client()
  const { wait, release } = held()
  vda.before = () => wait
  c.ask({ type: CMD.write, cookie: 3, data: DATA })
  c.ask({ type: CMD.disc })
  release()
  expect(await c.reply()).toMatchObject({ cookie: 3, errno: 0 })
  expect(await c.rest()).toHaveLength(0)
})

test('a client that has said its last is answered before the connection ends', async () => {
  const { c, vda } = await client()
  for (let i = 0; i < 50; i++) c.ask({ type: CMD.write, cookie: i, offset: i * 16, data: DATA })
  c.socket.end()
  const cookies = new Set<number>()
  for (let i = 0; i < 50; i++) cookies.add((await c.reply())!.cookie)
  expect(cookies.size).toBe(50)
  expect(vda.bytes.toString('latin1', 0, 800)).toBe('sixteen bytes ok'.repeat(50))
  expect(await c.rest()).toHaveLength(0)
})

test('a request that begins with anything else ends the connection after what was in flight', async () => {
  const { c } = await client()
  c.ask({ type: CMD.write, cookie: 4, data: DATA })
  c.send(Buffer.alloc(28))
  expect(await c.reply()).toMatchObject({ cookie: 4, errno: 0 })
  expect(await c.rest()).toHaveLength(0)
})
