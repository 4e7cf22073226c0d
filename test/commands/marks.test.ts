import { describe, expect, test } from 'vitest'
import type { DiskMark, DomainEvent } from '../../events/types.ts'
import { decideMaybeWritten } from '../../src/commands/marks.ts'
import { given } from '../../src/testing/given.ts'
import { begun, bitmapAdded, busy, daily, diskAdded, GiB, KiB, vda, writes } from './kit.ts'

const MARK: DiskMark = {
  kind: 'file',
  device: '8:1',
  inode: '42',
  size: GiB,
  modified: '1700000000000000001',
  changed: '1700000000000000002',
  boot: 'ab'.repeat(16),
  sectorsWritten: null,
}
const marked = (mark: DiskMark = MARK): DomainEvent => ({ type: 'disk-marked', ...vda, mark })
const from = (position: number) => ({ position, time: null })

describe('marks', () => {
  test('R35: a mark is one event, and the catalog keeps the last one with its point', () => {
    given(diskAdded())
      .when({ type: 'mark-disk', ...vda, mark: MARK })
      .then(marked())
      .thenState((after) =>
        expect(after.disk('vda')?.mark).toMatchObject({ at: { position: 1 }, mark: MARK }),
      )
    const { catalog } = given(diskAdded(), marked(), writes(3), marked({ ...MARK, inode: '43' }))
    expect(catalog.disk('vda')?.mark).toMatchObject({ at: { position: 5 }, mark: { inode: '43' } })
    expect(catalog.disk('vda')?.wrote).toMatchObject({ position: 4 })
  })

  test('R29, R35: the same mark with no write since changes nothing, since an event is a border', () => {
    given(diskAdded(), writes(2), marked())
      .when({ type: 'mark-disk', ...vda, mark: { ...MARK } })
      .thenNothing()
    given(diskAdded(), marked(), bitmapAdded(daily))
      .when({ type: 'mark-disk', ...vda, mark: MARK })
      .thenNothing()
  })

  test('R35: any part of it that differs is a new mark, and so is the same one after a write', () => {
    const others: Partial<DiskMark>[] = [
      { kind: 'block' },
      { device: '8:2' },
      { inode: '43' },
      { modified: '0' },
      { changed: '-1' },
      { boot: 'ac'.repeat(16) },
      { sectorsWritten: 0 },
    ]
    for (const other of others)
      given(diskAdded(), marked())
        .when({ type: 'mark-disk', ...vda, mark: { ...MARK, ...other } })
        .then(marked({ ...MARK, ...other }))
    const told: DomainEvent[] = [
      { type: 'window', ...vda, from: from(0), writes: 0, extents: [] },
      { type: 'maybe-written', ...vda, from: from(0), extents: [[0, 512]] },
    ]
    for (const since of [writes(1), ...told])
      given(diskAdded(), marked(), since)
        .when({ type: 'mark-disk', ...vda, mark: MARK })
        .then(marked())
  })

  test('R21, R35: a mark of another size, of no disk, or that cannot be is refused before anything is recorded', () => {
    given(diskAdded())
      .when({ type: 'mark-disk', ...vda, mark: { ...MARK, size: 512 } })
      .thenRefused('DISK_SIZE_MISMATCH', { size: GiB, wanted: 512 })
    given(diskAdded()).when({ type: 'mark-disk', disk: 'vdb', mark: MARK }).thenRefused('DISK_NOT_FOUND')
    const impossible = [
      { kind: 'pipe' },
      { device: '8' },
      { device: '8:1:1' },
      { inode: '' },
      { inode: '4.2' },
      { modified: 'today' },
      { changed: '1e9' },
      { boot: 'ab' },
      { boot: 'AB'.repeat(16) },
      { sectorsWritten: 0.5 },
      { size: Number.NaN },
    ]
    for (const wrong of impossible) {
      const mark = { ...MARK, ...wrong } as DiskMark
      expect(() =>
        given(diskAdded())
          .when({ type: 'mark-disk', ...vda, mark })
          .thenNothing(),
      ).toThrow(RangeError)
    }
  })

  test('R6, R35: a mark is no command on a bitmap, so a busy one does not stand in its way', () => {
    given(...busy())
      .when({ type: 'mark-disk', ...vda, mark: MARK })
      .then(marked())
  })

  test('R20: marks in a transaction are decided one after another', () => {
    given(diskAdded())
      .when([
        { type: 'mark-disk', ...vda, mark: MARK },
        { type: 'mark-disk', ...vda, mark: MARK },
        { type: 'mark-disk', ...vda, mark: { ...MARK, inode: '43' } },
      ])
      .then(marked(), marked({ ...MARK, inode: '43' }))
  })
})

describe('what may have been written before a power cut', () => {
  const { catalog } = given(diskAdded(), writes(4))

  test('R30: its ranges are told from a point of the past on, those of length 0 left out', () => {
    const extents = [
      [0, 64 * KiB],
      [GiB, 0],
      [GiB - 512, 512],
    ] as const
    expect(decideMaybeWritten(catalog, { ...vda, from: from(2), extents })).toEqual([
      { type: 'maybe-written', ...vda, from: from(2), extents: [extents[0], extents[2]] },
    ])
  })

  test('R30: nothing that may have been written is nothing to tell', () => {
    expect(decideMaybeWritten(catalog, { ...vda, from: from(4), extents: [] })).toEqual([])
    expect(decideMaybeWritten(catalog, { ...vda, from: from(4), extents: [[512, 0]] })).toEqual([])
  })

  test('R30: ranges outside the disk, a point of the future, and a disk that is not there are refused', () => {
    const outside = [
      [GiB, 1],
      [-1, 512],
      [0, GiB + 1],
      [0.5, 1],
    ] as const
    for (const extent of outside)
      expect(() => decideMaybeWritten(catalog, { ...vda, from: from(2), extents: [extent] })).toThrow(
        /inside/,
      )
    expect(() => decideMaybeWritten(catalog, { ...vda, from: from(5), extents: [[0, 1]] })).toThrow(/past/)
    expect(() => decideMaybeWritten(catalog, { disk: 'vdb', from: from(2), extents: [] })).toThrow(/vdb/)
  })

  test('R30, R35: it counts as a write, and no answer gets a lost stretch by it', () => {
    const told: DomainEvent = { type: 'maybe-written', ...vda, from: from(1), extents: [[0, 512]] }
    const after = given(diskAdded(), bitmapAdded(daily), writes(2), told).catalog.disk('vda')
    expect(after?.windows).toMatchObject([{ from: from(1), at: { position: 4 } }])
    expect(after?.wrote).toMatchObject({ position: 4 })
    expect(after?.lost).toEqual([])
    expect(after?.bitmaps.get('daily')?.active.lost).toEqual([])
  })

  test('R3, R30: a backup begun inside its span may miss them, and says why', () => {
    const told: DomainEvent = { type: 'maybe-written', ...vda, from: from(2), extents: [[0, 512]] }
    const { catalog: after } = given(
      diskAdded(),
      bitmapAdded(daily),
      writes(2),
      begun('inside', 'incremental', { base: { kind: 'point', position: 1, time: null } }),
      { type: 'backup-succeeded', backup: 'inside', bits: 'forgotten' },
      told,
      begun('behind', 'incremental', { base: { kind: 'point', position: 4, time: null } }),
    )
    expect(after.backup('inside')?.doubt).toMatchObject([
      { from: from(2), to: { position: 6 }, reason: expect.stringMatching(/power cut/) },
    ])
    expect(after.backup('behind')?.doubt).toEqual([])
  })
})
