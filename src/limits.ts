/** Every queue, name and batch has a named maximum; docs/format.md and docs/operating.md quote these. */

export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB
export const TiB = 1024 * GiB

export const limits = {
  /** Bytes of UTF-8 in the name of a disk, bitmap, checkpoint, backup or command (QEMU's limit for bitmaps, R4). */
  nameBytesMax: 1023,
  granularityMin: 512,
  granularityMax: 2 * GiB,
  granularityDefault: 64 * KiB,
  /** 2^32 bits = 512 MiB of bitmap, QEMU's own limit for a stored bitmap (R23). */
  granulesMax: 2 ** 32,
  /** Largest disk: offsets stay safe integers with room for a granule beyond the end. */
  diskBytesMax: Number.MAX_SAFE_INTEGER - 2 * GiB,
  retentionMax: 65_535,
  /** Writes in one record; longer calls are split into several records of one atomic batch. */
  recordWritesMax: 4096,
  /** Writes of one `recordWrites` call. */
  callWritesMax: 1 << 20,
  /** Records that a slow subscriber may lag behind before it is sent back to the log. */
  subscriberBufferRecords: 256,
  transactionCommandsMax: 10_000,
  /** Bytes of one line of a trace, and of the start of a file that is looked at to find its format. */
  traceLineBytesMax: 65_536,
  /** Bad lines of a trace that a report quotes; all are counted. */
  traceBadLinesQuoted: 10,
  /** Tombstones of slices kept per bitmap for exact refusals (R18); older ones are answered in general terms. */
  tombstonesMax: 1024,
} as const
