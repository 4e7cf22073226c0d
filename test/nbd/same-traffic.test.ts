/**
 * The same requests, byte for byte, into a real QEMU and into our server: afterwards every dirty map is the same, and so are
 * QEMU's own digest of its bits and ours, and the bytes. A bitmap that QEMU has from a moment on is our map since a checkpoint.
 */
import { truncateSync, writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { openStore, serveNbd } from '../../src/index.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { NODE, QemuDaemon } from '../support/qemu/daemon.ts'
import { Nbd, type NbdRange } from '../support/qemu/nbd.ts'
import { folder, KiB } from './disk-support.ts'

const GRANULARITIES = [512, 4 * KiB, 64 * KiB, 1024 * KiB]
const DIRTY = 'qemu:dirty-bitmap:'
const place = folder()
afterAll(() => place.remove())

type Random = () => number
const below = (random: Random, n: number) => Math.floor(random() * n)

interface Request {
  readonly op: 'write' | 'zero' | 'trim' | 'flush'
  readonly offset: number
  readonly length: number
  readonly flags: number
}

/** Small and large, at odd places and at the very end. */
function request(random: Random, size: number): Request {
  const length = 1 + below(random, [1, 700, 9000, 200 * KiB][below(random, 4)]!)
  const offset = random() < 0.1 ? size - length : below(random, size - length + 1)
  const kind = random()
  const fua = random() < 0.05 ? 1 : 0
  if (kind < 0.5) return { op: 'write', offset, length, flags: fua }
  if (kind < 0.8) return { op: 'zero', offset, length, flags: fua | (random() < 0.5 ? 2 : 0) }
  if (kind < 0.95) return { op: 'trim', offset, length, flags: fua }
  return { op: 'flush', offset: 0, length: 0, flags: 0 }
}

async function send(nbd: Nbd, { op, offset, length, flags }: Request): Promise<void> {
  switch (op) {
    case 'write':
      return await nbd.write(offset, length, flags)
    case 'zero':
      return await nbd.writeZeroes(offset, length, flags)
    case 'trim':
      return await nbd.trim(offset, length, flags)
    case 'flush':
      return await nbd.flush()
    default:
      return op satisfies never
  }
}

async function mapOf(socket: string, name: string): Promise<NbdRange[]> {
  const nbd = await Nbd.connect(socket, 'vda', [DIRTY + name])
  const map = (await nbd.status([DIRTY + name])).get(DIRTY + name)!
  await nbd.disconnect()
  return map
}

async function sideBySide(random: Random, name: string, steps: number): Promise<number> {
  const size = 512 * (3000 + below(random, 5000))
  const qemu = await QemuDaemon.start('raw', size)
  const store = await openStore(place.path(name))
  const file = place.path(`${name}.raw`)
  writeFileSync(file, '')
  truncateSync(file, size)
  const socket = place.path(`${name}.sock`)
  const ours = await serveNbd(store, { disks: [{ disk: 'vda', file }], socket })
  const client = await Nbd.connect(socket, 'vda')
  try {
    const disk = store.disk('vda')
    const undefinedBytes = new Uint8Array(size)
    const bitmaps: string[] = []
    const add = async (granularity: number) => {
      const bitmap = `b${bitmaps.length}`
      bitmaps.push(bitmap)
      await qemu.qmp.execute('block-dirty-bitmap-add', { node: NODE, name: bitmap, granularity })
      await store.createCheckpoint(`mark-${bitmap}`)
      await disk.addBitmap(bitmap, { granularity })
    }
    for (const granularity of GRANULARITIES) await add(granularity)
    for (let step = 0; step < steps; step++) {
      if (step % 40 === 39) await add(GRANULARITIES[below(random, GRANULARITIES.length)]!)
      const one = request(random, size)
      await Promise.all([send(qemu.nbd, one), send(client, one)])
      undefinedBytes.fill(one.op === 'trim' ? 1 : 0, one.offset, one.offset + one.length)
    }
    const extents = await qemu.extents(bitmaps)
    for (const bitmap of bitmaps) {
      const theirs = extents.get(bitmap)
      expect([bitmap, await mapOf(socket, bitmap)]).toEqual([bitmap, theirs])
      expect([bitmap, await mapOf(socket, `${bitmap}@checkpoint=mark-${bitmap}`)]).toEqual([bitmap, theirs])
      expect((await disk.bitmap(bitmap).bits()).digest).toBe(await qemu.digest(bitmap))
    }
    const [theirBytes, ourBytes] = await Promise.all([qemu.nbd.read(0, size), client.read(0, size)])
    const wrong = ourBytes.findIndex((byte, at) => byte !== theirBytes[at] && undefinedBytes[at] === 0)
    expect(wrong, 'the first byte that differs').toBe(-1)
    return bitmaps.length
  } finally {
    await client.disconnect()
    await ours.close()
    await store.close()
    await qemu.stop()
  }
}

describeWithPeers(['qemu-storage-daemon'], 'a real QEMU', () => {
  test('R1, R2, R5, R31: the same traffic leaves the same dirty maps, digests and bytes in a real QEMU and in ours', {
    timeout: 3_600_000,
  }, async () => {
    const rounds = runs(4, 150)
    const used = seed()
    const random = prng(used)
    announce('the same traffic into QEMU', rounds, used)
    let compared = 0
    for (let round = 0; round < rounds; round++) compared += await sideBySide(random, `same-${round}`, 250)
    process.stderr.write(`proof: the same traffic: ${rounds * 250} requests, ${compared} bitmaps compared\n`)
    expect(compared).toBeGreaterThan(rounds * GRANULARITIES.length)
  })
})
