/**
 * Opening: keep LevelDB's write-ahead files aside, let it open, see whether the log is what it has to be, and only then let
 * anybody write. Damage is refused with nothing deleted; after a restart of the machine an unsynced tail that is torn is kept
 * aside, cut off and reported, so that the store can declare that stretch lost (R28, R32, R34).
 */
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError, type Facts, messageOf } from '../errors.ts'
import { type Aside, discardAside, discardUnmarked, keepAside, keepValues, markAside } from './aside.ts'
import { EMPTY_HEAD, sameHash } from './base-log.ts'
import { logDamaged } from './damaged.ts'
import type { StoredEntry } from './entries.ts'
import type { LogHead } from './event-log.ts'
import { HeadFile, type HeadFileContent, type HeadSlot, readHeadFile } from './head-file.ts'
import { takeFromJournal } from './journal.ts'
import { COMMAND_KEYS, eventKey, positionOf } from './keys.ts'
import { checkLog, type Verdict } from './level-check.ts'
import { LevelEventLog } from './level-log.ts'
import { type Database, database, LevelSource, levelFailure } from './level-source.ts'
import { currentProblem } from './manifest.ts'
import { claimHere } from './open-here.ts'
import { inUseHere, removeOwner, storeInUse, writeOwner } from './owner.ts'
import { deadlyTable } from './table-check.ts'
import { type SyncHooks, WalSync } from './wal-sync.ts'

export interface OpenLevelLogOptions {
  /** LevelDB's own folder. */
  readonly folder: string
  readonly headFile: string
  readonly asideFolder: string
  readonly ownerFile: string
  /** 16 bytes that change with every start of the machine. */
  readonly bootId: Uint8Array
  readonly createIfMissing: boolean
  /** What writes will be acknowledged at (R30): after a restart of the machine it tells what may be gone. Default `process`. */
  readonly level?: HeadSlot['level']
  /** For verify: opens a damaged log too, says what is wrong in `end.damage`, writes nothing. */
  readonly inspect?: boolean
  /** Default 4096. */
  readonly repackEvery?: number
  readonly hooks?: SyncHooks
}

export interface LogEnd {
  /** The log was closed; false after a kill or a power cut, and for a new log true. */
  readonly clean: boolean
  /** The machine restarted since. */
  readonly bootChanged: boolean
  /** The level that the last owner acknowledged writes at. */
  readonly level: HeadSlot['level']
  /** What was known to survive a power cut when the log ended. */
  readonly syncedHead: LogHead
  /** A torn tail was cut off, after everything that had to survive. */
  readonly recovered?: {
    /** First position that is gone. */
    readonly from: number
    /** Stored values taken out. */
    readonly values: number
    readonly problem: string
    /** Where they were kept. */
    readonly file: string
  }
  /** Only with `inspect`: what an ordinary open would have thrown. */
  readonly damage?: CheckpointError
}

export interface OpenedLevelLog {
  readonly log: LevelEventLog
  readonly end: LogEnd
  /** As found, before this open rewrote it. */
  readonly heads: HeadFileContent
}

const REPACK_EVERY = 4096

interface ClaimedOptions extends OpenLevelLogOptions {
  /** Gives the folder back to the next opener in this process. */
  readonly closed: () => void
}

/**
 * Throws STORE_IN_USE, LOG_DAMAGED (facts `problem`, `aside`, and as known `position`, `expected`, `found`), FORMAT_TOO_NEW,
 * IO_FAILED.
 */
export async function openLevelLog(options: OpenLevelLogOptions): Promise<OpenedLevelLog> {
  if (options.bootId.length !== 16) throw new RangeError('a boot id has 16 bytes')
  const heads = readHeadFile(options.headFile)
  const fresh =
    options.createIfMissing && heads.kind === 'missing' && !existsSync(join(options.folder, 'CURRENT'))
  // With its lock file, which LevelDB would make a moment later: the claim below is of that file as well.
  if (fresh) {
    mkdirSync(options.folder, { recursive: true })
    closeSync(openSync(join(options.folder, 'LOCK'), 'a', 0o644))
  }
  // Nothing is waited for up to here, so of two opens in this process only one passes, and the other touches no file.
  const release = claimHere(options.folder)
  if (release === undefined) throw inUseHere(options.ownerFile, options.folder, options.bootId)
  try {
    return await openClaimed(options, fresh, release)
  } catch (error) {
    release()
    throw error
  }
}

async function openClaimed(
  options: OpenLevelLogOptions,
  fresh: boolean,
  closed: () => void,
): Promise<OpenedLevelLog> {
  const aside = await keepAside(options.folder, options.asideFolder)
  const db = await openDatabase(options, aside, fresh)
  try {
    writeOwner(options.ownerFile, options.bootId)
    // Read again under the lock: another process may have made or moved the log since.
    return await openChecked({ ...options, closed }, db, readHeadFile(options.headFile), aside)
  } catch (error) {
    removeOwner(options.ownerFile)
    await db.close()
    if (error instanceof CheckpointError && error.code === 'FORMAT_TOO_NEW') await discardAside(aside)
    throw levelFailure(error)
  }
}

