/** A small sound store with records of every size, and the means to edit what its log stores behind its back. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { ClassicLevel } from 'classic-level'
import { onTestFinished } from 'vitest'
import { EMPTY_HASH, type EncodedRecord, readHeader } from '../../events/record.ts'
import { KiB, MiB } from '../../src/limits.ts'
import type { LogHead } from '../../src/log/event-log.ts'
import { eventKey, positionOfEventKey } from '../../src/log/keys.ts'
import { openStore } from '../../src/store/open.ts'
import { openIn } from '../log/open.ts'

export const DISK = 'vm/vda'

export interface Entry {
  readonly position: number
  readonly value: Uint8Array
  /** Chain before it. */
  readonly previous: Uint8Array
  readonly plain: boolean
}

export async function soundStore(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'slicelog-verify-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const store = await openStore(folder, { snapshotEvery: 400 })
  const disk = await store.ensureDisk(DISK, { size: 64 * MiB })
  const bitmap = await disk.addBitmap('daily', { retention: 4 })
  const rows = (at: number) =>
    Array.from({ length: 100 }, (_, i) => ({ offset: (at * 100 + i) * 4 * KiB, length: 512 * (1 + (i % 5)) }))
  for (let i = 0; i < 4; i++) await disk.recordWrites(rows(i))
  const backup = await disk.beginBackup(
    { bitmap: 'daily', mode: 'incremental', id: 'first' },
    { commandId: 'begin-1' },
  )
  for (let i = 4; i < 8; i++) await disk.recordWrites(rows(i))
  await backup.succeed({ commandId: 'succeed-1' })
  await bitmap.bank()
  for (let i = 8; i < 12; i++) await disk.recordWrites(rows(i))
  await store.snapshot()
  await store.close()
  return folder
}

export async function withLog<T>(
  folder: string,
  work: (db: ClassicLevel<Uint8Array, Uint8Array>) => Promise<T>,
): Promise<T> {
  const db = new ClassicLevel<Uint8Array, Uint8Array>(join(folder, 'log'), {
    keyEncoding: 'view',
    valueEncoding: 'view',
  })
  await db.open()
  try {
    return await work(db)
  } finally {
    await db.close()
  }
}

export async function entriesIn(folder: string): Promise<Entry[]> {
  return await withLog(folder, async (db) => {
    const entries: Entry[] = []
    let previous = EMPTY_HASH
    for await (const [key, value] of db.iterator()) {
      const position = positionOfEventKey(key)
      if (position === undefined) continue
      const header = readHeader(value)
      entries.push({ position, value, previous, plain: header.layout === 'record' && header.count >= 100 })
      previous = header.hash
    }
    return entries
  })
}

export async function put(
  folder: string,
  ...entries: readonly { readonly position: number; readonly value: Uint8Array | null }[]
): Promise<void> {
  await withLog(folder, (db) =>
    db.batch(
      entries.map(({ position, value }) =>
        value === null
          ? { type: 'del', key: eventKey(position) }
          : { type: 'put', key: eventKey(position), value },
      ),
    ),
  )
}

/** Appends what no committer would to a closed store's log, chained to its head. Gives its first position. */
export async function appendTo(
  folder: string,
  recordsAfter: (head: LogHead) => readonly EncodedRecord[],
): Promise<number> {
  const { log } = await openIn(folder, { createIfMissing: false })
  const { head } = log
  await log.append(recordsAfter(head), { expected: head.next, sync: true })
  await log.close()
  return head.next
}

/** The value with a checksum that fits what it holds now. */
export function resealed(value: Uint8Array): Uint8Array {
  const copy = value.slice()
  new DataView(copy.buffer).setUint32(0, crc32(copy.subarray(4)), true)
  return copy
}
