/**
 * Random writes, zeroes and trims of any size, many at a time, with points taken in between, against a byte array and a set of
 * granules: what is read is what was written, and each map is exactly what was touched since its point.
 */
import { truncateSync, writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { openStore } from '../../src/index.ts'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { dirtyGranules, folder, KiB } from './disk-support.ts'

const GRANULE = 4 * KiB
const place = folder()
afterAll(() => place.remove())

type Random = () => number
const below = (random: Random, n: number) => Math.floor(random() * n)

/** One span of time: its name as a context, and the granules that were touched in it. */
interface Naive {
  readonly name: string
  readonly touched: Set<number>
}

async function oneHistory(random: Random, name: string): Promise<{ requests: number; maps: number }> {
  const size = 64 * KiB + below(random, 40 * GRANULE)
  const file = place.path(`${name}.raw`)
  writeFileSync(file, '')
  truncateSync(file, size)
  const store = await openStore(place.path(name))
  const disk = await ServedDisk.open(store, { disk: 'vda', file })
  const bitmap = await store.disk('vda').addBitmap('daily', { granularity: GRANULE, retention: 100 })
  const model = Buffer.alloc(size)
  const slices: Naive[] = [{ name: 'daily@since=0', touched: new Set() }]
  const marks: Naive[] = []
  let requests = 0
  for (let round = 0; round < 12; round++) {
    // A round's requests do not overlap: NBD promises no order among requests that are under way.
    let at = 0
    const burst: Promise<void>[] = []
    while (at < size && burst.length < 24) {
      const offset = Math.min(at + below(random, 3 * GRANULE), size - 1)
      const length = Math.min(size - offset, 1 + below(random, random() < 0.5 ? 16 : 3 * GRANULE))
      at = offset + length
      burst.push(one(disk, model, offset, length, random))
      for (let granule = Math.floor(offset / GRANULE); granule * GRANULE < offset + length; granule++)
        for (const { touched } of [slices.at(-1)!, ...marks]) touched.add(granule)
      requests++
    }
    await Promise.all(burst)
    if (random() < 0.2) await disk.flush()
    const kind = random()
    if (kind < 0.3) {
      const { slice } = await bitmap.bank()
      expect(slice).toBe(slices.length - 1)
      slices.push({ name: `daily@since=${slices.length}`, touched: new Set() })
    } else if (kind < 0.6) {
      await store.createCheckpoint(`mark-${round}`)
      marks.push({ name: `daily@checkpoint=mark-${round}`, touched: new Set() })
    }
  }
  expect(Buffer.from(await disk.read(0, size)).equals(model), 'the bytes').toBe(true)
  const from = (first: number) => new Set(slices.slice(first).flatMap(({ touched }) => [...touched]))
  const expected: Naive[] = [
    { name: 'daily', touched: slices.at(-1)!.touched },
    ...slices.map((_, first) => ({ name: `daily@since=${first}`, touched: from(first) })),
    ...slices.slice(1).map(({ touched: _ }, i) => ({
      name: `daily@between=${i}..${i + 1}`,
      touched: slices[i]!.touched,
    })),
    ...marks,
  ]
  for (const { name: map, touched } of expected) {
    const context = await disk.context(`qemu:dirty-bitmap:${map}`)
    const got = await dirtyGranules(context, size, GRANULE, 1 + below(random, 5))
    expect([map, got]).toEqual([map, [...touched].sort((a, b) => a - b)])
  }
  await disk.close()
  await store.close()
  return { requests, maps: expected.length }
}

async function one(disk: ServedDisk, model: Buffer, offset: number, length: number, random: Random) {
  const fua = random() < 0.05
  const kind = random()
  if (kind < 0.6) {
    const data = Buffer.alloc(length, 1 + below(random, 255))
    model.set(data, offset)
    await disk.write(offset, data, fua)
  } else if (kind < 0.85) {
    model.fill(0, offset, offset + length)
    await disk.writeZeroes(offset, length, { fua, noHole: random() < 0.5 })
  } else await disk.trim(offset, length, fua) // The bytes stay.
}

test('R2, R5, R11, R31: after random traffic the bytes are those of a byte array, and every map is what was touched since', {
  timeout: 3_600_000,
}, async () => {
  const rounds = runs(25, 1500)
  const used = seed()
  const random = prng(used)
  announce('served disk against a byte array', rounds, used)
  let requests = 0
  let maps = 0
  for (let round = 0; round < rounds; round++) {
    const done = await oneHistory(random, `history-${round}`)
    requests += done.requests
    maps += done.maps
  }
  process.stderr.write(`proof: served disk: ${requests} requests, ${maps} maps compared\n`)
  expect(maps).toBeGreaterThan(rounds)
})
