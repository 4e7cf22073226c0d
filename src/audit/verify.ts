/**
 * `verify`: proves a store sound from its first record on, or names what is wrong with it (R28).
 *
 * One walk over everything stored: whole, in place, chained, later than what was before; folded by the same projections as the
 * live store's, each event asked whether it could happen, each past plan made again from the log alone (R26); then the head
 * file, an anchor from elsewhere, the index of command ids, and what is derived. Nothing derived is used, and nothing of the
 * store is changed: LevelDB opens a view of its files. Cost: about 60 ns a write; memory as a live store's.
 */
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { EMPTY_HASH } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import { keptAsides } from '../log/aside.ts'
import { type OpenedLevelLog, openLevelLog } from '../log/level-open.ts'
import { isOpenHere } from '../log/open-here.ts'
import { storeInUse } from '../log/owner.ts'
import { damagedTables, type TableDamage } from '../log/table-check.ts'
import { needOptions, needPath } from '../store/arguments.ts'
import { Derived } from '../store/derived.ts'
import { type FolderPaths, pathsOf, readStoreFile, type StoreFile } from '../store/folder.ts'
import { thisMachine } from '../store/machine.ts'
import { bootIdBytes } from '../store/open.ts'
import type { Machine } from '../store/types.ts'
import { Findings } from './findings.ts'
import { type Shadow, shadowOf } from './shadow.ts'
import {
  reportOf,
  type VerifiedDerived,
  type VerifyOptions,
  type VerifyReport,
  verifyOpened,
} from './verification.ts'

export type { Finding, FindingCode } from './findings.ts'
export { FINDING_CODES } from './findings.ts'
export type { VerifyOptions, VerifyReport } from './verification.ts'

/**
 * Damage is reported, never thrown.
 * @throws CheckpointError STORE_NOT_FOUND, NOT_A_STORE, STORE_IN_USE, FORMAT_TOO_NEW, IO_FAILED (files that may not be read), ABORTED
 */
export async function verifyStore(folder: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  needPath('the folder', folder)
  needOptions(options, { signal: 'signal', onProgress: 'function' })
  const paths = pathsOf(resolve(folder))
  const file = await readStoreFile(paths)
  if (isOpenHere(paths.log)) throw storeInUse(paths.owner, paths.root, undefined)
  if (existsSync(paths.repairing)) return halfRepaired(paths)
  const shadow = await shadowOf(paths)
  try {
    const findings = new Findings()
    for (const kept of await keptAsides(paths.aside)) asideFinding(findings, kept)
    const opened = await openShadow(paths, file, shadow, options.machine ?? thisMachine, findings)
    if (opened === undefined)
      return reportOf(findings, { next: 0, time: null, hash: EMPTY_HASH }, 0, () => [])
    for (const damage of damagedTables(shadow.log)) tableFinding(findings, damage, paths)
    try {
      const raw = rawHead(paths.head)
      return await verifyOpened({ opened, file, paths, options, findings, raw }, () => derivedOf(shadow))
    } finally {
      await opened.log.close()
    }
  } finally {
    await shadow.remove()
  }
}

/** Parts of two logs may lie side by side: neither says anything about the store. */
function halfRepaired(paths: FolderPaths): VerifyReport {
  const findings = new Findings()
  findings.add(
    'LOG_UNREADABLE',
    `a repair did not come to its end; run "slicelog --store ${paths.root} repair" again, it goes on where it was`,
    { doubt: ['everything'] },
  )
  return reportOf(findings, { next: 0, time: null, hash: EMPTY_HASH }, 0, () => [])
}

/** Undefined: LevelDB cannot open it, and that was reported. */
async function openShadow(
  paths: FolderPaths,
  file: StoreFile,
  shadow: Shadow,
  machine: Machine,
  findings: Findings,
): Promise<OpenedLevelLog | undefined> {
  try {
    return await openLevelLog({
      folder: shadow.log,
      headFile: paths.head,
      asideFolder: shadow.aside,
      ownerFile: shadow.owner,
      bootId: bootIdBytes(machine.bootId()),
      createIfMissing: file.making === true,
      inspect: true,
    })
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
    if (error.code === 'STORE_IN_USE') throw storeInUse(paths.owner, paths.root, error.cause)
    if (error.code !== 'LOG_DAMAGED' || /Permission denied/.test(error.message)) throw error
    const { problem, found } = error.facts
    findings.add(
      'LOG_UNREADABLE',
      `the log's files cannot be opened (${String(problem)}${found === undefined ? '' : `: ${String(found)}`}); restore the folder ${paths.log} from a copy`,
      { doubt: ['everything'] },
    )
    return undefined
  }
}

async function derivedOf(shadow: Shadow): Promise<VerifiedDerived> {
  return { derived: await Derived.open(shadow.derived), scratch: await Derived.open(shadow.scratch) }
}

export function asideFinding(findings: Findings, kept: string): void {
  findings.add(
    'ASIDE_KEPT',
    `${kept} holds files that were put aside when damage was met; restore what you need from there, then delete it`,
  )
}

export function tableFinding(findings: Findings, { name, why }: TableDamage, paths: FolderPaths): void {
  findings.add(
    'LEVELDB_DAMAGED',
    `in LevelDB's table ${name}, ${why}; what it costs the log is named apart; restore the folder ${paths.log} from a copy`,
  )
}

export function rawHead(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch {
    return new Uint8Array()
  }
}
