/** One event of each type, and two where a field may be absent. */
import type { DomainEvent, Point } from '../../events/types.ts'

const start: Point = { position: -1, time: null }
const later: Point = { position: 2 ** 40, time: 1_700_000_000_000 }
const on = { disk: 'vda', bitmap: 'bitmap0' }

/** What release 0.1.0 could record; its bytes are a fixture. */
export const FIRST_EVENTS: readonly DomainEvent[] = [
  { type: 'disk-added', disk: 'vda', size: 2 ** 40 },
  { type: 'disk-resized', disk: 'vda', size: 513 },
  { type: 'disk-removed', disk: 'vda' },
  { type: 'disk-attached', disk: 'vda', recorder: 'store' },
  { type: 'disk-detached', disk: 'vda' },
  { type: 'stretch-lost', disk: 'vda', from: start, reason: 'the machine restarted' },
  {
    type: 'window',
    disk: 'vda',
    from: later,
    writes: 0,
    extents: [
      [0, 512],
      [2 ** 52, 1],
    ],
  },
  { type: 'bitmap-added', ...on, granularity: 65_536, recording: true, persistent: false, retention: 3 },
  { type: 'bitmap-removed', ...on, because: 'detach' },
  { type: 'bitmap-cleared', ...on },
  { type: 'bitmap-enabled', ...on },
  { type: 'bitmap-disabled', ...on },
  { type: 'bitmap-merged', ...on, sources: [on, { disk: 'vdb', bitmap: 'ü' }] },
  { type: 'retention-set', ...on, retention: 65_535 },
  { type: 'bitmap-reset', ...on, backup: 'b1' },
  { type: 'slice-frozen', ...on, slice: 0, next: 1, cause: { kind: 'bank' } },
  { type: 'slice-frozen', ...on, slice: 1, next: 2, cause: { kind: 'checkpoint', name: 'monday' } },
  { type: 'slice-frozen', ...on, slice: 2, next: 4, cause: { kind: 'backup', id: 'b1' } },
  { type: 'slice-dropped', ...on, slice: 0, because: 'force-cycle' },
  { type: 'slice-merged', ...on, slice: 2, into: 1 },
  { type: 'slice-reactivated', ...on, slice: 2, deleted: 4 },
  {
    type: 'backup-begun',
    backup: 'b1',
    ...on,
    mode: 'incremental',
    base: { kind: 'slice', name: '3', ...later },
    forceCycle: false,
    group: 'g',
    copiedBy: 'caller',
    digest: '0'.repeat(64),
    bytes: 2 ** 41,
    complete: true,
  },
  {
    type: 'backup-begun',
    backup: 'b2',
    ...on,
    mode: 'full',
    base: { kind: 'none', ...start },
    forceCycle: true,
    copiedBy: 'store',
    digest: '',
    bytes: 0,
    complete: false,
  },
  { type: 'backup-pending', backup: 'b1' },
  { type: 'backup-interrupted', backup: 'b1' },
  { type: 'backup-resumed', backup: 'b1' },
  { type: 'backup-succeeded', backup: 'b1', bits: 'banked' },
  {
    type: 'backup-failed',
    backup: 'b1',
    reason: 'disk full',
    uncopied: [
      [65_536, 65_536],
      [0, 1],
    ],
  },
  { type: 'backup-failed', backup: 'b1', reason: '' },
  { type: 'backup-cancelled', backup: 'b1', reason: 'asked to' },
  { type: 'checkpoint-created', checkpoint: 'monday', bitmaps: [] },
  { type: 'checkpoint-deleted', checkpoint: 'monday' },
  { type: 'clock-stepped', from: 2, to: 1 },
  { type: 'nothing-changed' },
]

export const EVERY_EVENT: readonly DomainEvent[] = [
  ...FIRST_EVENTS,
  { type: 'backup-forgotten', backup: 'b1', reason: 'its tape broke' },
  { type: 'backups-combined', backup: 'b3', of: ['b1', 'b2'] },
  {
    type: 'log-compacted',
    runs: [{ first: 3, last: 900, before: '0'.repeat(64), after: 'a'.repeat(64), own: '7f'.repeat(32) }],
  },
  { type: 'log-repaired', gaps: [{ first: 3, last: 3, before: '0'.repeat(64), next: '' }], kept: 'aside/1' },
  {
    type: 'disk-imported',
    disk: 'vda',
    store: '0b1c',
    position: 2 ** 40,
    hash: 'ff'.repeat(32),
    last: 12,
  },
]
