import { describe, expect, test } from 'vitest'
import type { Base } from '../../events/types.ts'
import { planShape } from '../../projections/plan.ts'
import { decideTransaction } from '../../src/commands/transaction.ts'
import type { Command, PlanMoment } from '../../src/commands/types.ts'
import { limits } from '../../src/limits.ts'
import { CALM, given, timeAt } from '../../src/testing/given.ts'
import {
  begin,
  begun,
  bitmapAdded,
  busy,
  daily,
  diskAdded,
  frozen,
  weekly,
  withSlices,
  writes,
} from './kit.ts'

const removed = { type: 'bitmap-removed', ...daily, because: 'command' } as const

describe('transactions', () => {
  test('R20: commands are decided in order, each on what those before it did', () => {
    given(diskAdded(), bitmapAdded(), bitmapAdded(weekly))
      .when([
        { type: 'disable-bitmap', ...daily },
        { type: 'add-bitmap', disk: 'vda', bitmap: 'tmp', disabled: true },
        { type: 'merge-bitmaps', disk: 'vda', bitmap: 'tmp', sources: [daily, weekly] },
        { type: 'clear-bitmap', ...weekly },
      ])
      .then(
        { type: 'bitmap-disabled', ...daily },
        bitmapAdded({ disk: 'vda', bitmap: 'tmp' }, { recording: false }),
        { type: 'bitmap-merged', disk: 'vda', bitmap: 'tmp', sources: [daily, weekly] },
        { type: 'bitmap-cleared', ...weekly },
      )
  })

  test('R20, R21: the first refusal refuses all of it, and says which command it was', () => {
    const scenario = given(...withSlices(1))
    const before = scenario.catalog.toPlain()
    scenario
      .when([
        { type: 'bank', ...daily },
        { type: 'clear-bitmap', ...weekly },
      ])
      .thenRefused('BITMAP_NOT_FOUND', { index: 1, bitmap: 'weekly' })
    expect(scenario.catalog.toPlain()).toEqual(before)
  })

  test('R20: `abort` refuses with QEMU’s text', () => {
    const { error } = given(...withSlices(1))
      .when([{ type: 'bank', ...daily }, { type: 'abort' }])
      .thenRefused('TRANSACTION_ABORTED', { qemu: 'Transaction aborted using Abort action' })
    expect((error as Error).message).toBe('Transaction aborted using Abort action')
    given().when({ type: 'abort' }).thenRefused('TRANSACTION_ABORTED')
  })

  test('R20: an empty list, and one that changes nothing, come to no events', () => {
    given(...withSlices(1))
      .when([])
      .thenNothing()
    given(...withSlices(1))
      .when([{ type: 'enable-bitmap', ...daily }])
      .thenNothing()
  })

  test('R20: remove acts at the end, whatever stands after it', () => {
    given(...withSlices(0), bitmapAdded(weekly))
      .when([
        { type: 'remove-bitmap', ...daily },
        { type: 'clear-bitmap', ...weekly },
      ])
      .then({ type: 'bitmap-cleared', ...weekly }, removed)
      .thenState((after) => expect([...(after.disk('vda')?.bitmaps.keys() ?? [])]).toEqual(['weekly']))
  })

  test('R20: until then the name is taken and the bitmap busy', () => {
    const remove: Command = { type: 'remove-bitmap', ...daily }
    const scenario = given(...withSlices(1), bitmapAdded(weekly))
    scenario.when([remove, { type: 'add-bitmap', ...daily }]).thenRefused('BITMAP_EXISTS', { index: 1 })
    const refused: Command[] = [
      remove,
      { type: 'clear-bitmap', ...daily },
      { type: 'merge-bitmaps', ...weekly, sources: [daily] },
      { type: 'bank', ...daily },
      begin('b', 'full'),
      { type: 'resize-disk', disk: 'vda', size: 1 },
      { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [daily] },
    ]
    for (const command of refused)
      scenario.when([remove, command]).thenRefused('BITMAP_BUSY', { heldBy: 'removal', index: 1 })
    scenario
      .when([remove, { type: 'remove-disk', disk: 'vda' }])
      .thenRefused('DISK_BUSY', { heldBy: ['removal'] })
  })

  test('R20: a bitmap that was added in the transaction may be removed in it', () => {
    given(diskAdded())
      .when([
        { type: 'add-bitmap', ...daily },
        { type: 'remove-bitmap', ...daily },
      ])
      .then(bitmapAdded(), removed)
  })

  test('R20: a point inside the record means its end', () => {
    given(...withSlices(0), writes(2))
      .when([
        { type: 'bank', ...daily },
        { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] },
        { type: 'add-bitmap', ...weekly },
      ])
      .thenState((after) => {
        const end = { position: 7, time: timeAt(7) }
        expect(after.last).toEqual(end)
        expect(after.disk('vda')?.bitmaps.get('daily')?.active.from).toEqual(end)
        expect(after.checkpoint('c')?.point).toEqual(end)
        expect(after.disk('vda')?.bitmaps.get('weekly')).toMatchObject({ createdAt: end, generation: 7 })
      })
  })

  test('R12, R20: a begin’s base inside its own record is the record’s end, where nothing was written yet', () => {
    const { events } = given(diskAdded(), writes(1)).when(
      [{ type: 'add-bitmap', ...daily }, begin('b', 'incremental')],
      { time: timeAt(3) },
    )
    const base: Base = { kind: 'point', position: 3, time: timeAt(3) }
    expect(events).toEqual([bitmapAdded(), begun('b', 'incremental', { base })])
  })

  describe('R35: what lies before the point of a begin is told ahead of it', () => {
    const lost: Command = {
      type: 'declare-lost',
      disk: 'vda',
      from: { position: 2, time: timeAt(2) },
      reason: 'cable',
    }
    const window: Command = {
      type: 'record-window',
      disk: 'vda',
      from: { position: 2, time: timeAt(2) },
      writes: 1,
      extents: [[0, 512]],
    }
    const attach: Command = { type: 'attach-disk', disk: 'vda', recorder: 'caller', quiet: false }

    test.each([lost, { ...lost, from: null }, window])(
      'R35: $type behind a begin of its disk is refused, ahead of it not',
      (told) => {
        const scenario = given(...withSlices(0), writes(2))
        for (const mode of ['full', 'differential', 'incremental', 'copy'] as const) {
          scenario
            .when([begin('b', mode), told])
            .thenRefused('TOLD_TOO_LATE', { disk: 'vda', backup: 'b', index: 1 })
          scenario
            .when([told, begin('b', mode)])
            .thenState((after) => expect(after.backup('b')).toBeDefined())
        }
        scenario
          .when([told, begin('b', 'full'), { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] }, told])
          .thenRefused('TOLD_TOO_LATE', { index: 3 })
      },
    )

    test('R35: a stretch that an attach finds is no exception; one of another disk is none of its business', () => {
      const served = given(
        ...withSlices(0),
        { type: 'disk-attached', disk: 'vda', recorder: 'store' },
        writes(1),
      )
      const uncleanly = {
        unclean: new Set(['vda']),
        uncleanSince: new Map([['vda', { position: 4, time: timeAt(4) }]]),
      }
      served.when([begin('b', 'full'), attach], uncleanly).thenRefused('TOLD_TOO_LATE', { index: 1 })
      served.when([attach, begin('b', 'full')], uncleanly).thenState((after) => {
        expect(after.disk('vda')?.lost).toHaveLength(1)
      })
      given(...withSlices(0), diskAdded('vdb'), writes(2))
        .when([begin('b', 'full'), { ...lost, disk: 'vdb' }])
        .thenState((after) => expect(after.disk('vdb')?.lost).toHaveLength(1))
    })

    test('R35: told after the begin in a record of its own, the next plan covers it', () => {
      given(...withSlices(0), writes(2))
        .when(begin('b', 'full'))
        .when(lost)
        .thenState((after) => {
          const disk = after.disk('vda')!
          const base = { kind: 'backup', name: 'b', ...after.backup('b')!.point } as const
          expect(planShape(disk, disk.bitmaps.get('daily')!, base, after.last).whole).toContain('cable')
        })
    })
  })

  test('R20: the plan of a begin sees what the transaction did before it', () => {
    const seen: PlanMoment[] = []
    const plan = (_command: Command, _base: Base, moment: PlanMoment) => {
      seen.push(moment)
      return { digest: 'digest', bytes: 0, complete: true }
    }
    given(...withSlices(0), writes(2)).when(
      [
        { type: 'bank', ...daily },
        begin('b', 'full'),
        { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] },
      ],
      { plan },
    )
    expect(seen).toHaveLength(1)
    expect(seen[0]?.events).toMatchObject([{ type: 'slice-frozen' }])
    expect(seen[0]?.point.position).toBe(7)
  })

  test('R20: a plan is not asked for when a later command is refused', () => {
    const plan = () => {
      throw new Error('a refused transaction needs no plan')
    }
    given(...withSlices(0))
      .when([begin('b', 'full'), { type: 'bank', ...daily }], { plan })
      .thenRefused('BITMAP_BUSY', { index: 1 })
  })

  test('R20: the answers stand in the commands’ order, whatever the events’ order is', () => {
    const { answers } = given(...withSlices(1), bitmapAdded(weekly, { retention: 1 })).when([
      { type: 'remove-bitmap', ...daily },
      { type: 'enable-bitmap', ...weekly },
      { type: 'bank', ...weekly },
      { type: 'add-bitmap', disk: 'vda', bitmap: 'new' },
    ])
    expect(answers).toEqual([
      { kind: 'done', changed: true },
      { kind: 'done', changed: false },
      { kind: 'banked', ...weekly, generation: 6, slice: 0, dropped: [] },
      { kind: 'bitmap', disk: 'vda', bitmap: 'new', generation: 8 },
    ])
  })

  test('R20: a transaction has a largest number of commands', () => {
    const commands = Array.from(
      { length: limits.transactionCommandsMax + 1 },
      (): Command => ({ type: 'abort' }),
    )
    expect(() => decideTransaction(given().catalog, commands, CALM)).toThrow(RangeError)
  })

  test('R21: deciding never changes the catalog, accepted or not', () => {
    const scenario = given(...busy('incremental', 2), bitmapAdded(weekly))
    const before = scenario.catalog.toPlain()
    scenario
      .when([
        { type: 'succeed-backup', backup: 'night' },
        { type: 'bank', ...daily },
      ])
      .then(
        { type: 'backup-succeeded', backup: 'night', bits: 'banked' },
        { type: 'slice-frozen', ...daily, slice: 2, next: 3, cause: { kind: 'backup', id: 'night' } },
        frozen(3, 4),
      )
    scenario
      .when([
        { type: 'succeed-backup', backup: 'night' },
        { type: 'remove-disk', disk: 'vda' },
        { type: 'bank', ...daily },
      ])
      .thenRefused('DISK_NOT_FOUND')
    expect(scenario.catalog.toPlain()).toEqual(before)
  })
})
