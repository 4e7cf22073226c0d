/**
 * Two scenarios of QEMU's own test suite (124 and 236), on the store alone, against the contents and digests that a
 * real QEMU 7.2.22 had at the same steps.
 */
import { beforeEach, describe, expect, test } from 'vitest'
import { type Backup, type Bitmap, type Disk, openMemoryStore, type Store } from '../../src/index.ts'
import { KiB, MiB } from '../../src/limits.ts'

const BATCH_1 = [
  { offset: 0, length: 512 },
  { offset: 16 * MiB, length: 256 * KiB },
  { offset: 32_736 * KiB, length: 64 * KiB },
]
const BATCH_2 = [
  { offset: 0, length: 512 },
  { offset: 8 * MiB, length: 352 * KiB },
  { offset: 15_872 * KiB, length: MiB },
]

/** Granules and digest of batch 1, batch 2 and both, per granularity. */
const CONTENTS = [
  {
    granularity: 32 * KiB,
    batch1: [11, 'dd51decc67bd613d3334cee40a047a2ddb3339f409259434fc2a15f3d2aa6ad8'],
    batch2: [44, '280101332c37177d6dd3c6fedd565cd9086f17f90f44c14eda25da64ffead52b'],
    union: [46, '18639ae2304f1042ac9401b57bd8699720e9260b8f91f1f719904c0615ff9e6c'],
  },
  {
    granularity: 64 * KiB,
    batch1: [7, 'b989ff83b290b7753a3d4e47a0ac769cb190bb0949f49a873eb2f67eb254a66b'],
    batch2: [23, '16c61825311ecbfd61770447d5bef534b6809d8362e46a9e8a17274e92544dac'],
    union: [25, 'b473d4864000e6707d9a0a3c7448fbd9f3f40f7a31230812454798012e8fece4'],
  },
  {
    granularity: 128 * KiB,
    batch1: [5, 'b490e5bcb4440d10738b8b53baec59f6dd7f8eecf616f4c8e00642f03cefdad4'],
    batch2: [12, 'dc447b3af7839fea3993cc294c25b35245c4e48727ec244312d4aaf1cd1e86f5'],
    union: [14, '9516d21706972cd575f1f8457a7709c6684ee20de6484ce8034adddabd273d52'],
  },
] as const
const AT_64K = CONTENTS[1]

let store: Store
let disk: Disk

beforeEach(async () => {
  store = await openMemoryStore()
  disk = await store.ensureDisk('drive0', { size: 64 * MiB })
})

async function content(bitmap: Bitmap): Promise<readonly [number, string]> {
  const { count, digest, granularity } = await bitmap.bits()
  return [count / granularity, digest]
}

function incremental(on: Disk, bitmap: string): Promise<Backup> {
  return on.beginBackup({ bitmap, mode: 'incremental' })
}

/** Dirty granules by number, from the extents (which are cut at the end of the disk). */
async function granules(bitmap: Bitmap): Promise<number[]> {
  const { extents, granularity } = await bitmap.bits()
  return extents.flatMap(([offset, length]) =>
    Array.from({ length: Math.ceil(length / granularity) }, (_, i) => offset / granularity + i),
  )
}

