/** The library. What is exported here is public; docs/api.md describes it. */

export type * from '../events/types.ts'
export { DirtyBitmap } from '../projections/bitmap.ts'
export type * from '../projections/state.ts'
export {
  type Blame,
  type BlamedTouch,
  type BlameOptions,
  blame,
  type Coverage,
  type Touch,
} from './audit/blame.ts'
export type { Holding } from './audit/blame-backups.ts'
export {
  type CoverageGap,
  type CoverageOptions,
  type CoverageReport,
  coverage,
  type FormerDisk,
  type Merge,
  type Newest,
  type NextIncrement,
  wouldBreak,
} from './audit/coverage.ts'
export { type ImportDiskOptions, type ImportedDisk, importDisk } from './audit/disk-import.ts'
export { type ExplainOptions, explainBackup } from './audit/explain.ts'
export { EXPLAIN_CODES, type ExplainFinding, type Explanation } from './audit/explain-types.ts'
export {
  type History,
  type HistoryOptions,
  type HistorySubject,
  history,
  type Transition,
} from './audit/history.ts'
export { type RepairOptions, type RepairReport, repairStore } from './audit/repair.ts'
export { takenOut } from './audit/repair-kept.ts'
export type { LostRecords } from './audit/repair-write.ts'
export type { Hindrance, Repair } from './audit/repairs.ts'
export type { BrokenBy, PointCopy, PointState, RestorePoint, WouldBreak } from './audit/restore-points.ts'
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
export type { NbdClient } from './nbd/client/client.ts'
export { connectNbd } from './nbd/client/connect.ts'
export { listNbd, listNbdContexts } from './nbd/client/list.ts'
export type {
  ConnectNbdOptions,
  NbdBlockSize,
  NbdClientTls,
  NbdExportInfo,
  NbdExtent,
  NbdHandshakeOptions,
  NbdListed,
  NbdReconnect,
  NbdTarget,
} from './nbd/client/types.ts'
export { type NbdErrno, NbdError } from './nbd/errors.ts'
export type { FreezeHow, FreezePoint } from './nbd/guest-freeze.ts'
export {
  type NbdDiskOptions,
  type NbdServed,
  type ServedNbd,
  type ServeNbdOptions,
  serveNbd,
} from './nbd/serve.ts'
export type { NbdCounts, NbdTcpDoor } from './nbd/server.ts'
export type { NbdTlsFacts, NbdTlsFiles } from './nbd/tls.ts'
export { type OpenStoreOptions, openStore, serveOwner } from './owner/open.ts'
export type { ServedStore } from './owner/server.ts'
export type { CompactionOptions, LastPass } from './store/auto-compact.ts'
export type { Backup } from './store/backup.ts'
export type { Bitmap, DroppedSlices } from './store/bitmap.ts'
export type { Compacted, CompactOptions } from './store/compactor.ts'
export type { Copied, CopyOptions } from './store/copy.ts'
export type { BeginCommand, StoreCommand } from './store/core.ts'
export type { Cursor, CursorInfo } from './store/cursors.ts'
export type { BitmapOptions, Disk } from './store/disk.ts'
export {
  type Exported,
  type ExportOptions,
  exportDisk,
  type Proof,
  proveExport,
} from './store/disk-export.ts'
export type { DiskFileHeader } from './store/disk-file.ts'
export type { CompactionEstimate, Growth } from './store/growth.ts'
export type { Recorded } from './store/incoming.ts'
export { openMemoryStore } from './store/open.ts'
export type { PastState } from './store/past.ts'
export { formatPoint, parsePoint, parseSince } from './store/points.ts'
export type { CompactionPolicy, CompactionRule, PolicyInput } from './store/policy.ts'
export type {
  Projection,
  ProjectionOptions,
  ProjectionProgress,
  ProjectionStatus,
} from './store/projection.ts'
export type {
  EventProjection,
  Origin,
  ProjectionDefinition,
  RecordProjection,
} from './store/projection-fold.ts'
export type { EventsFrom, FollowStoreOptions, StoreStats, StreamFrom } from './store/readers.ts'
export type { DiskStats, HourStats } from './store/stats.ts'
export type { ChangedOptions, Store } from './store/store.ts'
export type { Marked } from './store/streams.ts'
export type * from './store/types.ts'
export type { BackupFilter, SliceSelector, StateView } from './store/view.ts'
export { type Imported, type ImportOptions, importTrace } from './traces/import.ts'
