/**
 * Every event there is: what can happen to a store, as plain data.
 *
 * An event says what happened in terms a fold can apply without knowing the rules: `slice-merged` names both slices,
 * `backup-succeeded` says what became of the frozen bits. Whether it may happen is decided elsewhere (src/commands).
 * Write ranges never become objects on the hot path: they travel as columns (`WriteColumns`) in records of their own.
 *
 * Units: offsets, lengths, sizes, granularities in bytes; times in milliseconds since the epoch. Source: spec section 1.
 */

/** What a write did. `discard` is NBD's trim. All three dirty (R1). */
export type WriteOp = 'write' | 'zero' | 'discard'

/** The code of an op in `WriteColumns.ops` is its index here. */
export const WRITE_OPS: readonly WriteOp[] = ['write', 'zero', 'discard']

/** A place in the log and its time. Position -1 with time null is before the first event (`start`). */
export interface Point {
  readonly position: number
  readonly time: number | null
}

export type Extent = readonly [offset: number, length: number]

/**
 * Write ranges as parallel columns, one row per write. `ops` absent: all are `write`. `times` absent: all happened at
 * the record's time. Lengths are > 0 once recorded (a length of 0 is legal in a call and records nothing, R1).
 */
export interface WriteColumns {
  readonly offsets: Float64Array
  readonly lengths: Float64Array
  readonly ops?: Uint8Array | undefined
  readonly times?: Float64Array | undefined
}

/** A disk's incarnation: the position of its `disk-added` event. Unique for ever, and short in a record. */
export type DiskNumber = number

export interface BitmapRef {
  readonly disk: string
  readonly bitmap: string
}

/** Who moves the bytes, and therefore what an unclean end costs (R32). */
export type Recorder = 'caller' | 'store'

export type BackupMode = 'full' | 'incremental' | 'differential' | 'copy'

/** What a backup is relative to (R11). `none`: a whole disk. `point`: where α began. `active`: α's bits as they are. */
export type BaseKind =
  | 'none'
  | 'point'
  | 'active'
  | 'slice'
  | 'checkpoint'
  | 'backup'
  | 'position'
  | 'time'
  | 'start'

export interface Base extends Point {
  readonly kind: BaseKind
  /** The slice's number, the checkpoint's name or the backup's id, as text, where the kind has one. */
  readonly name?: string | undefined
}

/** Why and where writes may have gone unrecorded: everything after `from`, up to the event that says so (R35). */
export interface LostStretch {
  readonly from: Point
  /** The event that declared it. */
  readonly to: Point
  readonly reason: string
}

export type DiskEvent =
  | { readonly type: 'disk-added'; readonly disk: string; readonly size: number }
  | { readonly type: 'disk-resized'; readonly disk: string; readonly size: number }
  | { readonly type: 'disk-removed'; readonly disk: string }
  | { readonly type: 'disk-attached'; readonly disk: string; readonly recorder: Recorder }
  | { readonly type: 'disk-detached'; readonly disk: string }
  | { readonly type: 'stretch-lost'; readonly disk: string; readonly from: Point; readonly reason: string }
  /** One event that stands for many writes (R3), told afterwards by an agent that read another tracker. */
  | {
      readonly type: 'window'
      readonly disk: string
      /** The span's start: writes after this point. Its end is this event. */
      readonly from: Point
      /** How many writes it stands for; 0 when nobody knows. */
      readonly writes: number
      readonly extents: readonly Extent[]
    }
  /**
   * Writes of ranges within `extents` may have happened after `from`, and no record has them: what a power cut may have taken
   * out of the log (R30). It counts as written, as a window of nobody knows how many writes does, so nothing is lost by it.
   */
  | {
      readonly type: 'maybe-written'
      readonly disk: string
      /** The span's start. Its end is this event. */
      readonly from: Point
      readonly extents: readonly Extent[]
    }
  /** What the disk's file or device looked like when everything recorded so far had reached it (R35). No bit changes. */
  | { readonly type: 'disk-marked'; readonly disk: string; readonly mark: DiskMark }

/**
 * By what a file or block device is known again (R35): whoever changes it behind the server's back changes one of these.
 * Numbers beyond 2^53 are decimal text.
 */
export interface DiskMark {
  readonly kind: 'file' | 'block'
  /** `major:minor`. Of a file: of the file system that it is on; of a block device: its own. */
  readonly device: string
  /** Of a file its inode; of a block device the kernel's sequence number of what is behind it now, 0 where it has none. */
  readonly inode: string
  /** In bytes. */
  readonly size: number
  /** mtime and ctime, ns since the epoch. */
  readonly modified: string
  readonly changed: string
  /** Which run of the machine it was taken in: 16 bytes in hex, as in the head file. */
  readonly boot: string
  /** What the kernel counted as written to a block device in this run; null where it does not, and for a file. */
  readonly sectorsWritten: number | null
}

