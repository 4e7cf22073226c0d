/**
 * `repair`: turns damage into lost stretches, as events, and keeps what it took out (R28). What is left of the log is read from
 * its files without LevelDB, the longest line that fits is written anew beside it, and only when that is whole on disk it takes
 * the damaged log's place. A kill at any moment leaves a store that can be repaired again.
 *
 * Cost: verify twice, the log read and written twice, and its size on disk until what was taken out is deleted.
 */

import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import type { Point } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { keptAsides } from '../log/aside.ts'
import { readHeadFile } from '../log/head-file.ts'
import { holdLog } from '../log/hold.ts'
import { Salvage } from '../log/salvage.ts'
import { needOptions, needPath } from '../store/arguments.ts'
import { systemClock } from '../store/clock.ts'
import { type FolderPaths, pathsOf } from '../store/folder.ts'
import { thisMachine } from '../store/machine.ts'
import { bootIdBytes } from '../store/open.ts'
import type { Clock, Machine } from '../store/types.ts'
import type { Finding } from './findings.ts'
import { Chooser, type Piece, type Required, requiredOf } from './repair-choose.ts'
import { RepairFold } from './repair-fold.ts'
import { KeptFolder, keptName } from './repair-kept.ts'
import { lightRepair, storeFileDamage } from './repair-light.ts'
import { vouchersOf } from './repair-runs.ts'
import { beginSwap, discardUnfinished, finishSwap, newLogOf, SCRATCH_PREFIX } from './repair-swap.ts'
import {
  eventsOfRepair,
  type LostRecords,
  Repaired,
  tellRepair,
  type Written,
  writePieces,
} from './repair-write.ts'
import { verifyStore } from './verify.ts'

export interface RepairOptions {
  /** Says what would be done, and changes nothing. */
  readonly dryRun?: boolean
  readonly signal?: AbortSignal
  /** What is being done, how far it is, and of how much. */
  readonly onProgress?: (phase: 'verify' | 'read' | 'write' | 'prove', done: number, total: number) => void
  readonly actor?: string
  readonly clock?: Clock
  readonly machine?: Machine
  /** Called before each step that changes something, by name: for tests that end the process there. */
  readonly onStep?: (name: string) => void
}

export interface RepairReport {
  /** `sound`: nothing to do, nothing was changed. `damaged`: what a dry run found. */
  readonly state: 'sound' | 'repaired' | 'damaged'
  /** What verify found before. */
  readonly findings: readonly Finding[]
  /** Positions whose records are gone, each stretch with why. */
  readonly lost: readonly LostRecords[]
  /** Disks of which a stretch counts as lost now. */
  readonly disks: readonly string[]
  /** Records that only an older version, or a wrong place, still had. */
  readonly restored: number
  /** Values that were taken out, and the first of them. */
  readonly removed: {
    readonly values: number
    readonly first: readonly { readonly position: number | null; readonly why: string }[]
  }
  /** What is done besides, in words. */
  readonly also: readonly string[]
  /** Where what was taken out is kept. */
  readonly kept: string | null
  /** What verify finds after the repair: empty, or damage that no repair can undo. */
  readonly remaining: readonly Finding[]
  /** After the repair; of a dry run, and of a sound store, as it is. */
  readonly head: { readonly position: number; readonly time: number | null; readonly hash: string }
}

/** Found beside damage, and no damage by themselves: what earlier opens put aside, and heads that a caller compares with. */
const NO_DAMAGE: ReadonlySet<Finding['code']> = new Set(['ASIDE_KEPT', 'ANCHOR_CUT', 'ANCHOR_DIFFERS'])

/**
 * @throws CheckpointError STORE_NOT_FOUND, NOT_A_STORE, STORE_IN_USE, FORMAT_TOO_NEW, REPAIR_IMPOSSIBLE, ABORTED, IO_FAILED
 */
export async function repairStore(folder: string, options: RepairOptions = {}): Promise<RepairReport> {
  needPath('the folder', folder)
  needOptions(options, { dryRun: 'flag', signal: 'signal', onProgress: 'function', actor: 'text' })
  const report = await repairOnce(folder, options)
  if (report.state !== 'repaired') return report
  const { findings } = await verifyStore(folder, {
    ...signalOf(options),
    ...(options.machine === undefined ? {} : { machine: options.machine }),
    onProgress: (position, total) => options.onProgress?.('prove', position, total),
  })
  return { ...report, remaining: findings.filter(({ code }) => !NO_DAMAGE.has(code)) }
}

