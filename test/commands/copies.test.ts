/** What the keeper of the copies may report: one is gone, several were combined (R13, R19, R25). */
import { describe, expect, test } from 'vitest'
import type { Base, DomainEvent } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import { objectionTo } from '../../src/audit/legal.ts'
import { type Given, given, type Scenario, timeAt } from '../../src/testing/given.ts'
import { begin, begun, bitmapAdded, daily, diskAdded, GiB, NONE, weekly, writes } from './kit.ts'

const since = (position: number): Base => ({ kind: 'position', position, time: timeAt(position) })
const succeeded = (backup: string): DomainEvent => ({ type: 'backup-succeeded', backup, bits: 'kept' })
const forgotten = (backup: string, reason = 'tape 7 broke'): DomainEvent => ({
  type: 'backup-forgotten',
  backup,
  reason,
})
const forget = (backup: string, reason = 'tape 7 broke') =>
  ({ type: 'forget-backup', backup, reason }) as const
const combined = (backup: string, ...of: string[]) => ({ type: 'backups-combined', backup, of }) as const
const combine = (backup: string, ...of: string[]) => ({ type: 'record-combined', backup, of }) as const

/** A disk (0), `daily` (1), `weekly` (2). */
const disk: Given[] = [diskAdded(), bitmapAdded(), bitmapAdded(weekly)]
const incomplete = (event: DomainEvent): DomainEvent => ({ ...event, complete: false }) as DomainEvent

/** copy `full` of 3, then increments: `a` of 6 since 3, `b` of 9 since 6, `c` of 12 since 9. */
const chain: Given[] = [
  ...disk,
  begun('full', 'copy'),
  succeeded('full'),
  writes(1),
  begun('a', 'differential', { base: since(3) }),
  succeeded('a'),
  writes(1),
  begun('b', 'differential', { base: since(6) }),
  succeeded('b'),
  writes(1),
  begun('c', 'differential', { base: since(9) }),
  succeeded('c'),
]
const chained = (...more: Given[]): Scenario => given(...chain, ...more)

describe('forget-backup', () => {
  test('R19: the copy of a succeeded backup is forgotten, with its reason and its moment', () => {
    chained()
      .when(forget('a'))
      .then(forgotten('a'))
      .thenAnswer({ kind: 'done', changed: true })
      .thenState((after) =>
        expect(after.backup('a')?.copy).toEqual({
          kind: 'forgotten',
          at: { position: 14, time: timeAt(14) },
          reason: 'tape 7 broke',
        }),
      )
  })

  test('R19: without a reason the reason is empty', () => {
    chained().when({ type: 'forget-backup', backup: 'a' }).then(forgotten('a', ''))
  })

  test('R13: told twice, the second time changes nothing, and the first reason stays', () => {
    chained(forgotten('a'))
      .when(forget('a', 'another'))
      .thenNothing()
      .thenAnswer({ kind: 'done', changed: false })
  })

  test('R19: no bitmap, slice or point changes', () => {
    const { catalog } = chained()
    const before = catalog.disk('vda')!.bitmaps
    chained()
      .when(forget('a'))
      .thenState((after) => expect(after.disk('vda')!.bitmaps).toEqual(before))
  })

  test('R19: a forgotten backup stays a point and stays in the list', () => {
    const { catalog } = chained(forgotten('a'))
    expect([...catalog.backups()].map(({ id }) => id)).toEqual(['full', 'a', 'b', 'c'])
    expect(catalog.backup('a')?.point.position).toBe(6)
  })

  test.each(['nobody', ''])('R21: %j was never begun', (id) => {
    chained().when(forget(id)).thenRefused('BACKUP_NOT_FOUND', { backup: id })
  })

  test('R21: a running backup has no copy yet', () => {
    chained(begun('night', 'copy')).when(forget('night')).thenRefused('BACKUP_STATE', { state: 'running' })
  })

  test('R21: a pending one neither', () => {
    chained(begun('night', 'copy', { group: 'g' }), { type: 'backup-pending', backup: 'night' })
      .when(forget('night'))
      .thenRefused('BACKUP_STATE', { state: 'pending' })
  })

  test('R21: nor an interrupted one', () => {
    chained(begun('night', 'copy'), { type: 'backup-interrupted', backup: 'night' })
      .when(forget('night'))
      .thenRefused('BACKUP_STATE', { state: 'interrupted' })
  })

  test('R21: a failed one made none', () => {
    chained(begun('night', 'copy'), { type: 'backup-failed', backup: 'night', reason: 'full' })
      .when(forget('night'))
      .thenRefused('BACKUP_STATE', { state: 'failed' })
  })

  test('R21: nor did a cancelled one', () => {
    chained(begun('night', 'copy'), { type: 'backup-cancelled', backup: 'night', reason: '' })
      .when(forget('night'))
      .thenRefused('BACKUP_STATE', { state: 'cancelled' })
  })

  test('R21: a reason is a string', () => {
    const outcome = chained().when({ ...forget('a'), reason: 7 as unknown as string })
    expect(outcome.error).toBeInstanceOf(TypeError)
  })

  test('R20: inside a transaction, an end and a forget are one record', () => {
    chained(begun('d', 'copy'))
      .when([{ type: 'succeed-backup', backup: 'd' }, forget('d')])
      .then(succeeded('d'), forgotten('d'))
  })
})

