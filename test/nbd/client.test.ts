/** What the NBD client asks and what it makes of the answers: against our own server, and one that answers as it is told. */
import { randomFillSync } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { listNbd, listNbdContexts } from '../../src/nbd/client/list.ts'
import { proof } from '../support/property.ts'
import {
  type Asked,
  agreed,
  be64,
  connected,
  listed,
  listOf,
  type Peer,
  scripted,
  tuples,
} from './client-support.ts'
import { be32, CMD, folder, held, MemoryExport, MiB, OPT, REP, serving } from './support.ts'

const BASE = 'base:allocation'
const A = 'qemu:dirty-bitmap:a'
const B = 'qemu:dirty-bitmap:b'

function random(name: string, size: number): MemoryExport {
  const disk = new MemoryExport(name, size)
  randomFillSync(disk.bytes)
  return disk
}

describe('against our own server', () => {
  test('it says what the export is', async () => {
    const { socket } = await serving([new MemoryExport('vda', 70_001), new MemoryExport('ro', MiB, true)])
    expect((await connected({ socket, name: 'vda' }, { contexts: [A, BASE] })).info).toEqual({
      name: 'vda',
      size: 70_001,
      readOnly: false,
      canFlush: true,
      canFua: true,
      canTrim: true,
      canZero: true,
      canFastZero: true,
      canCache: true,
      multiConn: true,
      blockSize: { minimum: 1, preferred: 4096, maximum: 32 * MiB },
      structured: true,
      tls: false,
      contexts: [A, BASE],
    })
    const { info } = await connected({ uri: `nbd+unix:///ro?socket=${socket}` })
    expect(info).toMatchObject({ readOnly: true, canTrim: false, contexts: [] })
  })

  test('each command does what it says, and nothing is asked for nothing', async () => {
    const disk = random('vda', MiB)
    const { socket } = await serving([disk])
    const client = await connected({ socket, name: 'vda' })
    expect(await client.read(1, 70_000)).toEqual(disk.bytes.subarray(1, 70_001))
    await client.write(1000, Buffer.from('plain'))
    await client.write(2000, new Uint8Array([1, 2, 3]), { fua: true })
    await client.zero(3000, 10, { noHole: true })
    await client.zero(4000, 10, { fua: true })
    await client.trim(5000, 10)
    await client.cache(0, 4096)
    await client.flush()
    expect(disk.bytes.toString('latin1', 1000, 1005)).toBe('plain')
    const done = [...disk.calls]
    expect(done).toEqual([
      'read 1+70000',
      'write 1000+5',
      'write 2000+3 fua',
      'zero 3000+10 noHole',
      'zero 4000+10 fua',
      'trim 5000+10',
      'cache 0+4096',
      'flush',
    ])
    expect(await client.read(5, 0)).toHaveLength(0)
    await client.write(5, Buffer.alloc(0), { fua: true })
    await client.zero(MiB, 0)
    await client.trim(0, 0)
    expect(disk.calls).toEqual(done)
  })

  test('what is larger than one request is cut, and comes back whole', async () => {
    const disk = new MemoryExport('vda', 70 * MiB + 3)
    const { socket } = await serving([disk])
    const client = await connected({ socket, name: 'vda' }, { bytesMax: 40 * MiB })
    const data = randomFillSync(Buffer.alloc(70 * MiB))
    await client.write(3, data, { fua: true })
    expect(disk.calls.sort()).toEqual([
      `write 3+${32 * MiB} fua`,
      `write ${3 + 32 * MiB}+${32 * MiB} fua`,
      `write ${3 + 64 * MiB}+${6 * MiB} fua`,
    ])
    expect((await client.read(3, data.length)).equals(data)).toBe(true)
    await client.zero(0, 70 * MiB)
    expect((await client.read(0, 70 * MiB + 3)).equals(disk.bytes)).toBe(true)
  })

  test('extents are followed to the end, joined, and cut to the range; a block status is one answer for all contexts', async () => {
    const disk = new MemoryExport('vda', 600 * MiB)
    for (const granule of [0, 1, 7, 100]) disk.dirty.add(granule)
    const { socket } = await serving([disk])
    const client = await connected({ socket, name: 'vda' }, { contexts: [BASE, A, B] })
    expect(tuples(await listOf(client.extents(A, { offset: 100, length: 40_000 })))).toEqual([
      [100, 8092, 1],
      [8192, 20_480, 0],
      [28_672, 4096, 1],
      [32_768, 40_100 - 32_768, 0],
    ])
    expect(tuples(await listOf(client.extents(BASE)))).toEqual([[0, 600 * MiB, 0]])
    // 153 600 stripes: more than one answer has.
    expect(await listOf(client.extents(B))).toHaveLength((600 * MiB) / 4096)
    expect(await listOf(client.extents(A, { offset: 5, length: 0 }))).toEqual([])
    const status = await client.blockStatus(4096, 8192)
    expect([...status.keys()]).toEqual([BASE, A, B])
    expect(tuples(status.get(B)!)).toEqual([
      [4096, 4096, 1],
      [8192, 4096, 0],
    ])
    expect(tuples((await client.blockStatus(4096, 8192, { one: true })).get(A)!)).toEqual([[4096, 4096, 1]])
  })

  test('a socket at a path too long for an address is reached', async () => {
    const deep = join(folder(), 'x'.repeat(60), 'y'.repeat(60))
    mkdirSync(deep, { recursive: true })
    const { socket } = await serving([new MemoryExport('vda', MiB)], { socket: join(deep, 's.sock') })
    expect(await (await connected({ socket, name: 'vda' })).read(0, 3)).toEqual(Buffer.alloc(3))
  })

  test('it lists exports and contexts', async () => {
    const { socket } = await serving([
      new MemoryExport('vda', MiB, false, 'the first'),
      new MemoryExport('vdb', 5),
    ])
    expect(await listNbd({ socket })).toEqual([
      { name: 'vda', description: 'the first' },
      { name: 'vdb', description: '' },
    ])
    expect(await listNbdContexts({ socket, name: 'vda' })).toEqual([BASE, A, B])
    expect(await listNbdContexts({ socket, name: 'vda' }, ['qemu:'])).toEqual([A, B])
    await expect(listNbdContexts({ socket, name: 'nope' })).rejects.toMatchObject({
      code: 'NBD_EXPORT_NOT_FOUND',
      facts: { listed: ['vda', 'vdb'] },
    })
  })

  test('many at the same time: bounded, each gets its own, and a slow one holds up nobody', async () => {
    const disk = random('vda', MiB)
    const { socket } = await serving([disk])
    const client = await connected({ socket, name: 'vda' }, { requestsMax: 8 })
    const slow = held()
    disk.before = (call) => (call === 'read 0+512' ? slow.wait : undefined)
    const first = client.read(0, 512)
    const rest = await Promise.all(Array.from({ length: 500 }, (_, i) => client.read(512 + i, 512)))
    for (const [i, bytes] of rest.entries())
      expect(bytes.equals(disk.bytes.subarray(512 + i, 1024 + i))).toBe(true)
    expect(disk.runningMax).toBeGreaterThan(1)
    expect(disk.runningMax).toBeLessThanOrEqual(8)
    slow.release()
    expect(await first).toEqual(disk.bytes.subarray(0, 512))
  })

  test('any sequence of commands leaves the bytes of a plain buffer', async () => {
    const SIZE = 70_001
    const disk = new MemoryExport('vda', SIZE)
    const { socket } = await serving([disk])
    const client = await connected({ socket, name: 'vda' }, { requestsMax: 4, bytesMax: 9000 })
    const step = fc.record({
      kind: fc.constantFrom('read', 'write', 'zero', 'trim', 'flush'),
      offset: fc.integer({ min: 0, max: SIZE }),
      length: fc.integer({ min: 0, max: 5000 }),
      fill: fc.integer({ min: 1, max: 255 }),
      fua: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        disk.bytes.fill(0)
        const model = Buffer.alloc(SIZE)
        for (const { kind, offset, length: wanted, fill, fua } of steps) {
          const length = Math.min(wanted, SIZE - offset)
          if (kind === 'read')
            expect((await client.read(offset, length)).equals(model.subarray(offset, offset + length))).toBe(
              true,
            )
          else if (kind === 'flush') await client.flush()
          else if (kind === 'write') await client.write(offset, Buffer.alloc(length, fill), { fua })
          else await client[kind](offset, length, { fua })
          if (kind !== 'read' && kind !== 'flush')
            model.fill(kind === 'write' ? fill : 0, offset, offset + length)
        }
        expect(disk.bytes.equals(model)).toBe(true)
      }),
      proof('NBD client, commands drawn', 100, 5000),
    )
    expect(disk.outside).toEqual([])
  })
})

