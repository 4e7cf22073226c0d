import { describe, expect, test } from 'vitest'
import type { Base, DomainEvent } from '../../events/types.ts'
import type { BitmapState } from '../../projections/state.ts'
import { CheckpointError } from '../../src/errors.ts'
import { given, type Outcome, timeAt } from '../../src/testing/given.ts'
import { begin, begun, bitmapAdded, busy, daily, diskAdded, GiB, weekly, withSlices, writes } from './kit.ts'

const ended = (type: 'backup-failed' | 'backup-cancelled', backup: string, reason = 'why'): DomainEvent => ({
  type,
  backup,
  reason,
})
const succeeded = (backup: string, bits: 'banked' | 'forgotten' | 'kept' | 'reset'): DomainEvent => ({
  type: 'backup-succeeded',
  backup,
  bits,
})
const at = (kind: Base['kind'], position: number, name?: string): Base => ({
  kind,
  position,
  time: timeAt(position),
  ...(name === undefined ? {} : { name }),
})

function look(outcome: Outcome, check: (bitmap: BitmapState) => void): void {
  outcome.thenState((after) => check(after.disk('vda')!.bitmaps.get('daily')!))
}

describe('begin', () => {
  test('R8: α is frozen, a successor collects from the begin on, and the bitmap is busy', () => {
    const outcome = given(...withSlices(1), writes(2))
      .when(begin('b', 'differential', { base: at('slice', 2, '0') }))
      .then(begun('b', 'differential', { base: at('slice', 2, '0') }))
    look(outcome, (bitmap) => {
      expect(bitmap.holder).toEqual({ kind: 'backup', id: 'b' })
      expect(bitmap.successor).toMatchObject({ from: { position: 8 }, gaps: [], lost: [] })
    })
    outcome.thenState((after) =>
      expect(after.backup('b')).toMatchObject({
        point: { position: 8 },
        generation: 2,
        phase: { kind: 'running' },
      }),
    )
  })

  test('R8: the successor records exactly if the bitmap did', () => {
    look(
      given(diskAdded(), bitmapAdded(daily, { recording: false }), writes(1)).when(begin('b', 'incremental')),
      ({ successor }) => {
        expect(successor?.gaps).toEqual([{ kind: 'disabled', from: successor?.from, to: null }])
      },
    )
  })

  test('R12: left out, the base is where α began: at the creation, or at the last incremental or full', () => {
    given(...withSlices(0), writes(1))
      .when(begin('b', 'incremental'))
      .then(begun('b', 'incremental', { base: at('point', 2) }))
    const once = given(...withSlices(0), writes(1))
      .when(begin('b', 'incremental'))
      .when({ type: 'succeed-backup', backup: 'b' })
    once
      .after(writes(1))
      .when(begin('c', 'differential'))
      .then(begun('c', 'differential', { base: at('point', 4) }))
    const full = given(...withSlices(2), writes(1))
      .when(begin('f', 'full'))
      .when({ type: 'succeed-backup', backup: 'f' })
    full
      .after(writes(1))
      .when(begin('g', 'incremental'))
      .then(begun('g', 'incremental', { base: at('point', 10) }))
  })

  test('R12: after a bank it must be given, and the refusal names what to give', () => {
    given(...withSlices(1))
      .when(begin('b', 'incremental'))
      .thenRefused('SINCE_REQUIRED', { give: 'slice:0' })
    given(...withSlices(2), { type: 'slice-dropped', ...daily, slice: 0, because: 'deleted' })
      .when(begin('b', 'differential'))
      .thenRefused('SINCE_REQUIRED', { give: '@2' })
    given(...withSlices(0))
      .when(begin('first', 'incremental'))
      .when({ type: 'succeed-backup', backup: 'first' })
      .when({ type: 'bank', ...daily })
      .when(begin('b', 'incremental'))
      .thenRefused('SINCE_REQUIRED', { give: 'backup:first' })
  })

  test('R12: after a clear it must be given, since α alone is no increment', () => {
    given(...withSlices(0), writes(1), { type: 'bitmap-cleared', ...daily })
      .when(begin('b', 'incremental'))
      .thenRefused('SINCE_REQUIRED', { give: '@2' })
  })

  test('R12: neither a failed nor a copy nor a differential backup changes what may be left out', () => {
    for (const mode of ['copy', 'differential', 'incremental'] as const) {
      const end = mode === 'incremental' ? ended('backup-failed', 'x') : succeeded('x', 'kept')
      given(...withSlices(0), begun('x', mode), end)
        .when(begin('b', 'incremental'))
        .then(begun('b', 'incremental', { base: at('point', 2) }))
    }
  })

  test('R11: `active` takes α as it is, wherever it began', () => {
    given(...withSlices(1))
      .when(begin('b', 'incremental', { base: at('active', 0) }))
      .then(begun('b', 'incremental', { base: at('active', 5) }))
  })

  test('R11: an incremental’s base may be older than α, and it still banks α alone', () => {
    given(...withSlices(2), writes(1))
      .when(begin('b', 'incremental', { base: at('slice', 2, '0') }))
      .then(begun('b', 'incremental', { base: at('slice', 2, '0') }))
      .when({ type: 'succeed-backup', backup: 'b' })
      .then(succeeded('b', 'banked'), {
        type: 'slice-frozen',
        ...daily,
        slice: 2,
        next: 3,
        cause: { kind: 'backup', id: 'b' },
      })
  })

  test('R11: an incremental with a base later than α’s start is refused', () => {
    given(...withSlices(1), writes(3))
      .when(begin('b', 'incremental', { base: at('position', 7) }))
      .thenRefused('BASE_TOO_LATE', { position: 7, activeFrom: 5 })
    given(...withSlices(1), begun('x', 'copy'), ended('backup-failed', 'x'))
      .when(begin('b', 'incremental', { base: at('backup', 6, 'x') }))
      .thenRefused('BASE_TOO_LATE')
    given(...withSlices(1), begun('x', 'copy'), succeeded('x', 'kept'))
      .when(begin('b', 'incremental', { base: at('position', 6) }))
      .thenRefused('BASE_TOO_LATE')
  })

  test('R11: unless it names a succeeded backup of this disk', () => {
    const base = at('backup', 6, 'x')
    given(...withSlices(1), begun('x', 'copy'), succeeded('x', 'kept'))
      .when(begin('b', 'incremental', { base }))
      .then(begun('b', 'incremental', { base }))
    const other = { disk: 'vdb', bitmap: 'o' }
    given(
      ...withSlices(1),
      [diskAdded('vdb'), bitmapAdded(other)],
      begun('x', 'copy', { ref: other }),
      succeeded('x', 'kept'),
    )
      .when(begin('b', 'incremental', { base: at('backup', 8, 'x') }))
      .thenRefused('BASE_TOO_LATE')
  })

  test('R24: a differential may have any point of the log for a base', () => {
    for (const position of [-1, 0, 4, 7]) {
      const base = at('position', position)
      given(...withSlices(1), writes(3))
        .when(begin('b', 'differential', { base }))
        .then(begun('b', 'differential', { base }))
    }
  })

  test('R11: a base that is no point of the log is refused', () => {
    for (const position of [9, -2, 0.5, Number.NaN]) {
      given(...withSlices(1), writes(3))
        .when(begin('b', 'differential', { base: at('position', position) }))
        .thenRefused('POINT_INVALID', { head: 8 })
    }
  })

  test('R11: full and copy take no base; incremental and differential take no `none`', () => {
    for (const mode of ['full', 'copy'] as const) {
      given(...withSlices(1))
        .when(begin('b', mode, { base: at('slice', 2, '0') }))
        .thenRefused('SINCE_NOT_ALLOWED', { mode })
      given(...withSlices(1))
        .when(begin('b', mode))
        .then(begun('b', mode))
    }
    for (const mode of ['incremental', 'differential'] as const) {
      given(...withSlices(0))
        .when(begin('b', mode, { base: { kind: 'none', position: -1, time: null } }))
        .thenRefused('SINCE_NOT_ALLOWED', { mode })
    }
  })

  test('R15: an incremental without room for its slice is refused at the begin, before anything is copied', () => {
    const base = at('slice', 2, '0')
    given(...withSlices(2, 2))
      .when(begin('b', 'incremental', { base }))
      .thenRefused('RETENTION_FULL', { slices: [0] })
    given(...withSlices(2, 2))
      .when(begin('b', 'incremental', { base, forceCycle: true }))
      .then(begun('b', 'incremental', { base, forceCycle: true }))
    given(...withSlices(2, 2))
      .when(begin('b', 'differential', { base }))
      .then(begun('b', 'differential', { base }))
  })

  test('R6: a second backup on the same bitmap is refused', () => {
    given(...busy())
      .when(begin('b', 'copy'))
      .thenRefused('BITMAP_BUSY', { heldBy: 'night' })
  })

  test('R14: several backups may run on one disk, over different bitmaps', () => {
    given(...busy(), bitmapAdded(weekly))
      .when(begin('b', 'copy', weekly))
      .then(begun('b', 'copy', { ref: weekly }))
  })

  test('R13: an id is never begun again, whether it runs or ended', () => {
    given(...busy())
      .when(begin('night', 'copy'))
      .thenRefused('BACKUP_EXISTS', { state: 'running' })
    given(...busy(), ended('backup-failed', 'night'))
      .when(begin('night', 'copy'))
      .thenRefused('BACKUP_EXISTS', { state: 'failed' })
  })

  test('R4: unknown disk, unknown bitmap, bad id', () => {
    given(diskAdded())
      .when(begin('b', 'full'))
      .thenRefused('BITMAP_NOT_FOUND', { qemu: "Bitmap 'daily' could not be found" })
    given().when(begin('b', 'full')).thenRefused('DISK_NOT_FOUND')
    given(...withSlices(0))
      .when(begin('', 'full'))
      .thenRefused('NAME_EMPTY')
    given(...withSlices(0))
      .when(begin('b', 'full', { group: '' }))
      .thenRefused('NAME_EMPTY')
  })

  test('R25: the plan is asked for last, and its figures are the event’s', () => {
    const plan = () => ({ digest: 'd1', bytes: 65_536, complete: false })
    given(...withSlices(0))
      .when(begin('b', 'incremental'), { plan })
      .thenAnswer({
        kind: 'begun',
        ...daily,
        id: 'b',
        generation: 2,
        base: at('point', 2),
        digest: 'd1',
        bytes: 65_536,
        complete: false,
      })
    const never = () => {
      throw new Error('a refused begin needs no plan')
    }
    given(...withSlices(2, 2))
      .when(begin('b', 'incremental', { base: at('slice', 2) }), { plan: never })
      .thenRefused('RETENTION_FULL')
  })
})