export type BitmapEvent =
  | {
      readonly type: 'bitmap-added'
      readonly disk: string
      readonly bitmap: string
      readonly granularity: number
      readonly recording: boolean
      readonly persistent: boolean
      readonly retention: number
    }
  | {
      readonly type: 'bitmap-removed'
      readonly disk: string
      readonly bitmap: string
      readonly because: 'command' | 'detach'
    }
  | { readonly type: 'bitmap-cleared'; readonly disk: string; readonly bitmap: string }
  | { readonly type: 'bitmap-enabled'; readonly disk: string; readonly bitmap: string }
  | { readonly type: 'bitmap-disabled'; readonly disk: string; readonly bitmap: string }
  | {
      readonly type: 'bitmap-merged'
      readonly disk: string
      readonly bitmap: string
      readonly sources: readonly BitmapRef[]
    }
  | {
      readonly type: 'retention-set'
      readonly disk: string
      readonly bitmap: string
      readonly retention: number
    }
  /** A full reset (R9): every slice forgotten, numbers restart at 0. The new generation's id is this event's position. */
  | { readonly type: 'bitmap-reset'; readonly disk: string; readonly bitmap: string; readonly backup: string }

export type SliceCause =
  | { readonly kind: 'bank' }
  | { readonly kind: 'checkpoint'; readonly name: string }
  | { readonly kind: 'backup'; readonly id: string }

export type SliceEvent =
  /**
   * α became slice `slice`. Cause `bank` and `checkpoint`: α ends at the record of this event and a fresh α begins
   * there. Cause `backup`: the part frozen at the backup's begin becomes the slice; the successor is already α-to-be.
   * `next` is the number of the point where the new α begins.
   */
  | {
      readonly type: 'slice-frozen'
      readonly disk: string
      readonly bitmap: string
      readonly slice: number
      readonly next: number
      readonly cause: SliceCause
    }
  | {
      readonly type: 'slice-dropped'
      readonly disk: string
      readonly bitmap: string
      readonly slice: number
      readonly because: 'force-cycle' | 'retention' | 'deleted'
    }
  /** Point `slice` is forgotten: its bits went into slice `into`, the next older one (R16). */
  | {
      readonly type: 'slice-merged'
      readonly disk: string
      readonly bitmap: string
      readonly slice: number
      readonly into: number
    }
  /** The point where α began is forgotten: slice `slice` is α again, under its old number; `deleted` is never given again. */
  | {
      readonly type: 'slice-reactivated'
      readonly disk: string
      readonly bitmap: string
      readonly slice: number
      readonly deleted: number
    }

export type BackupEvent =
  | {
      readonly type: 'backup-begun'
      readonly backup: string
      readonly disk: string
      readonly bitmap: string
      readonly mode: BackupMode
      readonly base: Base
      readonly forceCycle: boolean
      /** Members of one grouped begin share it (R14). */
      readonly group?: string | undefined
      readonly copiedBy: Recorder
      /** Of the plan (R25): digest of its bits (R5), bytes to copy, whether it is complete (R11). */
      readonly digest: string
      readonly bytes: number
      readonly complete: boolean
    }
  /** A member of a group is done and waits for the others. */
  | { readonly type: 'backup-pending'; readonly backup: string }
  | { readonly type: 'backup-interrupted'; readonly backup: string }
  | { readonly type: 'backup-resumed'; readonly backup: string }
  /**
   * What became of the frozen bits. `banked`: they are slice N (a `slice-frozen` follows in the record). `forgotten`:
   * retention 0, the successor is α (R9). `kept`: the successor was merged back. `reset`: a `bitmap-reset` follows.
   */
  | {
      readonly type: 'backup-succeeded'
      readonly backup: string
      readonly bits: 'banked' | 'forgotten' | 'kept' | 'reset'
    }
  /** The successor is merged back (R10). `uncopied`: only with QMP's bitmap-mode always; the frozen bits shrink to it. */
  | {
      readonly type: 'backup-failed'
      readonly backup: string
      readonly reason: string
      readonly uncopied?: readonly Extent[] | undefined
    }
  | { readonly type: 'backup-cancelled'; readonly backup: string; readonly reason: string }

/** What became of the copies that backups made, as their keeper reports it. */
export type CopyEvent =
  /** The copy that a succeeded backup made exists no more, as its keeper reports: nothing can be restored from it. */
  | { readonly type: 'backup-forgotten'; readonly backup: string; readonly reason: string }
  /**
   * Copies of a chain of backups were merged offline into one, `backup`: base of the oldest, point of the newest. `of`: oldest
   * first. What became of the single copies is told apart, by `backup-forgotten`.
   */
  | { readonly type: 'backups-combined'; readonly backup: string; readonly of: readonly string[] }