describe("QEMU's test 124", () => {
  test.each(CONTENTS)(
    'R2, R5, R9: incrementals at granularity $granularity copy just what was written since',
    async (wanted) => {
      const { granularity } = wanted
      const daily = await disk.addBitmap('daily', { granularity })
      const hollow = await incremental(disk, 'daily')
      expect([hollow.plan.bytes, hollow.plan.extents]).toEqual([0, []])
      await hollow.succeed()
      for (const [batch, [count, digest]] of [
        [BATCH_1, wanted.batch1],
        [BATCH_2, wanted.batch2],
      ] as const) {
        await disk.recordWrites(batch)
        expect(await content(daily)).toEqual([count, digest])
        const backup = await incremental(disk, 'daily')
        expect([backup.plan.bytes, backup.plan.digest]).toEqual([count * granularity, digest])
        expect((await backup.succeed()).slice).toBeNull()
        expect((await content(daily))[0]).toBe(0)
      }
    },
  )

  test.each(CONTENTS)(
    'R10: a failed incremental at granularity $granularity keeps its bits for the next one',
    async (wanted) => {
      const daily = await disk.addBitmap('daily', { granularity: wanted.granularity })
      await disk.recordWrites(BATCH_1)
      const failing = await incremental(disk, 'daily')
      await failing.fail('Input/output error')
      expect(await content(daily)).toEqual(wanted.batch1)
      await disk.recordWrites(BATCH_2)
      expect(await content(daily)).toEqual(wanted.union)
      const backup = await incremental(disk, 'daily')
      expect(backup.plan.digest).toBe(wanted.union[1])
      await backup.succeed()
      expect((await content(daily))[0]).toBe(0)
    },
  )

  test('R20: one transaction clears both bitmaps and begins a full backup, so both see only what came after', async () => {
    const early = await disk.addBitmap('bm0', {})
    await disk.recordWrites(BATCH_1)
    const late = await disk.addBitmap('bm1', {})
    expect([(await content(early))[0], (await content(late))[0]]).toEqual([7, 0])
    await store.transaction([
      { type: 'clear-bitmap', disk: 'drive0', bitmap: 'bm0' },
      { type: 'clear-bitmap', disk: 'drive0', bitmap: 'bm1' },
      { type: 'begin-backup', backup: 'base', disk: 'drive0', bitmap: 'bm0', mode: 'copy' },
    ])
    await store.backup('base').succeed()
    await disk.recordWrites(BATCH_2)
    expect([await content(early), await content(late)]).toEqual([AT_64K.batch2, AT_64K.batch2])
  })

  test('R14: begun individually, one disk keeps its bits when its backup fails and the other does not', async () => {
    const [first, second, backups] = await twoDisks('individual')
    await backups[0]!.succeed()
    await backups[1]!.fail('Input/output error')
    expect([(await content(first))[0], await content(second)]).toEqual([0, AT_64K.batch1])
  })

  test('R14: begun as a group, one failure keeps the bits of both disks, and a second try forgets both', async () => {
    const [first, second, backups] = await twoDisks('grouped')
    expect((await backups[0]!.succeed()).state).toBe('pending')
    await backups[1]!.fail('Input/output error')
    expect([await content(first), await content(second)]).toEqual([AT_64K.batch1, AT_64K.batch1])
    const again = await store.beginBackups(requests(), { completion: 'grouped' })
    await again[0]!.succeed()
    expect((await again[1]!.succeed()).state).toBe('succeeded')
    expect([(await content(first))[0], (await content(second))[0]]).toEqual([0, 0])
  })

  test('R4: a granularity of 64000 and an unknown bitmap are refused with QEMU texts', async () => {
    await expect(disk.addBitmap('bad', { granularity: 64_000 })).rejects.toMatchObject({
      code: 'GRANULARITY_INVALID',
    })
    await expect(disk.beginBackup({ bitmap: 'bitmap404', mode: 'incremental' })).rejects.toMatchObject({
      code: 'BITMAP_NOT_FOUND',
    })
  })

  test('R7: after growing from 64 to 65 MiB a write there dirties exactly granule 1024', async () => {
    const daily = await disk.addBitmap('daily', {})
    await disk.resize(65 * MiB)
    await disk.recordWrites([{ offset: 64 * MiB, length: 64 * KiB }])
    expect(await granules(daily)).toEqual([1024])
  })

  function requests() {
    return ['drive0', 'drive1'].map((id) => ({ disk: id, bitmap: 'daily', mode: 'incremental' as const }))
  }

  async function twoDisks(completion: 'individual' | 'grouped'): Promise<[Bitmap, Bitmap, Backup[]]> {
    const other = await store.ensureDisk('drive1', { size: 64 * MiB })
    const bitmaps = [await disk.addBitmap('daily', {}), await other.addBitmap('daily', {})] as const
    await disk.recordWrites(BATCH_1)
    await other.recordWrites(BATCH_1)
    return [...bitmaps, await store.beginBackups(requests(), { completion })]
  }
})

