/** R27, history: each transition with its cause, also of what is gone, and bearers of one name kept apart. */
import { describe, expect, test } from 'vitest'
import { type History, type HistorySubject, history, type Store } from '../../src/index.ts'
import { KiB, refused, SIZE, small } from '../store/support.ts'

const types = ({ transitions }: History) => transitions.map(({ type }) => type)
const says = ({ transitions }: History) => transitions.map((transition) => transition.says)
const bitmapOf = (store: Store, disk = 'vda', bitmap = 'daily') =>
  history(store, { kind: 'bitmap', disk, bitmap })

describe('R27: history of a bitmap', () => {
  test('R27: every transition in order, in words, with its position and time', async () => {
    const { store, disk, bitmap, clock } = await small()
    clock.advance(1000)
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await bitmap.disable()
    await bitmap.enable()
    await bitmap.clear()
    await bitmap.setRetention(1)
    await bitmap.bank()
    const found = await bitmapOf(store)
    expect(types(found)).toEqual([
      'bitmap-added',
      'bitmap-disabled',
      'bitmap-enabled',
      'bitmap-cleared',
      'retention-set',
      'slice-frozen',
    ])
    expect(says(found)[0]).toBe(
      'bitmap "daily" added: 4 KiB a granule, room for 3 slices; generation 2 begins with point 0',
    )
    expect(says(found).at(-1)).toBe('slice 0 frozen by bank; point 1 begins')
    expect(found.transitions.at(-1)).toMatchObject({ position: store.head.position, time: clock.now() })
    expect(found.lives).toEqual([2])
  })

  test('R13: the cause is told: command, its id, correlation, causation and actor', async () => {
    const { store, bitmap } = await small({ actor: 'agent-7' })
    await bitmap.clear({ commandId: 'c-1', correlationId: 'job-9', causationId: 'event-3' })
    const found = await bitmapOf(store)
    expect(found.transitions.at(-1)!.cause).toMatchObject({
      command: 'clear-bitmap',
      commandId: 'c-1',
      correlationId: 'job-9',
      causationId: 'event-3',
      actor: 'agent-7',
    })
  })

  test('R18: generations and incarnations of a name are kept apart, and those that are gone are there', async () => {
    const { store, disk, bitmap } = await small()
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full' })).succeed()
    const second = store.bitmap('vda', 'daily').generation
    await bitmap.remove()
    await disk.addBitmap('daily', { granularity: 64 * KiB })
    const third = store.bitmap('vda', 'daily').generation
    await store.removeDisk('vda')
    await store.ensureDisk('vda', { size: SIZE })
    await store.disk('vda').ensureBitmap('daily')
    const fourth = store.bitmap('vda', 'daily').generation
    const found = await bitmapOf(store)
    expect(found.lives).toEqual([2, second, third, fourth])
    const of = (life: number) =>
      found.transitions.filter((transition) => transition.life === life).map(({ type }) => type)
    expect(of(2)).toEqual(['bitmap-added', 'backup-begun', 'backup-succeeded'])
    expect(of(second)).toEqual(['bitmap-reset', 'bitmap-removed'])
    expect(of(third)).toEqual(['bitmap-added', 'disk-removed'])
    expect(of(fourth)).toEqual(['bitmap-added'])
  })

  test('R4: a merge is in the history of its target and of its source; R7, R35: so is what befalls the disk', async () => {
    const { store, disk, bitmap } = await small()
    await disk.ensureBitmap('other')
    await bitmap.merge([{ bitmap: 'other' }])
    await disk.resize(SIZE * 2)
    await disk.declareLost('power')
    const both = ['bitmap-added', 'bitmap-merged', 'disk-resized', 'stretch-lost']
    expect(types(await bitmapOf(store))).toEqual(both)
    expect(types(await bitmapOf(store, 'vda', 'other'))).toEqual(both)
    expect(says(await bitmapOf(store))[2]).toBe('disk resized from 1 MiB to 2 MiB')
  })

  test('another bitmap, another disk: nothing of theirs', async () => {
    const { store, disk } = await small()
    await disk.ensureBitmap('other')
    await store.ensureDisk('vdb', { size: SIZE })
    await store.disk('vdb').ensureBitmap('daily')
    await store.disk('vdb').bitmap('daily').clear()
    await disk.bitmap('other').clear()
    await (await disk.beginBackup({ bitmap: 'other', mode: 'full', id: 'theirs' })).succeed()
    expect(types(await bitmapOf(store))).toEqual(['bitmap-added'])
  })
})

