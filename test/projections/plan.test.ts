import { describe, expect, test } from 'vitest'
import type { Base, BaseKind } from '../../events/types.ts'
import { type PlanShape, planReason, planShape } from '../../projections/plan.ts'
import { type Given, given, timeAt } from '../../src/testing/given.ts'
import {
  attached,
  begun,
  bitmapAdded,
  daily,
  diskAdded,
  frozen,
  GiB,
  MiB,
  withSlices,
  writes,
} from '../commands/kit.ts'

const since = (position: number, kind: BaseKind = 'position', name?: string): Base => ({
  kind,
  position,
  time: timeAt(position),
  ...(name === undefined ? {} : { name }),
})

function plan(records: readonly Given[], base: Base): PlanShape {
  const { catalog } = given(...records)
  const disk = catalog.disk('vda')!
  return planShape(disk, disk.bitmaps.get('daily')!, base, catalog.last)
}

const partsOf = ({ parts }: PlanShape) => parts.map((part) => (part.kind === 'slice' ? part.slice : 'active'))
const stretchesOf = ({ stretches }: PlanShape) =>
  stretches.map(({ from, to, why }) => [from.position, to.position, why])

// Positions: disk 0, attach 1, bitmap 2, writes 3-4, slice 0 at 5, writes 6-7, slice 1 at 8, writes 9-10, slice 2 at 11.
const three = withSlices(3)

describe('parts', () => {
  test('R11: since slice N the plan is the slices from N on and α', () => {
    expect(partsOf(plan(three, since(2)))).toEqual([0, 1, 2, 'active'])
    expect(partsOf(plan(three, since(8)))).toEqual([2, 'active'])
    expect(partsOf(plan(three, since(11)))).toEqual(['active'])
    for (const position of [2, 5, 8, 11])
      expect(plan(three, since(position))).toMatchObject({
        whole: null,
        stretches: [],
        outside: null,
        lost: [],
        complete: true,
      })
  })

  test('R11, R24: a base inside a slice takes the rest of that slice from the log', () => {
    const shape = plan(three, since(6))
    expect(partsOf(shape)).toEqual([2, 'active'])
    expect(stretchesOf(shape)).toEqual([[6, 8, 'inside-slice']])
  })

  test('R11, R24: a base inside α takes all from the log', () => {
    const shape = plan([...three, writes(4)], since(13))
    expect(partsOf(shape)).toEqual([])
    expect(stretchesOf(shape)).toEqual([[13, 15, 'inside-slice']])
  })

  test('R11: a base at the head is an empty plan', () => {
    expect(plan([...three, writes(4)], since(15))).toMatchObject({ whole: null, parts: [], stretches: [] })
  })

  test('R11: before the bitmap was, the log has the writes', () => {
    expect(stretchesOf(plan([diskAdded(), writes(3), bitmapAdded()], since(1)))).toEqual([[1, 4, 'absent']])
  })

  test('R11: where slices are gone, the log has the writes', () => {
    const dropped: Given = { type: 'slice-dropped', ...daily, slice: 0, because: 'deleted' }
    expect(stretchesOf(plan([...three, dropped], since(3)))).toEqual([[3, 5, 'before-slices']])
    const both = plan(
      [diskAdded(), writes(2), bitmapAdded(daily, { retention: 3 }), writes(2), frozen(0, 1), dropped],
      since(1),
    )
    expect(stretchesOf(both)).toEqual([
      [1, 3, 'absent'],
      [3, 6, 'before-slices'],
    ])
  })

  test('R9, R11: so it does where a full forgot them', () => {
    const full: Given[] = [
      begun('f', 'full'),
      [
        { type: 'backup-succeeded', backup: 'f', bits: 'reset' },
        { type: 'bitmap-reset', ...daily, backup: 'f' },
      ],
    ]
    const shape = plan([...three, ...full], since(8))
    expect(partsOf(shape)).toEqual(['active'])
    expect(stretchesOf(shape)).toEqual([[8, 12, 'before-slices']])
  })

  test('R16: a merged slice is taken whole, or its rest from the log when the base was its inner point', () => {
    const merged: Given = { type: 'slice-merged', ...daily, slice: 1, into: 0 }
    expect(partsOf(plan([...three, merged], since(2)))).toEqual([0, 2, 'active'])
    expect(stretchesOf(plan([...three, merged], since(5)))).toEqual([[5, 8, 'inside-slice']])
  })
})

