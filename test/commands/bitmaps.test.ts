import { describe, expect, test } from 'vitest'
import { given } from '../../src/testing/given.ts'
import { bitmapAdded, busy, daily, diskAdded, GiB, KiB, MiB, weekly, withSlices, writes } from './kit.ts'

const notFound = { disk: 'vda', bitmap: 'zz', qemu: "Dirty bitmap 'zz' not found" }

describe('add', () => {
  test('R4: defaults are 64 KiB, recording, persistent, no slices', () => {
    given(diskAdded())
      .when({ type: 'add-bitmap', ...daily })
      .then(bitmapAdded())
      .thenAnswer({ kind: 'bitmap', ...daily, generation: 1 })
  })

  test('R4: a bitmap may start disabled, and then starts with an open gap', () => {
    given(diskAdded())
      .when({
        type: 'add-bitmap',
        ...daily,
        disabled: true,
        persistent: false,
        granularity: 512,
        retention: 3,
      })
      .then(bitmapAdded(daily, { recording: false, persistent: false, granularity: 512, retention: 3 }))
      .thenState((after) => {
        const gaps = after.disk('vda')?.bitmaps.get('daily')?.active.gaps
        expect(gaps).toEqual([{ kind: 'disabled', from: after.last, to: null }])
      })
  })

  test('R4: an unknown disk has QEMU’s other text here', () => {
    given().when({ type: 'add-bitmap', disk: 'nope', bitmap: 'b' }).thenRefused('DISK_NOT_FOUND', {
      qemu: "Cannot find device='nope' nor node-name='nope'",
    })
  })

  test('R4: a name is used once a disk, busy or not', () => {
    const facts = { ...daily, qemu: 'Bitmap already exists: daily' }
    given(...withSlices(0))
      .when({ type: 'add-bitmap', ...daily })
      .thenRefused('BITMAP_EXISTS', facts)
    given(...busy())
      .when({ type: 'add-bitmap', ...daily })
      .thenRefused('BITMAP_EXISTS', facts)
  })

  test('R4: names are 1 to 1023 bytes, with QEMU’s texts', () => {
    const long = 'x'.repeat(1024)
    given(diskAdded())
      .when({ type: 'add-bitmap', disk: 'vda', bitmap: '' })
      .thenRefused('NAME_EMPTY', { qemu: 'Bitmap name cannot be empty' })
    given(diskAdded())
      .when({ type: 'add-bitmap', disk: 'vda', bitmap: long })
      .thenRefused('NAME_TOO_LONG', { qemu: `Bitmap name too long: ${long}` })
    given(diskAdded()).when({ type: 'add-bitmap', disk: 'vda', bitmap: '\udc00' }).thenRefused('NAME_INVALID')
    given(diskAdded())
      .when({ type: 'add-bitmap', disk: 'vda', bitmap: 'x'.repeat(1023) })
      .thenState((after) => {
        expect(after.disk('vda')?.bitmaps.size).toBe(1)
      })
  })

  test('R4: a granularity is a power of two from 512 to 2 GiB', () => {
    for (const granularity of [0, 256, 64_000, -512, 4 * GiB, 1.5, Number.NaN]) {
      given(diskAdded())
        .when({ type: 'add-bitmap', ...daily, granularity })
        .thenRefused('GRANULARITY_INVALID', {
          qemu: 'Granularity must be power of 2 and at least 512',
        })
    }
    for (const granularity of [512, 4 * KiB, 2 * GiB]) {
      given(diskAdded())
        .when({ type: 'add-bitmap', ...daily, granularity })
        .then(bitmapAdded(daily, { granularity }))
    }
  })

  test('R15: a retention is a whole number of slices', () => {
    for (const retention of [-1, 0.5, 65_536, Number.NaN]) {
      given(diskAdded())
        .when({ type: 'add-bitmap', ...daily, retention })
        .thenRefused('RETENTION_INVALID')
    }
  })

  test('R23: more than 2^32 bits are refused', () => {
    given(diskAdded('vda', 512 * 2 ** 32 + 512))
      .when({ type: 'add-bitmap', ...daily, granularity: 512 })
      .thenRefused('BITMAP_TOO_LARGE')
    given(diskAdded('vda', 512 * 2 ** 32))
      .when({ type: 'add-bitmap', ...daily, granularity: 512 })
      .then(bitmapAdded(daily, { granularity: 512 }))
  })

  test('R18: a name that is used again begins another generation', () => {
    given(...withSlices(2), { type: 'bitmap-removed', ...daily, because: 'command' })
      .when({ type: 'add-bitmap', ...daily })
      .thenState((after) => {
        const bitmap = after.disk('vda')?.bitmaps.get('daily')
        expect(bitmap).toMatchObject({
          generation: after.last.position,
          slices: [],
          highestNumber: 0,
          tombstones: [],
          lastBackup: null,
        })
      })
  })
})