describe('refused before anything is sent', () => {
  test('ranges outside of the export, and what is no range', async () => {
    const disk = new MemoryExport('vda', MiB)
    const { socket } = await serving([disk])
    const client = await connected({ socket, name: 'vda' }, { contexts: [A] })
    const outside = { code: 'RANGE_OUTSIDE_DISK', facts: { size: MiB } }
    await expect(client.read(MiB, 1)).rejects.toMatchObject(outside)
    await expect(client.read(0, MiB + 1)).rejects.toMatchObject(outside)
    await expect(client.write(MiB - 1, Buffer.alloc(2))).rejects.toMatchObject(outside)
    await expect(client.zero(MiB, 1)).rejects.toMatchObject(outside)
    await expect(client.trim(MiB, 1)).rejects.toMatchObject(outside)
    await expect(client.cache(MiB, 1)).rejects.toMatchObject(outside)
    await expect(client.blockStatus(MiB, 1)).rejects.toMatchObject(outside)
    expect(() => client.extents(A, { offset: MiB, length: 1 })).toThrow(
      expect.objectContaining({ code: 'RANGE_OUTSIDE_DISK' }),
    )
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53, '0' as unknown as number]) {
      await expect(client.read(bad, 1)).rejects.toThrow(RangeError)
      await expect(client.read(0, bad)).rejects.toThrow(RangeError)
    }
    await expect(client.blockStatus(0, 0)).rejects.toThrow(RangeError)
    await expect(client.write(0, 'text' as unknown as Buffer)).rejects.toThrow(TypeError)
    expect(disk.calls).toEqual([])
  })

  test('what the export cannot do, with the errno that the server would give', async () => {
    const { socket } = await serving([new MemoryExport('ro', MiB, true)])
    const readOnly = await connected({ socket, name: 'ro' })
    await expect(readOnly.write(0, Buffer.alloc(1))).rejects.toMatchObject({ errno: 'EPERM' })
    const bare = await scripted((peer) => agreed(peer, { flags: 1 }))
    const client = await connected({ socket: bare.socket })
    for (const ask of [
      client.flush(),
      client.zero(0, 1),
      client.trim(0, 1),
      client.cache(0, 1),
      client.write(0, Buffer.alloc(1), { fua: true }),
    ])
      await expect(ask).rejects.toMatchObject({ name: 'NbdError', errno: 'ENOTSUP' })
    const zeroes = await scripted((peer) => agreed(peer, { flags: 1 | 0x40 }))
    const slow = await connected({ socket: zeroes.socket })
    await expect(slow.zero(0, 1, { fast: true })).rejects.toMatchObject({ errno: 'ENOTSUP' })
  })

  test('contexts that were not asked for', async () => {
    const { socket } = await serving([new MemoryExport('vda', MiB)])
    const client = await connected({ socket, name: 'vda' }, { contexts: [A] })
    expect(() => client.extents(B)).toThrow(
      expect.objectContaining({
        code: 'NBD_CONTEXT_MISSING',
        facts: expect.objectContaining({ listed: [A] }),
      }),
    )
    const none = await connected({ socket, name: 'vda' })
    await expect(none.blockStatus(0, 1)).rejects.toMatchObject({ code: 'NBD_CONTEXT_MISSING' })
  })

  test('options that are none', async () => {
    const target = { socket: '/nowhere' }
    for (const bad of [0, -1, 1.5, 2 ** 31, Number.NaN]) {
      await expect(connected(target, { handshakeMs: bad })).rejects.toThrow(RangeError)
      await expect(connected(target, { requestMs: bad })).rejects.toThrow(RangeError)
      await expect(connected(target, { requestsMax: bad })).rejects.toThrow(RangeError)
      await expect(connected(target, { bytesMax: bad })).rejects.toThrow(RangeError)
      await expect(connected(target, { reconnect: { attempts: bad } })).rejects.toThrow(RangeError)
    }
    await expect(connected(target, { contexts: 'a' as never })).rejects.toThrow(TypeError)
    await expect(connected(target, { contexts: [''] })).rejects.toThrow(TypeError)
    await expect(connected(target, { contexts: ['x'.repeat(4097)] })).rejects.toThrow(RangeError)
    await expect(connected(target, { contexts: Array(33).fill('x') })).rejects.toThrow(RangeError)
  })
})

