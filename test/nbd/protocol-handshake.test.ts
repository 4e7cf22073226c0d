/** The handshake, option by option, as doc/proto.md and QEMU's server have it. Refusals outnumber what is granted. */
import { expect, test } from 'vitest'
import {
  be16,
  be32,
  Client,
  infoData,
  MemoryExport,
  MiB,
  metaData,
  OPT,
  REP,
  serving,
  text,
  types,
  words,
} from './support.ts'

const vda = () => new MemoryExport('vda', MiB, false, 'the first disk')
const vdb = () => new MemoryExport('vdb', 2 * MiB + 1, true)

async function greeted(flags = 3, ...exports: MemoryExport[]): Promise<Client> {
  const { socket } = await serving(exports.length > 0 ? exports : [vda(), vdb()])
  const client = new Client(socket)
  await client.greet(flags)
  return client
}

test('the greeting offers the fixed newstyle handshake without zeroes', async () => {
  const { socket } = await serving([vda()])
  const greeting = await new Client(socket).greet()
  expect(greeting.toString('latin1', 0, 16)).toBe('NBDMAGICIHAVEOPT')
  expect(greeting.readUInt16BE(16)).toBe(3)
})

test.each([4, 8, 0x80000000, 0xffffffff, 7])(
  'handshake flags %i are not NBD and end the connection',
  async (flags) => {
    const client = await greeted(flags)
    expect(await client.rest()).toHaveLength(0)
  },
)

test('what does not begin as an option ends the connection', async () => {
  const client = await greeted()
  client.send(Buffer.from('IHAVEOPX'), be32(OPT.list), be32(0))
  expect(await client.rest()).toHaveLength(0)
})

test('LIST names every export with its description', async () => {
  const replies = await (await greeted()).option(OPT.list)
  expect(types(replies)).toEqual([REP.server, REP.server, REP.ack])
  expect(replies[0]!.data).toEqual(Buffer.concat([text('vda'), Buffer.from('the first disk')]))
  expect(replies[1]!.data).toEqual(text('vdb'))
})

test('LIST with data is invalid', async () => {
  expect(types(await (await greeted()).option(OPT.list, Buffer.from('x')))).toEqual([REP.invalid])
})

test('INFO answers what was asked, the block sizes and the size, and the client may go on', async () => {
  const client = await greeted()
  const replies = await client.option(OPT.info, infoData('vda', [1, 2, 77]))
  expect(types(replies)).toEqual([REP.info, REP.info, REP.info, REP.info, REP.ack])
  expect(replies[0]!.data).toEqual(Buffer.concat([be16(1), Buffer.from('vda')]))
  expect(replies[1]!.data).toEqual(Buffer.concat([be16(2), Buffer.from('the first disk')]))
  expect(replies[2]!.data).toEqual(Buffer.concat([be16(3), be32(1), be32(4096), be32(32 * MiB)]))
  expect(replies[3]!.data).toEqual(Buffer.concat([be16(0), be32(0), be32(MiB), be16(0xd6d)]))
  expect(types(await client.option(OPT.list))).toHaveLength(3)
})

test('the flags are those of QEMU: DF only with structured replies, a read-only export takes no writes', async () => {
  const client = await greeted()
  const flags = async (name: string) =>
    (await client.option(OPT.info, infoData(name))).at(-2)!.data.readUInt16BE(10)
  expect(await flags('vda')).toBe(0xd6d)
  expect(await flags('vdb')).toBe(0x50f)
  await client.option(OPT.structured)
  expect(await flags('vda')).toBe(0xded)
  expect(await flags('vdb')).toBe(0x58f)
})

test('the empty name is the only export, and none where there are several', async () => {
  expect(types(await (await greeted(3, vda())).option(OPT.info, infoData(''))).at(-1)).toBe(REP.ack)
  const several = await (await greeted()).option(OPT.info, infoData(''))
  expect(types(several)).toEqual([REP.unknown])
  expect(words(several)).toBe(`export '' not present`)
})

