/**
 * The library's way to open a store: with `socket: true` its operator is not locked out while it is open, because every CLI command
 * is then answered by this process (R34). What answers is loaded when somebody asks.
 */
import { openStore as openOnly } from '../store/open.ts'
import { needStore, type Store } from '../store/store.ts'
import type { OpenOptions } from '../store/types.ts'
import type { ServedStore } from './server.ts'
import { removeStaleSocket } from './socket.ts'

export interface OpenStoreOptions extends OpenOptions {
  /** Answer CLI commands on a socket in the store's folder, closed to other users, as long as the store is open. Default false. */
  readonly socket?: boolean
}

/**
 * Opens the store in `folder`, or makes one there (unless `create: false`).
 * @throws CheckpointError STORE_NOT_FOUND, NOT_A_STORE, STORE_IN_USE, FORMAT_TOO_NEW, LOG_DAMAGED, IO_FAILED (also when the
 * folder cannot hold a socket that was asked for: the store is closed again then)
 */
export async function openStore(folder: string, options: OpenStoreOptions = {}): Promise<Store> {
  const { socket } = (options ?? {}) as OpenStoreOptions
  if (socket !== undefined && typeof socket !== 'boolean') throw new TypeError('socket must be a boolean')
  const store = await openOnly(folder, options)
  try {
    if (socket === true) await serveOwner(store)
    else if (store.folder !== null) removeStaleSocket(store.folder)
    return store
  } catch (error) {
    await store.close()
    throw error
  }
}

/**
 * The same for a store that is open: serves it to its own user, until it is closed, or the answer's `close` is called.
 * @throws CheckpointError IO_FAILED when the folder cannot hold a socket; TypeError for a store in memory
 */
export async function serveOwner(store: Store): Promise<ServedStore> {
  needStore(store)
  const { serve } = await import('./server.ts')
  return await serve(store)
}