async function repairOnce(folder: string, options: RepairOptions): Promise<RepairReport> {
  const paths = pathsOf(resolve(folder))
  const dryRun = options.dryRun === true
  const also: string[] = []
  if (existsSync(paths.repairing)) {
    if (dryRun) throw unfinished(paths)
    const release = await hold(paths, options)
    let kept: string | undefined
    try {
      kept = await finishSwap(paths)
      await discardUnfinished(paths)
    } finally {
      await release()
    }
    also.push(`a repair that did not come to its end was finished; what it took out is in ${String(kept)}`)
  }
  const badStoreFile = await storeFileDamage(paths)
  if (badStoreFile !== null) {
    also.push(badStoreFile.words)
    if (!dryRun) await badStoreFile.mend()
    else return dryOf(also)
  }
  const before = await verifyStore(paths.root, {
    ...signalOf(options),
    ...(options.machine === undefined ? {} : { machine: options.machine }),
    onProgress: (position, total) => options.onProgress?.('verify', position, total),
  })
  const findings = before.findings.filter(({ code }) => !NO_DAMAGE.has(code))
  const nothing = {
    lost: [],
    disks: [],
    restored: 0,
    removed: { values: 0, first: [] },
    kept: null,
    remaining: [],
    head: before.head,
  }
  if (findings.length === 0)
    return { state: also.length > 0 ? 'repaired' : 'sound', findings: [], ...nothing, also }
  if (findings.every(({ code }) => code === 'PLAN_DIFFERS')) throw impossible(findings)
  const light = lightRepair(paths, findings)
  if (light === undefined) return await new Repair(paths, options, findings, also).run()
  also.push(...light.words)
  if (!dryRun) {
    const release = await hold(paths, options)
    await light.mend().finally(release)
  }
  return { state: dryRun ? 'damaged' : 'repaired', findings, ...nothing, also }
}

class Repair {
  readonly #time: number
  readonly #bootId: Uint8Array

  constructor(
    readonly paths: FolderPaths,
    readonly options: RepairOptions,
    readonly findings: readonly Finding[],
    readonly also: string[],
  ) {
    this.#time = (options.clock ?? systemClock).now()
    this.#bootId = bootIdBytes((options.machine ?? thisMachine).bootId())
  }

  async run(): Promise<RepairReport> {
    const { paths, options } = this
    const dryRun = options.dryRun === true
    const release = await hold(paths, options)
    if (!dryRun) await discardUnfinished(paths)
    const scratch = await mkdtemp(
      dryRun ? join(tmpdir(), 'slicelog-repair-') : join(paths.root, SCRATCH_PREFIX),
    )
    try {
      return await this.#on(scratch, dryRun)
    } catch (error) {
      // Once the exchange has begun it is finished by the next repair; before that nothing was changed.
      if (!dryRun && !existsSync(paths.repairing)) await this.#undo()
      throw error
    } finally {
      await rm(scratch, { recursive: true, force: true })
      await release()
    }
  }

