/** A connection that is lost and comes back: what is asked again, and what cannot be promised any more. */

import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import {
  agreed,
  be64,
  connected,
  nbdkit,
  type Peer,
  type Said,
  scripted,
  started,
  stopped,
} from './client-support.ts'
import { be16, be32, CMD, folder, MiB } from './support.ts'

const RECONNECT = { attempts: 5, delayMs: 1 }

/** Does everything, until `dies` says that the connection ends instead of answering. */
async function serve(
  peer: Peer,
  seen: string[],
  dies: (asked: string) => boolean,
  said?: Said,
): Promise<void> {
  await agreed(peer, { structured: true, ...said })
  while (true) {
    const { type, cookie, offset, length } = await peer.request()
    const asked = `${['read', 'write', 'disc', 'flush', 'trim', 'cache', 'zero', 'status'][type]} ${offset}+${length}`
    if (type === CMD.disc) return void peer.socket.end()
    seen.push(asked)
    if (dies(asked)) return void peer.socket.destroy()
    if (type === CMD.read) peer.chunk(cookie, 1, true, Buffer.concat([be64(offset), Buffer.alloc(length, 5)]))
    else peer.simple(cookie)
  }
}

/** The first connection dies of the request that begins with `of`; those after it live, with `then` as their export. */
async function dyingOf(of: string, then: Said = {}) {
  const seen: string[][] = []
  const server = await scripted((peer, nth) => {
    const here: string[] = []
    seen.push(here)
    return serve(peer, here, (asked) => nth === 0 && asked.startsWith(of), nth === 0 ? {} : then)
  })
  return { ...server, seen }
}

describe('asked again', () => {
  test('reads, writes, zeroes and discards that were lost are asked on the next connection', async () => {
    const { socket, seen } = await dyingOf('trim')
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await Promise.all([
      client.trim(0, 8),
      client.read(8, 4),
      client.write(16, Buffer.alloc(2)),
      client.zero(32, 2),
    ])
    expect(seen).toHaveLength(2)
    expect(seen[1]).toContain('trim 0+8')
  })

  test('nothing unflushed: a flush is asked again, and holds', async () => {
    const { socket, seen } = await dyingOf('flush')
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await client.write(0, Buffer.alloc(1), { fua: true })
    await client.read(0, 1)
    await client.flush()
    expect(seen[1]).toEqual(['flush 0+0'])
  })

  test('a server that says it shuts down is left, and asked again when it is back', async () => {
    const { socket } = await scripted(async (peer, nth) => {
      await agreed(peer)
      while (true) {
        const { cookie, type } = await peer.request()
        if (nth === 0 && type !== CMD.disc)
          peer.chunk(cookie, 0x8001, true, Buffer.concat([be32(108), be16(0)]))
        else peer.simple(cookie)
      }
    })
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await client.write(0, Buffer.alloc(1))
  })
})

