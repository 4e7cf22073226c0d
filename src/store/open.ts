/**
 * Opening: the folder, the log, the state from the nearest snapshot, and what an unclean end means (R32, R34).
 *
 * Cost: LevelDB's own replay of at most one write-ahead file, one snapshot, and the tail of the log after it.
 */
import { hash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { decideRecovery } from '../commands/lifecycle.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { type LogEnd, openLevelLog } from '../log/level-open.ts'
import { MemoryEventLog } from '../log/memory-log.ts'
import { checkCompactionOptions } from './auto-compact.ts'
import { LogClock, systemClock } from './clock.ts'
import { Core } from './core.ts'
import { Derived } from './derived.ts'
import {
  type FolderPaths,
  isVacant,
  makeStoreFile,
  pathsOf,
  readStoreFile,
  type StoreFile,
  storeIsMade,
} from './folder.ts'
import { thisMachine } from './machine.ts'
import { policyOf } from './policy.ts'
import { decidePowerLoss } from './power-loss.ts'
import { rebuild } from './rebuild.ts'
import type { FoldWrites } from './snapshots.ts'
import { SpanIndex } from './span-index.ts'
import { SPAN_EVENTS } from './spans.ts'
import { Store } from './store.ts'
import type { OpenOptions } from './types.ts'
import { removeMarks, setMarks } from './unrecorded.ts'
import { unrecordedStretches } from './unrecorded-told.ts'

/** What the log's end tells an opener; a new or memory log ended well. */
type End = Pick<LogEnd, 'clean' | 'bootChanged' | 'level' | 'syncedHead'> & {
  readonly recovered?: LogEnd['recovered']
}

/**
 * Opens the store in `folder`, or makes one there (unless `create: false`).
 * @throws CheckpointError STORE_NOT_FOUND, NOT_A_STORE, STORE_IN_USE, FORMAT_TOO_NEW, LOG_DAMAGED, IO_FAILED
 */
export async function openStore(folder: string, options: OpenOptions = {}): Promise<Store> {
  if (typeof folder !== 'string' || folder === '')
    throw new TypeError('the store needs a folder: a path, not empty')
  checkOptions(options)
  const paths = pathsOf(resolve(folder))
  refuseHalfRepaired(paths)
  const file = await storeFile(paths, options.create !== false)
  const bootId = bootIdBytes((options.machine ?? thisMachine).bootId())
  const { log, end } = await openLevelLog({
    folder: paths.log,
    headFile: paths.head,
    asideFolder: paths.aside,
    ownerFile: paths.owner,
    bootId,
    createIfMissing: file.making === true,
    level: options.durability ?? 'process',
  })
  try {
    if (file.making === true) await storeIsMade(paths, file)
    const derived = await Derived.open(paths.derived, file.making !== true, log.head.next)
    try {
      return await openOn(log, derived, end, file.id, paths.root, options)
    } catch (error) {
      await derived.close().catch(() => undefined)
      throw error
    }
  } catch (error) {
    await log.close().catch(() => undefined) // The first error is the one to tell.
    throw error
  }
}

export interface MemoryOpenOptions extends OpenOptions {
  /** One that another store was opened on. Default: an empty one. */
  readonly log?: EventLog
  /**
   * The process that recorded the log is taken as running on, not as ended: its disks stay attached and its backups running, and
   * opening records nothing. What a replay of the past wants.
   */
  readonly stillRunning?: boolean
}

/** A store in memory, with the same behaviour: for tests and for trying things out. Give `log` to open one again. */
export async function openMemoryStore(options: MemoryOpenOptions = {}): Promise<Store> {
  checkOptions(options)
  const log = options.log ?? new MemoryEventLog()
  const end: End = { clean: true, bootChanged: false, level: 'process', syncedHead: log.syncedHead }
  return await openOn(log, await Derived.open(null), end, 'memory', null, options)
}

async function openOn(
  log: EventLog,
  derived: Derived,
  end: End,
  storeId: string,
  folder: string | null,
  options: OpenOptions,
): Promise<Store> {
  const head = log.head.next - 1
  const snapshotEvery = options.snapshotEvery ?? SPAN_EVENTS
  const spans = await SpanIndex.open({ log, derived, every: Math.min(SPAN_EVENTS, snapshotEvery) })
  const fold: FoldWrites = (span, target) => spans.union(span, target)
  const { state, replayed } = await rebuild(log, derived, storeId, head, {}, { fold, feed: spans })
  const durability = options.durability ?? 'process'
  const core = new Core({
    log,
    derived,
    clock: new LogClock(options.clock ?? systemClock, state.catalog.clockSteps().at(-1)?.at.time ?? null),
    state,
    storeId,
    durability,
    actor: options.actor,
    snapshotEvery,
    spans,
    snapshotAt: head - replayed,
    compaction: options.compaction?.policy,
    stillRunning: stillRunning(options),
  })
  core.keeper.settleAll()
  if (!stillRunning(options)) await recover(core, end, folder)
  spans.start((work) => core.committer.exclusive(work))
  if (options.compaction !== undefined) core.compactByItself(options.compaction)
  return new Store(core, {
    folder,
    durability,
    opened: { clean: end.clean, rebooted: end.bootChanged, replayed, rebuilt: [] },
  })
}

function stillRunning(options: MemoryOpenOptions): boolean {
  return options.stillRunning === true
}

/** R10, R32: interrupted backups are found, and what a restart of the machine may have cost is declared. */
async function recover(core: Core, end: End, folder: string | null): Promise<void> {
  const synced = end.syncedHead
  const { clean, bootChanged, level } = end
  // First, so that nothing of a disk stands between its last event and what is told to have come after it (R3).
  // Also after a clean end: that of a process that only looked, while a disk was still left as a killed one had served it.
  const events = bootChanged && (clean || level === 'power') ? await decidePowerLoss(core) : []
  const facts = { clean, bootChanged, level, syncedPosition: synced.next - 1, syncedTime: synced.time }
  events.push(...decideRecovery(core.catalog, facts))
  const marks = folder === null ? null : pathsOf(folder).unrecorded
  if (marks !== null) events.push(...(await unrecordedStretches(core, await setMarks(marks))))
  if (events.length > 0)
    await core.committer.execute({
      meta: { command: 'recover' },
      decide: async () => ({ events, quiet: [], answer: () => undefined }),
      recall: async () => undefined,
    })
  if (marks !== null) await removeMarks(marks)
}

/** A repair that was killed while it exchanged the log: parts of two logs may lie side by side. */
export function refuseHalfRepaired(paths: FolderPaths): void {
  if (!existsSync(paths.repairing)) return
  throw new CheckpointError(
    'LOG_DAMAGED',
    `a repair of ${paths.root} did not come to its end; run "slicelog --store ${paths.root} repair" again, it goes on where it was`,
    { problem: 'repair-unfinished', folder: paths.root },
  )
}

async function storeFile(paths: FolderPaths, create: boolean): Promise<StoreFile> {
  if (create && (await isVacant(paths))) return await makeStoreFile(paths)
  return await readStoreFile(paths)
}

function checkOptions(options: unknown): void {
  if (typeof options !== 'object' || options === null) throw new TypeError('the options must be an object')
  const { create, durability, clock, machine, actor, snapshotEvery, compaction } =
    options as Partial<OpenOptions>
  const need = (right: boolean, what: string) => {
    if (!right) throw new TypeError(what)
  }
  need(create === undefined || typeof create === 'boolean', 'create must be a boolean')
  need(actor === undefined || typeof actor === 'string', 'actor must be a string')
  need(
    durability === undefined || durability === 'process' || durability === 'power',
    'durability must be "process" or "power"',
  )
  need(
    snapshotEvery === undefined || (Number.isSafeInteger(snapshotEvery) && snapshotEvery > 0),
    'snapshotEvery must be a positive integer',
  )
  need(
    clock === undefined || (typeof clock?.now === 'function' && typeof clock.monotonic === 'function'),
    'clock must have the methods now() and monotonic()',
  )
  if (compaction !== undefined) {
    checkCompactionOptions(compaction)
    policyOf(compaction.policy)
  }
  need(machine === undefined || typeof machine?.bootId === 'function', 'machine must have a method bootId()')
}

/** A boot id as the log keeps it. */
export function bootIdBytes(bootId: string): Uint8Array {
  return new Uint8Array(hash('sha256', bootId, 'buffer').subarray(0, 16))
}
