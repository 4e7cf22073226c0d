/**
 * A copy of a store that is open and goes on meanwhile: the log up to a head taken at the start, that head, the store's id, and
 * of what is derived the snapshots up to there, so that the copy opens as fast. Published when whole (publish.ts).
 *
 * The copy has the same id. Once both are written to they are two histories: the chain tells them apart, and derived values of
 * the other are not used (snapshots.ts).
 */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { resolve, sep } from 'node:path'
import { Level } from 'level'
import { CheckpointError } from '../errors.ts'
import { copyLog } from '../log/copy.ts'
import { aborted } from '../log/entries.ts'
import type { LogHead } from '../log/event-log.ts'
import type { LevelEventLog } from '../log/level-log.ts'
import type { LevelSource } from '../log/level-source.ts'
import type { Derived } from './derived.ts'
import { pathsOf, readStoreFile } from './folder.ts'
import { makeParent, partialOf, publishFolder, refuseUnlessVacant, removeStalePartials } from './publish.ts'
import { copyMarks } from './unrecorded.ts'

export interface CopyOptions {
  readonly signal?: AbortSignal
  /** Last position copied, and how many events there are. */
  readonly onProgress?: (position: number, total: number) => void
}

export interface Copied {
  readonly store: string
  /** Where the copy is. */
  readonly folder: string
  readonly events: number
  /** The copy's last event and the chain's hash after it: what `verify --against` can prove it with. */
  readonly head: { readonly position: number; readonly time: number | null; readonly hash: string }
}

export interface CopyParts {
  readonly root: string
  readonly log: LevelEventLog
  readonly derived: Derived
}

/** @throws CheckpointError TARGET_EXISTS, TARGET_INVALID, ABORTED, STORE_CLOSED, LOG_DAMAGED, IO_FAILED: then nothing is there. */
export async function copyStore(
  parts: CopyParts,
  folder: string,
  options: CopyOptions = {},
): Promise<Copied> {
  if (typeof folder !== 'string' || folder === '')
    throw new TypeError('a copy needs a folder: a path, not empty')
  const to = resolve(folder)
  const root = resolve(parts.root)
  if (to === root || to.startsWith(root + sep)) {
    throw new CheckpointError('TARGET_INVALID', `${to} lies in the store itself; copy it to another place`, {
      target: to,
      folder: root,
    })
  }
  await refuseUnlessVacant(to)
  const { format, id, created } = await readStoreFile(pathsOf(root))
  const partial = partialOf(to)
  const frozen = await parts.log.frozen()
  try {
    await makeParent(to)
    await removeStalePartials(to)
    const paths = pathsOf(partial)
    await mkdir(partial, { mode: 0o750 })
    // Closed, so it is of no start of the machine.
    await copyLog(frozen, { folder: paths.log, headFile: paths.head, bootId: new Uint8Array(16) }, options)
    await copyDerived(parts.derived, paths.derived, frozen.head, options.signal)
    await copyMarks(pathsOf(root).unrecorded, paths.unrecorded)
    const text = `${JSON.stringify({ format, id, created }, null, 2)}\n`
    await writeFile(paths.storeFile, text, { mode: 0o640, flush: true })
    await publishFolder(partial, to)
    const { next, time, hash } = frozen.head
    return {
      store: id,
      folder: to,
      events: next,
      head: { position: next - 1, time, hash: Buffer.from(hash).toString('hex') },
    }
  } catch (error) {
    await removePartial(partial)
    throw failure(error, to)
  } finally {
    await release(frozen)
  }
}

/**
 * Snapshots up to the head, and everything else: spans, cursors and states of projections know their history by the chain's hash,
 * so what is ahead of the copy's head is not used there. What cannot be read is left out: the copy makes it anew.
 */
async function copyDerived(
  derived: Derived,
  folder: string,
  head: LogHead,
  signal: AbortSignal | undefined,
): Promise<void> {
  const db = new Level<string, Uint8Array>(folder, { valueEncoding: 'view', compression: false })
  await db.open()
  try {
    for await (const [key, value] of derived.stored()) {
      if (signal?.aborted === true) throw aborted(signal)
      const snapshot = /^s(\d{16})$/.exec(key)?.[1]
      const beyond = snapshot !== undefined && Number(snapshot) >= head.next
      if (!beyond) await db.put(key, value)
    }
  } finally {
    await db.close()
  }
}

async function removePartial(partial: string): Promise<void> {
  await rm(partial, { recursive: true, force: true }).catch(() => undefined) // The first failure is the one to tell.
}

async function release({ source }: { readonly source: LevelSource }): Promise<void> {
  await source.release().catch(() => undefined) // The log may have been closed meanwhile.
}

function failure(error: unknown, to: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  if (error instanceof CheckpointError || typeof code !== 'string' || !(error instanceof Error)) return error
  return new CheckpointError(
    'IO_FAILED',
    `copying to ${to} failed: ${message}; nothing is left there`,
    { target: to, reason: code },
    error,
  )
}
