/** `disk export`: one disk's history into a file, while the store goes on; and the proof of such a file against a store. */
import { resolve } from 'node:path'
import { findDisk } from '../commands/find.ts'
import { needName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { aborted } from '../log/entries.ts'
import { LevelEventLog } from '../log/level-log.ts'
import { needOptions, needPath } from './arguments.ts'
import { type DiskFrame, digestOf, readDiskFile, writeDiskFile } from './disk-file.ts'
import { type HistoryOf, historyOf, namedPoints } from './disk-history.ts'
import { refuseUnlessVacant, targetExists } from './publish.ts'
import { coreOf, needStore, type Store } from './store.ts'

export interface ExportOptions {
  readonly signal?: AbortSignal
  /** Last position of the source read, and its number of events. */
  readonly onProgress?: (position: number, total: number) => void
}

export interface Exported {
  readonly disk: string
  readonly file: string
  readonly store: string
  /** The source's head at the export. */
  readonly head: { readonly position: number; readonly time: number | null; readonly hash: string }
  readonly records: number
  readonly events: number
  /** The end of the file's own chain: stands for all that is in it. */
  readonly digest: string
}

/**
 * The disk must be there now; of one that was removed and added again, the present life.
 * @throws CheckpointError DISK_NOT_FOUND, DISK_ENTANGLED, TARGET_EXISTS, ABORTED, LOG_DAMAGED, IO_FAILED
 */
export async function exportDisk(
  store: Store,
  disk: string,
  file: string,
  options: ExportOptions = {},
): Promise<Exported> {
  needStore(store)
  needName('disk', disk)
  needPath('the file', file)
  needOptions(options, { signal: 'signal', onProgress: 'function' })
  const path = resolve(file)
  await refuseFile(path)
  const core = coreOf(store)
  const { log } = core
  if (!(log instanceof LevelEventLog))
    throw new TypeError('a store in memory has no log to export from; open it in a folder')
  // Head and state of one moment: nothing is committed in between.
  const of = await core.committer.exclusive(async (): Promise<HistoryOf> => {
    const found = findDisk(core.catalog, disk)
    return {
      store: core.storeId,
      ...(await log.frozen()),
      disk: found,
      named: namedPoints(core.catalog, found),
    }
  })
  const told = { records: 0, events: 0 }
  try {
    const digest = await writeDiskFile(path, watched(historyOf(of), of, told, options)).catch(
      (error: unknown) => {
        throw failure(error, path)
      },
    )
    const { next, time, hash } = of.head
    const head = { position: next - 1, time, hash: Buffer.from(hash).toString('hex') }
    return { disk, file: path, store: of.store, head, ...told, digest }
  } finally {
    await of.source.release()
  }
}

async function* watched(
  frames: AsyncIterable<DiskFrame>,
  { head }: HistoryOf,
  told: { records: number; events: number },
  { signal, onProgress }: ExportOptions,
): AsyncGenerator<DiskFrame> {
  for await (const frame of frames) {
    if (signal?.aborted === true) throw aborted(signal)
    if (frame.kind === 'record') onProgress?.(frame.record.end, head.next)
    if (frame.kind === 'end') Object.assign(told, frame.end)
    yield frame
  }
}

export type Proof =
  /** The store's log gives this very file. */
  | { readonly kind: 'proved'; readonly records: number }
  /** The log was compacted since, so it cannot give it again; but each record stands on a hash that the log still has. */
  | { readonly kind: 'anchored'; readonly records: number; readonly anchors: number }
  | { readonly kind: 'differs'; readonly why: string }

/**
 * Whether a file is what this store's log says of the disk. The file's own chain is checked in any case.
 * @throws CheckpointError DISK_FILE_INVALID, FORMAT_TOO_NEW, LOG_DAMAGED
 */
export async function proveExport(store: Store, file: string): Promise<Proof> {
  needStore(store)
  needPath('the file', file)
  const path = resolve(file)
  const core = coreOf(store)
  const { log } = core
  if (!(log instanceof LevelEventLog))
    throw new TypeError('a store in memory cannot prove a file; open it in a folder')
  let header: Extract<DiskFrame, { kind: 'header' }>['header'] | undefined
  let digest = ''
  let records = 0
  let anchors = 0
  let missing: number | undefined
  for await (const frame of readDiskFile(path)) {
    digest = frame.digest
    if (frame.kind === 'header') header = frame.header
    if (frame.kind !== 'record') continue
    records++
    const here = await log.hashAt(frame.record.end)
    if (here === undefined) continue // Inside a run now.
    if (Buffer.compare(here, frame.record.hash) === 0) anchors++
    else missing ??= frame.record.end
  }
  if (header === undefined) return { kind: 'differs', why: 'it holds nothing' }
  if (header.store !== core.storeId)
    return { kind: 'differs', why: `it is of store ${header.store}, and this is ${core.storeId}` }
  const { position, hash } = header.head
  if (position >= log.head.next)
    return { kind: 'differs', why: `this log ends before position ${position}, which the file reaches` }
  const there = await log.hashAt(position)
  if (there !== undefined && Buffer.from(there).toString('hex') !== hash)
    return { kind: 'differs', why: `at position ${position} this log has another hash` }
  if (missing !== undefined)
    return { kind: 'differs', why: `at position ${missing} this log has another hash` }
  // No hash there: its head lies inside a run of a later compaction, so it cannot be given again.
  const again = there === undefined ? undefined : await digestAgain(store, header, log)
  if (again === digest) return { kind: 'proved', records }
  if (anchors > 0 && (anchors < records || (await compactedSince(store, position))))
    return { kind: 'anchored', records, anchors }
  return { kind: 'differs', why: 'its records are not those of this log, though they name its hashes' }
}

/** Whether a compaction after `position` folded what lies before it: then windows may be coarser than in the file, ends and all. */
async function compactedSince(store: Store, position: number): Promise<boolean> {
  for await (const records of store.records({ from: position + 1, without: 'writes' })) {
    for (const record of records) {
      if (record.kind !== 'events') continue
      for (const event of record.events)
        if (event.type === 'log-compacted' && event.runs.some(({ first }) => first <= position)) return true
    }
  }
  return false
}

/** The file's digest as this log gives it now. */
async function digestAgain(
  store: Store,
  {
    disk,
    number,
    head,
  }: {
    readonly disk: string
    readonly number: number
    readonly head: { position: number; time: number | null; hash: string }
  },
  log: LevelEventLog,
): Promise<string | undefined> {
  const core = coreOf(store)
  const { catalog } = await core.at(head.position)
  const then = catalog.disk(disk)
  if (then === undefined || then.number !== number) return undefined
  const { source } = await log.frozen()
  try {
    const at = {
      next: head.position + 1,
      time: head.time,
      hash: new Uint8Array(Buffer.from(head.hash, 'hex')),
    }
    return await digestOf(
      historyOf({ store: core.storeId, source, head: at, disk: then, named: namedPoints(catalog, then) }),
    )
  } finally {
    await source.release()
  }
}

async function refuseFile(path: string): Promise<void> {
  try {
    await refuseUnlessVacant(path)
  } catch (error) {
    if (error instanceof CheckpointError && error.code === 'TARGET_EXISTS')
      throw targetExists(path, 'is never overwritten')
    throw error
  }
}

function failure(error: unknown, path: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  if (error instanceof CheckpointError || typeof code !== 'string' || !code.startsWith('E')) return error
  return new CheckpointError(
    'IO_FAILED',
    `writing ${path} failed: ${message}`,
    { file: path, reason: code },
    error,
  )
}
