/** Our side: the public library as an agent uses it, with everything on (validation, checksum, chain, a live bitmap). */
import { type Disk, type OpenOptions, openStore, type Store } from '../src/index.ts'
import { BITMAP, type Columns, calls, DISK, DISK_BYTES, GRANULARITY } from './workload.ts'

export interface Opened {
  readonly store: Store
  readonly disk: Disk
}

export async function openOurs(folder: string, options: OpenOptions = {}, retention = 0): Promise<Opened> {
  const store = await openStore(folder, options)
  const disk = await store.ensureDisk(DISK, { size: DISK_BYTES, quiet: true })
  await disk.ensureBitmap(BITMAP, { granularity: GRANULARITY, retention })
  return { store, disk }
}

/** Calls of 4096 rows, handed over as fast as the store takes them: never more than `ahead` unanswered. */
export async function appendAll(disk: Disk, writes: Columns, ahead = 16): Promise<void> {
  const waiting: Promise<unknown>[] = []
  for (const call of calls(writes)) {
    if (waiting.length >= ahead) await waiting.shift()
    waiting.push(disk.recordWrites(call))
  }
  await Promise.all(waiting)
}

/** A store with these writes in it, closed. */
export async function makeOurs(folder: string, writes: Columns): Promise<void> {
  const { store, disk } = await openOurs(folder)
  await appendAll(disk, writes)
  await store.close()
}
