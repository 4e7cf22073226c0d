/**
 * The socket's place in the store's folder. Whoever binds it holds the store, so whatever lies there is a dead owner's and is
 * replaced in one step (unix-socket.ts).
 */
import { lstatSync, rmSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import type { Server } from 'node:net'
import { join } from 'node:path'
import { bindPrivate } from './unix-socket.ts'

export const SOCKET_NAME = 'owner.sock'
const MAKING = '.owner-'

export function socketPath(folder: string): string {
  return join(folder, SOCKET_NAME)
}

/** Listens in the store's folder. Only for the process that holds the store. Returns how to take the socket away. */
export async function bind(server: Server, folder: string): Promise<() => void> {
  await removeLeftovers(folder)
  await bindPrivate(server, socketPath(folder), MAKING)
  return () => rmSync(socketPath(folder), { force: true })
}

/** What a killed owner left while it made its socket. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder))
    if (name.startsWith(MAKING)) await rm(join(folder, name), { recursive: true, force: true })
}

/** For whoever holds the store and does not serve it: what lies there is a dead owner's. */
export function removeStaleSocket(folder: string): void {
  try {
    rmSync(socketPath(folder), { force: true })
  } catch {
    // In the way of nobody: an asker that finds no listener opens the store.
  }
}

export function isSocketThere(folder: string): boolean {
  try {
    return lstatSync(socketPath(folder)).isSocket()
  } catch {
    return false
  }
}
