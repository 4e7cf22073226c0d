import { describe, expect, test } from 'vitest'
import type { LogRecord } from '../../events/types.ts'
import { Catalog, START } from '../../projections/catalog.ts'
import { OverlayMap } from '../../projections/overlay.ts'
import { given, recordOf, timeAt } from '../../src/testing/given.ts'
import {
  begun,
  bitmapAdded,
  busy,
  daily,
  diskAdded,
  frozen,
  weekly,
  withSlices,
  writes,
} from '../commands/kit.ts'

const plainOf = (catalog: Catalog) => JSON.stringify(catalog.toPlain())

describe('folding', () => {
  test('R22: an empty catalog is before the first event', () => {
    const catalog = new Catalog()
    expect(catalog.last).toEqual(START)
    expect([
      ...catalog.disks(),
      ...catalog.backups(),
      ...catalog.checkpoints(),
      ...catalog.clockSteps(),
    ]).toEqual([])
  })

  test('R20: points of events are the end of their record; generations, disk numbers and tombstones are exact', () => {
    const { catalog } = given([
      diskAdded(),
      bitmapAdded(daily, { retention: 2 }),
      frozen(0, 1),
      { type: 'slice-dropped', ...daily, slice: 0, because: 'deleted' },
      diskAdded('vdb'),
    ])
    const end = { position: 4, time: timeAt(4) }
    expect(catalog.last).toEqual(end)
    expect(catalog.disk('vda')).toMatchObject({ number: 0, addedAt: end, last: end })
    expect(catalog.disk('vdb')).toMatchObject({ number: 4 })
    expect(catalog.disk('vda')?.bitmaps.get('daily')).toMatchObject({
      generation: 1,
      createdAt: end,
      active: { from: end },
      tombstones: [{ slice: 0, at: 3 }],
    })
  })

  test('R3: writes move their own disk to their own last position and time', () => {
    const { catalog } = given(diskAdded(), diskAdded('vdb'))
    const columns = (count: number, times?: number[]) => ({
      offsets: new Float64Array(count),
      lengths: new Float64Array(count).fill(512),
      ...(times === undefined ? {} : { times: Float64Array.from(times) }),
    })
    const time = timeAt(2)
    catalog.apply({
      kind: 'writes',
      first: 2,
      count: 5,
      time,
      lastTime: time + 9,
      sections: [
        { disk: 0, columns: columns(2, [time + 1, time + 2]) },
        { disk: 1, columns: columns(3) },
      ],
    })
    expect(catalog.disk('vda')?.last).toEqual({ position: 3, time: time + 2 })
    expect(catalog.disk('vdb')?.last).toEqual({ position: 6, time })
    expect(catalog.last).toEqual({ position: 6, time: time + 9 })
  })

  test('R22: clock steps are kept, and a note changes nothing but the head', () => {
    const { catalog } = given({ type: 'clock-stepped', from: 10, to: 5 }, { type: 'nothing-changed' })
    expect(catalog.clockSteps()).toEqual([{ at: { position: 0, time: timeAt(0) }, from: 10, to: 5 }])
    expect(catalog.last.position).toBe(1)
  })

  test('R28: a record that is not the next one is damage', () => {
    const { catalog } = given(diskAdded(), writes(3))
    const record: LogRecord = {
      kind: 'events',
      first: 5,
      count: 1,
      time: 0,
      lastTime: 0,
      meta: {},
      events: [diskAdded('vdb')],
    }
    expect(() => catalog.apply(record)).toThrow(RangeError)
    expect(() => catalog.apply({ ...record, first: 3 })).toThrow(RangeError)
  })

  test('R28: an event about what does not exist is damage', () => {
    for (const event of [
      { type: 'disk-resized', disk: 'no', size: 1 },
      { type: 'bitmap-cleared', disk: 'no', bitmap: 'x' },
      { type: 'bitmap-cleared', disk: 'vda', bitmap: 'x' },
      { type: 'backup-pending', backup: 'no' },
      begun('b', 'copy', { ref: weekly }),
      { type: 'slice-merged', ...daily, slice: 7, into: 6 },
      { type: 'slice-reactivated', ...daily, slice: 7, deleted: 8 },
    ] as const) {
      expect(() => given(...withSlices(1), event)).toThrow(RangeError)
    }
    expect(() =>
      given(
        ...busy(),
        { type: 'backup-failed', backup: 'night', reason: '' },
        { type: 'backup-failed', backup: 'night', reason: '' },
      ),
    ).toThrow(RangeError)
  })

  test('R27: backups stay in the history, in order of their begin', () => {
    const { catalog } = given(
      ...busy(),
      bitmapAdded(weekly),
      begun('w', 'copy', { ref: weekly }),
      { type: 'backup-failed', backup: 'night', reason: 'x' },
      { type: 'bitmap-removed', ...daily, because: 'command' },
    )
    expect([...catalog.backups()].map(({ id, phase }) => [id, phase.kind])).toEqual([
      ['night', 'failed'],
      ['w', 'running'],
    ])
  })
})

