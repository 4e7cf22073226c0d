/**
 * One error class for everything the world can do to a store; a caller matches on `code`, never on the text.
 * Wrong argument types are `TypeError`/`RangeError` without a code. Each code has a heading in docs/errors.md.
 */

export const ERROR_CODES = [
  // the store as a whole
  'STORE_NOT_FOUND',
  'NOT_A_STORE',
  'STORE_EXISTS',
  'STORE_IN_USE',
  'OWNER_UNREACHABLE',
  'OWNER_GONE',
  'FORMAT_TOO_NEW',
  'LOG_DAMAGED',
  'STORE_FAILED',
  'WRITES_UNRECORDED',
  'STORE_CLOSED',
  'QUEUE_FULL',
  'OUTCOME_UNKNOWN',
  'POSITION_CONFLICT',
  'IO_FAILED',
  'ABORTED',
  'TARGET_EXISTS',
  'TARGET_INVALID',
  'ADDRESS_IN_USE',
  'REPAIR_IMPOSSIBLE',
  'DISK_FILE_INVALID',
  'DISK_ENTANGLED',
  'SERVED_FILE_INVALID',
  'TLS_INVALID',
  'IMPORT_TOO_LARGE',
  // commands
  'COMMAND_ID_REUSED',
  'TRANSACTION_ABORTED',
  'TOLD_TOO_LATE',
  'NAME_EMPTY',
  'NAME_TOO_LONG',
  'NAME_INVALID',
  // disks and writes
  'DISK_NOT_FOUND',
  'DISK_EXISTS',
  'DISK_SIZE_MISMATCH',
  'SIZE_INVALID',
  'RANGE_INVALID',
  'RANGE_OUTSIDE_DISK',
  'TIME_INVALID',
  'WINDOW_INVALID',
  'SIZES_DIFFER',
  'DISK_BUSY',
  'DISK_SERVED',
  // bitmaps and slices
  'BITMAP_NOT_FOUND',
  'BITMAP_EXISTS',
  'BITMAP_BUSY',
  'BITMAP_MISMATCH',
  'GRANULARITY_INVALID',
  'BITMAP_TOO_LARGE',
  'RETENTION_INVALID',
  'RETENTION_FULL',
  'RETENTION_ZERO',
  'SLICE_NOT_FOUND',
  'SLICE_DROPPED',
  'SLICE_MERGED',
  'SLICE_OLD_GENERATION',
  // backups, points, checkpoints
  'BACKUP_NOT_FOUND',
  'BACKUP_EXISTS',
  'BACKUP_ENDED',
  'BACKUP_STATE',
  'BACKUP_CHAIN',
  'SINCE_REQUIRED',
  'SINCE_NOT_ALLOWED',
  'BASE_TOO_LATE',
  'SNAPSHOT_FAILED',
  'FREEZE_FAILED',
  'THAW_FAILED',
  'CHECKPOINT_NOT_FOUND',
  'CHECKPOINT_EXISTS',
  'POINT_NOT_FOUND',
  'POINT_INVALID',
  'POINT_ORDER',
  // upkeep
  'POLICY_INVALID',
  // readers and replays
  'PROJECTION_FAILED',
  'INCIDENT_INVALID',
  // NBD servers of others
  'NBD_URI_INVALID',
  'NBD_UNREACHABLE',
  'NBD_TLS_FAILED',
  'NBD_REFUSED',
  'NBD_EXPORT_NOT_FOUND',
  'NBD_CONTEXT_MISSING',
  'NBD_PROTOCOL',
  'NBD_CONNECTION_LOST',
  'NBD_UNALIGNED',
  // traces
  'TRACE_UNREADABLE',
  'TRACE_UNKNOWN_FORMAT',
  'TRACE_LINE_INVALID',
  'TRACE_CHOICE_INVALID',
] as const

export type ErrorCode = (typeof ERROR_CODES)[number]

/** Facts about the refusal, by name: `disk`, `bitmap`, `slice`, `backup`, `heldBy`, `position`, … JSON-safe. */
export type Facts = Readonly<Record<string, unknown>>

export class CheckpointError extends Error {
  override readonly name = 'CheckpointError'

  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly facts: Facts = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause })
  }
}

/** Our own bugs: an assertion never speaks about the caller's input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`slicelog bug: ${message}`)
}

/** The words of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
