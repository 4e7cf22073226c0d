/**
 * Zeroes and discards at odd places, into a real QEMU and into our server, on disks whose size is no multiple of the granularity: QEMU's
 * own digest of its bits is ours (R5), what it counts is what we count, and a bitmap of ours that is added late agrees too.
 */
import { expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import type { Nbd } from '../support/qemu/nbd.ts'
import { besideQemu, type Request, type Sides, send } from './beside-qemu-support.ts'
import { KiB } from './disk-support.ts'

const MiB = 1024 * KiB
/** Sectors are whole, since QEMU's raw disks are rounded up to them; granules are not. */
const SIZES = [5 * MiB + 512, 3 * MiB - 512, 64 * KiB + 512, 2 * MiB + 64 * KiB + 1536, 512]
const GRANULARITIES = [512, 64 * KiB, MiB]
const NO_HOLE = 2

type Random = () => number

/** Ends of granules and of the disk, one byte to either side of them, and the length between two such places. */
function change(random: Random, size: number): Request {
  const below = (n: number) => Math.floor(random() * n)
  const edge = (): number => {
    if (random() < 0.2) return size
    const granularity = GRANULARITIES[below(GRANULARITIES.length)]!
    const at = granularity * below(Math.floor(size / granularity) + 1)
    return Math.min(size, Math.max(0, at + [-513, -1, 0, 0, 1, 512][below(6)]!))
  }
  const [a, b] = [edge(), random() < 0.5 ? edge() : below(size + 1)]
  const offset = Math.min(a, b)
  // Most are short, else all is dirty at once. Some have no length, which is legal and changes nothing.
  const length = Math.min(Math.abs(a - b), random() < 0.9 ? below(3000) : size)
  const op = (['zero', 'zero', 'trim', 'trim', 'write'] as const)[below(5)]!
  const flags = (random() < 0.1 ? 1 : 0) | (op === 'zero' && random() < 0.5 ? NO_HOLE : 0)
  return { op, offset, length, flags }
}

/** Both refuse it with the same number, and neither has anything dirty of it: the digests that follow tell. */
async function refusedByBoth(qemu: Nbd, ours: Nbd, one: Request): Promise<void> {
  const errno = (nbd: Nbd) =>
    send(nbd, one).then(
      () => 0,
      (error: { errno: number }) => error.errno,
    )
  const [theirs, here] = await Promise.all([errno(qemu), errno(ours)])
  expect([one, here]).toEqual([one, theirs])
  expect(here).not.toBe(0)
}

async function sideBySide(sides: Sides, random: Random, size: number, steps: number): Promise<number> {
  const { qemu, client, disk } = sides
  let compared = 0
  const bitmaps: { name: string; granularity: number }[] = []
  const add = async (granularity: number) => {
    const bitmap = { name: `b${bitmaps.length}`, granularity }
    await sides.addBitmap(bitmap)
    bitmaps.push(bitmap)
  }
  const compare = async () => {
    const theirs = await qemu.bitmaps()
    for (const { name, granularity } of bitmaps) {
      const digest = await qemu.digest(name)
      const bits = await disk.bitmap(name).bits()
      expect([size, name, bits.digest]).toEqual([size, name, digest])
      expect([size, name, bits.count]).toEqual([size, name, theirs.find((one) => one.name === name)!.count])
      const changed = await disk.changed({ since: { checkpoint: `mark-${name}` }, granularity })
      expect([size, name, changed.digest]).toEqual([size, name, digest])
      compared++
    }
  }
  for (const granularity of GRANULARITIES) await add(granularity)
  for (let step = 1; step <= steps; step++) {
    const one = change(random, size)
    await sides.sendToBoth(one)
    if (step % 10 === 0) {
      const beyond = { ...one, offset: Math.max(0, size - one.length + 1), length: Math.max(1, one.length) }
      await refusedByBoth(qemu.nbd, client, {
        ...beyond,
        offset: Math.max(beyond.offset, size - beyond.length + 1),
      })
    }
    if (step % 30 === 0) await compare()
    if (step % 60 === 0) for (const granularity of GRANULARITIES) await add(granularity)
  }
  await compare()
  return compared
}

describeWithPeers(['qemu-storage-daemon'], 'odd ends beside a real QEMU', () => {
  test.each(SIZES)(
    'R1, R2, R5: zeroes and discards on %d bytes leave the bits that a real QEMU has, at 512, 64 KiB and 1 MiB',
    {
      timeout: 3_600_000,
    },
    async (size) => {
      const [rounds, steps] = [runs(1, 40), 120]
      const used = seed()
      announce(`zeroes and discards into QEMU, ${size} bytes`, rounds * steps, used)
      const random = prng(used)
      for (let round = 0; round < rounds; round++) {
        const compared = await besideQemu(size, (sides) => sideBySide(sides, random, size, steps))
        expect(compared).toBeGreaterThan(0)
      }
    },
  )
})