describe('a forgotten copy is not kept', () => {
  /** Checkpoint `mark` of `daily`, at whose very point a backup of it began: one record. */
  const mark: Given[] = [
    diskAdded(),
    bitmapAdded(daily, { retention: 4 }),
    writes(1),
    { type: 'slice-frozen', ...daily, slice: 0, next: 1, cause: { kind: 'bank' } },
    writes(1),
    [
      { type: 'checkpoint-created', checkpoint: 'mark', bitmaps: [daily] },
      { type: 'slice-frozen', ...daily, slice: 1, next: 2, cause: { kind: 'checkpoint', name: 'mark' } },
      begun('night', 'differential', { base: since(3) }),
    ],
    succeeded('night'),
  ]
  const remove = { type: 'delete-checkpoint', checkpoint: 'mark' } as const

  test('R19: while it is kept, the point that it shares with a checkpoint stays', () => {
    given(...mark)
      .when(remove)
      .then({ type: 'checkpoint-deleted', checkpoint: 'mark' })
  })

  test('R19: once it is forgotten, the point goes with the checkpoint', () => {
    given(...mark, forgotten('night'))
      .when(remove)
      .then(
        { type: 'checkpoint-deleted', checkpoint: 'mark' },
        { type: 'slice-reactivated', ...daily, slice: 1, deleted: 2 },
      )
  })

  test('R11: an increment whose slice began before it may be relative to a kept backup, and not to a forgotten one', () => {
    const base: Base = { kind: 'backup', name: 'c', position: 12, time: timeAt(12) }
    chained()
      .when(begin('d', 'incremental', { base }))
      .then(begun('d', 'incremental', { base }))
    chained(forgotten('c'))
      .when(begin('d', 'incremental', { base }))
      .thenRefused('BASE_TOO_LATE')
  })

  test('R24: it remains a legal base for a differential', () => {
    const base: Base = { kind: 'backup', name: 'c', position: 12, time: timeAt(12) }
    chained(forgotten('c'))
      .when(begin('d', 'differential', { base }))
      .then(begun('d', 'differential', { base }))
  })
})