describe('refused', () => {
  const unflushed = { code: 'NBD_CONNECTION_LOST', facts: { why: 'unflushed' } }

  test('a flush after a loss does not vouch for writes that were answered before it: refused, once', async () => {
    const { socket } = await dyingOf('read 7')
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await client.write(0, Buffer.alloc(1))
    await client.zero(0, 1)
    await client.read(7, 1)
    await client.write(1, Buffer.alloc(1))
    await expect(client.flush()).rejects.toMatchObject({
      ...unflushed,
      facts: { why: 'unflushed', writes: 2 },
    })
    await client.flush()
  })

  test('a flush that was on its way is refused too, and so are all that were asked before it', async () => {
    const { socket } = await dyingOf('flush')
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await client.write(0, Buffer.alloc(1))
    const both = [client.flush(), client.flush()]
    for (const one of both) await expect(one).rejects.toMatchObject(unflushed)
    await client.flush()
  })

  test('what a flush covered before the loss is no reason', async () => {
    const { socket } = await dyingOf('read 7')
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await client.write(0, Buffer.alloc(1))
    await client.flush()
    await client.read(7, 1)
    await client.flush()
  })

  test('a write that was answered while the flush was on its way is not covered by it', async () => {
    const { socket } = await scripted(async (peer, nth) => {
      if (nth > 0) return serve(peer, [], () => false)
      await agreed(peer)
      const flush = await peer.request()
      const write = await peer.request()
      peer.simple(write.cookie)
      peer.simple(flush.cookie)
      await peer.request()
      peer.socket.destroy()
    })
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await Promise.all([client.flush(), client.write(0, Buffer.alloc(1))])
    await client.read(0, 1)
    await expect(client.flush()).rejects.toMatchObject(unflushed)
  })

  test.each<[string, Said]>([
    ['another size', { size: 2 * MiB }],
    ['other flags', { flags: 0xded | 2 }],
    ['other block sizes', { blockSize: [512, 4096, MiB] }],
    ['no structured replies', { structured: false }],
  ])('an export that came back with %s is another one, and ends it', async (_, then) => {
    const { socket, seen, clients } = await dyingOf('read 7', then)
    const client = await connected({ socket }, { reconnect: RECONNECT })
    const changed = { code: 'NBD_CONNECTION_LOST', facts: { why: 'changed' } }
    const all = await Promise.allSettled([client.read(7, 1), client.write(0, Buffer.alloc(1))])
    expect(all[0]).toMatchObject({ status: 'rejected', reason: changed })
    await expect(client.write(0, Buffer.alloc(1))).rejects.toMatchObject(changed)
    expect(seen.slice(1).flat()).toEqual([])
    expect(clients()).toBe(2)
  })

  test('a server that dies of the same request every time is not asked for ever', async () => {
    const { socket, clients } = await scripted((peer) => serve(peer, [], () => true))
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await expect(client.read(0, 1)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' })
    expect(clients()).toBe(1 + RECONNECT.attempts)
  })

  test('a server that breaks the protocol after it came back is not tried a third time', async () => {
    const { socket, clients } = await scripted(async (peer, nth) => {
      if (nth > 0) return peer.send(Buffer.alloc(64, 1))
      await serve(peer, [], () => true)
    })
    const client = await connected({ socket }, { reconnect: RECONNECT })
    await expect(client.read(0, 1)).rejects.toMatchObject({ code: 'NBD_PROTOCOL' })
    await expect(client.read(0, 1)).rejects.toMatchObject({ code: 'NBD_PROTOCOL' })
    expect(clients()).toBe(2)
  })

  test('without `reconnect` the first loss is the last', async () => {
    const { socket, clients } = await dyingOf('read')
    const client = await connected({ socket })
    await expect(client.read(0, 1)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' })
    await expect(client.read(0, 1)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' })
    expect(clients()).toBe(1)
  })
})

describeWithPeers(['nbdkit'], 'nbdkit, killed and started again', () => {
  test('reads and writes go on; the flush after it is refused once; a server that stays away ends it', async () => {
    const image = join(folder(), 'disk.raw')
    const how = ['file', image]
    const { truncateSync, writeFileSync } = await import('node:fs')
    writeFileSync(image, '')
    truncateSync(image, MiB)
    const { socket, program } = await nbdkit(...how)
    const client = await connected({ socket }, { reconnect: { attempts: 40, delayMs: 5, delayMaxMs: 50 } })
    await client.write(0, Buffer.from('before'))
    await stopped(program)
    const { rmSync } = await import('node:fs')
    rmSync(socket, { force: true })
    const waiting = [client.read(0, 6), client.write(100, Buffer.from('after'))] as const
    const second = await started('nbdkit', socket, '-f', '-U', socket, ...how)
    expect((await waiting[0]).toString()).toBe('before')
    await waiting[1]
    await expect(client.flush()).rejects.toMatchObject({ facts: { why: 'unflushed', writes: 1 } })
    await client.write(0, Buffer.from('again!'))
    await client.flush()
    expect((await client.read(100, 5)).toString()).toBe('after')
    await stopped(second)
    await expect(client.read(0, 1)).rejects.toMatchObject({
      code: 'NBD_CONNECTION_LOST',
      facts: { why: 'attempts', attempts: 40 },
    })
  })
})
