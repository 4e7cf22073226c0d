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
import { aborted } from '../log/entries.ts'
import { isCommandKey, positionOf, positionOfEventKey, REPACK_KEY } from '../log/keys.ts'
import { type OpenedLevelLog, openLevelLog } from '../log/level-open.ts'
import { isOpenHere } from '../log/open-here.ts'
import { storeInUse } from '../log/owner.ts'
import { damagedTables, type TableDamage } from '../log/table-check.ts'
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
import { type Start, startOf } from './start.ts'
import { ChainWalk, type Walked } from './walk.ts'

export type { Finding, FindingCode } from './findings.ts'
export { FINDING_CODES } from './findings.ts'

export interface VerifyOptions {
  /** A head exported before: what the log held then must be in it still. `hash` in hex. */
  readonly against?: Anchor
  /**
   * A cursor: what lies up to it was verified before (a head that `verify` or `head` printed). Only what follows is walked, on a
   * state taken from the nearest snapshot. When the log no longer has that head, that is a finding and everything is walked.
   */
  readonly since?: Anchor
  /** Called every so often with the last position walked, and how many events there are. */
  readonly onProgress?: (position: number, total: number) => void
  readonly signal?: AbortSignal
  readonly machine?: Machine
}

export interface VerifyReport {
  /** The last position that was taken as verified before; null when everything was walked. */
  readonly since: number | null
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

/** What is looked at: files of a closed store that LevelDB opened as a view, or a store that this process has open. */
export interface Verified {
  readonly opened: OpenedLevelLog
  readonly file: StoreFile
  readonly paths: FolderPaths
  readonly options: VerifyOptions
  readonly findings: Findings
  /** The head file as it was when `opened.heads` was read. */
  readonly raw: Uint8Array
}

/** Both are closed in the end. Neither may be the store's own: damaged values are dropped where they are met. */
export interface VerifiedDerived {
  readonly derived: Derived
  readonly scratch: Derived
}

export async function verifyOpened(
  verified: Verified,
  openDerived: () => Promise<VerifiedDerived>,
): Promise<VerifyReport> {
  const { derived, scratch } = await openDerived()
  try {
    return await new Verification(verified).run(derived, scratch)
  } finally {
    await derived.close()
    await scratch.close()
  }
}

class Verification {
  readonly #opened: OpenedLevelLog
  readonly #file: StoreFile
  readonly #paths: FolderPaths
  readonly #options: VerifyOptions
  readonly #findings: Findings
  readonly #raw: Uint8Array
  #walk: ChainWalk
  readonly #marks: HeadMarks
  #start: Start | undefined

  constructor({ opened, file, paths, options, findings, raw }: Verified) {
    this.#opened = opened
    this.#file = file
    this.#paths = paths
    this.#options = options
    this.#findings = findings
    this.#raw = raw
    this.#walk = new ChainWalk(findings)
    this.#marks = new HeadMarks(opened.heads, options.against)
  }

  async run(derived: Derived, scratch: Derived): Promise<VerifyReport> {
    const { log } = this.#opened
    this.#start = await startOf(log, derived, this.#file.id, this.#options.since, this.#findings)
    if (this.#start !== undefined) await this.#resume(this.#start)
    // Slices of a state that began at a snapshot are stored beside it.
    const beside = this.#start === undefined ? scratch : derived
    const fold = new AuditFold(log, beside, this.#findings, this.#start?.state)
    const check = new DerivedCheck(derived, beside, this.#file.id, this.#findings, log)
    await check.begin(this.#start?.after)
    await this.#entries(fold, check)
    this.#walk.vouching.end((this.#start?.after ?? -1) + 1, this.#walk.damaged)
    this.#end()
    return reportOf(
      this.#findings,
      this.#walk.head,
      this.#walk.records,
      (span) => doubtOf(fold.state.catalog, span),
      this.#start?.after,
    )
  }

  /** As if everything up to the start had been walked. */
  async #resume({ after, hash, time }: Start): Promise<void> {
    this.#walk = new ChainWalk(this.#findings, { next: after + 1, hash, time })
    this.#marks.seen(after + 1, hash)
    const { against } = this.#options
    if (against === undefined || against.position >= after) return
    const then = await this.#opened.log.hashAt(against.position)
    if (then !== undefined) this.#marks.seen(against.position + 1, then)
  }

  async #entries(fold: AuditFold, check: DerivedCheck): Promise<void> {
    const { log } = this.#opened
    const { signal, onProgress } = this.#options
    const total = log.head.next
    try {
      for await (const entries of log.rawEntries((this.#start?.after ?? -1) + 1)) {
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
      if (one.kind === 'events') this.#walk.vouching.events(one)
      if (!judged) continue
      await check.step(one, fold.state)
      if (one.kind === 'events') await checkCommand(this.#opened.log, one, record + i, this.#findings)
      if (check.due !== undefined && check.due <= fold.last) await check.at(fold.last, fold.state)
    }
    for (const step of steps) this.#marks.seen(step.next, step.hash)
  }

  async #otherKey(key: Uint8Array, value: Uint8Array): Promise<void> {
    if (isCommandKey(key)) {
      // With records missing or edited, an index that does not fit is no second finding.
      const before = (positionOf(value) ?? 0) <= (this.#start?.after ?? -1)
      if (!this.#walk.broken && !before) await checkIndexEntry(this.#opened.log, key, value, this.#findings)
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
      raw: this.#raw,
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

function causeOf(error: CheckpointError): string {
  return error.cause instanceof Error ? error.cause.message : error.message
}

function reportOf(
  findings: Findings,
  head: ChainWalk['head'],
  records: number,
  doubt: Parameters<Findings['list']>[0],
  since?: number,
): VerifyReport {
  return {
    since: since ?? null,
    head: { position: head.next - 1, time: head.time, hash: Buffer.from(head.hash).toString('hex') },
    events: head.next,
    records,
    findings: findings.list(doubt),
  }
}