const malformed: [string, Buffer][] = [
  ['nothing', Buffer.alloc(0)],
  ['half a length', Buffer.from([0, 0])],
  ['a name that is not there', be32(3)],
  ['a name without the count', text('vda')],
  ['fewer infos than counted', Buffer.concat([text('vda'), be16(2), be16(1)])],
  ['more infos than counted', Buffer.concat([text('vda'), be16(0), be16(1)])],
  ['a name of 4 GiB', Buffer.concat([be32(0xffffffff), be16(0)])],
  ['a name that is no UTF-8', Buffer.concat([be32(2), Buffer.from([0xc3, 0x28]), be16(0)])],
  ['a name of 4097 bytes', Buffer.concat([text('x'.repeat(4097)), be16(0)])],
]
test.each(malformed)('INFO and GO with %s are invalid, and the client may go on', async (_, data) => {
  const client = await greeted()
  for (const option of [OPT.info, OPT.go])
    expect(types(await client.option(option, data))).toEqual([REP.invalid])
  expect(types(await client.option(OPT.go, infoData('vda'))).at(-1)).toBe(REP.ack)
})

test.each([OPT.info, OPT.go, OPT.listMeta])(
  'option %i for an export that is not there says so',
  async (option) => {
    const data = option === OPT.listMeta ? metaData('nope', []) : infoData('nope')
    const replies = await (await greeted()).option(option, data)
    expect(types(replies)).toEqual([REP.unknown])
    expect(words(replies)).toBe(`export 'nope' not present`)
  },
)

test.each([4, 11, 12, 99, 0, 0xffffffff])(
  'option %i is unsupported, with or without data',
  async (option) => {
    const client = await greeted()
    expect(types(await client.option(option))).toEqual([REP.unsupported])
    expect(types(await client.option(option, Buffer.alloc(100)))).toEqual([REP.unsupported])
  },
)

test('TLS is refused as a matter of policy, and malformed with data', async () => {
  const client = await greeted()
  expect(types(await client.option(OPT.startTls))).toEqual([REP.policy])
  expect(types(await client.option(OPT.startTls, Buffer.alloc(1)))).toEqual([REP.invalid])
})

test('structured replies are granted once, and not with data', async () => {
  const client = await greeted()
  expect(types(await client.option(OPT.structured, Buffer.alloc(1)))).toEqual([REP.invalid])
  expect(types(await client.option(OPT.structured))).toEqual([REP.ack])
  expect(types(await client.option(OPT.structured))).toEqual([REP.invalid])
})

test('an option that is too long is read past and refused; one that is far too long ends the connection', async () => {
  const client = await greeted()
  expect(types(await client.option(OPT.info, Buffer.alloc(65_537)))).toEqual([REP.tooBig])
  expect(types(await client.option(OPT.list)).at(-1)).toBe(REP.ack)
  client.send(Buffer.from('IHAVEOPT'), be32(OPT.info), be32(32 * MiB + 1))
  expect(await client.rest()).toHaveLength(0)
})

test('ABORT is acknowledged and ends the connection', async () => {
  const client = await greeted()
  expect(types(await client.option(OPT.abort))).toEqual([REP.ack])
  expect(await client.rest()).toHaveLength(0)
})

test('EXPORT_NAME goes straight to the bytes, with 124 zeroes for who did not decline them', async () => {
  for (const [flags, tail] of [
    [3, 0],
    [1, 124],
    [0, 124],
    [2, 0],
  ] as const) {
    const client = await greeted(flags)
    client.sendOption(OPT.exportName, Buffer.from('vdb'))
    const answer = (await client.bytes(10 + tail))!
    expect(answer.readBigUInt64BE(0)).toBe(BigInt(2 * MiB + 1))
    expect(answer.readUInt16BE(8)).toBe(0x50f)
    expect(await client.call({ type: 0, length: 512, offset: 512 })).toMatchObject({
      type: -1,
      errno: 0,
      data: Buffer.alloc(512),
    })
  }
})

test.each([
  ['an unknown name', Buffer.from('nope')],
  ['the empty name of several', Buffer.alloc(0)],
  ['no UTF-8', Buffer.from([0xff])],
  ['4097 bytes', Buffer.alloc(4097, 'x')],
])('EXPORT_NAME with %s ends the connection: it has no way to say no', async (_, name) => {
  const client = await greeted()
  client.sendOption(OPT.exportName, name)
  expect(await client.rest()).toHaveLength(0)
})

test.each([OPT.list, OPT.go, OPT.abort, OPT.structured])(
  'a client of the old handshake cannot send option %i',
  async (option) => {
    const client = await greeted(0)
    client.sendOption(option, option === OPT.go ? infoData('vda') : undefined)
    expect(await client.rest()).toHaveLength(0)
  },
)