describe('R27: history of a slice', () => {
  test('R16, R18: from the begin of its point to its end, in each generation', async () => {
    const { store, disk, bitmap } = await small()
    await bitmap.bank()
    await bitmap.disable()
    await bitmap.enable()
    await bitmap.bank()
    await bitmap.deleteSlice(1)
    const slice = (number: number, generation?: number): HistorySubject => ({
      kind: 'slice',
      disk: 'vda',
      bitmap: 'daily',
      slice: number,
      ...(generation === undefined ? {} : { generation }),
    })
    expect(says(await history(store, slice(1)))).toEqual([
      'slice 0 frozen by bank; point 1 begins',
      'disabled: from here on the log alone has the writes',
      'enabled: it collects from here on',
      'slice 1 frozen by bank; point 2 begins',
      'point 1 forgotten: slice 1 merged into slice 0',
    ])
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full' })).succeed()
    await bitmap.bank()
    const found = await history(store, slice(0))
    const { generation } = store.bitmap('vda', 'daily')
    expect(found.lives).toEqual([2, generation])
    expect(types(await history(store, slice(0, 2)))).toEqual([
      'bitmap-added',
      'slice-frozen',
      'slice-merged',
      'bitmap-reset',
    ])
    expect(types(await history(store, slice(0, generation)))).toEqual(['bitmap-reset', 'slice-frozen'])
    await refused(store, 'SLICE_NOT_FOUND', () => history(store, slice(7)))
    await refused(store, 'SLICE_NOT_FOUND', () => history(store, slice(0, 3)))
  })
})

describe('R27: history of a backup, a checkpoint, a disk', () => {
  test('R9, R15: a backup, with what its success froze and dropped, and what became of its copy', async () => {
    const { store, disk, bitmap } = await small()
    await bitmap.setRetention(1)
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full' })).succeed()
    await bitmap.bank()
    const incr = await disk.beginBackup({
      bitmap: 'daily',
      mode: 'incremental',
      since: { backup: 'full' },
      forceCycle: true,
      id: 'incr',
    })
    await incr.succeed()
    await incr.forget({ reason: 'expired' })
    const found = await history(store, { kind: 'backup', backup: 'incr' })
    expect(types(found)).toEqual([
      'backup-begun',
      'backup-succeeded',
      'slice-dropped',
      'slice-frozen',
      'backup-forgotten',
    ])
    expect(found.lives).toEqual([found.transitions[0]!.position])
    expect(says(found)[4]).toContain('expired')
  })

  test('R19: a checkpoint, with what it banked and what its deletion merged; a name used again is another life', async () => {
    const { store } = await small()
    await store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
    const banked = store.head.position
    await store.deleteCheckpoint('c')
    await store.createCheckpoint('c')
    const found = await history(store, { kind: 'checkpoint', checkpoint: 'c' })
    expect(types(found)).toEqual(
      expect.arrayContaining([
        'checkpoint-created',
        'slice-frozen',
        'checkpoint-deleted',
        'checkpoint-created',
      ]),
    )
    expect(found.lives).toHaveLength(2)
    expect(found.lives[0]).toBeLessThanOrEqual(banked)
    expect(found.transitions.filter(({ life }) => life === found.lives[1])).toHaveLength(1)
  })

  test('a disk that was removed and added again has two lives', async () => {
    const { store } = await small()
    await store.removeDisk('vda')
    const added = store.head.position + 1
    await store.addDisk('vda', { size: SIZE })
    const found = await history(store, { kind: 'disk', disk: 'vda' })
    expect(found.lives).toEqual([0, added])
    expect(types(found)).toEqual([
      'disk-added',
      'disk-attached',
      'bitmap-added',
      'disk-removed',
      'disk-added',
    ])
  })
})