export type CheckpointEvent =
  | {
      readonly type: 'checkpoint-created'
      readonly checkpoint: string
      readonly bitmaps: readonly BitmapRef[]
    }
  | { readonly type: 'checkpoint-deleted'; readonly checkpoint: string }

/** The wall clock stepped against the monotonic one, or back (R22). `from` and `to` are wall times, ms. */
export type ClockEvent = { readonly type: 'clock-stepped'; readonly from: number; readonly to: number }

/**
 * One stored value of windows that stands for the records of `first … last` (R29). Hashes in hex: the chain's before the first
 * and after the last of those records, and SHA-256 of the stored windows themselves.
 */
export interface CompactedRun {
  readonly first: number
  readonly last: number
  readonly before: string
  readonly after: string
  readonly own: string
}

/**
 * Records that damage took, and nothing can bring back: their positions stay, empty. `before`: the chain's hash before `first`;
 * `next`: its hash after the first record that follows, which nothing but this event vouches for (R28). Hex; `next` is empty
 * when nothing followed.
 */
export interface RepairedGap {
  readonly first: number
  readonly last: number
  readonly before: string
  readonly next: string
}

/** Upkeep of the log itself: the only events that let a verify accept what is not there. */
export type UpkeepEvent =
  | { readonly type: 'log-compacted'; readonly runs: readonly CompactedRun[] }
  | {
      readonly type: 'log-repaired'
      readonly gaps: readonly RepairedGap[]
      /** Where what was taken out is kept, inside the store's folder. */
      readonly kept: string
    }
  /** What follows, up to position `last`, is a disk's history from another store: its id, and the head it was exported at. */
  | {
      readonly type: 'disk-imported'
      readonly disk: string
      readonly store: string
      readonly position: number
      readonly hash: string
      readonly last: number
    }

/** A command with an id that changed nothing: recorded so that the same id gets the same answer for ever (R13). */
export type NoteEvent = { readonly type: 'nothing-changed' }

/** Everything but writes: small, few, carried as objects. */
export type DomainEvent =
  | DiskEvent
  | BitmapEvent
  | SliceEvent
  | BackupEvent
  | CopyEvent
  | CheckpointEvent
  | ClockEvent
  | UpkeepEvent
  | NoteEvent

/** One write as an object, for readers that want it so; the hot path never makes these. */
export interface WriteEvent {
  readonly type: 'write'
  readonly disk: string
  readonly op: WriteOp
  readonly offset: number
  readonly length: number
}

/** Cause of a record, as given by the caller (R13): carried by every event of it. */
export interface RecordMeta {
  /** The command's name, e.g. `begin-backup`; `transaction` for a list. */
  readonly command?: string | undefined
  readonly commandId?: string | undefined
  /** SHA-256 (hex) of the command's canonical arguments; present with `commandId`. */
  readonly argumentsHash?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly actor?: string | undefined
}

/** Writes of one disk inside a record: consecutive positions from the record's first plus those of earlier sections. */
export interface WriteSection {
  readonly disk: DiskNumber
  readonly columns: WriteColumns
}

/** What one window knows of one disk: the union of its ranges, how many writes they were and how many bytes those wrote. */
export interface WindowSection {
  readonly disk: DiskNumber
  readonly writes: number
  readonly bytes: number
  /** The last of its writes. */
  readonly last: Point
  /** Ascending, joined; no ops, no times. */
  readonly columns: WriteColumns
}

/** Writes of the positions `first … first + count - 1`, folded into one by a compaction (R29). At most one section a disk. */
export interface LogWindow {
  readonly first: number
  readonly count: number
  /** Of its first and last write, ms. */
  readonly time: number
  readonly lastTime: number
  readonly sections: readonly WindowSection[]
}

/**
 * What is written to the log at once. Event i of it has position `first + i`.
 * `time` is the record's base time: every event's time unless a section has a `times` column. `lastTime` is the time of
 * its last event. Times never decrease inside a record nor along the log. Records of writes and of events are appended;
 * windows and gaps only ever take the place of what was there.
 */
export type LogRecord =
  | {
      readonly kind: 'writes'
      readonly first: number
      readonly count: number
      readonly time: number
      readonly lastTime: number
      readonly sections: readonly WriteSection[]
    }
  | {
      readonly kind: 'events'
      readonly first: number
      readonly count: number
      readonly time: number
      readonly lastTime: number
      readonly meta: RecordMeta
      readonly events: readonly DomainEvent[]
    }
  /** What a compaction left of a run of records (R29). Windows are contiguous and cover the record. */
  | {
      readonly kind: 'windows'
      readonly first: number
      readonly count: number
      readonly time: number
      readonly lastTime: number
      readonly windows: readonly LogWindow[]
    }
  /** What a repair left of records that damage took: nothing is known of them (R28). */
  | {
      readonly kind: 'gap'
      readonly first: number
      readonly count: number
      readonly time: number
      readonly lastTime: number
    }
