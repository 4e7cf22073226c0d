/** The NBD client against servers that nobody here wrote: what they say of themselves, and that the bytes are the bytes. */
import { createHash, randomFillSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { listNbd, listNbdContexts } from '../../src/nbd/client/list.ts'
import { describeWithPeers } from '../support/peers.ts'
import { runs } from '../support/property.ts'
import { connected, listOf, nbdkit, qemuNbd, started, tuples } from './client-support.ts'
import { run } from './programs-support.ts'
import { folder, MiB } from './support.ts'

const BASE = 'base:allocation'
const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** What nbdkit's pattern plugin has at every eight bytes: their offset. */
function pattern(offset: number, length: number): Buffer {
  const from = offset - (offset % 8)
  const bytes = Buffer.alloc(Math.ceil((offset + length - from) / 8) * 8)
  for (let at = 0; at < bytes.length; at += 8) bytes.writeBigUInt64BE(BigInt(from + at), at)
  return bytes.subarray(offset - from, offset - from + length)
}

describeWithPeers(['nbdkit'], 'nbdkit', () => {
  test.each([['with structured replies'], ['--no-sr']])(
    'reads of every size at every place, %s',
    async (how) => {
      const { socket } = await nbdkit(...(how === '--no-sr' ? [how] : []), 'pattern', '1T')
      const client = await connected({ socket })
      expect(client.info.structured).toBe(how !== '--no-sr')
      const asks = Array.from(
        { length: runs(300, 5000) },
        (_, i) => [(i * 3_000_000_017) % 2 ** 40, (i * 7919) % 40_000] as const,
      )
      for (const [offset, length] of [...asks, [2 ** 40 - 5, 5], [1, 33 * MiB]] as const) {
        const wanted = Math.min(length, 2 ** 40 - offset)
        expect((await client.read(offset, wanted)).equals(pattern(offset, wanted))).toBe(true)
      }
      expect(await listNbd({ socket })).toEqual([{ name: '', description: '' }])
    },
  )

  test('memory: what is written, zeroed and trimmed is read back, and the extents follow', async () => {
    const { socket } = await nbdkit('memory', '64M')
    const client = await connected({ socket }, { contexts: [BASE] })
    const data = randomFillSync(Buffer.alloc(5 * MiB + 3))
    await Promise.all(
      Array.from({ length: 81 }, (_, i) =>
        client.write(i * 65_537, data.subarray(i * 65_537, (i + 1) * 65_537)),
      ),
    )
    await client.flush()
    expect(sha(await client.read(0, data.length))).toBe(
      sha(data.subarray(0, Math.min(data.length, 81 * 65_537))),
    )
    await client.zero(0, MiB, { fua: true, fast: false })
    await client.trim(MiB, MiB)
    expect((await client.read(0, 2 * MiB)).every((byte) => byte === 0)).toBe(true)
    const extents = await listOf(client.extents(BASE))
    expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(64 * MiB)
    expect(extents.at(-1)).toMatchObject({ flags: 3 })
  })

  test('sparse-random: its extents, joined over many answers, hold all that is not zero', async () => {
    const { socket } = await nbdkit('sparse-random', '128M', 'seed=1')
    const client = await connected({ socket }, { contexts: [BASE] })
    let at = 0
    let last = -1
    for (const { offset, length, flags } of await listOf(client.extents(BASE))) {
      expect(offset).toBe(at)
      expect(flags).not.toBe(last)
      if ((flags & 2) !== 0)
        expect((await client.read(offset, Math.min(length, MiB))).every((byte) => byte === 0)).toBe(true)
      at += length
      last = flags
    }
    expect(at).toBe(128 * MiB)
    const map = JSON.parse(await run('nbdinfo', '--map', '--json', `nbd+unix:///?socket=${socket}`))
    expect(tuples(await listOf(client.extents(BASE)))).toEqual(
      map.map(({ offset, length, type }: Record<string, number>) => [offset, length, type]),
    )
  })

  test('filters: no extents, no zeroes, blocks of 4 KiB', async () => {
    const none = await nbdkit('--filter=noextents', 'memory', '1M')
    const flat = await connected({ socket: none.socket }, { contexts: [BASE] })
    expect(tuples(await listOf(flat.extents(BASE)))).toEqual([[0, MiB, 0]])
    const nozero = await connected({ socket: (await nbdkit('--filter=nozero', 'memory', '1M')).socket })
    await expect(nozero.zero(0, 1)).rejects.toMatchObject({ errno: 'ENOTSUP' })
    const policy = await nbdkit(
      '--filter=blocksize-policy',
      'memory',
      '16M',
      'blocksize-minimum=4k',
      'blocksize-preferred=64k',
      'blocksize-maximum=1M',
      'blocksize-error-policy=error',
    )
    const blocks = await connected({ socket: policy.socket })
    expect(blocks.info.blockSize).toEqual({ minimum: 4096, preferred: 65_536, maximum: MiB })
    const data = randomFillSync(Buffer.alloc(5 * MiB))
    await blocks.write(4096, data)
    expect((await blocks.read(5000, 3 * MiB)).equals(data.subarray(904, 904 + 3 * MiB))).toBe(true)
    await expect(blocks.write(1, data)).rejects.toMatchObject({ code: 'NBD_UNALIGNED' })
    await blocks.zero(0, 16 * MiB)
    await blocks.trim(0, 16 * MiB)
  })

  test('errors that it makes up keep their errno, and the connection goes on', async () => {
    const { socket } = await nbdkit(
      '--filter=error',
      'memory',
      '1M',
      'error-pwrite=ENOSPC',
      'error-pread=EIO',
      'error-rate=50%',
    )
    const client = await connected({ socket })
    const reads = await Promise.allSettled(Array.from({ length: 100 }, (_, i) => client.read(i, 10)))
    const writes = await Promise.allSettled(
      Array.from({ length: 100 }, (_, i) => client.write(i, Buffer.alloc(10))),
    )
    for (const [all, errno] of [
      [reads, 'EIO'],
      [writes, 'ENOSPC'],
    ] as const) {
      const refused = all.filter((one) => one.status === 'rejected')
      expect(refused.length).toBeGreaterThan(0)
      expect(refused.length).toBeLessThan(100)
      for (const { reason } of refused) expect(reason).toMatchObject({ name: 'NbdError', errno })
    }
  })

  test('slow answers do not hold up each other', async () => {
    const { socket } = await nbdkit('--filter=delay', 'pattern', '1M', 'rdelay=100ms')
    const client = await connected({ socket })
    const all = await Promise.all(Array.from({ length: 64 }, (_, i) => client.read(i * 512, 512)))
    for (const [i, bytes] of all.entries()) expect(bytes.equals(pattern(i * 512, 512))).toBe(true)
    const stop = new AbortController()
    const read = client.read(0, 512, { signal: stop.signal })
    stop.abort()
    await expect(read).rejects.toMatchObject({ code: 'ABORTED' })
    expect((await client.read(8, 8)).equals(pattern(8, 8))).toBe(true)
  })

  test('refused: the handshake of before 2011, a read-only disk written to, contexts where there are none', async () => {
    await expect(connected({ socket: (await nbdkit('-o', 'memory', '1M')).socket })).rejects.toMatchObject({
      code: 'NBD_PROTOCOL',
      facts: { why: 'oldstyle' },
    })
    const readOnly = await connected({ socket: (await nbdkit('-r', 'memory', '1M')).socket })
    await expect(readOnly.write(0, Buffer.alloc(1))).rejects.toMatchObject({ errno: 'EPERM' })
    const { socket } = await nbdkit('--no-sr', 'memory', '1M')
    await expect(connected({ socket }, { contexts: [BASE] })).rejects.toMatchObject({
      code: 'NBD_CONTEXT_MISSING',
    })
    const bare = await nbdkit('--mask-handshake=0', 'memory', '1M')
    expect((await connected({ socket: bare.socket })).info.structured).toBe(false)
    await expect(connected({ socket: bare.socket }, { contexts: [BASE] })).rejects.toMatchObject({
      code: 'NBD_CONTEXT_MISSING',
    })
    await expect(listNbd({ socket: bare.socket })).rejects.toMatchObject({ code: 'NBD_PROTOCOL' })
  })
})

describeWithPeers(['qemu-nbd', 'qemu-img', 'qemu-io', 'nbdinfo'], 'qemu-nbd', () => {
  test('a raw image: odd sizes, read-only, exports by name', async () => {
    const image = join(folder(), 'disk.raw')
    const data = randomFillSync(Buffer.alloc(3 * MiB + 512))
    writeFileSync(image, data)
    const { socket } = await qemuNbd('-f', 'raw', '-x', 'vda', '-D', 'a disk', image)
    const client = await connected({ socket, name: 'vda' }, { contexts: [BASE] })
    expect(client.info).toMatchObject({ size: data.length, canFastZero: true, structured: true })
    expect((await client.read(1, data.length - 2)).equals(data.subarray(1, -1))).toBe(true)
    await client.write(13, Buffer.from('thirteen'), { fua: true })
    await client.zero(100, 1000)
    await client.cache(0, 512)
    await client.flush()
    expect((await client.read(13, 8)).toString()).toBe('thirteen')
    expect(await listNbd({ socket })).toEqual([{ name: 'vda', description: 'a disk' }])
    expect(await listNbdContexts({ socket, name: 'vda' })).toEqual([BASE])
    await expect(connected({ socket, name: 'vdb' })).rejects.toMatchObject({
      code: 'NBD_EXPORT_NOT_FOUND',
      facts: { name: 'vdb', listed: ['vda'] },
    })
    await expect(
      connected({ socket, name: 'vda' }, { contexts: ['qemu:dirty-bitmap:x'] }),
    ).rejects.toMatchObject({
      code: 'NBD_CONTEXT_MISSING',
      facts: { missing: ['qemu:dirty-bitmap:x'], listed: [BASE] },
    })
    const ro = await qemuNbd('-r', '-f', 'raw', image)
    const reader = await connected({ socket: ro.socket })
    expect(reader.info.readOnly).toBe(true)
    await expect(reader.trim(0, 512)).rejects.toMatchObject({ errno: 'ENOTSUP' })
    await expect(reader.write(0, Buffer.alloc(1))).rejects.toMatchObject({ errno: 'EPERM' })
  })

  test('a qcow2 image with holes and a bitmap: the map is what nbdinfo reads, the bytes come in pieces', async () => {
    const image = join(folder(), 'disk.qcow2')
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, '64M')
    await run('qemu-io', '-c', 'write -P 7 1M 64k', '-c', 'write -P 8 10M 4k', image)
    await run('qemu-img', 'bitmap', '--add', '-g', '64k', image, 'since')
    await run('qemu-io', '-c', 'write -P 9 5M 100k', '-c', 'write -z 20M 1M', image)
    const { socket } = await qemuNbd('-f', 'qcow2', '-B', 'since', image)
    const context = 'qemu:dirty-bitmap:since'
    const client = await connected({ socket }, { contexts: [BASE, context] })
    expect(tuples(await listOf(client.extents(context)))).toEqual([
      [0, 5 * MiB, 0],
      [5 * MiB, 131_072, 1],
      [5 * MiB + 131_072, 15 * MiB - 131_072, 0],
      [20 * MiB, MiB, 1],
      [21 * MiB, 43 * MiB, 0],
    ])
    for (const name of [BASE, context]) {
      const map = JSON.parse(await run('nbdinfo', `--map=${name}`, '--json', `nbd+unix:///?socket=${socket}`))
      expect(tuples(await listOf(client.extents(name)))).toEqual(
        map.map(({ offset, length, type }: Record<string, number>) => [offset, length, type]),
      )
    }
    const bytes = await client.read(0, 32 * MiB)
    const model = Buffer.alloc(32 * MiB)
      .fill(7, MiB, MiB + 65_536)
      .fill(8, 10 * MiB, 10 * MiB + 4096)
      .fill(9, 5 * MiB, 5 * MiB + 102_400)
    expect(bytes.equals(model)).toBe(true)
    const one = await client.blockStatus(0, 64 * MiB, { one: true })
    expect(tuples(one.get(context)!)).toEqual([[0, 5 * MiB, 0]])
  })
})