/** Goes on to answer requests one by one. */
const answering =
  (answer: (peer: Peer, asked: Asked) => void, said?: Parameters<typeof agreed>[1]) => async (peer: Peer) => {
    await agreed(peer, said)
    while (true) answer(peer, await peer.request())
  }

describe('blocks', () => {
  const BLOCKS = { blockSize: [512, 4096, 1024] as const, contexts: [A] }
  const seen: string[] = []
  const echo = answering((peer, { type, offset, length, cookie }) => {
    seen.push(`${type} ${offset}+${length}`)
    if (type === CMD.read) {
      const data = Buffer.from(Array.from({ length }, (_, i) => ((offset + i) / 7) & 255))
      peer.chunk(cookie, 1, true, Buffer.concat([be64(offset), data]))
    } else if (type === CMD.status) {
      const rest = length > 512 ? [be32(length), be32(0)] : []
      peer.chunk(cookie, 5, true, Buffer.concat([be32(7), be32(512), be32(1), ...rest]))
    } else peer.simple(cookie)
  }, BLOCKS)

  test('a read at any place is widened to whole blocks and cut into requests that the server takes', async () => {
    const { socket } = await scripted(echo)
    const client = await connected({ socket })
    seen.length = 0
    const bytes = await client.read(700, 2000)
    expect(seen).toEqual(['0 512+1024', '0 1536+1024', '0 2560+512'])
    expect([...bytes]).toEqual(Array.from({ length: 2000 }, (_, i) => ((700 + i) / 7) & 255))
    expect(await client.read(1023, 2)).toHaveLength(2)
    expect(seen.at(-1)).toBe('0 512+1024')
  })

  test('a write, a zeroing or a discard that is not whole blocks is refused, and sent as it is when it is', async () => {
    const { socket } = await scripted(echo)
    const client = await connected({ socket })
    seen.length = 0
    for (const [offset, length] of [
      [1, 512],
      [0, 511],
      [511, 1],
    ] as const) {
      const unaligned = { code: 'NBD_UNALIGNED', facts: { offset, length, minimum: 512 } }
      await expect(client.write(offset, Buffer.alloc(length))).rejects.toMatchObject(unaligned)
      await expect(client.zero(offset, length)).rejects.toMatchObject(unaligned)
      await expect(client.trim(offset, length)).rejects.toMatchObject(unaligned)
    }
    expect(seen).toEqual([])
    await client.write(512, Buffer.alloc(1536))
    await client.trim(0, 8192)
    expect(seen).toEqual(['1 512+1024', '1 1536+512', '4 0+8192'])
  })

  test('extents of whole blocks are cut to what was asked', async () => {
    const { socket } = await scripted(echo)
    const client = await connected({ socket }, { contexts: [A] })
    expect(tuples(await listOf(client.extents(A, { offset: 600, length: 1000 })))).toEqual([
      [600, 424, 1],
      [1024, 576, 0],
    ])
    expect(tuples((await client.blockStatus(100, 100)).get(A)!)).toEqual([[100, 100, 1]])
  })
})