describe('remove, clear, enable, disable', () => {
  test('R4: remove takes the bitmap and its slices away', () => {
    given(...withSlices(2))
      .when({ type: 'remove-bitmap', ...daily })
      .then({ type: 'bitmap-removed', ...daily, because: 'command' })
      .thenState((after) => expect(after.disk('vda')?.bitmaps.size).toBe(0))
  })

  test('R4: clear leaves α where it began, as one cleared gap', () => {
    given(...withSlices(1), writes(2))
      .when({ type: 'clear-bitmap', ...daily })
      .then({ type: 'bitmap-cleared', ...daily })
      .thenState((after) => {
        const active = after.disk('vda')?.bitmaps.get('daily')?.active
        expect(active?.number).toBe(1)
        expect(active?.gaps).toEqual([{ kind: 'cleared', from: active?.from, to: after.last }])
      })
  })

  test('R4: a disabled bitmap that is cleared goes on missing writes', () => {
    given(diskAdded(), bitmapAdded(), writes(1), { type: 'bitmap-disabled', ...daily }, writes(1))
      .when({ type: 'clear-bitmap', ...daily })
      .thenState((after) => {
        const kinds = after
          .disk('vda')
          ?.bitmaps.get('daily')
          ?.active.gaps.map(({ kind, to }) => [kind, to?.position ?? null])
        expect(kinds).toEqual([
          ['cleared', 5],
          ['disabled', null],
        ])
      })
  })

  test('R4: clear in the very record in which α began is no gap', () => {
    given(diskAdded())
      .when([
        { type: 'add-bitmap', ...daily },
        { type: 'clear-bitmap', ...daily },
      ])
      .thenState((after) => expect(after.disk('vda')?.bitmaps.get('daily')?.active.gaps).toEqual([]))
  })

  test('R11: disable opens a gap and enable closes it', () => {
    given(...withSlices(0), writes(1))
      .when({ type: 'disable-bitmap', ...daily })
      .then({ type: 'bitmap-disabled', ...daily })
      .after(writes(2))
      .when({ type: 'enable-bitmap', ...daily })
      .then({ type: 'bitmap-enabled', ...daily })
      .thenState((after) => {
        const bitmap = after.disk('vda')?.bitmaps.get('daily')
        expect(bitmap?.recording).toBe(true)
        expect(bitmap?.active.gaps.map(({ from, to }) => [from.position, to?.position])).toEqual([[4, 7]])
      })
  })

  test('R4: enabling what records and disabling what does not is accepted and changes nothing', () => {
    given(...withSlices(0))
      .when({ type: 'enable-bitmap', ...daily })
      .thenNothing()
      .thenAnswer({ kind: 'done', changed: false })
    given(diskAdded(), bitmapAdded(daily, { recording: false }))
      .when({ type: 'disable-bitmap', ...daily })
      .thenNothing()
  })

  test('R4: an unknown bitmap is refused, with QEMU’s text', () => {
    for (const type of ['remove-bitmap', 'clear-bitmap', 'enable-bitmap', 'disable-bitmap'] as const) {
      given(diskAdded()).when({ type, disk: 'vda', bitmap: 'zz' }).thenRefused('BITMAP_NOT_FOUND', notFound)
      given(diskAdded()).when({ type, disk: 'vdb', bitmap: 'zz' }).thenRefused('DISK_NOT_FOUND')
    }
  })

  test('R6: a busy bitmap refuses every one of them and names its holder', () => {
    for (const type of ['remove-bitmap', 'clear-bitmap', 'enable-bitmap', 'disable-bitmap'] as const) {
      given(...busy())
        .when({ type, ...daily })
        .thenRefused('BITMAP_BUSY', {
          heldBy: 'night',
          qemu: "Bitmap 'daily' is currently in use by another operation and cannot be used",
        })
    }
  })
})

