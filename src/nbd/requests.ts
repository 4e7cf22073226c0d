/**
 * One request: whether it may be asked (flags, ranges, rights, as QEMU's server answers), what it holds while it runs, and
 * its answer as the buffers that go on the wire. Decides nothing about the bytes: the export does.
 */

import { messageOf } from '../errors.ts'
import { limits } from '../limits.ts'
import { NbdError } from './errors.ts'
import type { NbdContext } from './export.ts'
import type { Session } from './negotiate.ts'
import { RUN_BYTES, type Runs } from './runs.ts'
import {
  type Command,
  dataChunkHeader,
  emptyChunk,
  errorChunk,
  FLAG,
  type Request,
  simpleReply,
  statusChunk,
} from './wire.ts'

/** FUA is let with everything: clients are known to set it on reads too, where it means nothing. */
const FLAGS: Readonly<Record<Command, number>> = {
  read: FLAG.fua | FLAG.df,
  write: FLAG.fua,
  disc: FLAG.fua,
  flush: FLAG.fua,
  trim: FLAG.fua,
  cache: FLAG.fua,
  writeZeroes: FLAG.fua | FLAG.noHole | FLAG.fastZero,
  blockStatus: FLAG.fua | FLAG.reqOne,
}

const WRITING: readonly (Command | null)[] = ['write', 'trim', 'writeZeroes']

/** Why a request cannot be; null when it can. */
export function refusal({ served, structured, contexts }: Session, request: Request): NbdError | null {
  const { command, flags, offset, length } = request
  if (command === null) return invalid(`invalid request type (${request.type}) received`)
  const allowed = FLAGS[command] & ~(structured ? 0 : FLAG.df)
  if ((flags & ~allowed) !== 0)
    return invalid(`unsupported flags for command ${command} (got 0x${flags.toString(16)})`)
  if (served.readOnly && WRITING.includes(command))
    return new NbdError('EPERM', `export '${served.name}' is read-only`)
  if (command === 'flush' || command === 'disc') return null // What they give as a range means nothing.
  if (command === 'read' && length > limits.nbdPayloadBytesMax)
    return invalid(`len (${length}) is larger than max len (${limits.nbdPayloadBytesMax})`)
  if (offset + length > served.size)
    return invalid(`operation past EOF; From: ${offset}, Len: ${length}, Size: ${served.size}`)
  if (command === 'blockStatus') {
    if (contexts.length === 0) return invalid('CMD_BLOCK_STATUS not negotiated')
    if (length === 0) return invalid('need non-zero length')
  }
  return null
}

function invalid(message: string): NbdError {
  return new NbdError('EINVAL', message)
}

/** Bytes that a request holds at most from now until its answer has left. */
export function weight({ contexts }: Session, { command, flags, length }: Request): number {
  if (command === 'read' || command === 'write') return length
  if (command !== 'blockStatus') return 0
  const runs = (flags & FLAG.reqOne) !== 0 ? 1 : Math.min(limits.nbdExtentsMax, Math.ceil(length / 512))
  // One list while it is made, and what it outgrew; then each context's on the wire.
  return runs * RUN_BYTES * (3 + contexts.length)
}

/** Does it. `data` is what came with a write. @throws whatever the export throws */
export async function perform(
  session: Session,
  request: Request,
  data: Buffer | null,
): Promise<Uint8Array[]> {
  const { served, structured } = session
  const { command, cookie, offset, length, flags } = request
  const fua = (flags & FLAG.fua) !== 0
  switch (command) {
    case 'read': {
      const bytes = length === 0 ? new Uint8Array(0) : await served.read(offset, length)
      if (bytes.length !== length) throw new NbdError('EIO', `read ${bytes.length} of ${length} bytes`)
      if (!structured) return [simpleReply(cookie, null), bytes]
      return length === 0 ? [emptyChunk(cookie)] : [dataChunkHeader(cookie, offset, length), bytes]
    }
    case 'write':
      if (length > 0) await served.write(offset, data!, fua)
      break
    case 'writeZeroes':
      if ((flags & FLAG.fastZero) !== 0)
        throw new NbdError('ENOTSUP', 'zeroes are not faster than a write here')
      if (length > 0) await served.writeZeroes(offset, length, { fua, noHole: (flags & FLAG.noHole) !== 0 })
      break
    case 'trim':
      if (length > 0) await served.trim(offset, length, fua)
      break
    case 'flush':
      await served.flush()
      break
    case 'cache':
      if (length > 0) await served.cache(offset, length)
      break
    case 'blockStatus':
      return blockStatus(session.contexts, request)
    case 'disc':
    case null:
      throw new NbdError('EINVAL', `invalid request type (${request.type}) received`)
    default:
      return command satisfies never
  }
  return [simpleReply(cookie, null)]
}

/** One chunk for each context, made one after the other: only one list is held besides what goes on the wire. */
async function blockStatus(contexts: readonly NbdContext[], request: Request): Promise<Uint8Array[]> {
  const { cookie, offset, length } = request
  const one = (request.flags & FLAG.reqOne) !== 0
  const max = one ? 1 : limits.nbdExtentsMax
  const chunks: Uint8Array[] = []
  for (const [id, context] of contexts.entries()) {
    const found = await context.status(offset, length, max)
    check(context, found, max, one ? length : null)
    chunks.push(statusChunk(cookie, id, found, id === contexts.length - 1))
  }
  return chunks
}

/** A wrong answer would make clients skip or copy the wrong bytes: better an error. */
function check(context: NbdContext, found: Runs, max: number, lengthMax: number | null): void {
  const fine =
    found.count >= 1 && found.count <= max && (lengthMax === null || found.bytesOfFirst <= lengthMax)
  if (!fine) throw new NbdError('EIO', `context ${context.name} gave no answer that can be told`)
}

/** An error as the client can read it: with its reason where structured replies were agreed. */
export function errorReply(session: Session, { cookie }: Request, error: unknown): Uint8Array[] {
  const errno = error instanceof NbdError ? error.errno : 'EIO'
  if (!session.structured) return [simpleReply(cookie, errno)]
  return [errorChunk(cookie, errno, messageOf(error))]
}
