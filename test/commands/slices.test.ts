import { describe, expect, test } from 'vitest'
import type { BitmapState } from '../../projections/state.ts'
import { given, type Outcome } from '../../src/testing/given.ts'
import { begin, begun, bitmapAdded, busy, daily, diskAdded, frozen, NONE, withSlices, writes } from './kit.ts'

const dropped = (slice: number, because: 'force-cycle' | 'retention' | 'deleted') =>
  ({ type: 'slice-dropped', ...daily, slice, because }) as const
const merged = (slice: number, into: number) => ({ type: 'slice-merged', ...daily, slice, into }) as const
const del = (slice: number, generation?: number) =>
  ({ type: 'delete-slice', ...daily, slice, generation }) as const

function look(outcome: Outcome, check: (bitmap: BitmapState) => void): void {
  outcome.thenState((after) => check(after.disk('vda')!.bitmaps.get('daily')!))
}

describe('bank', () => {
  test('R17: α becomes a slice under its own number, and a new α begins there', () => {
    const outcome = given(...withSlices(1), writes(2))
      .when({ type: 'bank', ...daily })
      .then(frozen(1, 2))
    outcome.thenAnswer({ kind: 'banked', ...daily, generation: 2, slice: 1, dropped: [] })
    look(outcome, (bitmap) => {
      expect(bitmap.slices.map(({ number, from, to }) => [number, from.position, to.position])).toEqual([
        [0, 2, 5],
        [1, 5, 8],
      ])
      expect(bitmap.active).toMatchObject({ number: 2, from: { position: 8 }, gaps: [] })
    })
  })

  test('R17: at retention 0 it is refused, even with forceCycle', () => {
    for (const forceCycle of [false, true])
      given(diskAdded(), bitmapAdded())
        .when({ type: 'bank', ...daily, forceCycle })
        .thenRefused('RETENTION_ZERO', daily)
  })

  test('R15: without room it is refused, naming the slices that stand in the way', () => {
    given(...withSlices(2, 2))
      .when({ type: 'bank', ...daily })
      .thenRefused('RETENTION_FULL', { slices: [0], retention: 2, generation: 2 })
  })

  test('R15: with forceCycle it drops the oldest and says so', () => {
    given(...withSlices(2, 2))
      .when({ type: 'bank', ...daily, forceCycle: true })
      .then(dropped(0, 'force-cycle'), frozen(2, 3))
      .thenAnswer({ kind: 'banked', ...daily, generation: 2, slice: 2, dropped: [{ ...daily, slice: 0 }] })
  })

  test('R6: a busy bitmap cannot be banked', () => {
    given(...busy())
      .when({ type: 'bank', ...daily })
      .thenRefused('BITMAP_BUSY', { heldBy: 'night' })
    given(diskAdded())
      .when({ type: 'bank', ...daily })
      .thenRefused('BITMAP_NOT_FOUND')
  })

  test('R11: a gap that is open when α is cut ends in the slice and goes on in the new α', () => {
    look(
      given(...withSlices(0), { type: 'bitmap-disabled', ...daily }, writes(2)).when({
        type: 'bank',
        ...daily,
      }),
      (bitmap) => {
        const at = bitmap.active.from
        expect(bitmap.slices[0]?.gaps).toMatchObject([{ kind: 'disabled', from: { position: 3 }, to: at }])
        expect(bitmap.active.gaps).toEqual([{ kind: 'disabled', from: at, to: null }])
      },
    )
  })
})