describeWithPeers(['qemu-storage-daemon', 'qemu-img'], 'qemu-storage-daemon', () => {
  test('a bitmap that goes on recording is read live', async () => {
    const at = folder()
    const image = join(at, 'disk.qcow2')
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, '16M')
    await run('qemu-img', 'bitmap', '--add', '-g', '64k', image, 'live')
    const socket = join(at, 'd.sock')
    await started(
      'qemu-storage-daemon',
      socket,
      '--blockdev',
      `driver=file,node-name=f,filename=${image}`,
      '--blockdev',
      'driver=qcow2,node-name=d,file=f',
      '--nbd-server',
      `addr.type=unix,addr.path=${socket}`,
      '--export',
      'type=nbd,id=e,node-name=d,name=vm/vda,writable=on,bitmaps.0=live',
    )
    const context = 'qemu:dirty-bitmap:live'
    const client = await connected({ uri: `nbd+unix:///vm%2Fvda?socket=${socket}` }, { contexts: [context] })
    expect(tuples(await listOf(client.extents(context)))).toEqual([[0, 16 * MiB, 0]])
    await client.write(MiB - 1, Buffer.alloc(2, 1))
    await client.zero(2 * MiB, 1)
    expect(tuples(await listOf(client.extents(context, { length: 3 * MiB })))).toEqual([
      [0, MiB - 65_536, 0],
      [MiB - 65_536, 131_072, 1],
      [MiB + 65_536, MiB - 65_536, 0],
      [2 * MiB, 65_536, 1],
      [2 * MiB + 65_536, MiB - 65_536, 0],
    ])
    await client.flush()
  })
})

describe('canary', () => {
  test('the pattern is what nbdkit documents: a byte off is seen', () => {
    expect(pattern(8, 8).toString('hex')).toBe('0000000000000008')
    expect(pattern(9, 8).equals(pattern(8, 8))).toBe(false)
  })
})
