/** The demo rebuilds its own store and touches nothing else: a folder is its own when the log's first event says so. */
import { readdir, rm } from 'node:fs/promises'
import { CheckpointError, openStore } from '../../src/index.ts'

export const ACTOR = 'slicelog-demo'

/** Leaves the folder absent or empty, or refuses. */
export async function clearFolder(folder: string): Promise<void> {
  if (await isEmpty(folder)) return
  if (!(await isOurs(folder))) {
    throw new Error(
      `${folder} holds something that this demo did not make. Name another folder: npm run demo -- FOLDER`,
    )
  }
  await rm(folder, { recursive: true })
}

async function isEmpty(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length === 0
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true
    throw error
  }
}

async function isOurs(folder: string): Promise<boolean> {
  try {
    const store = await openStore(folder, { create: false })
    try {
      for await (const { cause } of store.log({ limit: 1 })) return cause.actor === ACTOR
      return true // Stopped before its first event: nothing is in it.
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
