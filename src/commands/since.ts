/**
 * Moments that have a name: slice, backup, checkpoint. Found in the catalog, without the log, so that a command can look one
 * up in the state that it is decided in: in a transaction, what the commands before it left (R20).
 */
import type { Base, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { CheckpointError } from '../errors.ts'
import { findBitmap, findSlice } from './find.ts'

export type NamedPoint =
  | { readonly slice: number; readonly generation?: number; readonly bitmap?: string }
  | { readonly backup: string }
  | { readonly checkpoint: string }

export function isNamedPoint(input: unknown): input is NamedPoint {
  if (typeof input !== 'object' || input === null || 'position' in input || 'time' in input) return false
  return 'slice' in input || 'backup' in input || 'checkpoint' in input
}

/** @throws CheckpointError POINT_INVALID, BACKUP_NOT_FOUND, CHECKPOINT_NOT_FOUND, BITMAP_NOT_FOUND, and R18's four */
export function namedPoint(
  state: CatalogReader,
  input: NamedPoint,
  context: { readonly disk?: string | undefined; readonly bitmap?: string | undefined },
): Point {
  if ('slice' in input) {
    const name = input.bitmap ?? context.bitmap
    if (context.disk === undefined || name === undefined) {
      throw new CheckpointError(
        'POINT_INVALID',
        'a slice is a point of one bitmap; say which disk and bitmap it belongs to, or name the point otherwise',
        { slice: input.slice },
      )
    }
    const bitmap = findBitmap(state, context.disk, name)
    return findSlice(context.disk, bitmap, input.slice, input.generation).from
  }
  if ('backup' in input) {
    const backup = state.backup(input.backup)
    if (backup !== undefined) return backup.point
    throw new CheckpointError('BACKUP_NOT_FOUND', `there is no backup "${input.backup}"; list the backups`, {
      backup: input.backup,
    })
  }
  const checkpoint = state.checkpoint(input.checkpoint)
  if (checkpoint !== undefined) return checkpoint.point
  throw new CheckpointError(
    'CHECKPOINT_NOT_FOUND',
    `there is no checkpoint "${input.checkpoint}"; list the checkpoints`,
    { checkpoint: input.checkpoint },
  )
}

/** The base that a name stands for (R11). */
export function namedBase(state: CatalogReader, since: NamedPoint, disk: string, bitmap: string): Base {
  const point = namedPoint(state, since, { disk, bitmap })
  if ('backup' in since) return { kind: 'backup', ...point, name: since.backup }
  if ('checkpoint' in since) return { kind: 'checkpoint', ...point, name: since.checkpoint }
  return { kind: 'slice', ...point, name: String(since.slice) }
}
