/** A server that does not do as was agreed: the connection ends with a reason, everybody who waits is told, and nothing hangs or grows. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CheckpointError } from '../../src/errors.ts'
import { listNbd } from '../../src/nbd/client/list.ts'
import { NbdError } from '../../src/nbd/errors.ts'
import { announce, proof } from '../support/property.ts'
import {
  type Asked,
  agreed,
  be64,
  chunk,
  connected,
  GREETING,
  listed,
  type Peer,
  scripted,
} from './client-support.ts'
import { be16, be32, CMD, MiB, OPT, REP } from './support.ts'

const A = 'qemu:dirty-bitmap:a'
const protocol = (why: RegExp) => ({ code: 'NBD_PROTOCOL', message: expect.stringMatching(why) })

describe('in the handshake', () => {
  /** Greets, then answers options by number; those without an answer are not known. */
  const greeting = (answers: Record<number, (peer: Peer, data: Buffer) => unknown>) =>
    scripted(async (peer) => {
      peer.send(GREETING)
      await peer.bytes(4)
      while (true) {
        const { option, data } = await peer.option()
        const answer = answers[option]
        if (answer === undefined) peer.reply(option, REP.unsupported)
        else await answer(peer, data)
      }
    })
  const info =
    (...parts: Uint8Array[]) =>
    (peer: Peer) => {
      for (const part of parts) peer.reply(OPT.go, REP.info, part)
      peer.reply(OPT.go, REP.ack)
    }
  const EXPORT = Buffer.concat([be16(0), be64(MiB), be16(0xded)])
  const sizes = (...three: number[]) => Buffer.concat([be16(3), ...three.map(be32)])

  test.each<[string, RegExp, Uint8Array]>([
    ['no greeting', /no greeting/, Buffer.from('HTTP/1.1 400 Bad Request\r\n')],
    ['half of one', /no greeting/, Buffer.from('NBDMAGICIHAVEOPU')],
    [
      'the handshake of before 2011',
      /2011/,
      Buffer.concat([Buffer.from('NBDMAGIC'), be64(0x00420281861253n), Buffer.alloc(136)]),
    ],
  ])('%s', async (_, why, bytes) => {
    const { socket } = await scripted(async (peer) => peer.send(bytes))
    await expect(connected({ socket })).rejects.toMatchObject(protocol(why))
  })

  test.each<[string, RegExp, Record<number, (peer: Peer) => unknown>]>([
    [
      'a reply that is none',
      /no reply to an option/,
      { [OPT.structured]: (peer) => peer.send(Buffer.alloc(20)) },
    ],
    [
      'a reply to another option',
      /option 7, not to 8/,
      { [OPT.structured]: (peer) => peer.reply(OPT.go, REP.ack) },
    ],
    [
      'a reply of 4 GiB',
      /bytes of replies/,
      {
        [OPT.go]: (peer) =>
          peer.send(Buffer.from('0003e889045565a9', 'hex'), be32(OPT.go), be32(REP.info), be32(0xffffffff)),
      },
    ],
    ['no export', /without an export/, { [OPT.go]: info() }],
    ['an export in a wrong shape', /wrong shape/, { [OPT.go]: info(EXPORT.subarray(0, 11)) }],
    ['facts of no type', /reply 3 to GO/, { [OPT.go]: info(Buffer.alloc(1)) }],
    [
      'another reply',
      /reply 2 to GO/,
      {
        [OPT.go]: (peer) => {
          peer.reply(OPT.go, REP.server, EXPORT)
          peer.reply(OPT.go, REP.ack)
        },
      },
    ],
    [
      'an export without flags',
      /without flags/,
      { [OPT.go]: info(Buffer.concat([be16(0), be64(MiB), be16(0)])) },
    ],
    ['block sizes in a wrong shape', /wrong shape/, { [OPT.go]: info(EXPORT, sizes(1, 1)) }],
    ['blocks of nothing', /cannot be/, { [OPT.go]: info(EXPORT, sizes(0, 4096, MiB)) }],
    ['blocks of 3 bytes', /cannot be/, { [OPT.go]: info(EXPORT, sizes(3, 4096, MiB)) }],
    ['a largest block below the smallest', /cannot be/, { [OPT.go]: info(EXPORT, sizes(4096, 4096, 512)) }],
    ['a preferred block below the smallest', /cannot be/, { [OPT.go]: info(EXPORT, sizes(4096, 512, MiB)) }],
    [
      'a size that is no whole blocks',
      /no multiple/,
      { [OPT.go]: info(sizes(512, 4096, MiB), Buffer.concat([be16(0), be64(513), be16(1)])) },
    ],
  ])('%s', async (_, why, answers) => {
    const { socket } = await greeting(answers)
    await expect(connected({ socket })).rejects.toMatchObject(protocol(why))
  })

  const context = (...all: [number, string][]) => ({
    [OPT.structured]: (peer: Peer) => peer.reply(OPT.structured, REP.ack),
    [OPT.setMeta]: (peer: Peer) => {
      for (const [id, name] of all)
        peer.reply(OPT.setMeta, REP.meta, Buffer.concat([be32(id), Buffer.from(name)]))
      peer.reply(OPT.setMeta, REP.ack)
    },
  })
  test.each<[string, RegExp, [number, string][]]>([
    ['a context that was not asked for', /not asked for/, [[1, 'other']]],
    [
      'a context twice',
      /not asked for/,
      [
        [1, A],
        [2, A],
      ],
    ],
    [
      'two contexts with one number',
      /one number/,
      [
        [1, A],
        [1, 'b'],
      ],
    ],
    ['a context without a name', /reply 4/, [[1, '']]],
  ])('%s', async (_, why, all) => {
    const { socket } = await greeting(context(...all))
    await expect(connected({ socket }, { contexts: [A, 'b'] })).rejects.toMatchObject(protocol(why))
  })

  test('a context that is missing is named, with those that are there', async () => {
    const lists = (peer: Peer) => {
      peer.reply(OPT.listMeta, REP.meta, Buffer.concat([be32(0), Buffer.from('base:allocation')]))
      peer.reply(OPT.listMeta, REP.ack)
    }
    const some = await greeting({ ...context([1, A]), [OPT.listMeta]: lists })
    await expect(connected({ socket: some.socket }, { contexts: [A, 'b'] })).rejects.toMatchObject({
      code: 'NBD_CONTEXT_MISSING',
      facts: { missing: ['b'], listed: ['base:allocation'] },
    })
    const none = await greeting({ [OPT.structured]: (peer) => peer.reply(OPT.structured, REP.ack) })
    await expect(connected({ socket: none.socket }, { contexts: [A] })).rejects.toMatchObject({
      code: 'NBD_CONTEXT_MISSING',
    })
    const simple = await greeting({})
    await expect(connected({ socket: simple.socket }, { contexts: [A] })).rejects.toMatchObject({
      code: 'NBD_CONTEXT_MISSING',
      message: expect.stringMatching(/no structured replies/),
    })
  })

  test("a refusal has the server's words; a size beyond every disk, and TLS that is wanted, have codes of their own", async () => {
    const policy = await greeting({
      [OPT.go]: (peer) => peer.reply(OPT.go, REP.policy, Buffer.from('not today')),
    })
    await expect(connected({ socket: policy.socket })).rejects.toMatchObject({
      code: 'NBD_REFUSED',
      facts: { option: 'GO', error: 'NBD_REP_ERR_POLICY', said: 'NBD_REP_ERR_POLICY: not today' },
    })
    await expect(listNbd({ socket: policy.socket })).rejects.toMatchObject({
      code: 'NBD_REFUSED',
      facts: { option: 'LIST' },
    })
    const huge = await greeting({ [OPT.go]: info(Buffer.concat([be16(0), be64(2n ** 63n), be16(1)])) })
    await expect(connected({ socket: huge.socket })).rejects.toMatchObject({ code: 'SIZE_INVALID' })
    const tls = await greeting({ [OPT.structured]: (peer) => peer.reply(OPT.structured, 0x80000005) })
    await expect(connected({ socket: tls.socket })).rejects.toMatchObject({
      code: 'NBD_TLS_FAILED',
      facts: { why: 'required' },
    })
    await expect(connected({ socket: policy.socket, tls: {} })).rejects.toMatchObject({
      code: 'NBD_TLS_FAILED',
      facts: { why: 'not-offered' },
    })
  })

  test('lists without an end, or in a wrong shape', async () => {
    const endless = (data: Buffer) => async (peer: Peer) => {
      const one = Buffer.concat([
        Buffer.from('0003e889045565a9', 'hex'),
        be32(OPT.list),
        be32(REP.server),
        be32(data.length),
        data,
      ])
      const many = Buffer.concat(Array(500).fill(one))
      while (!peer.socket.destroyed)
        if (!peer.socket.write(many))
          await new Promise((resolve) => {
            peer.socket.once('drain', resolve).once('close', resolve)
          })
    }
    for (const data of [listed('x'), listed('x', 'y'.repeat(60_000))]) {
      const { socket } = await greeting({ [OPT.list]: endless(data) })
      await expect(listNbd({ socket })).rejects.toMatchObject(protocol(/replies/))
    }
    for (const data of [Buffer.alloc(3), be32(9), Buffer.concat([be32(1), Buffer.from([0xff])])]) {
      const { socket } = await greeting({ [OPT.list]: (peer) => peer.reply(OPT.list, REP.server, data) })
      const { socket: ended } = await greeting({
        [OPT.list]: (peer) => {
          peer.reply(OPT.list, REP.server, data)
          peer.reply(OPT.list, REP.ack)
        },
      })
      await expect(listNbd({ socket }, { handshakeMs: 50 })).rejects.toMatchObject({
        code: 'NBD_UNREACHABLE',
      })
      await expect(listNbd({ socket: ended })).rejects.toMatchObject(protocol(/wrong shape/))
    }
  })

  test('a server that says nothing, hangs up, or is not there', async () => {
    const silent = await scripted(async () => undefined)
    await expect(connected({ socket: silent.socket }, { handshakeMs: 30 })).rejects.toMatchObject({
      code: 'NBD_UNREACHABLE',
      facts: { why: 'deadline' },
    })
    const rude = await scripted(async (peer) => void peer.socket.end(GREETING))
    await expect(connected({ socket: rude.socket })).rejects.toMatchObject({ code: 'NBD_UNREACHABLE' })
    await expect(connected({ socket: `${rude.socket}.none` })).rejects.toMatchObject({
      code: 'NBD_UNREACHABLE',
      facts: { why: 'refused' },
    })
    await expect(connected({ host: '127.0.0.1', port: 1 })).rejects.toMatchObject({ code: 'NBD_UNREACHABLE' })
    const stop = new AbortController()
    const connecting = connected({ socket: silent.socket }, { signal: stop.signal })
    stop.abort()
    await expect(connecting).rejects.toMatchObject({ code: 'ABORTED' })
    await expect(connected({ socket: silent.socket }, { signal: AbortSignal.abort() })).rejects.toMatchObject(
      { code: 'ABORTED' },
    )
  })
})