describe('gaps', () => {
  test('R11: a stretch in which the bitmap was disabled is named, open ones up to the plan’s point', () => {
    const closed: Given[] = [
      ...withSlices(0),
      writes(1),
      { type: 'bitmap-disabled', ...daily },
      writes(2),
      { type: 'bitmap-enabled', ...daily },
    ]
    expect(stretchesOf(plan(closed, since(2)))).toEqual([[4, 7, 'disabled']])
    const open: Given[] = [...closed, { type: 'bitmap-disabled', ...daily }, writes(3)]
    expect(stretchesOf(plan(open, since(2)))).toEqual([
      [4, 7, 'disabled'],
      [8, 11, 'disabled'],
    ])
  })

  test('R11: so is one that a clear took, also in a slice', () => {
    const cleared: Given[] = [...withSlices(0), writes(2), { type: 'bitmap-cleared', ...daily }, writes(1)]
    expect(stretchesOf(plan(cleared, since(2)))).toEqual([[2, 5, 'cleared']])
    expect(stretchesOf(plan([...cleared, frozen(0, 1), writes(1)], since(2)))).toEqual([[2, 5, 'cleared']])
  })

  test('R11: a gap inside a part that is read from the log anyway is not named again', () => {
    const records: Given[] = [...withSlices(0), writes(2), { type: 'bitmap-disabled', ...daily }, writes(2)]
    expect(stretchesOf(plan(records, since(4)))).toEqual([[4, 7, 'inside-slice']])
  })

  test('R6, R11: a look at a busy bitmap has the gaps of its successor too', () => {
    const records: Given[] = [
      diskAdded(),
      bitmapAdded(daily, { recording: false }),
      writes(1),
      begun('b', 'copy'),
      writes(2),
    ]
    expect(stretchesOf(plan(records, since(1)))).toEqual([
      [1, 3, 'disabled'],
      [3, 5, 'disabled'],
    ])
  })
})

describe('active', () => {
  test('R11: `active` takes α’s bits as they are', () => {
    expect(plan(three, since(11, 'active'))).toEqual({
      whole: null,
      parts: [{ kind: 'active' }],
      stretches: [],
      outside: null,
      lost: [],
      complete: true,
    })
  })

  test('R11: and says that it is not complete where a stretch is missing', () => {
    for (const type of ['bitmap-disabled', 'bitmap-cleared'] as const) {
      expect(plan([...three, writes(1), { type, ...daily }], since(11, 'active'))).toMatchObject({
        stretches: [],
        complete: false,
      })
    }
  })

  test('R35: a lost stretch is named, and does not cover the whole disk', () => {
    const shape = plan(
      [...three, { type: 'stretch-lost', disk: 'vda', from: since(11), reason: 'crash' }],
      since(11, 'active'),
    )
    expect(shape).toMatchObject({ whole: null, complete: false, lost: [{ reason: 'crash' }] })
  })

  test('R7: it too holds what lay outside the disk since α began', () => {
    expect(
      plan([...three, { type: 'disk-resized', disk: 'vda', size: 2 * GiB }], since(11, 'active')).outside,
    ).toEqual({ from: GiB, to: 2 * GiB })
  })
})

