/**
 * `verify` of a store that this process has open and may be writing to: the same walk, over log, head file and what is derived
 * as they are at one moment between two appends. The store goes on meanwhile, and may fold what is being looked at: nothing of it
 * is changed, and every few milliseconds it gets its turn. Memory: that of the store once more; space that a compaction frees
 * meanwhile is given back at the end.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keptAsides } from '../log/aside.ts'
import { sameHash } from '../log/base-log.ts'
import type { FrozenLog } from '../log/frozen-log.ts'
import { type HeadFileContent, readHeadFile } from '../log/head-file.ts'
import { LevelEventLog } from '../log/level-log.ts'
import type { LogEnd } from '../log/level-open.ts'
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
  const scratch = await mkdtemp(join(tmpdir(), 'slicelog-verify-'))
  try {
    const beside = await Derived.open(join(scratch, 'beside'))
    const moment = await log
      .moment(() => ({
        raw: rawHead(paths.head),
        heads: readHeadFile(paths.head),
        seen: derived.view(beside),
      }))
      .catch(async (error: unknown) => {
        await beside.close()
        throw error
      })
    const { raw, heads, seen } = moment.beside
    const opened = { log: moment.log, heads, end: endOf(heads, moment.log, options) }
    try {
      return await verifyOpened({ opened, file, paths, options, findings, raw }, async () => ({
        derived: seen,
        scratch: await Derived.open(join(scratch, 'scratch')),
      }))
    } finally {
      await moment.log.close()
    }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** An open log was found sound when it was opened; its head file keeps the mark of an earlier boot until the first append. */
function endOf(heads: HeadFileContent, log: FrozenLog, options: VerifyOptions): LogEnd {
  const bootId = bootIdBytes((options.machine ?? thisMachine).bootId())
  return {
    clean: false,
    bootChanged: heads.kind === 'good' && !sameHash(heads.slot.bootId, bootId),
    level: heads.kind === 'good' ? heads.slot.level : 'process',
    syncedHead: log.syncedHead,
  }
}