describe('answers', () => {
  const reading = async (answer: (peer: Peer, asked: Asked) => void, structured = true) => {
    const { socket } = await scripted(answering(answer, { structured, contexts: [A] }))
    return connected({ socket }, structured ? { contexts: [A] } : {})
  }

  test('a read comes in pieces of any order, data and holes, and is put together', async () => {
    const client = await reading((peer, { cookie }) => {
      peer.chunk(cookie, 1, false, Buffer.concat([be64(108), Buffer.from('IJ')]))
      peer.chunk(cookie, 2, false, Buffer.concat([be64(104), be32(4)]))
      peer.chunk(cookie, 1, false, Buffer.concat([be64(100), Buffer.from('ABCD')]))
      peer.chunk(cookie, 0, true)
    })
    expect((await client.read(100, 10)).toString('latin1')).toBe('ABCD\0\0\0\0IJ')
  })

  test('answers may come in any order, and between the pieces of each other', async () => {
    const { socket } = await scripted(async (peer) => {
      await agreed(peer)
      while (true) {
        const asks = [await peer.request(), await peer.request(), await peer.request()].reverse()
        for (const { cookie, offset } of asks)
          peer.chunk(cookie, 1, false, Buffer.concat([be64(offset), Buffer.from([offset])]))
        for (const { cookie, offset } of asks)
          peer.chunk(cookie, 1, true, Buffer.concat([be64(offset + 1), Buffer.from([offset + 1])]))
      }
    })
    const client = await connected({ socket })
    const all = await Promise.all([client.read(10, 2), client.read(20, 2), client.read(30, 2)])
    expect(all.map((bytes) => [...bytes])).toEqual([
      [10, 11],
      [20, 21],
      [30, 31],
    ])
  })

  test('an error of the server has its errno and its words, and the connection goes on', async () => {
    let nth = 0
    const client = await reading((peer, { cookie }) => {
      const words = 'no\u001b[2Jpe'
      const error = Buffer.concat([be32(28), Buffer.from([0, words.length]), Buffer.from(words)])
      if (nth === 0) peer.chunk(cookie, 0x8001, true, error)
      if (nth === 1) {
        peer.chunk(cookie, 1, false, Buffer.concat([be64(0), Buffer.from('A')]))
        peer.chunk(cookie, 0x8002, false, Buffer.concat([be32(5), Buffer.from([0, 0]), be64(1)]))
        peer.chunk(cookie, 0x8001, false, error)
        peer.chunk(cookie, 0, true)
      }
      if (nth === 2) peer.chunk(cookie, 0x8fff, true, error)
      if (nth === 3) peer.chunk(cookie, 0x8001, true, Buffer.concat([be32(4711), Buffer.from([0, 0])]))
      if (nth++ === 4) peer.chunk(cookie, 2, true, Buffer.concat([be64(0), be32(2)]))
    })
    await expect(client.read(0, 2)).rejects.toMatchObject({
      name: 'NbdError',
      errno: 'ENOSPC',
      message: expect.stringMatching(/28 \(ENOSPC\): no \[2Jpe$/),
    })
    await expect(client.read(0, 2)).rejects.toMatchObject({ errno: 'EIO' })
    await expect(client.read(0, 2)).rejects.toMatchObject({ errno: 'ENOSPC' })
    await expect(client.read(0, 2)).rejects.toMatchObject({ errno: 'EINVAL', message: /4711/ })
    expect([...(await client.read(0, 2))]).toEqual([0, 0])
  })

  test('a server without structured replies is read all the same', async () => {
    const client = await reading((peer, { cookie, offset, length }) => {
      if (offset === 13) peer.simple(cookie, 5)
      else peer.simple(cookie, 0, Buffer.alloc(length, 9))
    }, false)
    expect(client.info.structured).toBe(false)
    expect([...(await client.read(0, 3))]).toEqual([9, 9, 9])
    await expect(client.read(13, 3)).rejects.toMatchObject({ errno: 'EIO' })
    expect(await client.read(0, 3)).toHaveLength(3)
  })

  test('an extent that reaches further than asked is believed as far as it is asked', async () => {
    const client = await reading((peer, { cookie, offset }) => {
      const length = offset === 0 ? 5000 : 2 ** 31
      peer.chunk(cookie, 5, true, Buffer.concat([be32(7), be32(length), be32(offset === 0 ? 1 : 0)]))
    })
    expect(tuples(await listOf(client.extents(A, { length: 4000 })))).toEqual([[0, 4000, 1]])
    expect(tuples(await listOf(client.extents(A)))).toEqual([
      [0, 5000, 1],
      [5000, MiB - 5000, 0],
    ])
  })

  test('durable writes on a server that only flushes are a write and a flush', async () => {
    const types: number[] = []
    const { socket } = await scripted(
      answering(
        (peer, { cookie, type, flags }) => {
          types.push(type, flags)
          peer.simple(cookie)
        },
        { flags: 1 | 4 },
      ),
    )
    await (await connected({ socket })).write(0, Buffer.alloc(1), { fua: true })
    expect(types).toEqual([CMD.write, 0, CMD.flush, 0])
  })

  test('an aborted read is over at once; its answer is waited for and dropped, and the next is read rightly', async () => {
    const { wait, release } = held()
    const { socket } = await scripted(async (peer) => {
      await agreed(peer)
      while (true) {
        const { cookie, offset } = await peer.request()
        if (offset === 0) await wait
        peer.chunk(cookie, 1, true, Buffer.concat([be64(offset), Buffer.from([offset])]))
      }
    })
    const client = await connected({ socket }, { requestsMax: 1 })
    const abort = new AbortController()
    const first = client.read(0, 1, { signal: abort.signal })
    const queued = client.read(1, 1, { signal: abort.signal })
    const other = client.read(2, 1)
    abort.abort(new Error('enough'))
    await expect(first).rejects.toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } })
    await expect(queued).rejects.toMatchObject({ code: 'ABORTED' })
    await expect(client.read(3, 1, { signal: abort.signal })).rejects.toMatchObject({ code: 'ABORTED' })
    release()
    expect([...(await other)]).toEqual([2])
  })

  test('close waits for what was asked, leaves in order, and refuses what is asked afterwards', async () => {
    const { wait, release } = held()
    const types: number[] = []
    const { socket } = await scripted(async (peer) => {
      await agreed(peer)
      while (true) {
        const { cookie, type } = await peer.request()
        types.push(type)
        await wait
        peer.simple(cookie)
      }
    })
    const client = await connected({ socket })
    const write = client.write(0, Buffer.alloc(1))
    const closing = client.close()
    await expect(client.read(0, 1)).rejects.toMatchObject({
      code: 'NBD_CONNECTION_LOST',
      facts: { why: 'ended' },
    })
    release()
    await write
    await closing
    await expect.poll(() => types).toEqual([CMD.write, CMD.disc])
    await client.close()
  })
})

