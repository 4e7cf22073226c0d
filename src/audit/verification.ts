/**
 * The walk of a verify and all that is asked along it: each value in its chain, each event in its state, each past plan; at the
 * end what was vouched for, the head file, the index of command ids, and what is derived (R26, R28).
 */
import { CheckpointError } from '../errors.ts'
import { aborted, recordsOf } from '../log/entries.ts'
import type { AuditedLog } from '../log/frozen-log.ts'
import { isCommandKey, positionOf, positionOfEventKey, REPACK_KEY } from '../log/keys.ts'
import type { OpenedLevelLog } from '../log/level-open.ts'
import type { Derived } from '../store/derived.ts'
import type { FolderPaths, StoreFile } from '../store/folder.ts'
import type { Machine } from '../store/types.ts'
import { checkCommand, checkIndexEntry } from './commands.ts'
import { DerivedCheck } from './derived.ts'
import { doubtOf } from './doubt.ts'
import type { Finding, Findings, Span } from './findings.ts'
import { AuditFold } from './fold.ts'
import { type Anchor, checkHead, HeadMarks } from './head.ts'
import { type Start, startOf } from './start.ts'
import { ChainWalk, type Walked } from './walk.ts'

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
  /** Why the walk did not begin at the cursor given, in words; null when none was given, or it did. */
  readonly note: string | null
  /** The last record that could be read. */
  readonly head: { readonly position: number; readonly time: number | null; readonly hash: string }
  readonly events: number
  readonly records: number
  /** Empty: sound. */
  readonly findings: readonly Finding[]
}

type OpenedToAudit = Omit<OpenedLevelLog, 'log'> & { readonly log: AuditedLog }

/** What is looked at: files of a closed store that LevelDB opened as a view, or a store that this process has open. */
export interface Verified {
  readonly opened: OpenedToAudit
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
  readonly #opened: OpenedToAudit
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
    const begin = await startOf(log, derived, this.#file.id, this.#options.since, this.#findings)
    this.#start = begin.start
    if (this.#start !== undefined) await this.#resume(this.#start)
    // Slices of a state that began at a snapshot are stored beside it.
    const beside = this.#start === undefined ? scratch : derived
    const fold = new AuditFold(log, beside, this.#findings, this.#start?.state)
    const check = new DerivedCheck(derived, beside, this.#file.id, this.#findings, log)
    await check.begin(this.#start?.after)
    await this.#entries(fold, check)
    fold.end()
    this.#walk.vouching.end((this.#start?.after ?? -1) + 1, this.#walk.damaged)
    this.#end()
    return reportOf(
      this.#findings,
      this.#walk.head,
      this.#walk.records,
      (span) => doubtOf(fold.state.catalog, span),
      { since: this.#start?.after ?? null, note: begin.note },
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
    else this.#marks.folded = await this.#runAt(against.position)
  }

  /** The run of windows that holds a position before the start. */
  async #runAt(position: number): Promise<Span | undefined> {
    for await (const [entry] of this.#opened.log.values({ from: position, to: position })) {
      const record = entry === undefined ? undefined : recordsOf(entry)[0]
      if (record?.kind === 'windows') return { from: record.first, to: record.first + record.count - 1 }
    }
    return undefined
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

function causeOf(error: CheckpointError): string {
  return error.cause instanceof Error ? error.cause.message : error.message
}

export function reportOf(
  findings: Findings,
  head: ChainWalk['head'],
  records: number,
  doubt: Parameters<Findings['list']>[0],
  { since, note }: Pick<VerifyReport, 'since' | 'note'> = { since: null, note: null },
): VerifyReport {
  return {
    since,
    note,
    head: { position: head.next - 1, time: head.time, hash: Buffer.from(head.hash).toString('hex') },
    events: head.next,
    records,
    findings: findings.list(doubt),
  }
}