describe('succeed', () => {
  const succeed = (backup: string) => ({ type: 'succeed-backup', backup }) as const

  test('R9: an incremental’s frozen part becomes a slice that ends at its begin', () => {
    const outcome = given(...withSlices(0), writes(2), begun('b', 'incremental'), writes(3)).when(
      succeed('b'),
    )
    outcome.then(succeeded('b', 'banked'), {
      type: 'slice-frozen',
      ...daily,
      slice: 0,
      next: 1,
      cause: { kind: 'backup', id: 'b' },
    })
    outcome.thenAnswer({
      kind: 'ended',
      id: 'b',
      ...daily,
      state: 'succeeded',
      slice: 0,
      generation: 2,
      dropped: [],
      members: [{ id: 'b', ...daily, state: 'succeeded', slice: 0, generation: 2, dropped: [] }],
    })
    look(outcome, (bitmap) => {
      expect(bitmap.slices).toMatchObject([{ number: 0, from: { position: 2 }, to: { position: 5 } }])
      expect(bitmap).toMatchObject({
        holder: null,
        successor: null,
        active: { number: 1, from: { position: 5 } },
        lastBackup: { id: 'b', point: { position: 5 } },
      })
    })
  })

  test('R9: at retention 0 the frozen bits are forgotten, as in QEMU 2.11', () => {
    const outcome = given(...withSlices(0, 0), writes(2), begun('b', 'incremental'), writes(3))
      .when(succeed('b'))
      .then(succeeded('b', 'forgotten'))
    look(outcome, (bitmap) =>
      expect(bitmap).toMatchObject({
        holder: null,
        slices: [],
        active: { number: 0, from: { position: 5 } },
        lastBackup: { id: 'b' },
      }),
    )
  })

  test('R9: differential and copy keep α where it began', () => {
    for (const mode of ['differential', 'copy'] as const) {
      const outcome = given(...withSlices(1), writes(2), begun('b', mode), writes(3))
        .when(succeed('b'))
        .then(succeeded('b', 'kept'))
      look(outcome, (bitmap) =>
        expect(bitmap).toMatchObject({
          holder: null,
          successor: null,
          active: { number: 1, from: { position: 5 } },
          lastBackup: null,
        }),
      )
    }
  })

  test('R9: a full forgets every slice and begins a generation', () => {
    const outcome = given(...withSlices(2), begun('b', 'full'), writes(3)).when(succeed('b'))
    outcome.then(succeeded('b', 'reset'), { type: 'bitmap-reset', ...daily, backup: 'b' })
    look(outcome, (bitmap) => {
      expect(bitmap).toMatchObject({
        generation: 14,
        slices: [],
        active: { number: 0, from: { position: 9 } },
        lastBackup: { id: 'b' },
      })
    })
    outcome.thenState((after) =>
      expect(after.backup('b')?.phase).toMatchObject({ kind: 'succeeded', generation: 14, slice: null }),
    )
    expect(outcome.answers[0]).toMatchObject({ generation: 14, slice: null })
  })

  test('R15: a forced cycle drops the oldest only when the backup succeeds, and says so', () => {
    const outcome = given(...withSlices(2, 2), begun('b', 'incremental', { forceCycle: true })).when(
      succeed('b'),
    )
    outcome.then(
      succeeded('b', 'banked'),
      { type: 'slice-dropped', ...daily, slice: 0, because: 'force-cycle' },
      { type: 'slice-frozen', ...daily, slice: 2, next: 3, cause: { kind: 'backup', id: 'b' } },
    )
    expect(outcome.answers[0]).toMatchObject({ slice: 2, dropped: [{ ...daily, slice: 0 }] })
    outcome.thenState((after) => expect(after.backup('b')?.phase).toMatchObject({ slice: 2, dropped: [0] }))
    look(
      given(...withSlices(2, 2), begun('b', 'incremental', { forceCycle: true })).when({
        type: 'fail-backup',
        backup: 'b',
        reason: '',
      }),
      ({ slices }) => {
        expect(slices.map(({ number }) => number)).toEqual([0, 1])
      },
    )
  })

  test('R13: unknown and ended backups are refused, each in its own way', () => {
    given(...busy())
      .when(succeed('zz'))
      .thenRefused('BACKUP_NOT_FOUND', { backup: 'zz' })
    for (const end of [
      ended('backup-failed', 'night'),
      ended('backup-cancelled', 'night'),
      succeeded('night', 'kept'),
    ]) {
      given(...busy(), end)
        .when(succeed('night'))
        .thenRefused('BACKUP_ENDED', { backup: 'night', position: 4 })
      given(...busy(), end)
        .when({ type: 'fail-backup', backup: 'night', reason: '' })
        .thenRefused('BACKUP_ENDED')
      given(...busy(), end)
        .when({ type: 'cancel-backup', backup: 'night', reason: '' })
        .thenRefused('BACKUP_ENDED')
    }
  })

  test('R10: an interrupted backup must be resumed before it can succeed', () => {
    given(...busy(), { type: 'backup-interrupted', backup: 'night' })
      .when(succeed('night'))
      .thenRefused('BACKUP_STATE', { state: 'interrupted' })
    given(...busy(), { type: 'backup-interrupted', backup: 'night' })
      .when({ type: 'resume-backup', backup: 'night' })
      .then({ type: 'backup-resumed', backup: 'night' })
      .when(succeed('night'))
      .then(succeeded('night', 'kept'))
  })

  test('R10: only what runs is interrupted, only what was interrupted is resumed', () => {
    given(...busy())
      .when({ type: 'resume-backup', backup: 'night' })
      .thenRefused('BACKUP_STATE', { state: 'running' })
    given(...busy(), { type: 'backup-interrupted', backup: 'night' })
      .when({ type: 'interrupt-backup', backup: 'night' })
      .thenRefused('BACKUP_STATE')
    given(...busy())
      .when({ type: 'interrupt-backup', backup: 'night' })
      .then({ type: 'backup-interrupted', backup: 'night' })
    given(...busy(), ended('backup-failed', 'night'))
      .when({ type: 'resume-backup', backup: 'night' })
      .thenRefused('BACKUP_ENDED')
    given(...busy())
      .when({ type: 'interrupt-backup', backup: 'zz' })
      .thenRefused('BACKUP_NOT_FOUND')
  })
})