describe('set-retention', () => {
  const set = (retention: number, forceCycle = false) =>
    ({ type: 'set-retention', ...daily, retention, forceCycle }) as const

  test('R15: raising it is an event; the retention it has is none', () => {
    given(...withSlices(2))
      .when(set(11))
      .then({ type: 'retention-set', ...daily, retention: 11 })
    given(...withSlices(2))
      .when(set(10))
      .thenNothing()
      .thenAnswer({ kind: 'retention', ...daily, generation: 2, dropped: [] })
  })

  test('R15: lowering it below what is held is refused, naming the slices in the way', () => {
    given(...withSlices(3))
      .when(set(1))
      .thenRefused('RETENTION_FULL', { slices: [0, 1] })
    given(...withSlices(3))
      .when(set(0))
      .thenRefused('RETENTION_FULL', { slices: [0, 1, 2] })
  })

  test('R15: with forceCycle lowering drops the oldest, because of the retention', () => {
    given(...withSlices(3))
      .when(set(1, true))
      .then(
        { type: 'retention-set', ...daily, retention: 1 },
        dropped(0, 'retention'),
        dropped(1, 'retention'),
      )
      .thenAnswer({
        kind: 'retention',
        ...daily,
        generation: 2,
        dropped: [
          { ...daily, slice: 0 },
          { ...daily, slice: 1 },
        ],
      })
  })

  test('R6, R15: refused while busy, for an unknown bitmap, and for what is no number of slices', () => {
    given(...busy())
      .when(set(5))
      .thenRefused('BITMAP_BUSY')
    given(diskAdded()).when(set(5)).thenRefused('BITMAP_NOT_FOUND')
    for (const wrong of [-1, 1.5, 65_536, Number.NaN])
      given(...withSlices(0))
        .when(set(wrong))
        .thenRefused('RETENTION_INVALID')
  })
})

