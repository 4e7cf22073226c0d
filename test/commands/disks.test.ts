import { describe, expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { given } from '../../src/testing/given.ts'
import { attached, begun, bitmapAdded, busy, daily, diskAdded, GiB, MiB, vda, weekly, writes } from './kit.ts'

const lost = (position: number, reason = 'test') =>
  ({ type: 'stretch-lost', disk: 'vda', from: { position, time: null }, reason }) as const

describe('disks', () => {
  test('R1: a disk is added with its size', () => {
    given().when({ type: 'add-disk', disk: 'vda', size: GiB }).then(diskAdded())
  })

  test('R1: a size that is no whole number of bytes inside the limits is refused', () => {
    for (const size of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, limits.diskBytesMax + 1]) {
      given().when({ type: 'add-disk', disk: 'vda', size }).thenRefused('SIZE_INVALID', { disk: 'vda' })
      given(diskAdded()).when({ type: 'resize-disk', disk: 'vda', size }).thenRefused('SIZE_INVALID')
    }
  })

  test('R4: a disk id is used once', () => {
    given(diskAdded())
      .when({ type: 'add-disk', disk: 'vda', size: GiB })
      .thenRefused('DISK_EXISTS', { disk: 'vda' })
  })

  test('R4: an id that was removed may be used again, for another incarnation', () => {
    given(diskAdded(), { type: 'disk-removed', disk: 'vda' })
      .when({ type: 'add-disk', disk: 'vda', size: MiB })
      .then(diskAdded('vda', MiB))
      .thenState((after) => {
        expect(after.disk('vda')?.number).toBe(2)
        expect(after.diskByNumber(0)).toEqual({ id: 'vda', removed: true })
      })
  })

  test('R4: names are 1 to 1023 bytes of well-formed UTF-8, for disks as for all else', () => {
    given()
      .when({ type: 'add-disk', disk: 'é'.repeat(511) + 'x', size: GiB })
      .thenState((after) => expect([...after.disks()]).toHaveLength(1))
    given()
      .when({ type: 'add-disk', disk: 'vm/17\n"\u0000', size: GiB })
      .thenState((after) => expect([...after.disks()]).toHaveLength(1))
    given().when({ type: 'add-disk', disk: '', size: GiB }).thenRefused('NAME_EMPTY')
    given()
      .when({ type: 'add-disk', disk: 'é'.repeat(512), size: GiB })
      .thenRefused('NAME_TOO_LONG', { bytes: 1024 })
    given().when({ type: 'add-disk', disk: 'half \ud83d', size: GiB }).thenRefused('NAME_INVALID')
  })

  test('R7: a resize is an event; to the size it has is none', () => {
    given(diskAdded())
      .when({ ...vda, type: 'resize-disk', size: 2 * GiB })
      .then({ ...vda, type: 'disk-resized', size: 2 * GiB })
    given(diskAdded())
      .when({ ...vda, type: 'resize-disk', size: GiB })
      .thenNothing()
  })

  test('R7: a resize is refused while a bitmap of the disk is busy, even to the size it has', () => {
    given(...busy())
      .when({ ...vda, type: 'resize-disk', size: 2 * GiB })
      .thenRefused('BITMAP_BUSY', { ...daily, heldBy: 'night' })
    given(...busy())
      .when({ ...vda, type: 'resize-disk', size: GiB })
      .thenRefused('BITMAP_BUSY')
  })

  test('R23: a resize that would take a bitmap beyond 2^32 bits is refused', () => {
    given(diskAdded(), bitmapAdded(daily, { granularity: 512 }))
      .when({ ...vda, type: 'resize-disk', size: 512 * 2 ** 32 + 1 })
      .thenRefused('BITMAP_TOO_LARGE', { bitmap: 'daily', max: 2 ** 32 })
  })

  test('R4: an unknown disk is refused by every command on one, with QEMU’s text among the facts', () => {
    const facts = { disk: 'vdb', qemu: "Node 'vdb' not found" }
    given(diskAdded())
      .when({ type: 'resize-disk', disk: 'vdb', size: GiB })
      .thenRefused('DISK_NOT_FOUND', facts)
    given(diskAdded()).when({ type: 'remove-disk', disk: 'vdb' }).thenRefused('DISK_NOT_FOUND', facts)
    given(diskAdded())
      .when({ type: 'attach-disk', disk: 'vdb', recorder: 'caller', quiet: true })
      .thenRefused('DISK_NOT_FOUND', facts)
    given(diskAdded()).when({ type: 'detach-disk', disk: 'vdb' }).thenRefused('DISK_NOT_FOUND', facts)
    given(diskAdded())
      .when({ type: 'declare-lost', disk: 'vdb', from: null, reason: '' })
      .thenRefused('DISK_NOT_FOUND', facts)
  })

  test('R6: a disk is removed with its bitmaps unless one is busy; its backups stay in the history', () => {
    given(...busy())
      .when({ type: 'remove-disk', ...vda })
      .thenRefused('DISK_BUSY', { bitmaps: ['daily'], heldBy: ['night'] })
    given(...busy(), { type: 'backup-cancelled', backup: 'night', reason: '' })
      .when({ type: 'remove-disk', ...vda })
      .then({ type: 'disk-removed', disk: 'vda' })
      .thenState((after) => {
        expect(after.disk('vda')).toBeUndefined()
        expect(after.backup('night')?.phase.kind).toBe('cancelled')
      })
  })
})

