/**
 * A Unix socket at a place in a folder, as everybody here makes one. It is bound in a folder beside its place that only its user
 * may enter, closed to others (0600), then renamed into place: nobody ever sees it open, and what lay there is replaced in one
 * step. Whether it may be replaced is the caller's to say. An address of a Unix socket has 108 bytes at most; a longer path is
 * reached through an open descriptor of its folder (/proc/self/fd, Linux).
 */
import { chmodSync, closeSync, constants, openSync, renameSync, rmdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection, type Server } from 'node:net'
import { basename, dirname, join } from 'node:path'

/** sockaddr_un has 108 bytes with the final zero, and 104 on some systems. */
const ADDRESS_BYTES_MAX = 103
/** The socket's name until it is in its place. */
export const MAKING_NAME = 's'

/** A path to `name` in `folder` that fits into an address. `release` when the address is not needed any more. */
export function shortAddress(
  folder: string,
  name: string,
): { readonly address: string; readonly release: () => void } {
  const path = join(folder, name)
  if (Buffer.byteLength(path) <= ADDRESS_BYTES_MAX || process.platform !== 'linux')
    return { address: path, release: () => undefined }
  const descriptor = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  return { address: `/proc/self/fd/${descriptor}/${name}`, release: () => closeSync(descriptor) }
}

/** Listens at `place`, whatever lies there. The folder it is made in is `making` and six signs. @throws what the file system says */
export async function bindPrivate(server: Server, place: string, making: string): Promise<void> {
  const folder = await mkdtemp(join(dirname(place), making))
  const { address, release } = shortAddress(folder, MAKING_NAME)
  try {
    await listening(server, () => server.listen(address))
    chmodSync(join(folder, MAKING_NAME), 0o600)
    renameSync(join(folder, MAKING_NAME), place)
  } catch (error) {
    server.close()
    release()
    await rm(folder, { recursive: true, force: true })
    throw error
  }
  rmdirSync(folder)
  // Node removes the address it bound when the server closes: until then the descriptor must not come to mean another folder.
  server.once('close', release)
}

export function listening(server: Server, listen: () => void): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', fail)
    server.once('listening', () => {
      server.off('error', fail)
      done()
    })
    listen()
  })
}

/** Whether somebody listens. What cannot be asked (no rights) counts as answered: it is not ours to replace. */
export async function isAnswered(place: string): Promise<boolean> {
  const { address, release } = shortAddress(dirname(place), basename(place))
  try {
    return await new Promise((answer) => {
      const socket = createConnection(address)
      socket.once('connect', () => {
        socket.destroy()
        answer(true)
      })
      socket.once('error', (error: NodeJS.ErrnoException) => {
        answer(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT')
      })
    })
  } finally {
    release()
  }
}