describe('fail and cancel', () => {
  test('R10: in any mode the bitmap is afterwards as it was before', () => {
    for (const mode of ['full', 'incremental', 'differential', 'copy'] as const) {
      for (const gap of [[], [{ type: 'bitmap-disabled', ...daily }, writes(1)]] as const) {
        const scenario = given(...withSlices(2), writes(2), ...gap)
        const before = scenario.catalog.disk('vda')?.bitmaps.get('daily')
        const running = scenario.when(
          begin('b', mode, mode === 'full' || mode === 'copy' ? {} : { base: at('slice', 2) }),
        )
        for (const type of ['fail-backup', 'cancel-backup'] as const) {
          look(running.after(writes(3)).when({ type, backup: 'b', reason: 'why' }), (after) =>
            expect(after).toEqual(before),
          )
        }
      }
    }
  })

  test('R10: the reason is kept', () => {
    given(...busy())
      .when({ type: 'fail-backup', backup: 'night', reason: 'disk full' })
      .then(ended('backup-failed', 'night', 'disk full'))
      .thenState((after) =>
        expect(after.backup('night')?.phase).toMatchObject({ kind: 'failed', reason: 'disk full' }),
      )
    given(...busy())
      .when({ type: 'cancel-backup', backup: 'night', reason: '' })
      .then(ended('backup-cancelled', 'night', ''))
  })

  test('R10: with bitmap-mode always the frozen bits shrink to what was not copied, so α is no increment any more', () => {
    const outcome = given(...withSlices(0), writes(2), begun('b', 'incremental'), writes(1)).when({
      type: 'fail-backup',
      backup: 'b',
      reason: '',
      uncopied: [[0, 65_536]],
    })
    outcome.then({ type: 'backup-failed', backup: 'b', reason: '', uncopied: [[0, 65_536]] })
    look(outcome, ({ active }) =>
      expect(active.gaps).toMatchObject([{ kind: 'cleared', from: { position: 2 }, to: { position: 5 } }]),
    )
    outcome.when(begin('c', 'incremental')).thenRefused('SINCE_REQUIRED')
  })

  test('R10: that is refused on a bitmap with slices, and for ranges outside the disk', () => {
    given(...busy('incremental', 1))
      .when({ type: 'fail-backup', backup: 'night', reason: '', uncopied: [] })
      .thenRefused('BACKUP_STATE')
    given(...busy())
      .when({ type: 'fail-backup', backup: 'night', reason: '', uncopied: [[GiB, 1]] })
      .thenRefused('RANGE_OUTSIDE_DISK', { index: 0 })
  })

  test('R13: unknown ids are refused', () => {
    given().when({ type: 'fail-backup', backup: 'zz', reason: '' }).thenRefused('BACKUP_NOT_FOUND')
    given().when({ type: 'cancel-backup', backup: 'zz', reason: '' }).thenRefused('BACKUP_NOT_FOUND')
  })
})