  async #undo(): Promise<void> {
    await discardUnfinished(this.paths)
    await rm(join(this.paths.aside, keptName(this.#time)), { recursive: true, force: true })
  }

  async #on(scratch: string, dryRun: boolean): Promise<RepairReport> {
    const { paths, options } = this
    const name = keptName(this.#time)
    const kept = new KeptFolder(dryRun ? null : join(paths.aside, name))
    const asides = await asidesWithFiles(paths)
    const salvage = await Salvage.of(paths.log, asides, join(scratch, 'salvage'))
    try {
      const heads = readHeadFile(paths.head)
      const required = requiredOf(heads, this.#bootId)
      const fold = new RepairFold()
      const vouchers = await vouchersOf(new Chooser(salvage, required, async () => {}).pieces(), required)
      const chooser = new Chooser(salvage, required, kept.takeOut, vouchers)
      const target = { ...newLogOf(paths), scratch, bootId: this.#bootId }
      options.onStep?.('write')
      const pieces = folded(chooser.pieces(), fold, kept)
      const written = dryRun
        ? await counted(pieces, required?.time ?? null)
        : await writePieces(pieces, target, required?.time ?? null, {
            signal: options.signal,
            onProgress: (position) => options.onProgress?.('write', position, required?.next ?? position),
          })
      const bare = written.lost[0]?.first === 0 && [...fold.catalog.disks()].length === 0
      if (written.values === 0 || bare) throw impossible(this.findings, kept.count)
      for (const unknown of salvage.unknown) await kept.unknownKey(unknown)
      const since = doubtfulEnd(required, chooser.tailAdded, written)
      const events = eventsOfRepair(fold.catalog, written, join('aside', name), since)
      const report = this.#report(written, events, kept, dryRun ? null : join(paths.aside, name), since)
      if (dryRun) return report
      options.onStep?.('tell')
      const head = await tellRepair(target, events, { time: this.#time, actor: options.actor })
      const done: RepairReport = {
        ...report,
        head: { position: head.next - 1, time: head.time, hash: Buffer.from(head.hash).toString('hex') },
      }
      const step = (what: string) => options.onStep?.(what)
      step('keep')
      await kept.finish(done)
      await beginSwap(paths, { kept: name, asides }, step)
      await finishSwap(paths, step)
      return done
    } finally {
      await kept.close()
      await salvage.remove()
    }
  }

  #report(
    written: Written,
    events: ReturnType<typeof eventsOfRepair>,
    kept: KeptFolder,
    folder: string | null,
    since: Point | null,
  ): RepairReport {
    const also = [...this.also, 'what is derived from the log is made anew']
    if (since !== null) also.push(`nothing tells whether there was more behind position ${since.position}`)
    return {
      state: folder === null ? 'damaged' : 'repaired',
      findings: this.findings,
      lost: written.lost,
      disks: events.flatMap((event) => (event.type === 'stretch-lost' ? [event.disk] : [])),
      restored: written.restored,
      removed: { values: kept.count, first: kept.first },
      also,
      kept: folder,
      remaining: [],
      head: {
        position: written.head.next - 1,
        time: written.head.time,
        hash: Buffer.from(written.head.hash).toString('hex'),
      },
    }
  }
}

/** Without a head file, or with more than it knows, nobody can say that nothing is missing at the end. */
function doubtfulEnd(required: Required | null, tailAdded: boolean, { head }: Written): Point | null {
  return required === null || tailAdded ? { position: head.next - 1, time: head.time } : null
}

async function* folded(
  pieces: AsyncIterable<Piece>,
  fold: RepairFold,
  kept: KeptFolder,
): AsyncGenerator<Piece> {
  for await (const piece of pieces) yield await fold.take(piece, kept.takeOut)
}

/** A dry run: the same choice, written nowhere. */
async function counted(pieces: AsyncIterable<Piece>, endTime: number | null): Promise<Written> {
  const repaired = new Repaired()
  for await (const piece of pieces) for (const _ of repaired.add(piece));
  for (const _ of repaired.end(endTime));
  return repaired.written
}

/** Folders of LevelDB's files that opens put aside when they met damage: they may hold what the log lost since. */
async function asidesWithFiles(paths: FolderPaths): Promise<string[]> {
  return (await keptAsides(paths.aside)).filter((folder) => existsSync(join(folder, 'reason')))
}

async function hold(paths: FolderPaths, options: RepairOptions): Promise<() => Promise<void>> {
  return await holdLog(paths.log, paths.owner, bootIdBytes((options.machine ?? thisMachine).bootId()))
}

function dryOf(also: readonly string[]): RepairReport {
  return {
    state: 'damaged',
    findings: [],
    lost: [],
    disks: [],
    restored: 0,
    removed: { values: 0, first: [] },
    also: [...also, 'what else is damaged is seen once that is done'],
    kept: null,
    remaining: [],
    head: { position: -1, time: null, hash: '0'.repeat(64) },
  }
}

function signalOf({ signal }: RepairOptions): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

function unfinished(paths: FolderPaths): CheckpointError {
  const { kept } = JSON.parse(readFileSync(paths.repairing, 'utf8')) as { kept: string }
  return new CheckpointError(
    'LOG_DAMAGED',
    `a repair did not come to its end; without --dry-run it is finished (what it took out is in ${join(paths.aside, basename(kept))})`,
    { problem: 'repair-unfinished' },
  )
}

function impossible(findings: readonly Finding[], readable = 0): CheckpointError {
  const plans = findings.every(({ code }) => code === 'PLAN_DIFFERS')
  const why = plans
    ? 'the plans of past backups are not what the log gives, and the log itself is chained as it should be'
    : readable === 0
      ? 'no record of the log can be read'
      : 'the records that added its disks are gone, and nothing that is left can stand without them'
  return new CheckpointError(
    'REPAIR_IMPOSSIBLE',
    `this cannot be repaired: ${why}; nothing was changed. ${plans ? 'Make full backups in their place' : 'Restore the folder from a copy'}`,
    { why, findings: findings.map(({ code, position }) => ({ code, position })) },
  )
}