/** What is answered to a read of 10 bytes at 100, or to a status of 1000 bytes at 0, and why that cannot be. */
type Wrong = [title: string, why: RegExp, answer: (peer: Peer, asked: Asked) => void]
const data = (at: number, text: string) => Buffer.concat([be64(at), Buffer.from(text)])
const head = (cookie: number, type: number, length: number) =>
  Buffer.concat([be32(0x668e33ef), be16(0), be16(type), be64(cookie), be32(length)])
const runs = (id: number, ...words: number[]) => Buffer.concat([be32(id), ...words.map(be32)])

const READS: Wrong[] = [
  ['what is no reply', /no reply/, (peer) => peer.send(Buffer.alloc(16, 7))],
  ['a cookie that nobody has', /nobody asked/, (peer, { cookie }) => peer.simple(cookie + 1)],
  [
    'a cookie of 64 bits',
    /nobody asked/,
    (peer) => peer.send(be32(0x67446698), be32(0), Buffer.alloc(8, 255)),
  ],
  [
    'a simple reply',
    /structured one was agreed/,
    (peer, { cookie }) => peer.simple(cookie, 0, Buffer.alloc(10)),
  ],
  ['a simple error', /structured one was agreed/, (peer, { cookie }) => peer.simple(cookie, 5)],
  ['nothing at all', /0 of 10 bytes/, (peer, { cookie }) => peer.chunk(cookie, 0, true)],
  ['nothing, and more to come', /not the last/, (peer, { cookie }) => peer.chunk(cookie, 0, false)],
  ['nothing, with bytes', /not the last/, (peer, { cookie }) => peer.chunk(cookie, 0, true, Buffer.alloc(1))],
  ['too little', /9 of 10 bytes/, (peer, { cookie }) => peer.chunk(cookie, 1, true, data(100, '123456789'))],
  ['too much', /outside/, (peer, { cookie }) => peer.chunk(cookie, 1, true, data(100, '1234567890a'))],
  ['bytes before the range', /outside/, (peer, { cookie }) => peer.chunk(cookie, 1, true, data(99, '1'))],
  ['bytes behind the range', /outside/, (peer, { cookie }) => peer.chunk(cookie, 1, true, data(110, '1'))],
  [
    'bytes at 2^63',
    /outside/,
    (peer, { cookie }) => peer.chunk(cookie, 1, true, Buffer.concat([be64(2n ** 63n), Buffer.alloc(1)])),
  ],
  [
    'bytes twice',
    /twice/,
    (peer, { cookie }) => {
      peer.chunk(cookie, 1, false, data(100, '12345'))
      peer.chunk(cookie, 1, true, data(104, '12345'))
    },
  ],
  [
    'bytes again and again',
    /more bytes/,
    (peer, { cookie }) => {
      for (let i = 0; i < 11; i++) peer.chunk(cookie, 1, false, data(100, '1'))
    },
  ],
  [
    'a data chunk without data',
    /data chunk of 8/,
    (peer, { cookie }) => peer.chunk(cookie, 1, true, be64(100)),
  ],
  [
    'a data chunk of 4 GiB',
    /outside/,
    (peer, { cookie }) => peer.send(head(cookie, 1, 0xffffffff), be64(100)),
  ],
  [
    'a hole in a wrong shape',
    /a hole in 11/,
    (peer, { cookie }) => peer.chunk(cookie, 2, true, Buffer.alloc(11)),
  ],
  [
    'a hole of nothing',
    /hole of no bytes/,
    (peer, { cookie }) => peer.chunk(cookie, 2, true, Buffer.concat([be64(100), be32(0)])),
  ],
  [
    'a hole of 4 GiB',
    /outside/,
    (peer, { cookie }) => peer.chunk(cookie, 2, true, Buffer.concat([be64(100), be32(0xffffffff)])),
  ],
  ['extents', /type 5 for a read/, (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(7, 10, 0))],
  ['an unknown chunk', /type 99/, (peer, { cookie }) => peer.chunk(cookie, 99, true, Buffer.alloc(4))],
  [
    'an error in five bytes',
    /error of 5/,
    (peer, { cookie }) => peer.chunk(cookie, 0x8001, true, Buffer.alloc(5)),
  ],
  [
    'an error of 4 GiB',
    /error of 4294967295/,
    (peer, { cookie }) => peer.send(head(cookie, 0x8001, 0xffffffff)),
  ],
  [
    'an error that is none',
    /wrong shape/,
    (peer, { cookie }) => peer.chunk(cookie, 0x8001, true, Buffer.alloc(6)),
  ],
  [
    'an error with less words than it says',
    /wrong shape/,
    (peer, { cookie }) => peer.chunk(cookie, 0x8001, true, Buffer.concat([be32(5), be16(1)])),
  ],
  [
    'chunks without an end',
    /131072 chunks/,
    (peer, { cookie }) => {
      const one = chunk(cookie, 0x8001, false, Buffer.concat([be32(5), be16(0)]))
      peer.send(Buffer.concat(Array(131_073).fill(one)))
    },
  ],
  [
    'an answer twice',
    /nobody asked/,
    (peer, { cookie }) => {
      peer.chunk(cookie, 1, true, data(100, '1234567890'))
      peer.chunk(cookie, 1, true, data(100, '1234567890'))
    },
  ],
]
const STATUSES: Wrong[] = [
  ['a simple reply', /structured one/, (peer, { cookie }) => peer.simple(cookie)],
  ['no extents', /no extents of/, (peer, { cookie }) => peer.chunk(cookie, 0, true)],
  [
    'extents of one context only',
    /no extents of b/,
    (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(7, 10, 0)),
  ],
  ['an empty list', /in 4 bytes/, (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(7))],
  ['half an extent', /in 8 bytes/, (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(7, 10))],
  ['an extent of nothing', /no bytes/, (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(7, 0, 0))],
  ['an unknown context', /context 9/, (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(9, 10, 0))],
  [
    'a context twice',
    /two lists/,
    (peer, { cookie }) => {
      peer.chunk(cookie, 5, false, runs(7, 10, 0))
      peer.chunk(cookie, 5, true, runs(7, 10, 0))
    },
  ],
  [
    'extents behind the range',
    /beyond/,
    (peer, { cookie }) => peer.chunk(cookie, 5, true, runs(7, 1000, 0, 1, 0)),
  ],
  ['2^29 extents', /in 4294967292 bytes/, (peer, { cookie }) => peer.send(head(cookie, 5, 0xfffffffc))],
  ['data', /type 1 for a block status/, (peer, { cookie }) => peer.chunk(cookie, 1, true, data(0, '1'))],
]

