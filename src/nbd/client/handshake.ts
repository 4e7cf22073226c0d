/**
 * From a greeting to an export: TLS, structured replies, meta contexts, GO, in that order, with what older servers have instead.
 * Nothing is taken for granted: what is agreed is what the server said, checked.
 */
import { CheckpointError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { Disconnected } from '../input.ts'
import { INFO, OPTION, REPLY, TRANSMISSION } from '../wire.ts'
import { broken, contextMissing, exportNotFound, refused } from './failures.ts'
import { listContexts, namesListed, notFound } from './lists.ts'
import type { OptionReply, Talk } from './talk.ts'
import type { NbdBlockSize } from './types.ts'
import { contextsData, infoData, readNumber } from './wire.ts'

export interface Agreed {
  readonly size: number
  readonly flags: number
  readonly blockSize: NbdBlockSize
  readonly structured: boolean
  /** Names of the contexts by their number on this connection. */
  readonly contexts: ReadonlyMap<number, string>
}

/** Where a server says nothing of it (doc/proto.md, "Block size constraints"). */
const BLOCK_SIZE_DEFAULT: NbdBlockSize = { minimum: 1, preferred: 4096, maximum: limits.nbdPayloadBytesMax }

/**
 * @throws CheckpointError NBD_EXPORT_NOT_FOUND, NBD_CONTEXT_MISSING, NBD_REFUSED, NBD_TLS_FAILED, NBD_PROTOCOL, SIZE_INVALID; Disconnected
 */
export async function agree(talk: Talk, wanted: readonly string[]): Promise<Agreed> {
  await talk.startTls()
  const structured = talk.fixed && (await talk.agreeStructured())
  const contexts = wanted.length === 0 ? new Map<number, string>() : await choose(talk, wanted, structured)
  const chosen = await choice(talk)
  if (chosen.size > limits.diskBytesMax)
    throw new CheckpointError(
      'SIZE_INVALID',
      `a disk of ${chosen.size} bytes is larger than can be handled here`,
      {
        size: chosen.size,
      },
    )
  if ((chosen.flags & TRANSMISSION.hasFlags) === 0) throw broken(talk.where, 'an export without flags')
  if (chosen.size % chosen.blockSize.minimum !== 0)
    throw broken(talk.where, `${chosen.size} bytes are no multiple of its block size`)
  return { ...chosen, structured, contexts }
}

type Choice = Pick<Agreed, 'size' | 'flags' | 'blockSize'>

async function choice(talk: Talk): Promise<Choice> {
  if (!talk.fixed) return exportName(talk, [])
  const { name } = talk.address
  const answer = await talk.ask(OPTION.go, infoData(name, [INFO.blockSize]))
  if (answer.kind === 'acknowledged') return infos(talk, answer.replies)
  switch (answer.error) {
    case REPLY.errUnsupported:
      return exportName(talk, await namesListed(talk))
    case REPLY.errUnknown:
      throw await notFound(talk)
    default:
      throw refused(talk.where, 'GO', answer.error, answer.said)
  }
}

/** The old way in: a server that has no such export can only hang up. */
async function exportName(talk: Talk, names: readonly string[]): Promise<Choice> {
  const { name } = talk.address
  talk.send(OPTION.exportName, Buffer.from(name))
  let head: Buffer
  try {
    head = await talk.bytes(10)
  } catch (error) {
    throw error instanceof Disconnected ? exportNotFound(talk.where, name, names) : error
  }
  if (!talk.noZeroes) await talk.bytes(124)
  return { size: readNumber(head, 0), flags: head.readUInt16BE(8), blockSize: BLOCK_SIZE_DEFAULT }
}

/** `u16 type`, then EXPORT: `u64 size | u16 flags`, BLOCK_SIZE: `u32 minimum | u32 preferred | u32 maximum`. Others are passed over. */
function infos(talk: Talk, replies: readonly OptionReply[]): Choice {
  let found: { size: number; flags: number } | null = null
  let blockSize = BLOCK_SIZE_DEFAULT
  for (const { reply, data } of replies) {
    if (reply !== REPLY.info || data.length < 2) throw broken(talk.where, `reply ${reply} to GO`)
    switch (data.readUInt16BE()) {
      case INFO.export:
        if (data.length !== 12) throw broken(talk.where, 'an export in a wrong shape')
        found = { size: readNumber(data, 2), flags: data.readUInt16BE(10) }
        break
      case INFO.blockSize:
        blockSize = blockSizeIn(talk, data)
    }
  }
  if (found === null) throw broken(talk.where, 'GO without an export')
  return { ...found, blockSize }
}

function blockSizeIn(talk: Talk, data: Buffer): NbdBlockSize {
  if (data.length !== 14) throw broken(talk.where, 'block sizes in a wrong shape')
  const minimum = data.readUInt32BE(2)
  const preferred = data.readUInt32BE(6)
  const most = Math.min(data.readUInt32BE(10), limits.nbdPayloadBytesMax)
  const maximum = most - (most % (minimum || 1))
  if (!isPowerOfTwo(minimum) || maximum < minimum || preferred < minimum)
    throw broken(talk.where, `block sizes that cannot be: ${minimum}, ${preferred}, ${data.readUInt32BE(10)}`)
  return { minimum, preferred, maximum }
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value))
}

/** SET_META_CONTEXT. All of them, or none: whoever reads a map must not find later that it is not there. */
async function choose(
  talk: Talk,
  wanted: readonly string[],
  structured: boolean,
): Promise<ReadonlyMap<number, string>> {
  const { where } = talk
  const { name } = talk.address
  if (!structured) {
    if (talk.fixed) talk.leave()
    throw contextMissing(where, name, wanted, [], 'the server has no structured replies')
  }
  const answer = await talk.ask(OPTION.setMetaContext, contextsData(name, wanted))
  if (answer.kind === 'refused') {
    if (answer.error === REPLY.errUnknown) throw await notFound(talk)
    if (answer.error !== REPLY.errUnsupported)
      throw refused(talk.where, 'SET_META_CONTEXT', answer.error, answer.said)
    talk.leave()
    throw contextMissing(where, name, wanted, [], 'the server has no meta contexts')
  }
  const granted = new Map<number, string>()
  const names = new Set<string>()
  for (const { reply, data } of answer.replies) {
    const context = reply === REPLY.metaContext && data.length > 4 ? data.toString('utf8', 4) : null
    if (context === null) throw broken(where, `reply ${reply} to SET_META_CONTEXT`)
    if (!wanted.includes(context) || names.has(context))
      throw broken(where, `a context that was not asked for: ${context}`)
    if (granted.has(data.readUInt32BE())) throw broken(where, 'two contexts with one number')
    granted.set(data.readUInt32BE(), context)
    names.add(context)
  }
  const missing = wanted.filter((context) => !names.has(context))
  if (missing.length === 0) return granted
  const there = await listContexts(talk).catch(() => [])
  talk.leave()
  throw contextMissing(where, name, missing, there, 'the server did not grant it')
}
