/**
 * Whether a disk's file or device changed while nobody served it (R35): how it looks now against its last mark in the log. What
 * nobody tracked is a lost stretch, so every older map covers the disk.
 *
 * It errs to the safe side: where rights or name changed and no byte; where a device was detached; where the machine restarted under
 * a block device, whose count of writes began anew. It cannot see what leaves no trace: a file rolled back in place with its inode
 * and times, what happened within ten seconds of our own last write before an unclean end. Cost: a stat, and of a block device that
 * ended uncleanly one reading of the log since its last mark.
 */
import { uptime } from 'node:os'
import type { DiskMark, LogRecord, Point } from '../../events/types.ts'
import type { DiskState } from '../../projections/state.ts'
import { coreOf, type Store } from '../store/store.ts'
import type { MarkSource } from './file-mark.ts'
import { lookAt, recordMark } from './marks.ts'
import type { DiskBytes } from './raw-file.ts'

/** A server that lived so much longer than the last write that it recorded would have told a mark. */
const LATER_MS = 10_000
/** What a write may dirty at most beyond its own bytes, at either end: the system writes whole pages. */
const PAGE = 4096
const SECTOR = 512

export interface SinceMark {
  /** When the last recorded write came after the mark, ms; null when none did. */
  readonly wroteAt: number | null
  /** Of a block device: the most that the recorded writes since the mark can have made the system write, in bytes. */
  readonly wroteBytes: number
  /** When this run of the machine began, ms. */
  readonly bootedAt: number
}

export interface Difference {
  readonly reason: string
  /** Whether it came after our own last write: then nothing before that is in doubt. */
  readonly later: boolean
}

/** Declares what changed since the disk was served last, if anything did. */
export async function declareIfChanged(store: Store, id: string, bytes: DiskBytes): Promise<void> {
  const core = coreOf(store)
  const disk = core.catalog.disk(id)
  // What a caller records is the caller's to vouch for; a disk that this session attached is served here already.
  if (disk === undefined || disk.recorder !== 'store') return
  if (disk.attached && !core.unclean().has(id)) return
  if (disk.mark === null) {
    if (!disk.attached) await declareByDetach(store, id, bytes.changedAt)
    return
  }
  if (bytes.marks !== undefined) await declareByMark(store, disk, disk.mark, bytes.marks)
}

async function declareByMark(
  store: Store,
  disk: DiskState,
  { at, mark }: NonNullable<DiskState['mark']>,
  source: MarkSource,
): Promise<void> {
  const now = await lookAt(source, disk.id)
  const found = differenceOf(mark, now, await sinceMark(store, disk, at, mark))
  if (found === null) return
  const from = found.later ? {} : { from: { position: at.position } }
  await store.disk(disk.id).declareLost(`${found.reason}, after it was served last`, from)
  // So that it is told once, though a read-only export attaches nothing.
  await recordMark(store, disk.id, now)
}

async function sinceMark(store: Store, disk: DiskState, at: Point, { kind }: DiskMark): Promise<SinceMark> {
  const { wrote } = disk
  const bootedAt = Date.now() - uptime() * 1000
  if (wrote === null || wrote.position <= at.position) return { wroteAt: null, wroteBytes: 0, bootedAt }
  const wroteBytes = kind === 'block' ? await bytesAfter(store, disk, at) : 0
  return { wroteAt: wrote.time ?? 0, wroteBytes, bootedAt }
}

/** How `now` cannot have come from `before` by our own writes alone, in words; null when it can. */
export function differenceOf(before: DiskMark, now: DiskMark, since: SinceMark): Difference | null {
  const what = before.kind === 'file' ? 'its file' : 'its block device'
  const differs = (reason: string): Difference => ({ reason, later: false })
  if (before.kind !== now.kind)
    return differs(
      before.kind === 'file' ? 'its file is a block device now' : 'its block device is a file now',
    )
  if (before.size !== now.size)
    return differs(`${what} has another size (${now.size} bytes, it had ${before.size})`)
  const sameBoot = before.boot === now.boot
  switch (before.kind) {
    case 'file':
      if (before.inode !== now.inode)
        return differs(`${what} is another one (inode ${now.inode}, it was ${before.inode})`)
      // Numbers of file systems are given anew when they are mounted after a restart.
      if (sameBoot && before.device !== now.device)
        return differs(`${what} is on another file system (device ${now.device}, it was ${before.device})`)
      return timesDiffer(before, now, since, sameBoot)
    case 'block':
      return writesDiffer(before, now, since, sameBoot)
    default:
      throw new RangeError(`no mark: ${JSON.stringify(before.kind satisfies never)}`)
  }
}

