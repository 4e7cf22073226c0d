/**
 * The same requests, byte for byte, into a real QEMU and into our server: afterwards every dirty map is the same, and so are
 * QEMU's own digest of its bits and ours, and the bytes. A bitmap that QEMU has from a moment on is our map since a checkpoint.
 */
import { expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { Nbd, type NbdRange } from '../support/qemu/nbd.ts'
import { besideQemu, type Request, type Sides } from './beside-qemu-support.ts'
import { KiB } from './disk-support.ts'

const GRANULARITIES = [512, 4 * KiB, 64 * KiB, 1024 * KiB]
const DIRTY = 'qemu:dirty-bitmap:'

type Random = () => number
const below = (random: Random, n: number) => Math.floor(random() * n)

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

async function mapOf(socket: string, name: string): Promise<NbdRange[]> {
  const nbd = await Nbd.connect(socket, 'vda', [DIRTY + name])
  const map = (await nbd.status([DIRTY + name])).get(DIRTY + name)!
  await nbd.disconnect()
  return map
}

async function sideBySide(sides: Sides, random: Random, size: number, steps: number): Promise<number> {
  const { qemu, client, disk, socket } = sides
  const undefinedBytes = new Uint8Array(size)
  const bitmaps: string[] = []
  const add = async (granularity: number) => {
    const name = `b${bitmaps.length}`
    bitmaps.push(name)
    await sides.addBitmap({ name, granularity })
  }
  for (const granularity of GRANULARITIES) await add(granularity)
  for (let step = 0; step < steps; step++) {
    if (step % 40 === 39) await add(GRANULARITIES[below(random, GRANULARITIES.length)]!)
    const one = request(random, size)
    await sides.sendToBoth(one)
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
    for (let round = 0; round < rounds; round++) {
      const size = 512 * (3000 + below(random, 5000))
      compared += await besideQemu(size, (sides) => sideBySide(sides, random, size, 250))
    }
    process.stderr.write(`proof: the same traffic: ${rounds * 250} requests, ${compared} bitmaps compared\n`)
    expect(compared).toBeGreaterThan(rounds * GRANULARITIES.length)
  })
})
