/**
 * Every command there is, as plain data: what a door hands to the store and `decide` turns into events or a refusal.
 * Points (`since`) are resolved by the store before deciding: decide is pure and cannot search a log for a time.
 */
import type {
  BackupMode,
  Base,
  BitmapRef,
  DiskMark,
  DomainEvent,
  Extent,
  Point,
  Recorder,
} from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { NamedPoint } from './since.ts'

export type Command =
  | { readonly type: 'add-disk'; readonly disk: string; readonly size: number }
  | { readonly type: 'resize-disk'; readonly disk: string; readonly size: number }
  | { readonly type: 'remove-disk'; readonly disk: string }
  /** After an unclean end the first attach of a caller's disk declares the stretch since its last event lost, unless `quiet` (R32). */
  | {
      readonly type: 'attach-disk'
      readonly disk: string
      readonly recorder: Recorder
      readonly quiet: boolean
    }
  | { readonly type: 'detach-disk'; readonly disk: string }
  /** `from` null: since the disk's last event. */
  | {
      readonly type: 'declare-lost'
      readonly disk: string
      readonly from: Point | null
      readonly reason: string
    }
  | {
      readonly type: 'record-window'
      readonly disk: string
      readonly from: Point
      readonly writes: number
      readonly extents: readonly Extent[]
    }
  /** For doors that serve the disk's file themselves: how it looks, now that all that is recorded has reached it (R35). */
  | { readonly type: 'mark-disk'; readonly disk: string; readonly mark: DiskMark }
  | {
      readonly type: 'add-bitmap'
      readonly disk: string
      readonly bitmap: string
      readonly granularity?: number | undefined
      readonly retention?: number | undefined
      readonly persistent?: boolean | undefined
      readonly disabled?: boolean | undefined
    }
  | {
      readonly type: 'remove-bitmap' | 'clear-bitmap' | 'enable-bitmap' | 'disable-bitmap'
      readonly disk: string
      readonly bitmap: string
    }
  | {
      readonly type: 'merge-bitmaps'
      readonly disk: string
      readonly bitmap: string
      readonly sources: readonly BitmapRef[]
    }
  | {
      readonly type: 'set-retention'
      readonly disk: string
      readonly bitmap: string
      readonly retention: number
      readonly forceCycle?: boolean | undefined
    }
  | {
      readonly type: 'bank'
      readonly disk: string
      readonly bitmap: string
      readonly forceCycle?: boolean | undefined
    }
  | {
      readonly type: 'delete-slice'
      readonly disk: string
      readonly bitmap: string
      readonly slice: number
      readonly generation?: number | undefined
    }
  | BeginBackup
  | { readonly type: 'succeed-backup'; readonly backup: string }
  | {
      readonly type: 'fail-backup'
      readonly backup: string
      readonly reason: string
      readonly uncopied?: readonly Extent[] | undefined
    }
  | { readonly type: 'cancel-backup'; readonly backup: string; readonly reason: string }
  | { readonly type: 'interrupt-backup' | 'resume-backup'; readonly backup: string }
  | {
      readonly type: 'create-checkpoint'
      readonly checkpoint: string
      readonly bitmaps: readonly BitmapRef[]
      readonly forceCycle?: boolean | undefined
    }
  | { readonly type: 'delete-checkpoint'; readonly checkpoint: string }
  /** The copy that a succeeded backup made is gone, as its keeper reports. */
  | { readonly type: 'forget-backup'; readonly backup: string; readonly reason?: string | undefined }
  /** Copies were combined offline into one, `backup`; `of`: oldest first. */
  | { readonly type: 'record-combined'; readonly backup: string; readonly of: readonly string[] }
  /** QEMU's action that makes a transaction fail. */
  | { readonly type: 'abort' }

export interface BeginBackup {
  readonly type: 'begin-backup'
  readonly backup: string
  readonly disk: string
  readonly bitmap: string
  readonly mode: BackupMode
  /** Resolved base; undefined: left out (R12). Must be undefined or `none` for full and copy. */
  readonly base?: Base | undefined
  /** A base by name, looked up in the state that the begin is decided in; then `base` does not count. */
  readonly named?: NamedPoint | undefined
  readonly forceCycle?: boolean | undefined
  readonly group?: string | undefined
  readonly copiedBy: Recorder
}

/**
 * What the plan of a begin came to (R25). The store computes it beside the committer and tops it up inside; decide asks
 * for it only once everything else is legal, and puts digest, bytes and completeness into the event.
 */
export interface PlanFacts {
  readonly digest: string
  readonly bytes: number
  readonly complete: boolean
}

/** What a begin sees of its own transaction (R20): `state` after the commands before it, which came to `events`. */
export interface PlanMoment {
  readonly state: CatalogReader
  readonly events: readonly DomainEvent[]
  /** The begin's point: the end of the record being decided. */
  readonly point: Point
}

export interface DecideContext {
  /** Facts of the plan for a begin, by backup id. Throws what the store wants to signal (for instance that it must prepare first). */
  plan(command: BeginBackup, base: Base, moment: PlanMoment): PlanFacts
  /** Time that the record will get; null or left out when not known yet. Points inside the record carry it. */
  readonly time?: number | null | undefined
  /** Disks whose previous process ended uncleanly and that were not attached since (R32). */
  readonly unclean: ReadonlySet<string>
  /** The last event of each of them when the store was opened; without an entry the last there is. */
  readonly uncleanSince?: ReadonlyMap<string, Point> | undefined
}