describe('delete-slice', () => {
  test('R16: deleting slice N merges it into the next older slice', () => {
    const outcome = given(...withSlices(3))
      .when(del(1))
      .then(merged(1, 0))
    outcome.thenAnswer({ kind: 'slice-deleted', ...daily, generation: 2, slice: 1, into: 0 })
    look(outcome, (bitmap) => {
      expect(bitmap.slices.map(({ number, from, to }) => [number, from.position, to.position])).toEqual([
        [0, 2, 8],
        [2, 8, 11],
      ])
    })
  })

  test('R16: the oldest has no older one and is dropped', () => {
    given(...withSlices(2))
      .when(del(0))
      .then(dropped(0, 'deleted'))
      .thenAnswer({ kind: 'slice-deleted', ...daily, generation: 2, slice: 0, into: null })
  })

  test('R16, R35: gaps and lost stretches go along, joined where they touch', () => {
    const gapped = given(
      diskAdded(),
      bitmapAdded(daily, { retention: 5 }),
      { type: 'bitmap-disabled', ...daily },
      writes(1),
      frozen(0, 1),
      writes(1),
      { type: 'stretch-lost', disk: 'vda', from: { position: 3, time: null }, reason: 'test' },
      { type: 'bitmap-enabled', ...daily },
      frozen(1, 2),
    )
    look(gapped.when(del(1)), ({ slices }) => {
      expect(slices[0]?.gaps.map(({ kind, from, to }) => [kind, from.position, to?.position])).toEqual([
        ['disabled', 2, 7],
      ])
      expect(slices[0]?.lost).toHaveLength(1)
    })
  })

  test('R18: a number that was never given is not found; nor is the active part’s, which is said', () => {
    for (const number of [5, -1, 0.5, Number.NaN])
      given(...withSlices(2))
        .when(del(number))
        .thenRefused('SLICE_NOT_FOUND', { active: false, slices: [0, 1] })
    given(...withSlices(2))
      .when(del(2))
      .thenRefused('SLICE_NOT_FOUND', { active: true })
    given(diskAdded(), bitmapAdded()).when(del(0)).thenRefused('SLICE_NOT_FOUND', { active: true })
  })

  test('R18: a dropped slice is refused with the position and the reason', () => {
    given(...withSlices(2), dropped(0, 'deleted'))
      .when(del(0))
      .thenRefused('SLICE_DROPPED', { position: 9, because: 'deleted' })
    given(...withSlices(2), [dropped(0, 'force-cycle'), frozen(2, 3)])
      .when(del(0))
      .thenRefused('SLICE_DROPPED', { position: 9, because: 'force-cycle' })
  })

  test('R18: a merged slice is refused with the slice that has its bits, then and now', () => {
    given(...withSlices(3), merged(2, 1))
      .when(del(2))
      .thenRefused('SLICE_MERGED', { position: 12, into: 1, now: 1 })
    given(...withSlices(3), merged(2, 1), merged(1, 0))
      .when(del(2))
      .thenRefused('SLICE_MERGED', { position: 12, into: 1, now: 0 })
    given(...withSlices(3), merged(2, 1), merged(1, 0), dropped(0, 'deleted'))
      .when(del(2))
      .thenRefused('SLICE_MERGED', { into: 1, now: null })
  })

  test('R18: GENERATION.N is checked against the bitmap’s generation', () => {
    given(...withSlices(2))
      .when(del(1, 2))
      .then(merged(1, 0))
    const reset = [
      ...withSlices(2),
      begun('full', 'full'),
      [
        { type: 'backup-succeeded', backup: 'full', bits: 'reset' },
        { type: 'bitmap-reset', ...daily, backup: 'full' },
      ],
    ] as const
    given(...reset)
      .when(del(1, 2))
      .thenRefused('SLICE_OLD_GENERATION', { asked: 2, generation: 11, endedAt: 11 })
    given(...reset)
      .when(del(7, 2))
      .thenRefused('SLICE_NOT_FOUND', { asked: 2 })
    given(...reset)
      .when(del(1, 3))
      .thenRefused('SLICE_NOT_FOUND', { asked: 3 })
    given(...reset)
      .when(del(1))
      .thenRefused('SLICE_NOT_FOUND', { active: false })
  })

  test('R18: a number whose point was deleted before it became a slice is answered with the slice that has its writes', () => {
    given(...withSlices(2), { type: 'slice-reactivated', ...daily, slice: 1, deleted: 2 })
      .when({ type: 'bank', ...daily })
      .then(frozen(1, 3))
      .when(del(2))
      .thenRefused('SLICE_MERGED', { position: 9, into: 1, now: 1 })
  })

  test('R18: numbers rise and are never used twice in a generation', () => {
    const outcome = given(...withSlices(3), merged(2, 1), dropped(0, 'deleted')).when({
      type: 'bank',
      ...daily,
    })
    outcome.then(frozen(3, 4))
  })

  test('R18: after more tombstones than are kept, an old number is still refused as dropped', () => {
    let scenario = given(...withSlices(0, 1))
    for (let n = 0; n < 1030; n++)
      scenario = scenario.when({ type: 'bank', ...daily, forceCycle: true }).after()
    scenario.when(del(0)).thenRefused('SLICE_DROPPED', { position: null })
    scenario.when(del(1028)).thenRefused('SLICE_DROPPED', { because: 'force-cycle' })
  })

  test('R6: refused while busy', () => {
    given(...busy('differential', 2))
      .when(del(1))
      .thenRefused('BITMAP_BUSY', { heldBy: 'night' })
    given(diskAdded()).when(del(1)).thenRefused('BITMAP_NOT_FOUND')
  })
})

test('R18: a full reset restarts the numbers under a new generation', () => {
  const outcome = given(...withSlices(3))
    .when(begin('full', 'full'))
    .then(begun('full', 'full', { base: NONE }))
    .after(writes(2))
    .when({ type: 'succeed-backup', backup: 'full' })
  look(outcome, (bitmap) => {
    expect(bitmap).toMatchObject({
      generation: 16,
      slices: [],
      highestNumber: 0,
      tombstones: [],
      active: { number: 0, from: { position: 12 } },
    })
    expect(bitmap.pastGenerations).toEqual([{ generation: 2, endedAt: 16, numbers: 4 }])
  })
})
