/**
 * A server's Unix socket at a path that its user chose. What a dead server left there is replaced; a socket that somebody answers,
 * and anything that is no socket, is not. So is what one left beside it that was killed while it made its socket: found by its
 * name, a minute old at least, with nothing in it but that socket.
 */
import { lstatSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import type { Server } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { CheckpointError } from '../errors.ts'
import { bindPrivate, isAnswered, MAKING_NAME } from '../owner/unix-socket.ts'

const MAKING = '.nbd-'
const LEFTOVER = /^\.nbd-[A-Za-z0-9]{6}$/
const LEFTOVER_MS = 60_000

/**
 * Listens there. Resolves to how to take the socket away again, which leaves alone what another server put in its place.
 * @throws CheckpointError ADDRESS_IN_USE, or whatever the file system says
 */
export async function bindUnix(server: Server, path: string): Promise<() => void> {
  const place = resolve(path)
  await refuseTaken(place)
  await removeLeftovers(dirname(place))
  await bindPrivate(server, place, MAKING)
  const { ino, dev } = lstatSync(place)
  return () => {
    const there = lstatSync(place, { throwIfNoEntry: false })
    if (there?.ino === ino && there.dev === dev) rmSync(place, { force: true })
  }
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

/** Never throws: what cannot be looked at or taken away is in nobody's way. */
async function removeLeftovers(folder: string): Promise<void> {
  const names = quietly(() => readdirSync(folder)) ?? []
  for (const name of names) if (LEFTOVER.test(name)) await removeLeftover(join(folder, name))
}

async function removeLeftover(leftover: string): Promise<void> {
  const made = quietly(() => lstatSync(leftover))
  if (made === null || !made.isDirectory() || made.mtimeMs > Date.now() - LEFTOVER_MS) return
  const names = quietly(() => readdirSync(leftover))
  if (names === null || names.some((name) => name !== MAKING_NAME)) return
  const socket = join(leftover, MAKING_NAME)
  if (names.length > 0) {
    if (quietly(() => lstatSync(socket))?.isSocket() !== true || (await isAnswered(socket))) return
    quietly(() => rmSync(socket))
  }
  // Only of an empty one.
  quietly(() => rmdirSync(leftover))
}

function quietly<T>(look: () => T): T | null {
  try {
    return look()
  } catch {
    return null
  }
}
