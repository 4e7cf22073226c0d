/**
 * `verify`: proves a store sound from its first record on, or names what is wrong with it (R28).
 *
 * One walk over everything stored: whole, in place, chained, later than what was before; folded by the same projections as the
 * live store's, each event asked whether it could happen, each past plan made again from the log alone (R26); then the head
 * file, an anchor from elsewhere, the index of command ids, and what is derived. Nothing derived is used, and nothing of the
 * store is changed: LevelDB opens a view of its files. Cost: about 60 ns a write; memory as a live store's.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { EMPTY_HASH } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import { keptAsides } from '../log/aside.ts'
import { aborted } from '../log/entries.ts'
import { isCommandKey, positionOfEventKey, REPACK_KEY } from '../log/keys.ts'
import { type OpenedLevelLog, openLevelLog } from '../log/level-open.ts'
import { isOpenHere } from '../log/open-here.ts'
import { storeInUse } from '../log/owner.ts'
import { damagedTables } from '../log/table-check.ts'
import { Derived } from '../store/derived.ts'
import { type FolderPaths, pathsOf, readStoreFile, type StoreFile } from '../store/folder.ts'
import { thisMachine } from '../store/machine.ts'
import { bootIdBytes } from '../store/open.ts'
import type { Machine } from '../store/types.ts'
import { checkCommand, checkIndexEntry } from './commands.ts'
import { DerivedCheck } from './derived.ts'
import { doubtOf } from './doubt.ts'
import { type Finding, Findings } from './findings.ts'
import { AuditFold } from './fold.ts'
import { type Anchor, checkHead, HeadMarks } from './head.ts'
import { type Shadow, shadowOf } from './shadow.ts'
import { ChainWalk, type Walked } from './walk.ts'

export type { Finding, FindingCode } from './findings.ts'
export { FINDING_CODES } from './findings.ts'

export interface VerifyOptions {
  /** A head exported before: what the log held then must be in it still. `hash` in hex. */
  readonly against?: Anchor
  /** Called every so often with the last position walked, and how many events there are. */
  readonly onProgress?: (position: number, total: number) => void
  readonly signal?: AbortSignal
  readonly machine?: Machine
}

export interface VerifyReport {
  /** The last record that could be read. */
  readonly head: { readonly position: number; readonly time: number | null; readonly hash: string }
  readonly events: number
  readonly records: number
  /** Empty: sound. */
  readonly findings: readonly Finding[]
}

/**
 * Damage is reported, never thrown.
 * @throws CheckpointError STORE_NOT_FOUND, NOT_A_STORE, STORE_IN_USE, FORMAT_TOO_NEW, IO_FAILED (files that may not be read), ABORTED
 */
