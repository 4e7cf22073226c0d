/**
 * The words of the store's public interface: what callers give and what they get. No behaviour.
 * Everything here is JSON-safe unless it says otherwise, so the doors can print it as it is.
 */
import type {
  BackupMode,
  Base,
  Extent,
  LostStretch,
  Point,
  Recorder,
  RecordMeta,
  WriteColumns,
  WriteOp,
} from '../../events/types.ts'
import type {
  BackupPhase,
  BackupState,
  BitmapState,
  CheckpointState,
  ClockStep,
} from '../../projections/state.ts'
import type { CheckpointDeletion } from '../commands/checkpoints.ts'
import type { CompactionOptions, LastPass } from './auto-compact.ts'
import type { CompactionEstimate, Growth } from './growth.ts'

/** The two levels, named by what an acknowledged write survives (R30). */
export type Durability = 'process' | 'power'

/** The store's only sources of time. `now` in ms since the epoch; `monotonic` in ms from any origin, never back. */
export interface Clock {
  now(): number
  monotonic(): number
}

/** What the store asks of the machine; injectable so that a restart can be simulated (R32). */
export interface Machine {
  /** Changes with every restart of the machine. */
  bootId(): string
}

export interface OpenOptions {
  /** Make the store where there is none (an absent or empty folder). Default true. */
  readonly create?: boolean
  /** Level of writes (R30); commands are always `power`. Default `process`. */
  readonly durability?: Durability
  readonly clock?: Clock
  readonly machine?: Machine
  /** Who acts, unless a call says otherwise: goes into every record's cause. */
  readonly actor?: string
  /** Write events between two snapshots of the projections. Default 262144. */
  readonly snapshotEvery?: number
  /** Folds old writes into windows by itself, throttled, while the store is open (R29). Default: only when `compact` is called. */
  readonly compaction?: CompactionOptions
}

/** Cause and identity of a command (R13). */
export interface CommandOptions {
  readonly commandId?: string
  readonly actor?: string
  readonly correlationId?: string
  readonly causationId?: string
}

export interface WriteRange {
  readonly offset: number
  readonly length: number
  /** Default `write`. */
  readonly op?: WriteOp
}

/** Ranges as objects, or columns for the hot path. Columns may carry `times` (ms, rising, not before the log's last). */
export type Writes = readonly WriteRange[] | WriteColumns

/** A moment, as a caller names it. Slices belong to a bitmap: `bitmap` is needed where the call has none. */
export type PointInput =
  | 'start'
  | 'now'
  | { readonly position: number }
  | { readonly time: string | number | Date }
  | { readonly slice: number; readonly generation?: number; readonly bitmap?: string }
  | { readonly backup: string }
  | { readonly checkpoint: string }

/** `active`: α's bits as they are (R11). */
export type SinceInput = PointInput | 'active'

export interface PlanRequest {
  readonly disk: string
  readonly bitmap: string
  readonly mode: BackupMode
  readonly since?: SinceInput
  readonly forceCycle?: boolean
}

/** A piece of the log or a slice that a plan merges, in words and numbers (R25). */
export type PlanSource =
  | { readonly kind: 'slice'; readonly slice: number; readonly from: Point; readonly to: Point }
  | { readonly kind: 'active'; readonly from: Point }
  | { readonly kind: 'log'; readonly from: Point; readonly to: Point; readonly why: string }
  /** Bytes outside the disk at its base or since (R7). */
  | { readonly kind: 'outside'; readonly from: number; readonly to: number }

export interface Plan {
  readonly disk: string
  readonly bitmap: string
  readonly generation: number
  readonly mode: BackupMode
  readonly base: Base
  readonly point: Point
  /** False only for `active` with a stretch missing (R11). */
  readonly complete: boolean
  readonly lost: readonly LostStretch[]
  /** Steps of the clock between a base that was given as a time and the point; of every other base none (R22). */
  readonly clockSteps: readonly ClockStep[]
  /** Bytes to copy: the sum of the extents. */
  readonly bytes: number
  readonly granularity: number
  /** Of the plan's bits at the bitmap's granularity (R5). */
  readonly digest: string
  readonly reason: string
  readonly merges: readonly PlanSource[]
  /** Ascending, joined, cut at the end of the disk. Objects, for the caller's loop. */
  readonly extents: readonly PlanExtent[]
}

export interface PlanExtent {
  readonly offset: number
  readonly length: number
}

export interface BeginRequest {
  readonly bitmap: string
  readonly mode: BackupMode
  readonly since?: SinceInput
  readonly forceCycle?: boolean
  /** Unique in the store for ever; made by the store when left out. */
  readonly id?: string
  /** Runs inside the quiet point: take the snapshot that the backup copies from here (R8). */
  readonly snapshot?: () => void | Promise<void>
  readonly copiedBy?: Recorder
}

export interface SucceedAnswer {
  readonly id: string
  /** `pending` while other members of its group are not done (R14). */
  readonly state: 'succeeded' | 'pending'
  readonly slice: number | null
  readonly generation: number
  /** `[{ daily: 0 }, …]` as the seed has it (R15). */
  readonly droppedSlices: readonly Readonly<Record<string, number>>[]
}

