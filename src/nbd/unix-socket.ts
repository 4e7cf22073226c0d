/**
 * A server's Unix socket at a path that its user chose. Bound in a folder beside it that only the user may enter, closed to
 * others (0600), then renamed into place: nobody ever sees it open. What a dead server left there is replaced; a socket that
 * somebody answers, and anything that is no socket, is not.
 */
import { chmodSync, lstatSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection, type Server } from 'node:net'
import { basename, dirname, join, resolve } from 'node:path'
import { CheckpointError } from '../errors.ts'
import { addressOf } from '../owner/socket.ts'

/**
 * Listens there. Resolves to how to take the socket away again, which leaves alone what another server put in its place.
 * @throws CheckpointError ADDRESS_IN_USE, or whatever the file system says
 */
export async function bindUnix(server: Server, path: string): Promise<() => void> {
  const place = resolve(path)
  await refuseTaken(place)
  const making = await mkdtemp(join(dirname(place), '.nbd-'))
  const { address, release } = addressOf(making, 's')
  try {
    await listening(server, () => server.listen(address))
    chmodSync(join(making, 's'), 0o600)
    renameSync(join(making, 's'), place)
  } catch (error) {
    server.close()
    release()
    await rm(making, { recursive: true, force: true })
    throw error
  }
  rmdirSync(making)
  // Node removes the address it bound when the server closes: until then the descriptor must not come to mean another folder.
  server.once('close', release)
  const { ino, dev } = lstatSync(place)
  return () => {
    const there = lstatSync(place, { throwIfNoEntry: false })
    if (there?.ino === ino && there.dev === dev) rmSync(place, { force: true })
  }
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

async function refuseTaken(place: string): Promise<void> {
  const there = lstatSync(place, { throwIfNoEntry: false })
  if (there === undefined) return
  const why = there.isSocket() ? 'another server answers there' : 'something that is no socket lies there'
  if (there.isSocket() && !(await isAnswered(place))) return
  throw new CheckpointError('ADDRESS_IN_USE', `nothing can be served at ${place}: ${why}`, {
    address: place,
    why: there.isSocket() ? 'answered' : 'not-a-socket',
  })
}

/** Whether somebody listens. What cannot be asked (no rights) counts as answered: it is not ours to replace. */
async function isAnswered(place: string): Promise<boolean> {
  const { address, release } = addressOf(dirname(place), basename(place))
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
