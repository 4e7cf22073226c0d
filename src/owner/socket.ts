/**
 * The socket's place in the store's folder. It is bound in a folder that only its user may enter, closed to others (0600), and
 * then renamed into place: nobody ever sees it open, and a dead owner's socket is replaced in one step. An address of a Unix
 * socket has 108 bytes at most; a longer path is reached through an open descriptor of its folder (/proc/self/fd, Linux).
 */
import { chmodSync, closeSync, constants, lstatSync, openSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import type { Server } from 'node:net'
import { join } from 'node:path'

export const SOCKET_NAME = 'owner.sock'
const MAKING = '.owner-'
/** sockaddr_un has 108 bytes with the final zero, and 104 on some systems. */
const ADDRESS_BYTES_MAX = 103

export function socketPath(folder: string): string {
  return join(folder, SOCKET_NAME)
}

/** A path to `name` in `folder` that fits into an address. `release` when the address is not needed any more. */
export function addressOf(
  folder: string,
  name: string,
): { readonly address: string; readonly release: () => void } {
  const path = join(folder, name)
  if (Buffer.byteLength(path) <= ADDRESS_BYTES_MAX || process.platform !== 'linux')
    return { address: path, release: () => undefined }
  const descriptor = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  return { address: `/proc/self/fd/${descriptor}/${name}`, release: () => closeSync(descriptor) }
}

/** Listens in the store's folder. Only for the process that holds the store. Returns how to take the socket away. */
export async function bind(server: Server, folder: string): Promise<() => void> {
  await removeLeftovers(folder)
  const making = await mkdtemp(join(folder, MAKING))
  const { address, release } = addressOf(making, 's')
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(address, () => {
        server.off('error', reject)
        resolve()
      })
    })
    chmodSync(join(making, 's'), 0o600)
    renameSync(join(making, 's'), socketPath(folder))
  } catch (error) {
    release()
    await rm(making, { recursive: true, force: true })
    throw error
  }
  rmdirSync(making)
  // Node removes the address it bound when the server closes: until then the descriptor must not come to mean another folder.
  server.once('close', release)
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