describe('in transmission', () => {
  test.each(READS)('a read is answered with %s', async (title, why, answer) => {
    const { socket, clients } = await scripted(async (peer) => {
      await agreed(peer)
      await peer.request()
      answer(peer, { ...(await peer.request()) })
    })
    const client = await connected({ socket }, { reconnect: { attempts: 3, delayMs: 1 } })
    const other = client.flush()
    const read = client.read(100, 10)
    await expect(other).rejects.toMatchObject(protocol(why))
    const [outcome] = await Promise.allSettled([read])
    if (title === 'an answer twice') expect(outcome).toMatchObject({ status: 'fulfilled' })
    else expect(outcome).toMatchObject({ status: 'rejected', reason: protocol(why) })
    await expect(client.read(0, 1)).rejects.toMatchObject(protocol(why))
    expect(clients()).toBe(1)
  })

  test.each(STATUSES)('a block status is answered with %s', async (_, why, answer) => {
    const { socket } = await scripted(async (peer) => {
      await agreed(peer, { contexts: [A, 'b'] })
      answer(peer, await peer.request())
    })
    const client = await connected({ socket }, { contexts: [A, 'b'] })
    await expect(client.blockStatus(0, 1000)).rejects.toMatchObject(protocol(why))
  })

  test('one extent was asked for, and two come, or one that is longer', async () => {
    for (const [why, extents] of [
      [/in 20 bytes/, runs(7, 10, 0, 10, 0)],
      [/longer/, runs(7, 1001, 0)],
    ] as const) {
      const { socket } = await scripted(async (peer) => {
        await agreed(peer, { contexts: [A] })
        peer.chunk((await peer.request()).cookie, 5, true, extents)
      })
      const client = await connected({ socket }, { contexts: [A] })
      await expect(client.blockStatus(0, 1000, { one: true })).rejects.toMatchObject(protocol(why))
    }
  })

  test('extents that never leave a block would be asked for ever', async () => {
    const { socket } = await scripted(async (peer) => {
      await agreed(peer, { contexts: [A], blockSize: [512, 4096, MiB] })
      while (true) peer.chunk((await peer.request()).cookie, 5, true, runs(7, 88, 0))
    })
    const client = await connected({ socket }, { contexts: [A] })
    const all = client.extents(A, { offset: 600 })[Symbol.asyncIterator]()
    await expect(all.next()).rejects.toMatchObject(protocol(/within a block/))
  })

  test('chunks where simple replies were agreed, and bytes for a write', async () => {
    const simple = await scripted(async (peer) => {
      await agreed(peer, { structured: false })
      peer.chunk((await peer.request()).cookie, 0, true)
    })
    await expect((await connected({ socket: simple.socket })).flush()).rejects.toMatchObject(
      protocol(/not agreed/),
    )
    const bytes = await scripted(async (peer) => {
      await agreed(peer)
      peer.chunk((await peer.request()).cookie, 1, true, data(0, '1'))
    })
    const client = await connected({ socket: bytes.socket })
    await expect(client.write(0, Buffer.alloc(1))).rejects.toMatchObject(protocol(/gives no bytes/))
  })

  test('a server that hangs up, or answers nothing, rejects everybody who waits', async () => {
    const gone = await scripted(async (peer) => {
      await agreed(peer)
      for (let i = 0; i < 3; i++) await peer.request()
      peer.socket.destroy()
    })
    const client = await connected({ socket: gone.socket })
    const all = await Promise.allSettled([
      client.read(0, 1),
      client.write(0, Buffer.alloc(9)),
      client.flush(),
    ])
    const lost = { status: 'rejected', reason: { code: 'NBD_CONNECTION_LOST', facts: { why: 'closed' } } }
    expect(all).toMatchObject([lost, lost, lost])
    await expect(client.read(0, 1)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' })
    const silent = await scripted(async (peer) => agreed(peer))
    const slow = await connected({ socket: silent.socket }, { requestMs: 30 })
    await expect(slow.read(0, 1)).rejects.toMatchObject({
      code: 'NBD_CONNECTION_LOST',
      facts: { why: 'deadline' },
    })
  })
})

const settled = (error: unknown) => {
  expect(error instanceof CheckpointError || error instanceof NbdError).toBe(true)
}

test('whatever a server sends instead of its answers, every call settles', async () => {
  const junk = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes))
  const word = fc.oneof(fc.constantFrom(0, 1, 5, 10, 12, 20, 0xffffffff), fc.nat(4000))
  const reply = fc.record({
    type: fc.constantFrom(0, 1, 1, 1, 2, 2, 5, 5, 6, 0x8001, 0x8002, 0x9999),
    done: fc.boolean(),
    good: fc.boolean(),
    turn: fc.nat(3),
    words: fc.array(word, { maxLength: 6 }),
    tail: junk,
  })
  const parameters = proof('NBD client, answers drawn', 300, 20_000)
  const told = { fulfilled: 0, rejected: 0 }
  await fc.assert(
    fc.asyncProperty(fc.array(reply, { maxLength: 12 }), junk, async (replies, last) => {
      const { socket, close } = await scripted(async (peer) => {
        await agreed(peer, { contexts: [A] })
        const asks = [await peer.request(), await peer.request(), await peer.request(), await peer.request()]
        for (const { type, done, good, turn, words, tail } of replies) {
          const { cookie } = asks[turn]!
          if (good) {
            if (turn === 0) peer.chunk(cookie, 1, true, Buffer.concat([be64(100), Buffer.alloc(10)]))
            else if (turn === 2) peer.chunk(cookie, 5, true, runs(7, 4000, 0))
            else peer.simple(cookie)
            continue
          }
          const body = type === 1 ? Buffer.concat([be64(100), tail]) : Buffer.concat([...words.map(be32)])
          peer.chunk(cookie, type, done, body)
        }
        peer.socket.end(last)
      })
      const client = await connected({ socket }, { contexts: [A] })
      const all = await Promise.allSettled([
        client.read(100, 10),
        client.write(0, Buffer.alloc(4)),
        client.blockStatus(0, 4000),
        client.flush(),
      ])
      for (const one of all) {
        told[one.status]++
        if (one.status === 'rejected') settled(one.reason)
      }
      await close() // Thousands of servers would use up what a process may open.
    }),
    parameters,
  )
  announce('NBD client, answers that were taken', told.fulfilled, parameters.seed)
  expect(told.rejected).toBeGreaterThan(0)
  expect(told.fulfilled).toBeGreaterThan(0)
})

