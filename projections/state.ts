/**
 * The shape of the catalog: what disks, bitmaps, slices, backups and checkpoints there are, without their bits.
 *
 * Values are immutable: a fold replaces the objects on the path to a change, so a fork, a snapshot or a prepared plan
 * can hold on to what it saw. Bits live in projections/bits.ts under the same keys.
 */
import type {
  BackupMode,
  Base,
  BitmapRef,
  DiskMark,
  DiskNumber,
  LostStretch,
  Point,
  Recorder,
} from '../events/types.ts'

/** A part of a slice's span in which the bitmap collected nothing. `to` null: still going on. */
export interface Gap {
  readonly kind: 'disabled' | 'cleared'
  readonly from: Point
  readonly to: Point | null
}

/** α, or a running backup's successor: bits being collected since `from`. */
export interface ActiveSlice {
  /** The number its slice will get: the number of the point where it starts (R18). */
  readonly number: number
  readonly from: Point
  readonly gaps: readonly Gap[]
  readonly lost: readonly LostStretch[]
}

export interface Slice {
  readonly number: number
  readonly from: Point
  readonly to: Point
  readonly gaps: readonly Gap[]
  readonly lost: readonly LostStretch[]
}

/** What became of a slice that is no more: a refusal names it exactly (R18). */
export type Tombstone =
  | { readonly kind: 'dropped'; readonly slice: number; readonly at: number; readonly because: string }
  | { readonly kind: 'merged'; readonly slice: number; readonly at: number; readonly into: number }
  /** The point was α's start and was deleted: the number is never given again. */
  | { readonly kind: 'unmarked'; readonly slice: number; readonly at: number }

export interface PastGeneration {
  readonly generation: number
  /** Position of the reset that ended it. */
  readonly endedAt: number
  /** Numbers below this one had been given. */
  readonly numbers: number
}

/** Who holds a busy bitmap (R6). `removal`: a transaction removes it at its end (R20). */
export type Holder = { readonly kind: 'backup'; readonly id: string } | { readonly kind: 'removal' }

export interface BitmapState {
  readonly name: string
  readonly granularity: number
  readonly persistent: boolean
  readonly retention: number
  /** Position of the event that began this life (R18, spec section 1). */
  readonly generation: number
  readonly createdAt: Point
  readonly recording: boolean
  readonly holder: Holder | null
  /** While a backup runs this is the frozen part, and `successor` collects. */
  readonly active: ActiveSlice
  readonly successor: ActiveSlice | null
  /** Oldest first, contiguous in time. */
  readonly slices: readonly Slice[]
  /** The highest number ever given to a point of this generation. */
  readonly highestNumber: number
  readonly tombstones: readonly Tombstone[]
  readonly pastGenerations: readonly PastGeneration[]
  /** Last succeeded incremental or full backup: its id and point (R12). */
  readonly lastBackup: { readonly id: string; readonly point: Point } | null
}

export interface WindowSpan {
  readonly from: Point
  /** The event that tells it: a window, or what may have been written before a power cut. */
  readonly at: Point
}

export interface DiskState {
  readonly id: string
  readonly number: DiskNumber
  readonly size: number
  readonly addedAt: Point
  readonly recorder: Recorder
  readonly attached: boolean
  /** The last event of this disk, writes included; that a backup was found interrupted is none. */
  readonly last: Point
  /** Its last write, or the last event that tells of some; null when there was none. */
  readonly wrote: Point | null
  /** How its file or device looked last, and when (R35); null when nobody said. */
  readonly mark: { readonly at: Point; readonly mark: DiskMark } | null
  /** Every change of size since it was added: at which event, from which size, to which. */
  readonly resizes: readonly { readonly at: Point; readonly before: number; readonly after: number }[]
  readonly lost: readonly LostStretch[]
  readonly windows: readonly WindowSpan[]
  /** In order of creation. */
  readonly bitmaps: ReadonlyMap<string, BitmapState>
}

/** Windows and lost stretches of a removed disk: they may reach back before any moment at which it was there (R23, R35). */
export interface ToldOf {
  readonly lost: DiskState['lost']
  readonly windows: DiskState['windows']
}

/** What a disk's number means. `told`: only of a removed disk, and only when there is anything. */
export interface DiskName {
  readonly id: string
  readonly removed: boolean
  readonly told?: ToldOf | undefined
}

export type BackupPhase =
  | { readonly kind: 'running' }
  | { readonly kind: 'pending' }
  | { readonly kind: 'interrupted'; readonly at: Point }
  | {
      readonly kind: 'succeeded'
      readonly at: Point
      readonly slice: number | null
      readonly dropped: readonly number[]
      readonly generation: number
    }
  | { readonly kind: 'failed'; readonly at: Point; readonly reason: string }
  | { readonly kind: 'cancelled'; readonly at: Point; readonly reason: string }

/** What is known of the copy that a succeeded backup made. Until its keeper says otherwise it is there. */
export type CopyState =
  | { readonly kind: 'kept' }
  | { readonly kind: 'forgotten'; readonly at: Point; readonly reason: string }

/** A backup, or copies of several combined offline into one: then it has members, and its bits are the union of theirs. */
export interface BackupState {
  readonly id: string
  readonly disk: string
  readonly diskNumber: DiskNumber
  readonly bitmap: string
  /** The bitmap's generation at the begin. */
  readonly generation: number
  readonly granularity: number
  readonly mode: BackupMode
  readonly base: Base
  /** Its begin (R8). */
  readonly point: Point
  readonly forceCycle: boolean
  readonly group: string | null
  readonly copiedBy: Recorder
  /** Null of a combined one: nobody recorded it, and `replayPlan` makes it again from the log. */
  readonly digest: string | null
  /** Of a combined one: at most so many. */
  readonly bytes: number
  readonly complete: boolean
  /** Bytes that its disk had at its point. */
  readonly size: number
  /** It holds every byte of its disk, so it needs no other copy under it. */
  readonly whole: boolean
  /** Stretches told after its begin that had begun before it: writes that it should hold may be missing (R3, R35). */
  readonly doubt: readonly LostStretch[]
  readonly copy: CopyState
  /** The backups whose copies were combined into this one, oldest first; null for a backup that was begun. */
  readonly of: readonly string[] | null
  readonly phase: BackupPhase
}

export interface CheckpointState {
  readonly name: string
  readonly point: Point
  /** Bitmaps banked at it (R19). */
  readonly bitmaps: readonly BitmapRef[]
}

export interface ClockStep {
  readonly at: Point
  readonly from: number
  readonly to: number
}