describe("QEMU's test 236", () => {
  const SHA_A = '7abe3d7e3c794cfaf9b08bc9ce599192c96a2206f07b42d9997ff78fdd7af744'
  const SHA_B = '3b7b88c192165a0a4640a3c1ef9226de9a5eb4530922c421157fb01ea35cb70a'
  const SHA_C = '0fe44ee8099aee1ec60ac068ecd0b1f16452fd202ae8c9d96cf640ca6ce1b918'
  const FIRST = [0, 0x100000, 0x2000000, 0x3ff0000]
  const SECOND = [0, 0xf8000, 0x2008000, 0x3fe0000]

  const add = (bitmap: string, disabled = false) =>
    ({ type: 'add-bitmap', disk: 'drive0', bitmap, disabled }) as const
  const merge = (bitmap: string, ...sources: string[]) =>
    ({
      type: 'merge-bitmaps',
      disk: 'drive0',
      bitmap,
      sources: sources.map((name) => ({ disk: 'drive0', bitmap: name })),
    }) as const
  const one = (verb: 'enable' | 'disable' | 'clear' | 'remove', bitmap: string) =>
    ({ type: `${verb}-bitmap`, disk: 'drive0', bitmap }) as const
  const write = (offsets: readonly number[]) =>
    disk.recordWrites(offsets.map((offset) => ({ offset, length: 64 * KiB })))
  const names = () => disk.bitmaps().map((info) => info.bitmap)

  test('R4, R5, R20, R21: slice B joined with slice C is what A collected all along, bit for bit as in QEMU', async () => {
    await disk.addBitmap('A', {})
    await disk.addBitmap('B', {})
    await write(FIRST)
    expect(await granules(disk.bitmap('A'))).toEqual([0, 16, 512, 1023])

    const head = store.head
    const aborted = store.transaction([one('disable', 'B'), add('C'), one('clear', 'A'), { type: 'abort' }])
    await expect(aborted).rejects.toMatchObject({ code: 'TRANSACTION_ABORTED' })
    expect([store.head, names()]).toEqual([head, ['A', 'B']])
    expect(disk.bitmap('B').info.recording).toBe(true)
    expect((await disk.bitmap('A').bits()).count).toBe(262_144)

    await store.transaction([one('disable', 'B'), add('C'), one('disable', 'C'), one('enable', 'C')])
    await write(SECOND)
    await store.transaction([one('disable', 'A'), one('disable', 'C')])
    expect(await granules(disk.bitmap('A'))).toEqual([0, 15, 16, 512, 513, 1022, 1023])
    expect(await granules(disk.bitmap('C'))).toEqual([0, 15, 16, 512, 513, 1022])
    expect((await disk.bitmap('B').bits()).count).toBe(262_144)

    const again = store.transaction([add('D'), merge('D', 'B', 'C'), { type: 'abort' }])
    await expect(again).rejects.toMatchObject({ code: 'TRANSACTION_ABORTED' })
    expect(names()).toEqual(['A', 'B', 'C'])

    await store.transaction([add('D', true), merge('D', 'B', 'C')])
    expect(await content(disk.bitmap('A'))).toEqual([7, SHA_A])
    expect(await content(disk.bitmap('D'))).toEqual([7, SHA_A])
    expect(await content(disk.bitmap('B'))).toEqual([4, SHA_B])
    expect(await content(disk.bitmap('C'))).toEqual([6, SHA_C])

    await store.transaction([one('remove', 'A'), one('remove', 'B'), one('remove', 'C'), one('remove', 'D')])
    expect(names()).toEqual([])
  })

  test('R17, R11: the same with one bitmap whose slices are banked: since slice 0 is slice 0 joined with α', async () => {
    const bitmap = await disk.addBitmap('daily', { retention: 2 })
    await write(FIRST)
    expect((await bitmap.bank()).slice).toBe(0)
    await write(SECOND)
    expect((await bitmap.bits({ slice: 0 })).digest).toBe(SHA_B)
    expect((await bitmap.bits()).digest).toBe(SHA_C)
    const plan = await store.plan({
      disk: 'drive0',
      bitmap: 'daily',
      mode: 'differential',
      since: { slice: 0 },
    })
    expect([plan.digest, plan.bytes]).toEqual([SHA_A, 458_752])
    expect(plan.extents).toEqual([
      { offset: 0, length: 65_536 },
      { offset: 983_040, length: 131_072 },
      { offset: 33_554_432, length: 131_072 },
      { offset: 66_977_792, length: 131_072 },
    ])
  })
})

describe('which of two refusals a merge gives', () => {
  const merge = (...sources: string[]) => disk.bitmap('held').merge(sources.map((bitmap) => ({ bitmap })))

  beforeEach(async () => {
    await disk.addBitmap('held', {})
    await disk.addBitmap('other', {})
    await incremental(disk, 'held')
  })

  test('R4, R6: QEMU looks for a source before it minds a busy target, and goes source by source', async () => {
    await expect(merge('missing')).rejects.toMatchObject({ code: 'BITMAP_NOT_FOUND' })
    await expect(merge('missing', 'other')).rejects.toMatchObject({ code: 'BITMAP_NOT_FOUND' })
    await expect(merge('other', 'missing')).rejects.toMatchObject({ code: 'BITMAP_BUSY' })
    await expect(merge('other')).rejects.toMatchObject({ code: 'BITMAP_BUSY' })
  })

  test('R6, R20: the same for a target that the transaction removes at its end; from nothing, busy is busy', async () => {
    const target = { disk: 'drive0', bitmap: 'other' } as const
    const remove = { type: 'remove-bitmap', ...target } as const
    const removing = (...names: string[]) =>
      store.transaction([
        remove,
        { type: 'merge-bitmaps', ...target, sources: names.map((bitmap) => ({ disk: 'drive0', bitmap })) },
      ])
    await expect(removing('missing')).rejects.toMatchObject({ code: 'BITMAP_NOT_FOUND' })
    await expect(removing('other')).rejects.toMatchObject({ code: 'BITMAP_BUSY' })
    await expect(removing()).rejects.toMatchObject({ code: 'BITMAP_BUSY' })
    await expect(merge()).rejects.toMatchObject({ code: 'BITMAP_BUSY' })
  })
})