test('good conversations with a few bytes changed: right bytes or an error, never a hang', async () => {
  const parameters = proof('NBD client, conversations changed', 300, 20_000)
  const told = { right: 0, refused: 0 }
  const change = fc.record({ at: fc.nat(400), to: fc.nat(255) })
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 3 }), fc.option(fc.nat(400)), async (changes, cut) => {
      let sent = 0
      const { socket, close } = await scripted(async (peer) => {
        const write = peer.socket.write.bind(peer.socket)
        peer.send = (...parts: Uint8Array[]) => {
          const bytes = Buffer.concat(parts)
          for (const { at, to } of changes) if (at >= sent && at < sent + bytes.length) bytes[at - sent] = to
          const left = cut === null ? bytes.length : Math.max(0, cut - sent)
          sent += bytes.length
          write(bytes.subarray(0, left))
          if (left < bytes.length) peer.socket.end()
        }
        await agreed(peer, { contexts: [A], blockSize: [1, 4096, MiB] })
        while (true) {
          const { type, cookie, offset, length } = await peer.request()
          if (type === CMD.disc) return void peer.socket.end()
          if (type === CMD.read) {
            peer.chunk(cookie, 2, false, Buffer.concat([be64(offset), be32(4)]))
            peer.chunk(cookie, 1, true, Buffer.concat([be64(offset + 4), Buffer.alloc(length - 4, 9)]))
          } else if (type === CMD.status) peer.chunk(cookie, 5, true, runs(7, length, 1))
          else peer.simple(cookie)
        }
      })
      try {
        // What asks for more bytes than come is ended by its deadline.
        const client = await connected({ socket }, { contexts: [A], handshakeMs: 100, requestMs: 100 })
        expect(await client.read(0, 20)).toHaveLength(20)
        await client.write(0, Buffer.alloc(4))
        expect((await client.blockStatus(0, 4000)).get(A)!.length).toBeGreaterThan(0)
        told.right++
      } catch (error) {
        settled(error)
        told.refused++
      }
      await close()
    }),
    parameters,
  )
  for (const [what, count] of Object.entries(told)) {
    announce(`NBD client, conversations ${what}`, count, parameters.seed)
    expect(count).toBeGreaterThan(0)
  }
})