describe('R27: what is refused', () => {
  const nothing: readonly [string, HistorySubject][] = [
    ['DISK_NOT_FOUND', { kind: 'disk', disk: 'nope' }],
    ['BITMAP_NOT_FOUND', { kind: 'bitmap', disk: 'vda', bitmap: 'nope' }],
    ['BITMAP_NOT_FOUND', { kind: 'bitmap', disk: 'nope', bitmap: 'daily' }],
    ['BACKUP_NOT_FOUND', { kind: 'backup', backup: 'nope' }],
    ['CHECKPOINT_NOT_FOUND', { kind: 'checkpoint', checkpoint: 'nope' }],
  ]
  test.each(nothing)('%s: what the log has never had', async (code, subject) => {
    const { store } = await small()
    await refused(store, code as 'DISK_NOT_FOUND', () => history(store, subject))
  })

  test('a caller who gave up', async () => {
    const { store } = await small()
    await refused(store, 'ABORTED', () =>
      history(store, { kind: 'disk', disk: 'vda' }, { signal: AbortSignal.abort() }),
    )
  })
})

describe('R27: the log, filtered', () => {
  const positions = async (store: Store, filter: Parameters<Store['log']>[0]) => {
    const found: number[] = []
    for await (const { position } of store.log(filter)) found.push(position)
    return found
  }

  test('by correlation id and by command id, which leaves the writes undecoded', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await bitmap.clear({ commandId: 'c-1', correlationId: 'job' })
    const at = store.head.position
    await bitmap.disable({ correlationId: 'job' })
    expect(await positions(store, { correlationId: 'job' })).toEqual([at, at + 1])
    expect(await positions(store, { commandId: 'c-1' })).toEqual([at])
    expect(await positions(store, { commandId: 'c-1', types: ['bitmap-disabled'] })).toEqual([])
    expect(await positions(store, { commandId: 'c-1', from: { position: at + 1 } })).toEqual([])
    expect(await positions(store, { commandId: 'never' })).toEqual([])
  })

  test('by range: writes and windows that touch it, forwards and backwards, up to a limit', async () => {
    const { store, disk } = await small()
    const { first } = await disk.recordWrites([
      { offset: 0, length: 4 * KiB },
      { offset: 8 * KiB, length: 512 },
      { offset: 4 * KiB - 512, length: KiB },
    ])
    const from = { position: store.head.position }
    await disk.recordWindow({ from, extents: [[32 * KiB, 512]], writes: 2 })
    await disk.recordWindow({
      from: { position: store.head.position },
      extents: [
        [0, 512],
        [64 * KiB, 512],
      ],
      writes: 2,
    })
    const near = { offset: 4 * KiB - 1, length: 1 }
    expect(await positions(store, { range: near })).toEqual([first, first + 2])
    expect(await positions(store, { range: near, reverse: true })).toEqual([first + 2, first])
    expect(await positions(store, { range: near, reverse: true, limit: 1 })).toEqual([first + 2])
    expect(await positions(store, { range: { offset: 0, length: 1 } })).toEqual([first, first + 4])
    expect(await positions(store, { range: { offset: 33 * KiB, length: KiB } })).toEqual([])
    expect(await positions(store, { types: ['window'] })).toEqual([first + 3, first + 4])
    expect(
      await positions(store, {
        types: ['write'],
        from: { position: first + 1 },
        to: { position: first + 1 },
      }),
    ).toEqual([first + 1])
    expect(await positions(store, { disk: 'other', range: near })).toEqual([])
  })
})