async function openDatabase(
  options: OpenLevelLogOptions,
  aside: Aside | undefined,
  fresh: boolean,
): Promise<Database> {
  const problem = fresh ? null : currentProblem(options.folder)
  if (problem !== null)
    throw await damagedWith(options, aside, logDamaged('missing-files', { found: problem }))
  const table = deadlyTable(options.folder, marksOf(options))
  if (table !== undefined) {
    throw await damagedWith(
      options,
      aside,
      logDamaged('table', { file: table.name, found: `${table.name}: ${table.why}` }),
    )
  }
  const db = database(options.folder)
  try {
    await db.open({ createIfMissing: fresh })
    return db
  } catch (error) {
    const cause = (error as { cause?: unknown }).cause ?? error
    const message = messageOf(cause)
    if ((cause as { code?: unknown }).code === 'LEVEL_LOCKED') {
      await discardAside(aside)
      throw storeInUse(options.ownerFile, options.folder, cause)
    }
    if (/^Corruption|No such file|does not exist/.test(message)) {
      throw await damagedWith(options, aside, logDamaged('missing-files', { found: message }, cause))
    }
    await discardAside(aside)
    throw levelFailure(cause, { folder: options.folder })
  }
}

async function openChecked(
  options: ClaimedOptions,
  db: Database,
  heads: HeadFileContent,
  aside: Aside | undefined,
): Promise<OpenedLevelLog> {
  const journalBytes = await takeFromJournal(db, options.folder)
  const source = new LevelSource(db)
  let verdict: Verdict
  try {
    verdict = await checkLog(source, heads, options.bootId, (aside?.bytes ?? 0) + journalBytes)
  } finally {
    await source.release()
  }
  const bootChanged = heads.kind === 'good' && !sameHash(heads.slot.bootId, options.bootId)
  const ended = {
    clean: heads.kind === 'good' ? heads.slot.state === 'closed' : heads.kind === 'missing',
    bootChanged,
    level: heads.kind === 'good' ? heads.slot.level : ('process' as const),
    syncedHead: heads.kind === 'good' ? heads.slot.synced : EMPTY_HEAD,
  }
  const { damage } = verdict
  if (damage === undefined) return finish(options, db, heads, verdict, ended, aside, true)
  const named = await damagedWith(options, aside, damage, verdict)
  if (options.inspect === true)
    return finish(options, db, heads, verdict, { ...ended, damage: named }, aside, false)
  if (!(bootChanged && verdict.beyondRequired)) throw named
  const recovered = await cutOff(options, db, aside, verdict.head.next, String(damage.facts.problem))
  return finish(options, db, heads, verdict, { ...ended, recovered }, aside, false)
}

/** The log is accepted: what LevelDB replayed is in synced tables by now, so all of it survives a power cut. */
async function finish(
  options: ClaimedOptions,
  db: Database,
  heads: HeadFileContent,
  verdict: Verdict,
  end: LogEnd,
  aside: Aside | undefined,
  discard: boolean,
): Promise<OpenedLevelLog> {
  const { head } = verdict
  const parts = {
    db,
    wal: new WalSync(options.folder, options.hooks),
    ownerFile: options.ownerFile,
    marks: marksOf(options),
    closed: options.closed,
  }
  const repackEvery = options.repackEvery ?? REPACK_EVERY
  if (options.inspect === true) {
    if (discard) await discardAside(aside)
    return {
      log: new LevelEventLog({ ...parts, repackEvery: Number.POSITIVE_INFINITY }, head, head),
      end,
      heads,
    }
  }
  const headFile = new HeadFile(options.headFile, options.bootId, heads, options.level)
  // After a restart of the machine the head keeps its mark until the first append, which tells what the restart cost: a kill in
  // between must not hide it (R32).
  if (end.clean || !end.bootChanged) headFile.write(head, head)
  headFile.sync()
  if (discard) await discardAside(aside)
  await discardUnmarked(options.asideFolder)
  return {
    log: new LevelEventLog({ ...parts, headFile, repackEvery }, head, head),
    end,
    heads,
  }
}

async function cutOff(
  options: OpenLevelLogOptions,
  db: Database,
  aside: Aside | undefined,
  from: number,
  problem: string,
): Promise<NonNullable<LogEnd['recovered']>> {
  const cut: StoredEntry[] = []
  const source = new LevelSource(db)
  try {
    for await (const entries of source.entries(from, Number.MAX_SAFE_INTEGER, false)) {
      cut.push(...entries.filter((entry) => entry.position >= from))
    }
  } finally {
    await source.release()
  }
  const file = await keepValues(options.asideFolder, aside, cut)
  await db.batch(
    [...cut.map(({ position }) => eventKey(position)), ...(await commandKeysFrom(db, from))].map((key) => ({
      type: 'del' as const,
      key,
    })),
    { sync: true },
  )
  return { from, values: cut.length, problem, file }
}

/** Beside LevelDB's folder: which of its tables were found sound. */
function marksOf(options: OpenLevelLogOptions): string {
  return `${options.folder}.checked`
}

/** Index entries of commands whose records are cut off. */
async function commandKeysFrom(db: Database, from: number): Promise<Uint8Array[]> {
  const keys: Uint8Array[] = []
  for await (const [key, value] of db.iterator(COMMAND_KEYS)) {
    if ((positionOf(value) ?? from) >= from) keys.push(key)
  }
  return keys
}

/** The same damage, saying where LevelDB's files were kept and what was expected. */
async function damagedWith(
  options: OpenLevelLogOptions,
  aside: Aside | undefined,
  damage: CheckpointError,
  verdict?: Verdict,
): Promise<CheckpointError> {
  await markAside(aside, damage.message)
  const expected = verdict?.required?.next
  const facts: Facts = {
    ...(expected === undefined ? {} : { expected, found: verdict?.head.next }),
    ...damage.facts,
    aside: aside?.folder ?? (await newestIn(options.asideFolder)),
  }
  return new CheckpointError('LOG_DAMAGED', damage.message, facts, damage.cause)
}

/** A second attempt finds no write-ahead file any more: the first one's copy is the one to name. */
async function newestIn(parent: string): Promise<string | null> {
  const names = await readdir(parent).catch(() => [])
  const newest = names.sort().at(-1)
  return newest === undefined ? null : join(parent, newest)
}
