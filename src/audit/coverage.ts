/**
 * What can be restored: every point in time that was backed up, by which chain or since when not, what would make good for
 * what is gone, and which copies an offline merge should make one of. This is the seed's "what if we lose the backup, though?".
 *
 * The store never sees the copies; it knows them as recorded: made by a succeeded backup, forgotten, combined. Cost: a pass over
 * the disk's backups, one dry run for each repair offered, and what was written since the newest point, counted.
 */
import type { LostStretch, Point } from '../../events/types.ts'
import type { BackupState } from '../../projections/state.ts'
import { needName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { checkAborted } from '../log/entries.ts'
import { needOptions } from '../store/arguments.ts'
import { needStore, type Store } from '../store/store.ts'
import type { PlanRequest } from '../store/types.ts'
import type { StateView } from '../store/view.ts'
import { copiesOf } from './chains.ts'
import { commandLine } from './command-line.ts'
import { type Asked, beginCommand, type Hindrance, type Repair, recreation, repairsNow } from './repairs.ts'
import {
  type BrokenBy,
  type PointState,
  type RestorePoint,
  restorePoints,
  type WouldBreak,
  wouldBreak as wouldBreakOf,
} from './restore-points.ts'

export interface CoverageOptions {
  /** List only points of backups over this bitmap, and offer repairs over it alone. Chains use every copy of the disk. */
  readonly bitmap?: string
  /** The store's folder as command lines should name it. Default: where it is. */
  readonly folder?: string
  readonly signal?: AbortSignal
}

/** Neighbouring points that cannot surely be restored. */
export interface CoverageGap {
  /** The restorable points on either side; null: there is none. */
  readonly after: Point | null
  readonly before: Point | null
  /** No restorable point follows: whatever is copied next must close it. A closed gap stays what it is. */
  readonly open: boolean
  readonly points: readonly Point[]
  readonly states: Readonly<Record<Exclude<PointState, 'whole'>, number>>
  readonly causes: readonly BrokenBy[]
  /** Kept copies that are of no use as things are. */
  readonly useless: readonly string[]
  /** What is gone for good, in words. */
  readonly lost: string
  /** Forgotten backups of an open gap made again, newest first; of old ones nothing but their names is told. */
  readonly recreate: readonly Repair[]
}

/** Whether the next incremental backup of a bitmap, `since` left out, continues a chain that can be restored. */
export interface NextIncrement {
  readonly bitmap: string
  readonly continues: boolean
  readonly why: string
  /** The one that does; null when nothing is left to continue. */
  readonly request: PlanRequest | null
  readonly command: string | null
}

/** Copies to make one of, offline. Tell the store with `command` once that is done. */
export interface Merge {
  /** Oldest first. */
  readonly of: readonly string[]
  readonly bytesAtMost: number
  readonly why: string
  readonly command: string
}

export interface Newest {
  readonly point: Point
  readonly chain: readonly string[]
  /** Milliseconds from it to now, by the log's clock. */
  readonly age: number
  /** What was written since, at 64 KiB a granule. */
  readonly written: { readonly bytes: number; readonly complete: boolean; readonly reason: string }
}

/** Points of a disk of the same id that was removed: its copies can still be restored, and share nothing with this one's. */
export interface FormerDisk {
  readonly number: number
  readonly points: readonly RestorePoint[]
}

export interface CoverageReport {
  readonly disk: string
  readonly at: Point
  readonly lost: readonly LostStretch[]
  /** The newest point that was backed up can be restored. */
  readonly covered: boolean
  readonly newest: Newest | null
  /** Oldest first. */
  readonly points: readonly RestorePoint[]
  readonly gaps: readonly CoverageGap[]
  /** To be made now, the smallest first; empty when nothing needs them. */
  readonly repairs: readonly Repair[]
  /** Bitmaps over which something else is in the way of a repair. */
  readonly hindered: readonly Hindrance[]
  readonly next: readonly NextIncrement[]
  readonly merges: readonly Merge[]
  readonly former: readonly FormerDisk[]
}

/** Chains longer than this are worth merging: every image is one more to read, and one more to lose. */
const CHAIN_LONG = 8
/** Dry runs for deleted backups of one gap; a year of expired ones needs no plan each. */
const RECREATED_MAX = 4

/** @throws CheckpointError DISK_NOT_FOUND, BITMAP_NOT_FOUND */
export async function coverage(
  store: Store,
  disk: string,
  options: CoverageOptions = {},
): Promise<CoverageReport> {
  needStore(store)
  needName('disk', disk)
  needOptions(options, { bitmap: 'text', folder: 'text', signal: 'signal' })
  const info = store.diskInfo(disk)
  const folder = options.folder ?? store.folder
  const bitmaps = options.bitmap === undefined ? info.bitmaps : [store.bitmap(disk, options.bitmap).bitmap]
  const { own, former } = incarnations(store.backups({ disk }), info.added)
  const all = restorePoints(own)
  const listed =
    options.bitmap === undefined
      ? all
      : all.filter(({ copies }) => copies.some(({ bitmap }) => bitmap === options.bitmap))
  const newest = all.findLast(({ state }) => state === 'whole') ?? null
  const gaps = await gapsOf({ store, folder }, listed, own, all, options.signal)
  const next: NextIncrement[] = []
  for (const bitmap of bitmaps) next.push(await nextIncrement({ store, folder }, disk, bitmap, all, newest))
  const covered = listed.length > 0 && listed.at(-1)?.state === 'whole'
  const needed = !covered || next.some(({ continues }) => !continues)
  checkAborted(options.signal)
  const repairs = needed
    ? await repairsNow({ store, folder }, disk, bitmaps, newest)
    : { offers: [], hindered: [] }
  return {
    disk,
    at: store.point,
    lost: info.lost,
    covered,
    newest: newest === null ? null : await newestOf(store, disk, newest, options.signal),
    points: listed,
    gaps,
    repairs: repairs.offers,
    hindered: repairs.hindered,
    next,
    merges: mergesOf(folder, newest, own),
    former,
  }
}

/** What forgetting a backup's copy would do, before it is told. BACKUP_NOT_FOUND. */
export function wouldBreak(view: StateView, backup: string): WouldBreak {
  const found = view.backups().find(({ id }) => id === backup)
  if (found === undefined)
    throw new CheckpointError('BACKUP_NOT_FOUND', `there is no backup "${backup}"; list the backups`, {
      backup,
    })
  return wouldBreakOf(copiesOf(view.backups({ disk: found.disk }), found.diskNumber), backup)
}

/** A disk's id may be used again; its number may not. Whatever began before this one was added is of a former one. */
function incarnations(
  backups: readonly BackupState[],
  added: Point,
): { readonly own: BackupState[]; readonly former: FormerDisk[] } {
  const own = backups.find(({ point }) => point.position >= added.position)?.diskNumber
  const numbers = [...new Set(backups.map(({ diskNumber }) => diskNumber))].filter((number) => number !== own)
  return {
    own: own === undefined ? [] : copiesOf(backups, own),
    former: numbers
      .map((number) => ({ number, points: restorePoints(copiesOf(backups, number)) }))
      .filter(({ points }) => points.length > 0),
  }
}

async function gapsOf(
  asked: Asked,
  listed: readonly RestorePoint[],
  copies: readonly BackupState[],
  all: readonly RestorePoint[],
  signal: AbortSignal | undefined,
): Promise<CoverageGap[]> {
  const gaps: CoverageGap[] = []
  let start = 0
  while (start < listed.length) {
    if (listed[start]!.state === 'whole') {
      start += 1
      continue
    }
    const end = listed.findIndex((point, i) => i > start && point.state === 'whole')
    const points = listed.slice(start, end === -1 ? undefined : end)
    const open = end === -1
    checkAborted(signal)
    gaps.push({
      after: listed[start - 1]?.point ?? null,
      before: open ? null : listed[end]!.point,
      open,
      points: points.map(({ point }) => point),
      states: countStates(points),
      causes: causesOf(points),
      useless: points.flatMap((point) =>
        point.state === 'broken' ? point.copies.filter(({ kept }) => kept).map(({ id }) => id) : [],
      ),
      lost: lostInWords(points),
      recreate: open ? await recreations(asked, points, copies, all) : [],
    })
    start += points.length
  }
  return gaps
}

function countStates(points: readonly RestorePoint[]): CoverageGap['states'] {
  const counts = { doubtful: 0, broken: 0, gone: 0 }
  for (const { state } of points) if (state !== 'whole') counts[state] += 1
  return counts
}

/** Each loss once, in the order of the points that it took. */
function causesOf(points: readonly RestorePoint[]): BrokenBy[] {
  const causes = points.flatMap(({ since }) => since ?? [])
  return [...new Map(causes.map((cause) => [cause.backup, cause])).values()]
}

function lostInWords(points: readonly RestorePoint[]): string {
  const gone = points.filter(({ state }) => state !== 'doubtful')
  if (gone.length === 0) return 'nothing for sure: the chains are there, but writes may be missing in them'
  const what = gone.map(({ point }) => `@${point.position}`).join(', ')
  return (
    `the disk as it was at ${what} cannot come back: what was overwritten since exists in no kept copy; ` +
    'a backup made now holds what is on the disk now'
  )
}

async function recreations(
  asked: Asked,
  points: readonly RestorePoint[],
  copies: readonly BackupState[],
  all: readonly RestorePoint[],
): Promise<Repair[]> {
  const at = new Set(points.map(({ point }) => point.position))
  const causes = new Set(points.flatMap(({ since }) => since?.backup ?? []))
  const forgotten = copies.filter(
    ({ id, of, copy, point }) =>
      of === null && copy.kind === 'forgotten' && (causes.has(id) || at.has(point.position)),
  )
  const made: Repair[] = []
  for (const lost of forgotten.toReversed().slice(0, RECREATED_MAX)) {
    const repair = await recreation(asked, lost, all)
    if (repair !== null) made.push(repair)
  }
  return made
}

async function nextIncrement(
  { store, folder }: Asked,
  disk: string,
  bitmap: string,
  points: readonly RestorePoint[],
  newest: RestorePoint | null,
): Promise<NextIncrement> {
  const request: PlanRequest = { disk, bitmap, mode: 'incremental', forceCycle: true }
  const base = await baseOf(store, request)
  if (typeof base === 'number') {
    const onto = points.findLast(({ point, state }) => state === 'whole' && point.position >= base)
    if (onto !== undefined) {
      const plain: PlanRequest = { disk, bitmap, mode: 'incremental' }
      const why = `it is since position ${base} and can be laid on the image of @${onto.point.position}${roomFor(store, request)}`
      return { bitmap, continues: true, why, request: plain, command: beginCommand(folder, plain) }
    }
  }
  const why =
    typeof base === 'number'
      ? `it would be since position ${base}, and no point from there on can be restored`
      : base
  if (newest === null) return { bitmap, continues: false, why, request: null, command: null }
  const given: PlanRequest = { disk, bitmap, mode: 'incremental', since: { backup: newest.chain.at(-1)! } }
  return { bitmap, continues: false, why, request: given, command: beginCommand(folder, given) }
}

function roomFor(store: Store, { disk, bitmap }: PlanRequest): string {
  const { retention, slices } = store.bitmap(disk, bitmap)
  return retention > 0 && slices >= retention ? '; its retention is full, so give --force-cycle, or room' : ''
}

/** The base that an increment without `since` would get, or why it would be refused. */
async function baseOf(store: Store, request: PlanRequest): Promise<number | string> {
  try {
    return (await store.plan(request)).base.position
  } catch (error) {
    if (error instanceof CheckpointError) return error.message
    throw error
  }
}

async function newestOf(
  store: Store,
  disk: string,
  { point, chain }: RestorePoint,
  signal: AbortSignal | undefined,
): Promise<Newest> {
  const { bytes, complete, reason } = await store.changed(disk, {
    since: { position: point.position },
    ...(signal === undefined ? {} : { signal }),
  })
  return {
    point,
    chain,
    age: Math.max(0, store.now - (point.time ?? store.now)),
    written: { bytes, complete, reason },
  }
}

/** A long chain: all above its first image become one, which keeps the large first image as it is. */
function mergesOf(
  folder: string | null,
  newest: RestorePoint | null,
  copies: readonly BackupState[],
): Merge[] {
  if (newest === null || newest.chain.length <= CHAIN_LONG) return []
  const of = newest.chain.slice(1)
  const members = of.map((id) => copies.find((copy) => copy.id === id)!)
  const sum = members.reduce((bytes, member) => bytes + member.bytes, 0)
  return [
    {
      of,
      bytesAtMost: Math.min(sum, members.at(-1)!.size),
      why: `restoring the newest point lays ${newest.chain.length} images; with these as one it lays 2`,
      command: combinedCommand(folder, of),
    },
  ]
}

/** Tells the store of a merge; the new id is the caller's to choose, and is made of the newest's here. */
export function combinedCommand(folder: string | null, of: readonly string[]): string {
  return commandLine(folder, ['backup', 'combined', `${of.at(-1)}-combined`, ...of])
}