export interface EndAnswer {
  readonly id: string
  readonly state: 'failed' | 'cancelled'
  readonly slice: null
  readonly generation: number
  readonly droppedSlices: readonly []
}

export interface ForgetAnswer {
  readonly id: string
  readonly copy: 'forgotten'
  /** False: it was forgotten before, and nothing was recorded. */
  readonly changed: boolean
}

export interface BankAnswer {
  readonly slice: number
  readonly generation: number
  readonly droppedSlices: readonly Readonly<Record<string, number>>[]
}

export interface Changed {
  readonly disk: string
  readonly since: Point
  readonly until: Point
  readonly granularity: number
  readonly bytes: number
  /** `window` when a point lies inside a window's span (R29). */
  readonly resolution: 'exact' | 'window'
  /** False when part of the disk's size at `until` cannot be vouched for; the extents then cover it (R24, R35). */
  readonly complete: boolean
  readonly lost: readonly LostStretch[]
  /** Steps of the clock inside the span, however its points were given (R22). */
  readonly clockSteps: readonly ClockStep[]
  readonly digest: string
  readonly reason: string
  readonly extents: readonly PlanExtent[]
}

export interface DiskInfo {
  readonly disk: string
  readonly size: number
  readonly attached: boolean
  readonly recorder: Recorder
  readonly added: Point
  readonly last: Point
  readonly bitmaps: readonly string[]
  readonly lost: readonly LostStretch[]
}

/** Everything about a bitmap but its bits. `state` has the full catalog entry. */
export interface BitmapInfo {
  readonly disk: string
  readonly bitmap: string
  readonly generation: number
  readonly granularity: number
  readonly retention: number
  readonly recording: boolean
  readonly busy: boolean
  readonly persistent: boolean
  /** The number that α's slice will get. */
  readonly next: number
  readonly slices: number
  readonly state: BitmapState
}

/** Bits of α (frozen part included while a backup runs? see BitmapBitsInfo.successorCount) or of one slice. */
export interface BitsInfo {
  readonly disk: string
  readonly bitmap: string
  readonly generation: number
  readonly granularity: number
  readonly count: number
  readonly digest: string
  readonly recording: boolean
  readonly busy: boolean
  readonly extents: readonly Extent[]
  /** Only while a backup runs: the count of what is being collected meanwhile; `count` is the frozen part (as in QEMU). */
  readonly successorCount?: number
}

export interface SliceInfo {
  readonly slice: number
  readonly count: number
  readonly digest: string
  readonly from: Point
  readonly to: Point
  readonly lost: readonly LostStretch[]
}

export interface SlicesInfo {
  readonly generation: number
  readonly next: number
  readonly slices: readonly SliceInfo[]
}

export type BackupInfo = BackupState & { readonly state: BackupPhase['kind'] }
export type CheckpointInfo = CheckpointState

/** What became of the points of a deleted checkpoint (R19). */
export type CheckpointDeleted = CheckpointDeletion & { readonly checkpoint: string }

/** One event as an object, with its place and its cause. Write events carry `op`, `offset`, `length`. */
export interface RecordedEvent {
  readonly position: number
  readonly time: number
  readonly type: string
  readonly disk: string | null
  readonly data: Readonly<Record<string, unknown>>
  readonly cause: RecordMeta
}

export interface LogFilter {
  readonly from?: PointInput
  readonly to?: PointInput
  readonly disk?: string
  readonly types?: readonly string[]
  readonly actor?: string
  readonly correlationId?: string
  /** What one command did: found by the index of command ids, without a scan. */
  readonly commandId?: string
  /** Bytes: only writes that touch it, and windows that hold such writes (R29). */
  readonly range?: { readonly offset: number; readonly length: number }
  readonly reverse?: boolean
  readonly limit?: number
  readonly signal?: AbortSignal
}

export interface StoreStatus {
  readonly folder: string | null
  readonly format: number
  readonly events: number
  readonly head: Point & { readonly hash: string }
  readonly synced: Point
  readonly durability: Durability
  readonly disks: number
  readonly bitmaps: number
  readonly slices: number
  readonly backups: {
    readonly running: number
    readonly succeeded: number
    readonly failed: number
    readonly cancelled: number
  }
  readonly checkpoints: number
  /** Bytes on disk, of the log and of what is derived from it. */
  readonly bytes: { readonly log: number; readonly derived: number }
  /** Of the log, over its last days. */
  readonly growth: Growth
  /** What the policy in force (else the default one) would give back now, and how its last pass by itself ended. */
  readonly compaction: CompactionEstimate & { readonly last: LastPass | null }
  /** Bytes of bits in memory (α and successors; slices are not kept). */
  readonly memory: { readonly bits: number }
  /** How the last session ended and what opening found (R32). */
  readonly opened: {
    readonly clean: boolean
    readonly rebooted: boolean
    readonly replayed: number
    readonly rebuilt: readonly string[]
  }
}
