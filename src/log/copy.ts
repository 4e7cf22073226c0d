/**
 * A log's stored values into a new LevelDB, byte for byte, up to one head, while the log goes on: LevelDB's own files cannot be
 * copied while it has them open. Cost: one read of the log and one write, in batches of a few MiB whatever its length.
 */
import { mkdir } from 'node:fs/promises'
import { aborted } from './entries.ts'
import type { LogHead } from './event-log.ts'
import { HeadFile } from './head-file.ts'
import { FAR, FARTHER, isCommandKey, positionOf, positionOfEventKey } from './keys.ts'
import { database, type LevelSource, levelFailure } from './level-source.ts'
import { markTables } from './table-check.ts'

const BATCH_BYTES = 2 * 1024 * 1024

export interface LogCopyTarget {
  /** LevelDB's folder to be made, and the head file. */
  readonly folder: string
  readonly headFile: string
  readonly bootId: Uint8Array
}

export interface LogCopyOptions {
  readonly signal?: AbortSignal | undefined
  /** Positions copied so far, of how many. */
  readonly onProgress?: ((position: number, total: number) => void) | undefined
}

/**
 * The target is complete and on disk when this resolves; a head of a closed log stands beside it.
 * @throws CheckpointError ABORTED, STORE_CLOSED, LOG_DAMAGED, IO_FAILED
 */
export async function copyLog(
  { source, head }: { readonly source: LevelSource; readonly head: LogHead },
  target: LogCopyTarget,
  options: LogCopyOptions = {},
): Promise<void> {
  await mkdir(target.folder, { recursive: true })
  const db = database(target.folder)
  try {
    await db.open({ createIfMissing: true, errorIfExists: true })
    let batch: { type: 'put'; key: Uint8Array; value: Uint8Array }[] = []
    let bytes = 0
    for await (const chunk of source.raw()) {
      if (options.signal?.aborted === true) throw aborted(options.signal)
      let last: number | undefined
      for (const [key, value] of chunk) {
        const position = positionOfEventKey(key)
        // What was appended since the head was taken, and the commands of that, stay behind.
        if (position !== undefined && position >= head.next) continue
        if (isCommandKey(key) && (positionOf(value) ?? 0) >= head.next) continue
        last = position ?? last
        batch.push({ type: 'put', key, value })
        bytes += key.length + value.length
        if (bytes < BATCH_BYTES) continue
        await db.batch(batch)
        batch = []
        bytes = 0
      }
      if (last !== undefined) options.onProgress?.(last, head.next)
    }
    if (batch.length > 0) await db.batch(batch)
    // Compacting a range that holds nothing writes out what is in memory, into synced tables.
    await db.compactRange(FAR, FARTHER)
  } catch (error) {
    throw levelFailure(error)
  } finally {
    await db.close()
  }
  markTables(target.folder, `${target.folder}.checked`)
  const headFile = new HeadFile(target.headFile, target.bootId, { kind: 'missing' })
  try {
    headFile.write(head, head, 'closed')
    headFile.sync()
  } finally {
    headFile.close()
  }
  options.onProgress?.(head.next - 1, head.next)
}
