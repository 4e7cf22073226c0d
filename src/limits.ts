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
  /** Rows of writes that wait for the log, over all calls; what is called beyond is refused (QUEUE_FULL): 8 M rows are 128 MiB. */
  queuedRowsMax: 8 * (1 << 20),
  /** Calls that wait for the log, writes and commands together. */
  queuedCallsMax: 1 << 18,
  /** Records, and bytes of them, that a slow subscriber may lag behind before it is sent back to the log. */
  subscriberBufferRecords: 1024,
  subscriberBufferBytes: 4 * MiB,
  /** Bytes of records that one import of a disk appends at once: about 40 M writes (docs/operating.md). */
  importBytesMax: 256 * MiB,
  transactionCommandsMax: 10_000,
  /** Copies that one `backups-combined` names. */
  combinedBackupsMax: 10_000,
  /** Bytes of one line of a trace, and of the start of a file that is looked at to find its format. */
  traceLineBytesMax: 65_536,
  /** Bad lines of a trace that a report quotes; all are counted. */
  traceBadLinesQuoted: 10,
  /** Disks of one trace that are counted apart, to name them where one has to be chosen. */
  tracePartsMax: 256,
  /** Bytes of a command line that is sent to a store's owner, and of one piece of its answer (R34). */
  ownerAskBytesMax: 8 * MiB,
  ownerChunkBytes: 64 * KiB,
  /** Who may ask an owner at the same time. */
  ownerConnectionsMax: 64,
  /** Bytes of remarks and progress (stderr) that wait for a slow asker; what comes beyond is left out. */
  ownerRemarksBytesMax: 1 * MiB,
  /** Bytes of one read or write over NBD; what a server tells its clients (QEMU's own limit). */
  nbdPayloadBytesMax: 32 * MiB,
  /** Bytes of a name or a query over NBD (the protocol's limit for strings), and of one option of the handshake. */
  nbdNameBytesMax: 4096,
  nbdOptionBytesMax: 64 * KiB,
  /** Queries of one option, and meta contexts that one connection reads. */
  nbdQueriesMax: 1024,
  nbdContextsMax: 32,
  /** Descriptors of one context in one answer (QEMU's own limit). */
  nbdExtentsMax: 131_072,
  /** Clients of one NBD server at the same time; who comes beyond is closed at once. */
  nbdConnectionsMax: 256,
  /** Requests of one connection that are read and not answered yet, and bytes that they hold. */
  nbdRequestsMax: 128,
  nbdInFlightBytesMax: 64 * MiB,
  /** Bytes that are read from a socket before anybody wants them. */
  nbdReadAheadBytes: 256 * KiB,
  /** Bytes of a PEM file that a door is served with. */
  nbdTlsFileBytesMax: 1 * MiB,
  /** How long a client may take for its handshake, TLS and all (QEMU's own limit). */
  nbdHandshakeMs: 10_000,
  /** Requests that an NBD client has in flight, and bytes that they hold, unless it is told otherwise. */
  nbdClientRequestsMax: 64,
  nbdClientBytesMax: 64 * MiB,
  /** Replies to one option that a client reads, and bytes of them: a list of exports, or of meta contexts. */
  nbdRepliesMax: 16_384,
  nbdRepliesBytesMax: 8 * MiB,
  /** Chunks of one structured answer that a client reads (32 MiB in sectors are 65 536), and extents of one context in it (nbdkit's own limit). */
  nbdChunksMax: 131_072,
  nbdClientExtentsMax: 1 << 20,
  /** How long a client that closes waits for what it asked. */
  nbdClientCloseMs: 5000,
} as const

/** Whether a disk of `size` bytes has more granules of `granularity` bytes than a bitmap holds (R23). */
export function hasTooManyGranules(size: number, granularity: number): boolean {
  return Math.ceil(size / granularity) > limits.granulesMax
}