test('LIST_META_CONTEXT answers wildcards and exact names, each once, in the order of the server', async () => {
  const client = await greeted()
  const names = async (...queries: string[]) =>
    (await client.option(OPT.listMeta, metaData('vda', queries))).map(({ type, data }) =>
      type === REP.meta ? `${data.readUInt32BE(0)} ${data.toString('utf8', 4)}` : type,
    )
  const all = ['0 base:allocation', '0 qemu:dirty-bitmap:a', '0 qemu:dirty-bitmap:b']
  expect(await names()).toEqual([...all, REP.ack])
  expect(await names('qemu:')).toEqual([...all.slice(1), REP.ack])
  expect(await names('base:', 'base:allocation')).toEqual([all[0], REP.ack])
  expect(await names('qemu:dirty-bitmap:b', 'nope', 'other:')).toEqual([all[2], REP.ack])
})

test('SET_META_CONTEXT gives ids to the exact names that are there: wildcards and others are left out', async () => {
  const client = await greeted()
  await client.option(OPT.structured)
  const set = async (...queries: string[]) =>
    (await client.option(OPT.setMeta, metaData('vda', queries))).map(({ type, data }) =>
      type === REP.meta ? `${data.readUInt32BE(0)} ${data.toString('utf8', 4)}` : type,
    )
  expect(await set('base:allocation', 'qemu:dirty-bitmap:a', 'base:allocation')).toEqual([
    '0 base:allocation',
    '1 qemu:dirty-bitmap:a',
    REP.ack,
  ])
  for (const none of [[], [''], ['base:'], ['qemu:'], ['qemu:dirty-bitmap:'], ['qemu:dirty-bitmap:nope']])
    expect(await set(...none)).toEqual([REP.ack])
})

test('SET_META_CONTEXT needs structured replies; LIST_META_CONTEXT does not', async () => {
  const client = await greeted()
  const refused = await client.option(OPT.setMeta, metaData('vda', ['base:allocation']))
  expect(types(refused)).toEqual([REP.invalid])
  expect(words(refused)).toContain('structured reply is not negotiated')
  expect(types(await client.option(OPT.listMeta, metaData('vda', [])))).toHaveLength(4)
})

const malformedContexts: [string, Buffer][] = [
  ['nothing', Buffer.alloc(0)],
  ['no count', text('vda')],
  ['fewer queries than counted', Buffer.concat([text('vda'), be32(2), text('base:allocation')])],
  ['4 Gi queries', Buffer.concat([text('vda'), be32(0xffffffff)])],
  ['more than it counted', Buffer.concat([text('vda'), be32(0), text('base:')])],
  ['a query that is no UTF-8', Buffer.concat([text('vda'), be32(1), be32(1), Buffer.from([0x80])])],
]
test.each(malformedContexts)('LIST and SET_META_CONTEXT with %s are invalid', async (_, data) => {
  const client = await greeted()
  await client.option(OPT.structured)
  for (const option of [OPT.listMeta, OPT.setMeta])
    expect(types(await client.option(option, data))).toEqual([REP.invalid])
})

test('too many queries, and too many contexts that are there, are too big', async () => {
  const many = vda()
  many.contextNames = Array.from({ length: 33 }, (_, i) => `qemu:dirty-bitmap:${i}`)
  const client = await greeted(3, many)
  await client.option(OPT.structured)
  const asked = Array.from({ length: 1025 }, (_, i) => `q:${i}`)
  for (const option of [OPT.listMeta, OPT.setMeta])
    expect(types(await client.option(option, metaData('vda', asked)))).toEqual([REP.tooBig])
  expect(types(await client.option(OPT.setMeta, metaData('vda', many.contextNames)))).toEqual([REP.tooBig])
  expect(types(await client.option(OPT.setMeta, metaData('vda', many.contextNames.slice(1))))).toHaveLength(
    33,
  )
})

test('a context that cannot be opened is refused with its reason', async () => {
  const served = vda()
  served.context = async () => Promise.reject(new Error('bitmap "a" is inconsistent'))
  served.contexts = async () => Promise.reject(new Error('the log failed'))
  const client = await greeted(3, served)
  await client.option(OPT.structured)
  const set = await client.option(OPT.setMeta, metaData('vda', ['qemu:dirty-bitmap:a']))
  expect([types(set), words(set)]).toEqual([[REP.invalid], 'bitmap "a" is inconsistent'])
  const list = await client.option(OPT.listMeta, metaData('vda', []))
  expect([types(list), words(list)]).toEqual([[REP.invalid], 'the log failed'])
})
