import { describe, expect, test } from 'vitest'
import type { BitmapRef, DomainEvent } from '../../events/types.ts'
import { type CheckpointDeletion, checkpointDeletion } from '../../src/commands/checkpoints.ts'
import { given } from '../../src/testing/given.ts'
import { begin, begun, bitmapAdded, busy, daily, diskAdded, weekly, withSlices, writes } from './kit.ts'

const create = (checkpoint: string, bitmaps: readonly BitmapRef[] = [], forceCycle = false) =>
  ({ type: 'create-checkpoint', checkpoint, bitmaps, forceCycle }) as const
const remove = (checkpoint: string) => ({ type: 'delete-checkpoint', checkpoint }) as const
const created = (checkpoint: string, bitmaps: readonly BitmapRef[] = []): DomainEvent => ({
  type: 'checkpoint-created',
  checkpoint,
  bitmaps,
})
const deleted = (checkpoint: string): DomainEvent => ({ type: 'checkpoint-deleted', checkpoint })
/** The answer to a deletion that did this and no more to the bitmaps. */
const deletion = (checkpoint: string, did: Partial<CheckpointDeletion> = {}) =>
  ({ kind: 'checkpoint-deleted', checkpoint, merged: [], kept: [], gone: [], ...did }) as const
const frozenBy = (name: string, slice: number, next: number, ref: BitmapRef = daily): DomainEvent => ({
  type: 'slice-frozen',
  ...ref,
  slice,
  next,
  cause: { kind: 'checkpoint', name },
})

/** Checkpoint `c` with `daily` banked, on `before` slices banked earlier. */
const marked = (before: number) => given(...withSlices(before), writes(1)).when(create('c', [daily]))

describe('create', () => {
  test('R19: a checkpoint names the log’s position, also without bitmaps', () => {
    given(diskAdded(), writes(3))
      .when(create('c'))
      .then(created('c'))
      .thenState((after) => expect(after.checkpoint('c')?.point).toEqual(after.last))
      .thenAnswer({ kind: 'checkpoint', checkpoint: 'c', slices: [], dropped: [] })
  })

  test('R19: bitmaps named are banked there, in the same record, on several disks', () => {
    const other = { disk: 'vdb', bitmap: 'o' }
    given(...withSlices(1), [diskAdded('vdb'), bitmapAdded(other, { retention: 2 })])
      .when(create('c', [daily, other]))
      .then(created('c', [daily, other]), frozenBy('c', 1, 2), frozenBy('c', 0, 1, other))
      .thenState((after) => {
        expect(after.disk('vda')?.bitmaps.get('daily')?.active.from).toEqual(after.checkpoint('c')?.point)
        expect(after.disk('vdb')?.bitmaps.get('o')?.active.from).toEqual(after.checkpoint('c')?.point)
      })
      .thenAnswer({
        kind: 'checkpoint',
        checkpoint: 'c',
        slices: [
          { ...daily, slice: 1, generation: 2 },
          { ...other, slice: 0, generation: 7 },
        ],
        dropped: [],
      })
  })

  test('R19: a bitmap named twice is banked once', () => {
    given(...withSlices(0))
      .when(create('c', [daily, daily]))
      .then(created('c', [daily]), frozenBy('c', 0, 1))
  })

  test('R15, R19: banking for a checkpoint follows the retention', () => {
    given(...withSlices(2, 2))
      .when(create('c', [daily]))
      .thenRefused('RETENTION_FULL', { slices: [0] })
    given(...withSlices(2, 2))
      .when(create('c', [daily], true))
      .then(
        created('c', [daily]),
        { type: 'slice-dropped', ...daily, slice: 0, because: 'force-cycle' },
        frozenBy('c', 2, 3),
      )
    given(...withSlices(0, 0))
      .when(create('c', [daily], true))
      .thenRefused('RETENTION_ZERO')
  })

  test('R6, R19: a busy or unknown bitmap refuses all of it', () => {
    given(...busy())
      .when(create('c', [daily]))
      .thenRefused('BITMAP_BUSY')
    given(...withSlices(0))
      .when(create('c', [daily, weekly]))
      .thenRefused('BITMAP_NOT_FOUND', { bitmap: 'weekly' })
    given(...withSlices(0))
      .when(create('c', [{ disk: 'vdz', bitmap: 'x' }]))
      .thenRefused('DISK_NOT_FOUND')
  })

  test('R19: a name is used once, until it is deleted', () => {
    given(created('c')).when(create('c')).thenRefused('CHECKPOINT_EXISTS', { checkpoint: 'c', position: 0 })
    given(created('c'), deleted('c')).when(create('c')).then(created('c'))
  })

  test('R4: names are 1 to 1023 bytes', () => {
    given().when(create('')).thenRefused('NAME_EMPTY')
    given()
      .when(create('x'.repeat(1024)))
      .thenRefused('NAME_TOO_LONG')
    given().when(create('\udfff')).thenRefused('NAME_INVALID')
  })
})

