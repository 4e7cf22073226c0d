/** Cases that a review found: each one lost something, or said what was not so. */
import { expect, test } from 'vitest'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { openMemoryStore } from '../../src/store/open.ts'

const MiB = 1024 * 1024
const granule = 65_536

async function one(log = new MemoryEventLog()) {
  const store = await openMemoryStore({ log })
  const disk = await store.ensureDisk('d', { size: 64 * MiB, quiet: true })
  const bitmap = await disk.ensureBitmap('b', { retention: 4 })
  return { store, disk, bitmap, log }
}

test('R8: a move that lands while the snapshot is taken is in the next increment as well', async () => {
  const { store, disk } = await one()
  let land = () => {}
  const moved = new Promise<void>((resolve) => {
    land = resolve
  })
  const recorded = disk.recordWrites([{ offset: 5 * granule, length: 512 }], () => moved)
  await new Promise((resolve) => setTimeout(resolve, 5))
  const first = await disk.beginBackup({
    bitmap: 'b',
    mode: 'incremental',
    snapshot: async () => {
      land()
      await new Promise((resolve) => setTimeout(resolve, 5))
    },
  })
  await recorded
  await first.succeed()
  const second = await disk.beginBackup({ bitmap: 'b', mode: 'incremental' })
  expect(second.plan.extents).toEqual([{ offset: 5 * granule, length: granule }])
  await store.close()
})

test('R32: a disk that an unclean end left attached is told lost when it is detached instead of attached', async () => {
  const { log } = await one()
  const again = await openMemoryStore({ log })
  await again.disk('d').detach()
  expect(again.disk('d').info.lost).toHaveLength(1)
  await again.close()
})

test('R32: the lost stretch begins where the disk was last heard of, not at what was administered since', async () => {
  const { disk, log } = await one()
  const { first } = await disk.recordWrites([{ offset: 0, length: 512 }])
  const again = await openMemoryStore({ log })
  const backup = await again.disk('d').beginBackup({ bitmap: 'b', mode: 'differential' })
  await backup.succeed()
  await again.ensureDisk('d', { size: 64 * MiB })
  expect(again.disk('d').info.lost[0]?.from.position).toBe(first)
  await again.close()
})

test('R20, R26: a window told in the same transaction is in the plan that begins behind it, and in its replay', async () => {
  const { store, disk } = await one()
  await disk.recordWrites([{ offset: 0, length: 512 }])
  const base = store.head.position
  await disk.recordWrites([{ offset: granule, length: 512 }])
  await store.transaction([
    {
      type: 'record-window',
      disk: 'd',
      from: { position: base, time: null },
      writes: 1,
      extents: [[7 * granule, 512]],
    },
    {
      type: 'begin-backup',
      backup: 'x',
      disk: 'd',
      bitmap: 'b',
      mode: 'differential',
      since: { position: base },
    },
  ])
  const replayed = await store.replayPlan('x')
  expect(replayed.extents.map(({ offset }) => offset / granule)).toEqual([1, 7])
  expect(store.backup('x').info.digest).toBe(replayed.digest)
  await store.close()
})

test('R20: a transaction that attaches a disk and removes it again leaves a store that goes on', async () => {
  const { store, disk } = await one()
  await store.transaction([
    { type: 'add-disk', disk: 'e', size: MiB },
    { type: 'attach-disk', disk: 'e', recorder: 'caller', quiet: true },
    { type: 'remove-disk', disk: 'e' },
  ])
  expect((await disk.recordWrites([{ offset: 0, length: 512 }])).count).toBe(1)
  await store.close()
})

test('R21: a flag that is no boolean is a TypeError, and every record can be read', async () => {
  const { store, disk } = await one()
  const before = store.head
  const wrong = { bitmap: 'b', mode: 'full', forceCycle: 'no' } as unknown as Parameters<
    typeof disk.beginBackup
  >[0]
  await expect(disk.beginBackup(wrong)).rejects.toThrow(TypeError)
  const persistent = { persistent: 1 } as unknown as Parameters<typeof disk.addBitmap>[1]
  await expect(disk.addBitmap('n', persistent)).rejects.toThrow(TypeError)
  expect(store.head).toEqual(before)
  for await (const event of store.log()) expect(event.position).toBeLessThanOrEqual(before.position)
  await store.close()
})

test('R31: a promise instead of a function that moves the bytes is refused: it has begun too early', async () => {
  const { store, disk } = await one()
  const before = store.head
  const move = Promise.resolve() as unknown as () => void
  await expect(disk.recordWrites([{ offset: 0, length: 512 }], move)).rejects.toThrow(TypeError)
  expect(store.head).toEqual(before)
  await store.close()
})