describe('the whole disk', () => {
  test('R9: without a base', () => {
    expect(plan(three, { kind: 'none', position: -1, time: null })).toMatchObject({
      whole: 'it has no base',
      parts: [],
      complete: true,
    })
  })

  test('R24: with a base older than the disk', () => {
    const records = [diskAdded('other'), diskAdded(), bitmapAdded()]
    expect(plan(records, since(0)).whole).toContain('older than the disk, which was added at position 1')
    expect(plan(records, since(-1, 'start')).whole).not.toBeNull()
    expect(plan(records, since(1)).whole).toBeNull()
  })

  test('R35: with a base older than the end of a lost stretch, which is named; newer bases are untouched', () => {
    const records: Given[] = [
      ...three,
      { type: 'stretch-lost', disk: 'vda', from: since(9), reason: 'the agent was down' },
      writes(2),
    ]
    for (const position of [2, 8, 10, 11]) {
      const shape = plan(records, since(position))
      expect(shape.whole).toContain('the agent was down')
      expect(shape).toMatchObject({
        parts: [],
        complete: true,
        lost: [{ from: { position: 9 }, to: { position: 12 } }],
      })
    }
    expect(plan(records, since(12))).toMatchObject({ whole: null, lost: [] })
  })
})

describe('R7: bytes outside the disk', () => {
  const resize = (size: number): Given => ({ type: 'disk-resized', disk: 'vda', size })

  test('R7: growing since the base puts the new bytes into the plan', () => {
    expect(plan([...three, resize(2 * GiB)], since(11)).outside).toEqual({ from: GiB, to: 2 * GiB })
    expect(plan([...three, resize(2 * GiB)], since(12)).outside).toBeNull()
  })

  test('R7: shrinking and growing again puts in what was outside at any moment since', () => {
    expect(plan([...three, resize(MiB), resize(GiB)], since(11)).outside).toEqual({ from: MiB, to: GiB })
    expect(plan([...three, resize(MiB), resize(GiB)], since(12)).outside).toEqual({ from: MiB, to: GiB })
    expect(plan([...three, resize(MiB), resize(GiB)], since(13)).outside).toBeNull()
  })

  test('R7: shrinking puts nothing in', () => {
    expect(plan([...three, resize(MiB)], since(11)).outside).toBeNull()
  })
})

describe('R25: the reason in words', () => {
  const reason = (records: readonly Given[], base: Base) => planReason(plan(records, base), base)

  test('R25: it says since when, and what the plan merges', () => {
    expect(reason(three, since(5, 'slice', '1'))).toBe(
      'what changed since slice 1 began (position 5); from slices 1, 2 and the active part',
    )
    expect(reason(three, since(11, 'point'))).toBe(
      'what changed since the active part began (position 11); from the active part',
    )
    expect(reason(three, since(8, 'checkpoint', 'monday'))).toContain(
      'checkpoint "monday" (position 8); from slice 2 and',
    )
    expect(reason(three, since(11, 'backup', 'b'))).toContain('since backup "b"')
    expect(reason(three, since(11, 'time'))).toContain('2026-01-01T00:00:11.000Z')
  })

  test('R25: it names stretches, bytes outside, and what is missing', () => {
    const records: Given[] = [
      diskAdded(),
      writes(2),
      bitmapAdded(),
      { type: 'disk-resized', disk: 'vda', size: 2 * GiB },
    ]
    const words = reason(records, since(1))
    expect(words).toContain('from the log after position 1 up to 3, when the bitmap did not exist yet')
    expect(words).toContain(`bytes ${GiB} to ${2 * GiB}, which lay outside the disk`)
    expect(
      reason([...three, writes(1), { type: 'bitmap-cleared', ...daily }], since(11, 'active')),
    ).toContain('not complete')
  })

  test('R24, R35: it says why the whole disk is covered', () => {
    expect(reason(three, { kind: 'none', position: -1, time: null })).toBe('the whole disk: it has no base')
    expect(reason(three, since(-1, 'start'))).toContain(
      'the whole disk, because its base (position -1) is older than the disk',
    )
    const lost: Given[] = [
      diskAdded(),
      attached(),
      bitmapAdded(),
      { type: 'stretch-lost', disk: 'vda', from: since(2), reason: 'crash' },
      { type: 'stretch-lost', disk: 'vda', from: since(3), reason: 'again' },
    ]
    expect(reason(lost, since(2))).toContain(
      'writes after position 2 up to 3 may be lost (crash), and 1 more',
    )
  })
})