function timesDiffer(
  before: DiskMark,
  now: DiskMark,
  { wroteAt, bootedAt }: SinceMark,
  sameBoot: boolean,
): Difference | null {
  const at = (nanoseconds: string) => new Date(Number(BigInt(nanoseconds) / 1_000_000n)).toISOString()
  const changed = `its file changed at ${at(now.changed)} (ctime`
  if (wroteAt === null) {
    if (now.changed !== before.changed)
      return { reason: `${changed}, it was ${at(before.changed)})`, later: false }
    return now.modified === before.modified
      ? null
      : {
          reason: `its file's time of writing is ${at(now.modified)} (mtime, it was ${at(before.modified)})`,
          later: false,
        }
  }
  if (BigInt(now.changed) < BigInt(before.changed))
    return { reason: `${changed}, before its last mark's ${at(before.changed)})`, later: false }
  // Our own writes were over when the machine went down.
  const latest = (sameBoot ? wroteAt : Math.min(wroteAt, bootedAt)) + LATER_MS
  return BigInt(now.changed) <= BigInt(Math.ceil(latest)) * 1_000_000n
    ? null
    : {
        reason: `${changed}, its last recorded write was at ${new Date(wroteAt).toISOString()})`,
        later: true,
      }
}

function writesDiffer(
  before: DiskMark,
  now: DiskMark,
  { wroteAt, wroteBytes }: SinceMark,
  sameBoot: boolean,
): Difference | null {
  const differs = (reason: string): Difference => ({ reason, later: false })
  if (!sameBoot)
    return differs(
      'the machine restarted, and what its kernel counted as written to the block device is gone',
    )
  if (before.device !== now.device)
    return differs(`its block device is another one (device ${now.device}, it was ${before.device})`)
  if (before.inode !== now.inode)
    return differs('its block device was detached and attached meanwhile, whatever is behind it now')
  if (before.sectorsWritten === null || now.sectorsWritten === null)
    return differs('the kernel does not count what is written to its block device')
  const sectors = now.sectorsWritten - before.sectorsWritten
  if (sectors >= 0 && sectors <= (wroteAt === null ? 0 : wroteBytes / SECTOR)) return null
  return differs(
    `the kernel counts ${sectors} sectors written to its block device that nobody recorded, or not so many`,
  )
}

/** An upper bound of what the system wrote for the recorded writes after a point: whole pages, each of them once. */
async function bytesAfter(store: Store, disk: DiskState, after: Point): Promise<number> {
  let bytes = 0
  for await (const records of store.records({ from: after.position + 1 }))
    for (const record of records) bytes += bytesOf(record, disk)
  return bytes
}

function bytesOf(record: LogRecord, disk: DiskState): number {
  switch (record.kind) {
    case 'writes':
      return record.sections
        .filter(({ disk: number }) => number === disk.number)
        .reduce(
          (sum, { columns }) => columns.lengths.reduce((all, length) => all + length + 2 * PAGE, sum),
          0,
        )
    case 'windows':
      return record.windows
        .flatMap(({ sections }) => sections)
        .filter(({ disk: number }) => number === disk.number)
        .reduce((sum, { bytes, writes }) => sum + bytes + writes * 2 * PAGE, 0)
    case 'events':
    case 'gap':
      return 0
    default:
      throw new RangeError(`no record: ${JSON.stringify(record satisfies never)}`)
  }
}

/** Of a log from before there were marks: the time of change against the last clean detach. */
async function declareByDetach(store: Store, disk: string, changedAt: number | null): Promise<void> {
  if (changedAt === null) return
  for await (const { position, time } of store.log({
    disk,
    types: ['disk-detached'],
    reverse: true,
    limit: 1,
  })) {
    // The log's times are whole milliseconds.
    if (Math.floor(changedAt) <= time) return
    await store
      .disk(disk)
      .declareLost(
        `its file changed at ${new Date(changedAt).toISOString()}, after it was served last (until ${new Date(time).toISOString()})`,
        { from: { position } },
      )
  }
}