describe('record-combined', () => {
  test('R25: increments become one, with the base of the oldest and the point of the newest', () => {
    chained()
      .when(combine('abc', 'a', 'b', 'c'))
      .then(combined('abc', 'a', 'b', 'c'))
      .thenState((after) =>
        expect(after.backup('abc')).toMatchObject({
          base: since(3),
          point: { position: 12 },
          mode: 'differential',
          digest: null,
          whole: false,
          complete: true,
          copy: { kind: 'kept' },
          of: ['a', 'b', 'c'],
          phase: { kind: 'succeeded', at: { position: 14 }, slice: null },
        }),
      )
  })

  test('R25: with a whole one under them the result is whole and as large as the disk', () => {
    chained()
      .when(combine('new', 'full', 'a'))
      .thenState((after) =>
        expect(after.backup('new')).toMatchObject({ base: NONE, mode: 'copy', whole: true, bytes: GiB }),
      )
  })

  test('R25: one may be laid on any point from its base to its own, so links may be left out when that holds', () => {
    const wide = begun('wide', 'differential', { base: since(3) })
    chained(wide, succeeded('wide'))
      .when(combine('x', 'b', 'wide'))
      .then(combined('x', 'b', 'wide'))
  })

  test('R25: what was combined can be combined again', () => {
    chained(combined('ab', 'a', 'b'))
      .when(combine('abc', 'ab', 'c'))
      .then(combined('abc', 'ab', 'c'))
  })

  test('R25: and a combined one can be forgotten, its members untouched', () => {
    chained(combined('ab', 'a', 'b'))
      .when(forget('ab'))
      .then(forgotten('ab'))
      .thenState((after) => expect(after.backup('a')?.copy.kind).toBe('kept'))
  })

  test('R11: a combined one is an image to be relative to', () => {
    const base: Base = { kind: 'backup', name: 'bc', position: 12, time: timeAt(12) }
    chained(combined('bc', 'b', 'c'), forgotten('c'))
      .when(begin('d', 'incremental', { base }))
      .then(begun('d', 'incremental', { base }))
  })

  test('R11: it is incomplete as long as no whole one lies over what is', () => {
    const bits = incomplete(begun('bits', 'differential', { base: since(12) }))
    const after = chained(
      bits,
      succeeded('bits'),
      combined('x', 'c', 'bits'),
      begun('f', 'copy'),
      succeeded('f'),
    )
    expect(after.catalog.backup('x')?.complete).toBe(false)
    after.when(combine('y', 'bits', 'f')).thenState((state) => expect(state.backup('y')?.complete).toBe(true))
  })

  test.each([
    ['none at all', [], 'two copies or more'],
    ['one alone', ['a'], 'two copies or more'],
    ['the newest first', ['b', 'a'], 'cannot be laid on "b"'],
    ['one left out', ['a', 'c'], 'cannot be laid on "a"'],
    ['one twice', ['a', 'a'], 'named twice'],
    ['one that is far away', ['full', 'b'], 'cannot be laid on "full"'],
  ])('R25: refused: %s', (_, of, why) => {
    const outcome = chained()
      .when(combine('x', ...of))
      .thenRefused('BACKUP_CHAIN', { backup: 'x', of })
    expect((outcome.error as Error).message).toContain(why)
  })

  test('R25: refused: a forgotten copy', () => {
    chained(forgotten('b'))
      .when(combine('x', 'a', 'b', 'c'))
      .thenRefused('BACKUP_CHAIN')
  })

  test.each(['backup-failed', 'backup-cancelled'] as const)(
    'R25: refused: one of which there is no copy (%s)',
    (type) => {
      chained(begun('d', 'differential', { base: since(12) }), { type, backup: 'd', reason: '' })
        .when(combine('x', 'c', 'd'))
        .thenRefused('BACKUP_CHAIN')
    },
  )

  test('R25: refused: one that is still running', () => {
    chained(begun('d', 'differential', { base: since(12) }))
      .when(combine('x', 'c', 'd'))
      .thenRefused('BACKUP_CHAIN')
  })

  test('R25: refused: copies of two disks', () => {
    const other = { disk: 'vdb', bitmap: 'daily' }
    chained(diskAdded('vdb'), bitmapAdded(other), begun('o', 'copy', { ref: other }), succeeded('o'))
      .when(combine('x', 'c', 'o'))
      .thenRefused('BACKUP_CHAIN')
  })

  test('R25: refused: copies from before and after a disk was removed and added again', () => {
    chained(
      { type: 'disk-removed', disk: 'vda' },
      diskAdded(),
      bitmapAdded(),
      begun('o', 'copy'),
      succeeded('o'),
    )
      .when(combine('x', 'c', 'o'))
      .thenRefused('BACKUP_CHAIN')
  })

  test('R21: refused: a member that was never begun', () => {
    chained()
      .when(combine('x', 'a', 'nobody'))
      .thenRefused('BACKUP_NOT_FOUND', { backup: 'nobody' })
  })

  test.each(['a', 'full'])('R13: refused: the id %s is taken', (id) => {
    chained()
      .when(combine(id, 'a', 'b'))
      .thenRefused('BACKUP_EXISTS', { backup: id })
  })

  test('R13: refused: an id that was combined before, forgotten or not', () => {
    chained(combined('ab', 'a', 'b'), forgotten('ab'))
      .when(combine('ab', 'b', 'c'))
      .thenRefused('BACKUP_EXISTS')
  })

  test('R4: refused: an id that is no name', () => {
    chained()
      .when(combine('', 'a', 'b'))
      .thenRefused('NAME_EMPTY')
    chained()
      .when(combine('x'.repeat(1024), 'a', 'b'))
      .thenRefused('NAME_TOO_LONG')
  })

  test('R21: refused: no list, or one too long', () => {
    const list = (of: unknown) => chained().when({ type: 'record-combined', backup: 'x', of: of as string[] })
    expect(list('a').error).toBeInstanceOf(TypeError)
    expect(list(new Array(10_001).fill('a')).error).toBeInstanceOf(RangeError)
  })

  test('R13: a backup cannot begin under the id of a combined one', () => {
    chained(combined('ab', 'a', 'b'))
      .when(begin('ab', 'copy'))
      .thenRefused('BACKUP_EXISTS')
  })

  test('R9: a combined one cannot be ended again', () => {
    chained(combined('ab', 'a', 'b'))
      .when({ type: 'succeed-backup', backup: 'ab' })
      .thenRefused('BACKUP_ENDED')
  })
})

