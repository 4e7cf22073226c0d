/**
 * Every write of a real Linux guest, cut into ten parts: each part's slice, and the plan since each cut, must be what a
 * real QEMU made of the same writes, at three granularities at once (counts and digests in guest-ext4.expect.json).
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { beforeAll, describe, expect, test } from 'vitest'
import { type Disk, openMemoryStore, type Store, type WriteRange } from '../../src/index.ts'

interface Bits {
  readonly count: number
  readonly sha256: string
}

interface Part {
  readonly slice: number
  readonly first_line: number
  readonly last_line: number
  readonly bitmaps: Readonly<Record<string, Bits>>
  readonly since: Readonly<Record<string, Bits>>
}

const file = (path: string) => readFileSync(new URL(path, import.meta.url))
const expected = JSON.parse(file('../fixtures/guest-ext4.expect.json').toString()) as {
  disk_size: number
  slices: readonly Part[]
}
const GRANULARITIES = [4096, 65_536, 1_048_576]
const OPS = { w: 'write', z: 'zero', t: 'discard' } as const

/** Data lines, the header not counted; a flush is a line of length 0, which dirties nothing (R1). */
function guestLines(): WriteRange[] {
  const text = gunzipSync(file('../../examples/data/guest-ext4.csv.gz')).toString()
  return text
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => {
      const [offset, length, , op] = line.split(',') as [string, string, string, keyof typeof OPS]
      return { offset: Number(offset), length: Number(length), op: OPS[op] ?? 'write' }
    })
}

describe("a guest's trace", () => {
  let store: Store
  let disk: Disk
  /** The log's position at each cut's start. */
  const starts: number[] = []

  beforeAll(async () => {
    const lines = guestLines()
    expect(lines).toHaveLength(expected.slices.at(-1)!.last_line)
    store = await openMemoryStore()
    disk = await store.ensureDisk('guest', { size: expected.disk_size })
    for (const granularity of GRANULARITIES)
      await disk.addBitmap(`g${granularity}`, { granularity, retention: 10 })
    for (const part of expected.slices) {
      starts.push(store.head.position)
      await disk.recordWrites(lines.slice(part.first_line - 1, part.last_line))
      for (const granularity of GRANULARITIES) await disk.bitmap(`g${granularity}`).bank()
    }
    return () => store.close()
  })

  test.each(GRANULARITIES)(
    'R2, R5, R17: each tenth banked at granularity %i is the slice that QEMU froze',
    async (granularity) => {
      const { slices } = await disk.bitmap(`g${granularity}`).slices()
      const own = slices.map(({ slice, count, digest }) => ({ slice, count, sha256: digest }))
      expect(own).toEqual(expected.slices.map(({ slice, bitmaps }) => ({ slice, ...bitmaps[granularity] })))
    },
  )

  test.each(GRANULARITIES)(
    'R11, R25: a plan since each tenth at granularity %i is the union that QEMU merged',
    async (granularity) => {
      const bitmap = `g${granularity}`
      for (const { slice, since } of expected.slices) {
        const plan = await store.plan({ disk: 'guest', bitmap, mode: 'differential', since: { slice } })
        expect([slice, plan.digest, plan.complete]).toEqual([slice, since[granularity]!.sha256, true])
        // The disk is a whole number of granules, so no count is cut at its end.
        expect(plan.bytes).toBe(since[granularity]!.count)
      }
    },
  )

  test.each(GRANULARITIES)(
    'R23, R24: the log alone gives the same union since a bare position, at granularity %i',
    async (granularity) => {
      for (const { slice, since } of expected.slices) {
        const changed = await disk.changed({ since: { position: starts[slice]! }, granularity })
        expect([slice, changed.digest, changed.complete]).toEqual([slice, since[granularity]!.sha256, true])
      }
    },
  )

  test('R16: deleting every second point leaves each remaining union bit-identical', async () => {
    const bitmap = disk.bitmap('g65536')
    for (const slice of [1, 3, 5, 7, 9]) await bitmap.deleteSlice(slice)
    for (const { slice, since } of expected.slices.filter((part) => part.slice % 2 === 0)) {
      const plan = await store.plan({
        disk: 'guest',
        bitmap: 'g65536',
        mode: 'differential',
        since: { slice },
      })
      expect([slice, plan.digest]).toEqual([slice, since[65_536]!.sha256])
    }
  })
})
