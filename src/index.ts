/** The library. What is exported here is public; docs/api.md describes it. */

export type * from '../events/types.ts'
export { DirtyBitmap } from '../projections/bitmap.ts'
export type * from '../projections/state.ts'
export {
  FINDING_CODES,
  type Finding,
  type FindingCode,
  type VerifyOptions,
  type VerifyReport,
  verifyStore,
} from './audit/verify.ts'
export type { Answer } from './commands/answer.ts'
export type { Command } from './commands/types.ts'
export { CheckpointError, ERROR_CODES, type ErrorCode, type Facts } from './errors.ts'
export { GiB, KiB, limits, MiB, TiB } from './limits.ts'
export type { Followed } from './log/event-log.ts'
export type { Backup } from './store/backup.ts'
export type { Bitmap, DroppedSlices } from './store/bitmap.ts'
export type { BeginCommand, StoreCommand } from './store/core.ts'
export type { BitmapOptions, Disk } from './store/disk.ts'
export type { Recorded } from './store/incoming.ts'
export { openMemoryStore, openStore } from './store/open.ts'
export type { PastState } from './store/past.ts'
export { formatPoint, parsePoint, parseSince } from './store/points.ts'
export type { ChangedOptions, Store } from './store/store.ts'
export type * from './store/types.ts'
export type { BackupFilter, SliceSelector, StateView } from './store/view.ts'
export { type Imported, type ImportOptions, importTrace } from './traces/import.ts'
