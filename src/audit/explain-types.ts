/**
 * What `explain` answers, as plain data: JSON-safe but for `bits`. Sizes in bytes, times in milliseconds since the epoch.
 * Fields may be added; docs/audit.md shows one in full.
 */
import type { Base, LostStretch, Point } from '../../events/types.ts'
import type { DirtyBitmap } from '../../projections/bitmap.ts'
import type { BackupInfo } from '../store/types.ts'

/** Writes and the bytes that they wrote, every one counted as often as it was written. */
export interface Volume {
  writes: number
  bytes: number
}

/** One part of a plan: what it holds, and what would be missing without it. */
export interface ExplainedSource {
  readonly kind: 'slice' | 'active' | 'log' | 'outside'
  /** Of kind `slice`. */
  readonly slice: number | null
  readonly from: Point | null
  readonly to: Point | null
  /** Of kind `log`: why the bitmap did not hold the stretch. */
  readonly why: string | null
  /** Bytes of the granules in it. */
  readonly bytes: number
  /** Bytes of the granules that are in no other part. Stretches of the log beyond 64 are counted as one. */
  readonly only: number
  /** What the guest wrote in its span. */
  readonly writes: number
  readonly written: number
}

export interface ExplainedBase extends Base {
  /** From the base to the backup's point, ms; null for a base without a time. */
  readonly age: number | null
  /** Backups and checkpoints whose point the base is. */
  readonly backups: readonly string[]
  readonly checkpoints: readonly string[]
}

/** Another backup of the same bitmap that began between the base and this one, and so did not become its base. */
export interface Between {
  readonly backup: string
  readonly mode: string
  readonly point: Point
  /** As it was at this backup's begin. */
  readonly state: BackupInfo['state']
  readonly reason: string | null
}

export interface TimeBucket {
  /** Its start, ms. */
  readonly time: number
  readonly writes: number
  readonly bytes: number
  /** Bytes of granules that were first touched in it: what it adds to the backup. */
  readonly added: number
}

export interface HotRegion {
  readonly offset: number
  readonly length: number
  readonly writes: number
  readonly bytes: number
}

export interface GranularityFigure {
  readonly granularity: number
  /** What the span's writes would have dirtied; null where counting it would take more than 256 MiB or 2^32 granules. */
  readonly bytes: number | null
  /** `bytes` for each byte that the guest wrote; null where either is unknown or nothing was written. */
  readonly amplification: number | null
  /** Memory of a bitmap of this granularity for this disk, at most. */
  readonly memory: number
}

export const EXPLAIN_CODES = [
  'DIGEST_DIFFERS',
  'LOST',
  'OLDER_THAN_DISK',
  'FIRST',
  'FULL',
  'COPY',
  'BASE_OLD',
  'STRETCH',
  'RESIZED',
  'MERGED',
  'GRANULARITY',
  'DISCARDS',
  'BURST',
  'REPEATED',
  'WINDOWS',
  'SOUND',
] as const

export interface ExplainFinding {
  readonly code: (typeof EXPLAIN_CODES)[number]
  /** What it added to the backup; 0 for what only is worth knowing. */
  readonly bytes: number
  readonly says: string
  readonly todo: string
}

export interface Explanation {
  readonly backup: BackupInfo
  /** Of the disk at the backup's point. */
  readonly size: number
  readonly base: ExplainedBase
  /** The plan's own words (R25). */
  readonly reason: string
  /** The log and the slices give the recorded digest again. */
  readonly equal: boolean
  /** Why it covers the whole disk, and what it would have copied otherwise; null when it does not. */
  readonly whole: { readonly why: string; readonly without: number; readonly since: Point } | null
  readonly lost: readonly LostStretch[]
  /** Of a whole-disk plan: what it would have merged. */
  readonly sources: readonly ExplainedSource[]
  readonly between: readonly Between[]
  /** Since the last of `between`: what a backup based on that one would have copied. */
  readonly sinceLast: number | null
  /** The writes that made it: after the base (for a whole disk: after the base that it could have had) up to its point. */
  readonly span: {
    readonly from: Point
    readonly to: Point
    /** `window`: some writes are known only together (R3, R29); they have no size, op or place in time of their own. */
    readonly resolution: 'exact' | 'window'
    /** `maybe`: how many of them are what a power cut may have taken the records of (R30). */
    readonly windows: Volume & { readonly count: number; readonly maybe: number }
  }
  readonly written: Volume & {
    readonly ops: { readonly write: Volume; readonly zero: Volume; readonly discard: Volume }
    /** Writes that touched only granules which others before them in the span had touched. */
    readonly rewrites: number
    /** Bytes dirtied by nothing but discards. */
    readonly onlyDiscarded: number
    /** By powers of two, ascending: lengths from `from` up to twice that. */
    readonly sizes: readonly (Volume & { readonly from: number })[]
  }
  readonly timeline: { readonly width: number; readonly buckets: readonly TimeBucket[] }
  readonly hot: {
    /** Bytes of the regions that were counted; neighbours are joined. */
    readonly region: number
    readonly byWrites: readonly HotRegion[]
    readonly byBytes: readonly HotRegion[]
  }
  readonly granularities: readonly GranularityFigure[]
  /** The last backup of the bitmap that had succeeded by then, and how many bytes are in both. */
  readonly previous: { readonly backup: string; readonly bytes: number; readonly both: number } | null
  /** Bytes that came from other bitmaps by `merge`, or that the log's writes do not explain. */
  readonly unexplained: number
  readonly merged: readonly string[]
  /** What to make of it, worst first. Never empty. */
  readonly findings: readonly ExplainFinding[]
  /** Its plan, for pictures. Not for JSON. */
  readonly bits: DirtyBitmap
  readonly previousBits: DirtyBitmap | null
}
