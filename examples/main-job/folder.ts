/**
 * The demo rebuilds its own store and touches nothing else: a store is its own when the log's first event says so, and
 * only a store's own files are removed.
 */
import { readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError, openStore } from '../../src/index.ts'

export const ACTOR = 'slicelog-demo'

/** What a store keeps in its folder (docs/format.md). */
const STORE_FILES: readonly string[] = [
  'store.json',
  'head',
  'owner.json',
  'log',
  'log.checked',
  'derived',
  'derived.checked',
  'aside',
]

/** Leaves the folder absent or empty, or refuses and leaves it as it was. */
export async function clearFolder(folder: string): Promise<void> {
  const names = await namesIn(folder)
  if (names.length === 0) return
  const foreign = names.filter((name) => !STORE_FILES.includes(name))
  if (foreign.length > 0 || !(await isOurs(folder))) {
    throw new Error(
      `${folder} holds something that this demo did not make. Name another folder: npm run demo -- FOLDER`,
    )
  }
  // store.json first: what a crash leaves behind is then no store any more.
  for (const name of STORE_FILES) await rm(join(folder, name), { recursive: true, force: true })
  await rmdir(folder)
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function isOurs(folder: string): Promise<boolean> {
  try {
    const store = await openStore(folder, { create: false })
    try {
      for await (const { cause } of store.log({ limit: 1 })) return cause.actor === ACTOR
      return false // An empty store is whoever's made it.
    } finally {
      await store.close()
    }
  } catch (error) {
    if (
      error instanceof CheckpointError &&
      (error.code === 'NOT_A_STORE' || error.code === 'STORE_NOT_FOUND')
    )
      return false
    throw error
  }
}