describe('attach and detach', () => {
  const attach = { type: 'attach-disk', disk: 'vda', recorder: 'caller', quiet: false } as const

  test('R32: attaching is an event, once', () => {
    given(diskAdded()).when(attach).then(attached())
    given(diskAdded(), attached()).when(attach).thenNothing()
    given(diskAdded(), attached())
      .when({ ...attach, recorder: 'store' })
      .then(attached('vda', 'store'))
  })

  test('R32: after an unclean end the first attach of a caller’s disk declares what lies between lost', () => {
    given(diskAdded(), attached(), writes(3), diskAdded('vdb'))
      .when(attach, { unclean: new Set(['vda']) })
      .thenState((after) => {
        const [stretch] = after.disk('vda')?.lost ?? []
        expect(stretch).toMatchObject({ from: { position: 4 }, to: { position: 7 } })
        expect(stretch?.reason).toContain('unclean end')
      })
  })

  test('R32: the caller may say that the disk was quiet', () => {
    given(diskAdded(), attached())
      .when({ ...attach, quiet: true }, { unclean: new Set(['vda']) })
      .then(attached())
  })

  test('R32: a disk that only our own process writes loses nothing by its attach', () => {
    given(diskAdded(), attached('vda', 'store'))
      .when({ ...attach, recorder: 'store' }, { unclean: new Set(['vda']) })
      .then(attached('vda', 'store'))
  })

  test('R32: a disk that a caller recorded before, or will now, counts as the caller’s', () => {
    for (const [before, now] of [
      ['caller', 'store'],
      ['store', 'caller'],
    ] as const) {
      given(diskAdded(), attached('vda', before))
        .when({ ...attach, recorder: now }, { unclean: new Set(['vda']) })
        .thenState((after) => expect(after.disk('vda')?.lost).toHaveLength(1))
    }
  })

  test('R4: a clean detach removes transient bitmaps, but neither persistent nor busy ones', () => {
    const transient = { persistent: false }
    given(
      diskAdded(),
      attached(),
      bitmapAdded(daily, transient),
      bitmapAdded(weekly),
      bitmapAdded({ disk: 'vda', bitmap: 'held' }, transient),
      begun('b', 'copy', { ref: { disk: 'vda', bitmap: 'held' } }),
    )
      .when({ type: 'detach-disk', ...vda })
      .then({ type: 'bitmap-removed', ...daily, because: 'detach' }, { type: 'disk-detached', ...vda })
  })

  test('R4: detaching what is not attached changes nothing', () => {
    given(diskAdded())
      .when({ type: 'detach-disk', ...vda })
      .thenNothing()
  })
})