export async function verifyStore(folder: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const paths = pathsOf(resolve(folder))
  const file = await readStoreFile(paths)
  if (isOpenHere(paths.log)) throw storeInUse(paths.owner, paths.root, undefined)
  const shadow = await shadowOf(paths)
  try {
    const findings = new Findings()
    for (const kept of await keptAsides(paths.aside)) {
      findings.add(
        'ASIDE_KEPT',
        `${kept} holds files that were put aside when damage was met; restore what you need from there, then delete it`,
      )
    }
    const opened = await openShadow(paths, file, shadow, options.machine ?? thisMachine, findings)
    if (opened === undefined)
      return reportOf(findings, { next: 0, time: null, hash: EMPTY_HASH }, 0, () => [])
    for (const { name, why } of damagedTables(shadow.log)) {
      findings.add(
        'LEVELDB_DAMAGED',
        `in LevelDB's table ${name}, ${why}; what it costs the log is named apart; restore the folder ${paths.log} from a copy`,
      )
    }
    try {
      return await new Verification(opened, file, paths, options, findings).run(shadow)
    } finally {
      await opened.log.close()
    }
  } finally {
    await shadow.remove()
  }
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

class Verification {
  readonly #opened: OpenedLevelLog
  readonly #file: StoreFile
  readonly #paths: FolderPaths
  readonly #options: VerifyOptions
  readonly #findings: Findings
  readonly #walk: ChainWalk
  readonly #marks: HeadMarks

  constructor(
    opened: OpenedLevelLog,
    file: StoreFile,
    paths: FolderPaths,
    options: VerifyOptions,
    findings: Findings,
  ) {
    this.#opened = opened
    this.#file = file
    this.#paths = paths
    this.#options = options
    this.#findings = findings
    this.#walk = new ChainWalk(findings)
    this.#marks = new HeadMarks(opened.heads, options.against)
  }

  async run(shadow: Shadow): Promise<VerifyReport> {
    const derived = await Derived.open(shadow.derived)
    const scratch = await Derived.open(shadow.scratch)
    try {
      const fold = new AuditFold(this.#opened.log, scratch, this.#findings)
      const check = new DerivedCheck(derived, scratch, this.#file.id, this.#findings)
      await check.begin()
      await this.#entries(fold, check)
      this.#end()
      return reportOf(this.#findings, this.#walk.head, this.#walk.records, (span) =>
        doubtOf(fold.state.catalog, span),
      )
    } finally {
      await derived.close()
      await scratch.close()
    }
  }

  async #entries(fold: AuditFold, check: DerivedCheck): Promise<void> {
    const { log } = this.#opened
    const { signal, onProgress } = this.#options
    const total = log.head.next
    try {
      for await (const entries of log.rawEntries()) {
        for (const { key, value } of entries) {
          if (signal?.aborted === true) throw aborted(signal)
          const position = positionOfEventKey(key)
          if (position !== undefined) {
            const walked = this.#walk.step(position, value)
            if (walked !== undefined) await this.#fold(walked, fold, check)
          } else await this.#otherKey(key, value)
        }
        onProgress?.(this.#walk.head.next - 1, Math.max(total, this.#walk.head.next))
      }
    } catch (error) {
      if (!(error instanceof CheckpointError) || error.code !== 'LOG_DAMAGED') throw error
      this.#walk.broken = true
      const to = Number.MAX_SAFE_INTEGER
      this.#findings.add(
        'LEVELDB_DAMAGED',
        `LevelDB cannot read a part of its files (${causeOf(error)}); restore the folder ${this.#paths.log} from a copy`,
        { doubt: [], span: { from: to, to } },
      )
    }
  }

  async #fold({ records, record, steps }: Walked, fold: AuditFold, check: DerivedCheck): Promise<void> {
    for (const [i, one] of records.entries()) {
      const judged = !this.#walk.broken
      await fold.fold(one, record + i, judged)
      if (!judged) continue
      if (one.kind === 'events') await checkCommand(this.#opened.log, one, record + i, this.#findings)
      if (check.due !== undefined && check.due <= fold.last) await check.at(fold.last, fold.state)
    }
    for (const step of steps) this.#marks.seen(step.next, step.hash)
  }

  async #otherKey(key: Uint8Array, value: Uint8Array): Promise<void> {
    if (isCommandKey(key)) {
      // With records missing or edited, an index that does not fit is no second finding.
      if (!this.#walk.broken) await checkIndexEntry(this.#opened.log, key, value, this.#findings)
    } else if (Buffer.compare(key, REPACK_KEY) !== 0) {
      this.#findings.add(
        'KEY_UNKNOWN',
        `the log holds a key that no slicelog writes (${Buffer.from(key).toString('hex')}); compare with a copy`,
      )
    }
  }

  #end(): void {
    const { heads, end } = this.#opened
    const before = this.#findings.count
    checkHead({
      heads,
      raw: rawHead(this.#paths.head),
      bootChanged: end.bootChanged,
      marks: this.#marks,
      walk: this.#walk,
      mayBeMissing: this.#file.making === true && this.#walk.records === 0,
      anchor: this.#options.against,
      findings: this.#findings,
    })
    if (end.damage !== undefined && before === 0 && this.#findings.count === 0) {
      this.#findings.add('LOG_UNREADABLE', `opening the log found damage: ${end.damage.message}`)
    }
  }
}

function rawHead(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch {
    return new Uint8Array()
  }
}

function causeOf(error: CheckpointError): string {
  return error.cause instanceof Error ? error.cause.message : error.message
}

function reportOf(
  findings: Findings,
  head: ChainWalk['head'],
  records: number,
  doubt: Parameters<Findings['list']>[0],
): VerifyReport {
  return {
    head: { position: head.next - 1, time: head.time, hash: Buffer.from(head.hash).toString('hex') },
    events: head.next,
    records,
    findings: findings.list(doubt),
  }
}