describe('merge', () => {
  const base = [
    diskAdded(),
    bitmapAdded(daily),
    bitmapAdded(weekly, { granularity: 4 * KiB }),
    diskAdded('vdb'),
    bitmapAdded({ disk: 'vdb', bitmap: 'x' }),
  ]

  test('R4: several sources, of another granularity and of another disk of the same size', () => {
    given(...base)
      .when({ type: 'merge-bitmaps', ...daily, sources: [weekly, { disk: 'vdb', bitmap: 'x' }] })
      .then({ type: 'bitmap-merged', ...daily, sources: [weekly, { disk: 'vdb', bitmap: 'x' }] })
  })

  test('R4: into itself and from nothing changes nothing', () => {
    given(...base)
      .when({ type: 'merge-bitmaps', ...daily, sources: [] })
      .thenNothing()
    given(...base)
      .when({ type: 'merge-bitmaps', ...daily, sources: [daily, daily] })
      .thenNothing()
    given(...base)
      .when({ type: 'merge-bitmaps', ...daily, sources: [daily, weekly, weekly] })
      .then({ type: 'bitmap-merged', ...daily, sources: [weekly] })
  })

  test('R4: an unknown target or source refuses all of it', () => {
    given(...base)
      .when({ type: 'merge-bitmaps', disk: 'vda', bitmap: 'zz', sources: [] })
      .thenRefused('BITMAP_NOT_FOUND', notFound)
    given(...base)
      .when({ type: 'merge-bitmaps', ...daily, sources: [weekly, { disk: 'vda', bitmap: 'zz' }] })
      .thenRefused('BITMAP_NOT_FOUND', notFound)
    given(...base)
      .when({ type: 'merge-bitmaps', ...daily, sources: [{ disk: 'vdz', bitmap: 'x' }] })
      .thenRefused('DISK_NOT_FOUND', { disk: 'vdz' })
  })

  test('R4: disks of different sizes are refused with QEMU’s text', () => {
    given(
      diskAdded('vda', 64 * MiB),
      bitmapAdded(),
      diskAdded('small', MiB),
      bitmapAdded({ disk: 'small', bitmap: 'x' }),
    )
      .when({ type: 'merge-bitmaps', ...daily, sources: [{ disk: 'small', bitmap: 'x' }] })
      .thenRefused('SIZES_DIFFER', {
        qemu: "Bitmaps are of different sizes (destination size is 67108864, source size is 1048576) and can't be merged",
      })
  })

  test('R6: a busy bitmap is neither target nor source, not even of itself', () => {
    const both = [...busy(), bitmapAdded(weekly)]
    given(...both)
      .when({ type: 'merge-bitmaps', ...daily, sources: [weekly] })
      .thenRefused('BITMAP_BUSY', { bitmap: 'daily' })
    given(...both)
      .when({ type: 'merge-bitmaps', ...weekly, sources: [daily] })
      .thenRefused('BITMAP_BUSY', { bitmap: 'daily' })
    given(...both)
      .when({ type: 'merge-bitmaps', ...daily, sources: [] })
      .thenRefused('BITMAP_BUSY')
  })
})