describe('forks', () => {
  test('R20: what a fork folds is seen by the fork alone', () => {
    const { catalog } = given(...withSlices(2), { type: 'checkpoint-created', checkpoint: 'c', bitmaps: [] })
    const before = plainOf(catalog)
    const fork = catalog.fork()
    fork.apply(
      recordOf(fork, [
        { type: 'disk-removed', disk: 'vda' },
        diskAdded('vda', 512),
        { type: 'checkpoint-deleted', checkpoint: 'c' },
        { type: 'clock-stepped', from: 1, to: 2 },
      ]),
    )
    expect(plainOf(catalog)).toBe(before)
    expect(fork.disk('vda')).toMatchObject({ size: 512, bitmaps: new Map() })
    expect(fork.diskByNumber(0)).toEqual({ id: 'vda', removed: true })
    expect(catalog.diskByNumber(0)).toEqual({ id: 'vda', removed: false })
    expect([...fork.checkpoints()]).toEqual([])
  })

  test('R20: a fork folds to what the catalog itself would', () => {
    const { catalog } = given(...busy('incremental', 2))
    const record = recordOf(catalog, [
      { type: 'backup-succeeded', backup: 'night', bits: 'banked' },
      { type: 'slice-frozen', ...daily, slice: 2, next: 3, cause: { kind: 'backup', id: 'night' } },
      diskAdded('vdb'),
    ])
    const fork = catalog.fork()
    fork.apply(record)
    const again = fork.fork()
    catalog.apply(record)
    expect(plainOf(again)).toBe(plainOf(catalog))
  })

  test('R20: an overlay iterates like a Map', () => {
    const below = new OverlayMap<string, number>([
      ['a', 1],
      ['b', 2],
      ['c', 3],
    ])
    const over = below.fork()
    const map = new Map(below.entries())
    for (const target of [over, map]) {
      target.set('b', 20)
      target.delete('a')
      target.set('d', 4)
      target.set('a', 10)
      target.delete('c')
      target.delete('zz')
    }
    expect([...over.entries()]).toEqual([...map.entries()])
    expect([...over.fork().values()]).toEqual([...map.values()])
    expect([...below.values()]).toEqual([1, 2, 3])
    expect(over.get('c')).toBeUndefined()
  })
})

describe('snapshots', () => {
  test('R22: a snapshot of another version, or of something else, is refused', () => {
    const plain = given(...busy()).catalog.toPlain() as unknown[]
    expect(() => Catalog.fromPlain([999, ...plain.slice(1)])).toThrow(/version 999/)
    for (const wrong of [null, 7, {}, [1]]) expect(() => Catalog.fromPlain(wrong)).toThrow()
  })

  test('R22: every shape there is survives it', () => {
    const { catalog } = given(
      ...withSlices(3),
      { type: 'slice-merged', ...daily, slice: 2, into: 1 },
      { type: 'slice-dropped', ...daily, slice: 0, because: 'deleted' },
      { type: 'slice-reactivated', ...daily, slice: 1, deleted: 3 },
      { type: 'bitmap-disabled', ...daily },
      { type: 'stretch-lost', disk: 'vda', from: { position: 3, time: null }, reason: 'x' },
      { type: 'disk-resized', disk: 'vda', size: 2 ** 40 },
      { type: 'window', disk: 'vda', from: { position: 3, time: 1 }, writes: 0, extents: [] },
      { type: 'maybe-written', disk: 'vda', from: { position: 4, time: null }, extents: [[0, 512]] },
      {
        type: 'disk-marked',
        disk: 'vda',
        mark: {
          kind: 'block',
          device: '7:1',
          inode: '18446744073709551615',
          size: 2 ** 40,
          modified: '-1',
          changed: '1700000000000000001',
          boot: '0a'.repeat(16),
          sectorsWritten: 2 ** 50,
        },
      },
      begun('b', 'copy', { group: 'g', base: { kind: 'slice', name: '1', position: 5, time: 2 ** 41 } }),
      diskAdded('gone'),
      { type: 'disk-removed', disk: 'gone' },
      { type: 'clock-stepped', from: 1, to: 2 },
      { type: 'checkpoint-created', checkpoint: 'c', bitmaps: [daily] },
    )
    const again = Catalog.fromPlain(JSON.parse(plainOf(catalog)))
    expect(plainOf(again)).toBe(plainOf(catalog))
    expect(again.disk('vda')).toEqual(catalog.disk('vda'))
    expect(again.backup('b')).toEqual(catalog.backup('b'))
    expect(again.diskByNumber(catalog.disk('vda')!.number + 0)).toEqual({ id: 'vda', removed: false })
  })
})