describe('lost stretches', () => {
  test('R35: a declared stretch begins where the caller says, or at the disk’s last event', () => {
    given(diskAdded(), writes(3))
      .when({ type: 'declare-lost', ...vda, from: null, reason: 'agent was down' })
      .then({
        type: 'stretch-lost',
        ...vda,
        from: { position: 3, time: Date.UTC(2026, 0, 1) + 3000 },
        reason: 'agent was down',
      })
    given(diskAdded(), writes(3))
      .when({ type: 'declare-lost', ...vda, from: { position: 1, time: null }, reason: 'test' })
      .then(lost(1))
  })

  test('R35: a stretch cannot begin in the future', () => {
    given(diskAdded())
      .when({ type: 'declare-lost', ...vda, from: { position: 1, time: null }, reason: '' })
      .thenRefused('POINT_INVALID', { head: 0 })
  })

  test('R35: α carries the stretch, and so does every slice whose span it touches', () => {
    given(
      diskAdded(),
      bitmapAdded(daily, { retention: 5 }),
      writes(2),
      { type: 'slice-frozen', ...daily, slice: 0, next: 1, cause: { kind: 'bank' } },
      writes(2),
      { type: 'slice-frozen', ...daily, slice: 1, next: 2, cause: { kind: 'bank' } },
    )
      .when({ type: 'declare-lost', ...vda, from: { position: 5, time: null }, reason: 'test' })
      .thenState((after) => {
        const bitmap = after.disk('vda')?.bitmaps.get('daily')
        expect(bitmap?.slices.map((slice) => slice.lost.length)).toEqual([0, 1])
        expect(bitmap?.active.lost).toHaveLength(1)
      })
  })

  test('R35: while a backup runs its successor carries the stretch, and the frozen part only if touched', () => {
    given(...busy(), writes(2))
      .when({ type: 'declare-lost', ...vda, from: { position: 4, time: null }, reason: 'test' })
      .thenState((after) => {
        const bitmap = after.disk('vda')?.bitmaps.get('daily')
        expect(bitmap?.active.lost).toHaveLength(0)
        expect(bitmap?.successor?.lost).toHaveLength(1)
      })
      .when({ type: 'cancel-backup', backup: 'night', reason: '' })
      .thenState((after) => expect(after.disk('vda')?.bitmaps.get('daily')?.active.lost).toHaveLength(1))
  })
})

describe('windows', () => {
  const window = {
    type: 'record-window',
    ...vda,
    from: { position: 1, time: null },
    writes: 7,
    extents: [[0, 4096]],
  } as const

  test('R3: a window is recorded with its span, its count and its ranges; empty ranges record nothing', () => {
    given(diskAdded(), writes(3))
      .when({
        ...window,
        extents: [
          [0, 4096],
          [8192, 0],
        ],
      })
      .then({ type: 'window', ...vda, from: { position: 1, time: null }, writes: 7, extents: [[0, 4096]] })
      .thenState((after) =>
        expect(after.disk('vda')?.windows).toEqual([{ from: { position: 1, time: null }, at: after.last }]),
      )
  })

  test('R3: a window begins neither before its disk nor after the log', () => {
    given(diskAdded('vdb'), diskAdded(), writes(3))
      .when({ ...window, from: { position: 0, time: null } })
      .thenRefused('WINDOW_INVALID', { addedAt: 1 })
    given(diskAdded(), writes(3))
      .when({ ...window, from: { position: 4, time: null } })
      .thenRefused('WINDOW_INVALID', { head: 3 })
    given(diskAdded(), writes(3))
      .when({ ...window, from: { position: 0.5, time: null } })
      .thenRefused('WINDOW_INVALID')
  })

  test('R1, R3: a bad range refuses the whole window and is named', () => {
    for (const extent of [
      [GiB, 1],
      [-1, 2],
      [0.5, 1],
      [0, Number.NaN],
      [2 ** 53, 0],
      [0, GiB + 1],
    ] as const) {
      given(diskAdded(), writes(3))
        .when({ ...window, extents: [[0, 512], extent] })
        .thenRefused('WINDOW_INVALID', { index: 1, offset: extent[0] })
    }
  })

  test('R3: a window stands for a whole number of writes', () => {
    for (const count of [-1, 1.5, Number.NaN])
      given(diskAdded(), writes(3))
        .when({ ...window, writes: count })
        .thenRefused('WINDOW_INVALID', { writes: count })
    given(diskAdded(), writes(3))
      .when({ ...window, writes: 0 })
      .thenState((after) => expect(after.disk('vda')?.windows).toHaveLength(1))
  })
})
