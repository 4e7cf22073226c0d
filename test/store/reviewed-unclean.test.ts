/** What an unclean end leaves unknown is told wherever a point of the disk is taken, not at its next attach alone (R32, R35). */
import { expect, test } from 'vitest'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { openMemoryStore } from '../../src/store/open.ts'

const MiB = 1024 * 1024
const SIZE = 4 * MiB
const granule = 65_536

/** A store whose process went away: one write, one succeeded backup, one more write. */
async function killed() {
  const log = new MemoryEventLog()
  const store = await openMemoryStore({ log })
  const disk = await store.ensureDisk('d', { size: SIZE, quiet: true })
  await disk.ensureBitmap('b', { retention: 4 })
  await (await disk.beginBackup({ bitmap: 'b', mode: 'incremental', id: 'first' })).succeed()
  const { first } = await disk.recordWrites([{ offset: 0, length: 512 }])
  return { log, last: first }
}

const reopened = (log: MemoryEventLog) => openMemoryStore({ log: new MemoryEventLog(log.storage) })

test('R32, R35: a backup begun before the first attach after an unclean end covers the whole disk and says why', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  const disk = store.disk('d')
  const dry = await disk.plan({ bitmap: 'b', mode: 'incremental' })
  const backup = await disk.beginBackup({ bitmap: 'b', mode: 'incremental', id: 'second' })
  expect(backup.plan.bytes).toBe(SIZE)
  expect(backup.plan.reason).toContain('unclean end')
  expect({ bytes: dry.bytes, digest: dry.digest }).toEqual({
    bytes: backup.plan.bytes,
    digest: backup.plan.digest,
  })
  expect(disk.info.lost).toEqual([
    {
      from: expect.objectContaining({ position: last }) as unknown,
      to: backup.plan.point,
      reason: expect.stringContaining('unclean') as unknown,
    },
  ])
  expect((await store.replayPlan('second')).digest).toBe(backup.plan.digest)
  await store.close()
})

test('R32: what lies between such a backup and the attach is told by the attach, from there on', async () => {
  const { log } = await killed()
  const store = await reopened(log)
  const backup = await store.disk('d').beginBackup({ bitmap: 'b', mode: 'incremental', id: 'second' })
  await backup.succeed()
  const disk = await store.ensureDisk('d', { size: SIZE })
  expect(disk.info.lost.map(({ from }) => from.position)).toEqual([
    expect.any(Number),
    backup.info.point.position,
  ])
  expect((await disk.plan({ bitmap: 'b', mode: 'incremental' })).bytes).toBe(SIZE)
  await store.close()
})

test('R35: a slice banked before the attach carries the stretch, and so does one of a checkpoint', async () => {
  for (const how of ['bank', 'checkpoint'] as const) {
    const { log } = await killed()
    const store = await reopened(log)
    const bitmap = store.disk('d').bitmap('b')
    if (how === 'bank') await bitmap.bank()
    else await store.createCheckpoint('c', { bitmaps: [{ disk: 'd', bitmap: 'b' }] })
    const { slices } = await bitmap.slices()
    expect(slices.at(-1)?.lost, how).toHaveLength(1)
    await store.close()
  }
})

test('R32: before it is told, `changed` up to now says that it is not complete; up to the end it is', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  const before = store.head
  const open = await store.disk('d').changed({ since: { backup: 'first' } })
  expect(open).toMatchObject({ complete: false, bytes: SIZE })
  const closed = await store.disk('d').changed({ since: { backup: 'first' }, until: { position: last } })
  expect(closed).toMatchObject({ complete: true, bytes: granule })
  expect(store.head).toEqual(before)
  await store.close()
})

test('R35: nor is `changed` up to an event of after the end, whose span reaches into what nobody told yet', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  await store.disk('d').addBitmap('c')
  const span = { since: { backup: 'first' }, until: { position: store.head.position } }
  expect(store.head.position).toBeGreaterThan(last)
  const untold = await store.disk('d').changed(span)
  expect(untold).toMatchObject({ complete: false, bytes: SIZE, lost: [{ from: { position: last } }] })
  await store.ensureDisk('d', { size: SIZE })
  const told = await store.disk('d').changed(span)
  expect({ digest: told.digest, complete: told.complete }).toEqual({ digest: untold.digest, complete: false })
  await store.close()
})

test('R13: the first answer of such a begin, bank, checkpoint and detach comes again from the log', async () => {
  const { log } = await killed()
  const store = await reopened(log)
  const disk = store.disk('d')
  const bank = await disk.bitmap('b').bank({ commandId: 'bank' })
  const begin = () =>
    disk.beginBackup(
      { bitmap: 'b', mode: 'incremental', id: 'second', since: 'active' },
      { commandId: 'begin' },
    )
  const begun = await begin()
  const first = { digest: begun.plan.digest, bytes: begun.plan.bytes }
  const again = await begin()
  expect({ digest: again.plan.digest, bytes: again.plan.bytes }).toEqual(first)
  expect(await disk.bitmap('b').bank({ commandId: 'bank' })).toEqual(bank)
  await store.close()
})

test('R20, R32: two begins and an attach in one transaction tell the stretch once', async () => {
  const { log } = await killed()
  const store = await reopened(log)
  await store.disk('d').addBitmap('c')
  await store.transaction([
    {
      type: 'begin-backup',
      backup: 'x',
      disk: 'd',
      bitmap: 'b',
      mode: 'differential',
      since: { backup: 'first' },
    },
    { type: 'begin-backup', backup: 'y', disk: 'd', bitmap: 'c', mode: 'differential' },
    { type: 'attach-disk', disk: 'd', recorder: 'caller', quiet: false },
  ])
  expect(store.disk('d').info.lost).toHaveLength(1)
  expect(store.backup('x').info.bytes).toBe(SIZE)
  await store.close()
})

test('R32: a caller that attaches first and says that it was quiet loses nothing', async () => {
  const { log } = await killed()
  const store = await reopened(log)
  const disk = await store.ensureDisk('d', { size: SIZE, quiet: true })
  const backup = await disk.beginBackup({ bitmap: 'b', mode: 'incremental' })
  expect(backup.plan.extents).toEqual([{ offset: 0, length: granule }])
  expect(disk.info.lost).toEqual([])
  await store.close()
})
