/** Points and command ids: what a transaction made itself (R20), and what is gone by the time that an id comes back (R13). */
import { describe, expect, test } from 'vitest'
import type { SinceInput } from '../../src/index.ts'
import { again, KiB, refused, small } from './support.ts'

/** A backup of what changed since a point that the transaction itself may have made. */
const begin = (backup: string, since: SinceInput, bitmap = 'daily') =>
  ({ type: 'begin-backup', backup, disk: 'vda', bitmap, mode: 'differential', since }) as const

describe('R20: `since` is looked up in the state that the transaction has come to', () => {
  test('a checkpoint made by the command before is a base; nothing changed since', async () => {
    const { store, disk } = await small()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await store.transaction([
      { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] },
      begin('x', { checkpoint: 'c' }),
    ])
    expect(store.backup('x').info).toMatchObject({ bytes: 0, base: { kind: 'checkpoint', name: 'c' } })
    expect((await store.replayPlan('x')).digest).toBe(store.backup('x').info.digest)
    await store.close()
  })

  test('a checkpoint removed by the command before is none, and nothing is recorded', async () => {
    const { store } = await small()
    await store.createCheckpoint('c')
    await refused(store, 'CHECKPOINT_NOT_FOUND', () =>
      store.transaction([{ type: 'delete-checkpoint', checkpoint: 'c' }, begin('x', { checkpoint: 'c' })]),
    )
    await store.close()
  })

  test('a checkpoint that moved in the transaction means its new place', async () => {
    const { store, disk } = await small()
    await store.createCheckpoint('c')
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await store.transaction([
      { type: 'delete-checkpoint', checkpoint: 'c' },
      { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] },
      begin('x', { checkpoint: 'c' }),
    ])
    expect(store.backup('x').info.bytes).toBe(0)
    await store.close()
  })

  test('a slice banked by the command before is a base, one deleted by it is none', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites([{ offset: 8 * KiB, length: 512 }])
    await store.transaction([{ type: 'bank', disk: 'vda', bitmap: 'daily' }, begin('x', { slice: 0 })])
    expect(store.backup('x').info).toMatchObject({ bytes: 4 * KiB, base: { kind: 'slice' } })
    expect((await store.replayPlan('x')).digest).toBe(store.backup('x').info.digest)
    await store.backup('x').succeed()
    await bitmap.bank()
    await refused(store, 'SLICE_MERGED', () =>
      store.transaction([
        { type: 'delete-slice', disk: 'vda', bitmap: 'daily', slice: 1 },
        begin('y', { slice: 1 }),
      ]),
    )
    await store.close()
  })

  test('a backup begun by the command before is a base for another bitmap', async () => {
    const { store, disk } = await small()
    await disk.addBitmap('other')
    await store.transaction([
      { type: 'begin-backup', backup: 'x', disk: 'vda', bitmap: 'daily', mode: 'full' },
      begin('y', { backup: 'x' }, 'other'),
    ])
    expect(store.backup('y').info).toMatchObject({ bytes: 0, base: { kind: 'backup', name: 'x' } })
    await store.close()
  })
})

describe('R13: an id that comes back is answered from the log, whatever is gone by then', () => {
  test('handles of what was removed: bitmap, disk, backup', async () => {
    const { store, disk, bitmap, log } = await small()
    const id = (commandId: string) => ({ commandId })
    const banked = await bitmap.bank(id('bank'))
    const deleted = await bitmap.deleteSlice(0, id('delete'))
    await bitmap.clear(id('clear'))
    await disk.resize(2048 * KiB, id('resize'))
    const begun = await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'b' }, id('begin'))
    const ended = await begun.succeed(id('succeed'))
    await bitmap.remove(id('remove'))
    await store.removeDisk('vda', id('remove-disk'))
    for (const next of [store, await again(log)]) {
      const gone = next.disk('vda')
      expect(await gone.bitmap('daily').bank(id('bank'))).toEqual(banked)
      expect(await gone.bitmap('daily').deleteSlice(0, id('delete'))).toEqual(deleted)
      await gone.bitmap('daily').clear(id('clear'))
      await gone.resize(2048 * KiB, id('resize'))
      expect(await next.backup('b').succeed(id('succeed'))).toEqual(ended)
      await gone.bitmap('daily').remove(id('remove'))
      await next.removeDisk('vda', id('remove-disk'))
      await refused(next, 'COMMAND_ID_REUSED', () => gone.bitmap('daily').clear(id('resize')))
      await refused(next, 'DISK_NOT_FOUND', () => gone.bitmap('daily').clear(id('new')))
      await refused(next, 'DISK_NOT_FOUND', () => gone.recordWrites([{ offset: 0, length: 1 }]))
    }
    await store.close()
  })

  test('a bitmap that is ensured under an id, on a disk that is gone', async () => {
    const { store, disk } = await small()
    await disk.ensureBitmap('weekly', {}, { commandId: 'w' })
    await store.removeDisk('vda')
    expect((await store.disk('vda').ensureBitmap('weekly', {}, { commandId: 'w' })).name).toBe('weekly')
    await refused(store, 'DISK_NOT_FOUND', () => store.disk('vda').ensureBitmap('weekly'))
    await store.close()
  })

  test('a window and a lost stretch stand for the point as it was said, not for where it lay', async () => {
    const { store, disk, clock } = await small()
    await store.createCheckpoint('c')
    clock.advance(1000)
    const window = { from: { checkpoint: 'c' }, extents: [[0, 4096]] as const }
    await disk.recordWindow(window, { commandId: 'w' })
    await disk.declareLost('gone', { from: 'now' }, { commandId: 'l' })
    const before = store.head.position
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await store.deleteCheckpoint('c')
    const after = store.head
    await disk.recordWindow(window, { commandId: 'w' })
    await disk.declareLost('gone', { from: 'now' }, { commandId: 'l' })
    expect(store.head).toEqual(after)
    expect(before).toBeLessThan(after.position)
    await refused(store, 'COMMAND_ID_REUSED', () =>
      disk.declareLost('gone', { from: 'start' }, { commandId: 'l' }),
    )
    await refused(store, 'CHECKPOINT_NOT_FOUND', () => disk.recordWindow(window))
    await store.close()
  })
})

describe('R10: what was not copied', () => {
  test('is refused of a copy, which froze nothing', async () => {
    const { store, disk } = await small()
    await disk.addBitmap('b')
    await disk.beginBackup({ bitmap: 'b', mode: 'copy', id: 'x' })
    await refused(store, 'BACKUP_STATE', () =>
      store.transaction([{ type: 'fail-backup', backup: 'x', reason: '', uncopied: [[0, 512]] }]),
    )
    await store.close()
  })

  test('makes nothing dirty that an incremental had not frozen, also after a restart', async () => {
    for (const restart of [false, true]) {
      const { store, disk, log } = await small()
      await disk.addBitmap('b', { granularity: 4 * KiB })
      await disk.recordWrites([{ offset: 0, length: 8 * KiB }])
      await disk.beginBackup({ bitmap: 'b', mode: 'incremental', id: 'x' })
      const open = restart ? await again(log) : store
      await open.transaction([
        { type: 'fail-backup', backup: 'x', reason: '', uncopied: [[4 * KiB, 64 * KiB]] },
      ])
      expect((await open.disk('vda').bitmap('b').bits()).extents).toEqual([[4 * KiB, 4 * KiB]])
      await open.close()
    }
  })
})