describe('what the catalog keeps of a backup', () => {
  const lost = (from: number): DomainEvent => ({
    type: 'stretch-lost',
    disk: 'vda',
    from: { position: from, time: timeAt(from) },
    reason: 'away',
  })

  test('R35: a stretch told after a begin, that had begun before it, puts the backup in doubt; a later one does not', () => {
    const { catalog } = chained(lost(7))
    expect(['a', 'b', 'c'].map((id) => catalog.backup(id)?.doubt.length)).toEqual([0, 1, 1])
    expect(chained(lost(13)).catalog.backup('c')?.doubt).toEqual([])
  })

  test('R35: nothing is missing in a copy of the whole disk, whatever was lost', () => {
    const { catalog } = chained(combined('x', 'full', 'a'), lost(0))
    expect(catalog.backup('full')?.doubt).toEqual([])
    expect(catalog.backup('x')?.doubt).toHaveLength(1)
  })

  test('R3: a window told over a begin puts it in doubt too', () => {
    const window = {
      type: 'window',
      disk: 'vda',
      from: { position: 8, time: timeAt(8) },
      writes: 1,
      extents: [[0, 512]],
    } as const
    expect(chained(window).catalog.backup('b')?.doubt).toHaveLength(1)
  })

  test('R28: a snapshot of the catalog keeps all of it', () => {
    const { catalog } = chained(combined('ab', 'a', 'b'), forgotten('b'), lost(7))
    const again = Catalog.fromPlain(JSON.parse(JSON.stringify(catalog.toPlain())))
    expect([...again.backups()]).toEqual([...catalog.backups()])
  })
})

describe('verify judges what it finds in a log', () => {
  const { catalog } = chained(forgotten('b'))

  test.each<[string, DomainEvent, string]>([
    ['a backup that was never begun is forgotten', forgotten('nobody'), 'never begun'],
    ['one is forgotten twice', forgotten('b'), 'forgotten before'],
    ['copies are combined that cannot lie on each other', combined('x', 'a', 'c'), 'cannot be laid'],
    ['a forgotten copy is combined', combined('x', 'b', 'c'), 'forgotten'],
    ['the id was there before', combined('a', 'full', 'a'), 'there before'],
    ['a member was never begun', combined('x', 'a', 'nobody'), 'never begun'],
  ])('R28: EVENT_ILLEGAL when %s', (_, event, why) => {
    expect(objectionTo(event, catalog, catalog.last.position)).toContain(why)
  })

  test('R28: what the commands record is legal', () => {
    expect(objectionTo(forgotten('a'), catalog, catalog.last.position)).toBeNull()
    expect(objectionTo(combined('x', 'full', 'a'), catalog, catalog.last.position)).toBeNull()
  })
})

test('R25: what a combined copy misses is still missing when it is combined again', () => {
  const chained = given(
    ...disk,
    begun('full', 'copy'),
    succeeded('full'),
    writes(1),
    incomplete(begun('a', 'differential', { base: since(3) })),
    succeeded('a'),
    combined('full+a', 'full', 'a'),
    writes(1),
    begun('b', 'differential', { base: since(6) }),
    succeeded('b'),
  )
  chained.when(combine('all', 'full+a', 'b')).thenState((after) => {
    expect(after.backup('all')).toMatchObject({ whole: true, complete: false })
  })
})