describe('older servers', () => {
  test.each([
    ['with options but without GO', 3, 0],
    ['with options, and zeroes behind the answer', 1, 124],
    ['without options', 2, 0],
    ['without options, and zeroes', 0, 124],
  ])('%s', async (_, flags, zeroes) => {
    const options: number[] = []
    const { socket } = await scripted(async (peer) => {
      peer.send(Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, flags]))
      expect((await peer.bytes(4)).readUInt32BE()).toBe(flags)
      while (true) {
        const { option, data } = await peer.option()
        options.push(option)
        if (option !== OPT.exportName) {
          peer.reply(option, REP.unsupported)
          continue
        }
        expect(data.toString()).toBe('vda')
        peer.send(be64(MiB), Buffer.from([0, 5]), Buffer.alloc(zeroes))
        const { cookie, length } = await peer.request()
        peer.simple(cookie, 0, Buffer.alloc(length, 3))
      }
    })
    const client = await connected({ socket, name: 'vda' })
    expect(client.info).toMatchObject({ size: MiB, structured: false, canFlush: true, canTrim: false })
    expect([...(await client.read(MiB - 2, 2))]).toEqual([3, 3])
    expect(options).toEqual(
      (flags & 1) === 1 ? [OPT.structured, OPT.go, OPT.list, OPT.exportName] : [OPT.exportName],
    )
  })

  test('an export that is missing there is told by hanging up', async () => {
    const { socket } = await scripted(async (peer) => {
      peer.send(Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3]))
      await peer.bytes(4)
      while (true) {
        const { option } = await peer.option()
        if (option === OPT.exportName) return void peer.socket.end()
        if (option !== OPT.list) {
          peer.reply(option, REP.unsupported)
          continue
        }
        peer.reply(option, REP.server, listed('other'))
        peer.reply(option, REP.ack)
      }
    })
    await expect(connected({ socket, name: 'vda' })).rejects.toMatchObject({
      code: 'NBD_EXPORT_NOT_FOUND',
      facts: { name: 'vda', listed: ['other'] },
    })
  })
})
