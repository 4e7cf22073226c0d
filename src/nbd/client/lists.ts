/** LIST and LIST_META_CONTEXT, in a handshake that is under way: asked for their own sake, and to say what there is instead of what is not. */
import type { CheckpointError } from '../../errors.ts'
import { decodeName } from '../options.ts'
import { OPTION, REPLY } from '../wire.ts'
import { broken, exportNotFound, refused, saidBy } from './failures.ts'
import type { Talk } from './talk.ts'
import type { NbdListed } from './types.ts'
import { contextsData } from './wire.ts'

/** `u32 length | name | description` */
export async function listExports(talk: Talk): Promise<NbdListed[]> {
  const answer = await talk.ask(OPTION.list)
  if (answer.kind === 'refused') throw refused(talk.where, 'LIST', answer.error, answer.said)
  return answer.replies.map(({ reply, data }) => {
    const length = reply === REPLY.server && data.length >= 4 ? data.readUInt32BE() : Number.POSITIVE_INFINITY
    const name = length > data.length - 4 ? null : decodeName(data.subarray(4, 4 + length))
    if (name === null) throw broken(talk.where, 'a list of exports in a wrong shape')
    return { name, description: saidBy(data.subarray(4 + length)) }
  })
}

/** `u32 number | name`; the number means nothing in a list. */
export async function listContexts(talk: Talk, queries: readonly string[] = []): Promise<string[]> {
  const answer = await talk.ask(OPTION.listMetaContext, contextsData(talk.address.name, queries))
  if (answer.kind === 'refused') {
    if (answer.error === REPLY.errUnknown) throw await notFound(talk)
    if (answer.error === REPLY.errUnsupported) return []
    throw refused(talk.where, 'LIST_META_CONTEXT', answer.error, answer.said)
  }
  return answer.replies.map(({ reply, data }) => {
    const name = reply === REPLY.metaContext && data.length > 4 ? decodeName(data.subarray(4)) : null
    if (name === null) throw broken(talk.where, 'a list of contexts in a wrong shape')
    return name
  })
}

/** Leaves, too. */
export async function notFound(talk: Talk): Promise<CheckpointError> {
  const names = await namesListed(talk)
  talk.leave()
  return exportNotFound(talk.where, talk.address.name, names)
}

/** For a message: a server that lists nothing is no further trouble. */
export async function namesListed(talk: Talk): Promise<readonly string[]> {
  try {
    return (await listExports(talk)).map(({ name }) => name)
  } catch {
    return []
  }
}