describe('groups', () => {
  const two = [
    ...withSlices(0),
    bitmapAdded(weekly),
    [begun('d', 'incremental', { group: 'g' }), begun('w', 'differential', { ref: weekly, group: 'g' })],
  ] as const
  const pending = (backup: string): DomainEvent => ({ type: 'backup-pending', backup })

  test('R14: a member that is done waits; with the last one all succeed in one record', () => {
    given(...two)
      .when({ type: 'succeed-backup', backup: 'w' })
      .then(pending('w'))
      .thenState((after) => expect(after.disk('vda')?.bitmaps.get('weekly')?.holder).not.toBeNull())
      .when({ type: 'succeed-backup', backup: 'd' })
      .then(
        succeeded('d', 'banked'),
        { type: 'slice-frozen', ...daily, slice: 0, next: 1, cause: { kind: 'backup', id: 'd' } },
        succeeded('w', 'kept'),
      )
      .thenState((after) =>
        expect([...after.backups()].map(({ phase }) => phase.kind)).toEqual(['succeeded', 'succeeded']),
      )
  })

  test('R14: the answer lists every member, the caller’s own first', () => {
    const outcome = given(...two, pending('d')).when({ type: 'succeed-backup', backup: 'w' })
    expect(outcome.answers[0]).toMatchObject({
      id: 'w',
      slice: null,
      members: [{ id: 'w' }, { id: 'd', slice: 0 }],
    })
    const waits = given(...two).when({ type: 'succeed-backup', backup: 'w' })
    expect(waits.answers[0]).toMatchObject({
      id: 'w',
      state: 'pending',
      members: [{ id: 'w', state: 'pending' }],
    })
  })

  test('R14: one that fails or is cancelled takes all with it, and each says whose doing it was', () => {
    given(...two, pending('w'))
      .when({ type: 'fail-backup', backup: 'd', reason: 'disk full' })
      .then(
        ended('backup-failed', 'd', 'disk full'),
        ended('backup-failed', 'w', 'backup "d" of its group failed: disk full'),
      )
      .thenState((after) =>
        expect([...(after.disk('vda')?.bitmaps.values() ?? [])].map(({ holder }) => holder)).toEqual([
          null,
          null,
        ]),
      )
    given(...two)
      .when({ type: 'cancel-backup', backup: 'w', reason: '' })
      .then(
        ended('backup-cancelled', 'w', ''),
        ended('backup-cancelled', 'd', 'backup "w" of its group was cancelled'),
      )
  })

  test('R14: a pending member is done and cannot be done again', () => {
    given(...two, pending('w'))
      .when({ type: 'succeed-backup', backup: 'w' })
      .thenRefused('BACKUP_STATE', { state: 'pending', group: 'g' })
    given(...two, pending('w'))
      .when({ type: 'interrupt-backup', backup: 'w' })
      .thenRefused('BACKUP_STATE')
  })

  test('R14: nobody joins a group later', () => {
    given(...two, bitmapAdded({ disk: 'vda', bitmap: 'late' }))
      .when(begin('l', 'copy', { disk: 'vda', bitmap: 'late', group: 'g' }))
      .thenRefused('BACKUP_EXISTS', { group: 'g' })
  })

  test('R14, R20: a grouped begin is one transaction, one record, one point', () => {
    given(...withSlices(0), bitmapAdded(weekly))
      .when([
        begin('d', 'incremental', { group: 'g' }),
        begin('w', 'differential', { ...weekly, group: 'g' }),
      ])
      .thenState((after) => expect([...after.backups()].map(({ point }) => point.position)).toEqual([5, 5]))
  })
})

test('R21: a refusal is a CheckpointError that says what to do', () => {
  const { error } = given(...busy()).when({ type: 'bank', ...daily })
  expect(error).toBeInstanceOf(CheckpointError)
  expect((error as Error).message).toBe(
    'bitmap "daily" of disk "vda" is in use by backup "night"; succeed, fail or cancel that backup first',
  )
})
