/**
 * `verify` of a store that this process has open and may be writing to: the same walk, over the log as one LevelDB iterator sees it,
 * so up to the head that it had at the start; with the head file read before, and what is derived as of one moment. The store goes
 * on meanwhile: nothing of it is changed, and every few milliseconds it gets its turn. Memory: that of the store once more.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keptAsides } from '../log/aside.ts'
import { sameHash } from '../log/base-log.ts'
import { readHeadFile } from '../log/head-file.ts'
import { LevelEventLog } from '../log/level-log.ts'
import type { LogEnd, OpenedLevelLog } from '../log/level-open.ts'
import { damagedTablesOf } from '../log/table-check.ts'
import { Derived } from '../store/derived.ts'
import { pathsOf, readStoreFile } from '../store/folder.ts'
import { thisMachine } from '../store/machine.ts'
import { bootIdBytes } from '../store/open.ts'
import { coreOf, type Store } from '../store/store.ts'
import { Findings } from './findings.ts'
import { type VerifyOptions, type VerifyReport, verifyOpened } from './verification.ts'
import { asideFinding, rawHead, tableFinding } from './verify.ts'

/**
 * Damage is reported, never thrown. What is appended meanwhile is left to the next time.
 * @throws CheckpointError ABORTED, STORE_CLOSED; TypeError for a store in memory
 */
export async function verifyLive(store: Store, options: VerifyOptions = {}): Promise<VerifyReport> {
  const { log, derived } = coreOf(store)
  const { folder } = store
  if (folder === null || !(log instanceof LevelEventLog))
    throw new TypeError('a store in memory has no files to verify')
  const paths = pathsOf(folder)
  const file = await readStoreFile(paths)
  const findings = new Findings()
  for (const kept of await keptAsides(paths.aside)) asideFinding(findings, kept)
  for await (const damage of damagedTablesOf(paths.log)) tableFinding(findings, damage, paths)
  // In one turn, in which nothing is appended: the log holds at least what the head file says.
  const raw = rawHead(paths.head)
  const opened = openedOf(log, paths.head, options)
  const scratch = await mkdtemp(join(tmpdir(), 'slicelog-verify-'))
  try {
    return await verifyOpened({ opened, file, paths, options, findings, raw }, async () => ({
      derived: derived.view(await Derived.open(join(scratch, 'beside'))),
      scratch: await Derived.open(join(scratch, 'scratch')),
    }))
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** An open log was found sound when it was opened; its head file keeps the mark of an earlier boot until the first append. */
function openedOf(log: LevelEventLog, headFile: string, options: VerifyOptions): OpenedLevelLog {
  const heads = readHeadFile(headFile)
  const bootId = bootIdBytes((options.machine ?? thisMachine).bootId())
  const end: LogEnd = {
    clean: false,
    bootChanged: heads.kind === 'good' && !sameHash(heads.slot.bootId, bootId),
    level: heads.kind === 'good' ? heads.slot.level : 'process',
    syncedHead: log.syncedHead,
  }
  return { log, heads, end }
}