describe('delete', () => {
  test('R19: an unknown checkpoint is refused', () => {
    given().when(remove('c')).thenRefused('CHECKPOINT_NOT_FOUND', { checkpoint: 'c' })
    given(created('c'), deleted('c')).when(remove('c')).thenRefused('CHECKPOINT_NOT_FOUND')
  })

  test('R19: without bitmaps only the name goes', () => {
    given(created('c')).when(remove('c')).then(deleted('c')).thenAnswer(deletion('c'))
  })

  test('R16, R19: the slice that begins there merges into the next older one', () => {
    marked(1)
      .after(writes(1))
      .when({ type: 'bank', ...daily })
      .when(remove('c'))
      .then(deleted('c'), { type: 'slice-merged', ...daily, slice: 2, into: 1 })
      .thenAnswer(deletion('c', { merged: [{ ...daily, slice: 2, into: 1 }] }))
  })

  test('R16, R19: the oldest slice has none to merge into and is dropped', () => {
    marked(0)
      .when({ type: 'bank', ...daily })
      .when({ type: 'delete-slice', ...daily, slice: 0 })
      .when(remove('c'))
      .then(deleted('c'), { type: 'slice-dropped', ...daily, slice: 1, because: 'deleted' })
      .thenAnswer(deletion('c', { merged: [{ ...daily, slice: 1, into: null }] }))
  })

  test('R16: deleting the point where α began makes the newest slice α again, under its old number', () => {
    marked(1)
      .when(remove('c'))
      .then(deleted('c'), { type: 'slice-reactivated', ...daily, slice: 1, deleted: 2 })
      .thenState((after) => {
        const bitmap = after.disk('vda')?.bitmaps.get('daily')
        expect(bitmap).toMatchObject({ active: { number: 1, from: { position: 5 } }, highestNumber: 2 })
        expect(bitmap?.slices.map(({ number }) => number)).toEqual([0])
      })
      .when({ type: 'bank', ...daily })
      .then({ type: 'slice-frozen', ...daily, slice: 1, next: 3, cause: { kind: 'bank' } })
  })

  test('R19: α’s start stays when nothing older is left that it could join', () => {
    marked(0)
      .when({ type: 'delete-slice', ...daily, slice: 0 })
      .when(remove('c'))
      .then(deleted('c'))
      .thenAnswer(deletion('c', { kept: [{ ...daily, for: { kind: 'active' } }] }))
  })

  test('R19: a point that another checkpoint shares is kept for it, bitmap by bitmap', () => {
    given(...withSlices(0), bitmapAdded(weekly, { retention: 3 }))
      .when([create('a', [daily, weekly]), create('b', [weekly])])
      .when(remove('a'))
      .then(deleted('a'), { type: 'slice-reactivated', ...daily, slice: 0, deleted: 1 })
      .thenAnswer(
        deletion('a', {
          merged: [{ ...daily, slice: 1, into: 0 }],
          kept: [{ ...weekly, for: { kind: 'checkpoint', name: 'b' } }],
        }),
      )
  })

  test('R19: a point that a backup began at is kept for it, unless the backup failed or was cancelled', () => {
    const together = given(...withSlices(0)).when([
      create('c', [daily]),
      begin('b', 'differential', { base: { kind: 'active', position: 0, time: null } }),
    ])
    together
      .when({ type: 'succeed-backup', backup: 'b' })
      .when(remove('c'))
      .then(deleted('c'))
      .thenAnswer(deletion('c', { kept: [{ ...daily, for: { kind: 'backup', id: 'b' } }] }))
    together
      .when({ type: 'cancel-backup', backup: 'b', reason: '' })
      .when(remove('c'))
      .then(deleted('c'), { type: 'slice-reactivated', ...daily, slice: 0, deleted: 1 })
  })

  test('R19: what a deletion, a cycle or a full took already is listed as gone', () => {
    const gone = deletion('c', { gone: [daily] })
    marked(1)
      .when({ type: 'bank', ...daily })
      .when({ type: 'delete-slice', ...daily, slice: 2 })
      .when(remove('c'))
      .then(deleted('c'))
      .thenAnswer(gone)
    marked(1)
      .after(begun('f', 'full'))
      .when({ type: 'succeed-backup', backup: 'f' })
      .when(remove('c'))
      .then(deleted('c'))
      .thenAnswer(gone)
    marked(1).when({ type: 'remove-disk', disk: 'vda' }).when(remove('c')).then(deleted('c')).thenAnswer(gone)
  })

  test('R19: another bitmap under the old name is not touched', () => {
    marked(1)
      .when({ type: 'remove-bitmap', ...daily })
      .when({ type: 'add-bitmap', ...daily, retention: 5 })
      .when({ type: 'bank', ...daily })
      .when(remove('c'))
      .then(deleted('c'))
  })

  test('R6, R19: refused while a bitmap whose point would go is busy', () => {
    marked(1).after(begun('b', 'copy')).when(remove('c')).thenRefused('BITMAP_BUSY', { heldBy: 'b' })
  })

  test('R19: what a deletion would do can be asked without doing it', () => {
    marked(1).thenState((after) => {
      const before = after.toPlain()
      expect(checkpointDeletion(after, 'c')).toEqual({
        merged: [{ ...daily, slice: 2, into: 1 }],
        kept: [],
        gone: [],
      })
      expect(after.toPlain()).toEqual(before)
    })
  })
})
