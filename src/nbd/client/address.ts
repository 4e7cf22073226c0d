/** Where a server listens, apart from the ways to say it: a target or a URI becomes this one value before anything is connected. */
import { limits } from '../../limits.ts'
import type { NbdClientTls, NbdTarget } from './types.ts'
import { parseNbdUri } from './uri.ts'

export const NBD_PORT = 10_809

export type Place =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }

export interface Address {
  readonly place: Place
  readonly name: string
  /** null: in the clear. */
  readonly tls: NbdClientTls | null
}

/** @throws CheckpointError NBD_URI_INVALID; TypeError, RangeError for a target that is none */
export function addressOf(target: NbdTarget): Address {
  if ('uri' in target) {
    const { place, name, tls } = parseNbdUri(target.uri)
    return { place, name, tls: target.tls === undefined ? tls : { ...tls, ...target.tls } }
  }
  const { name = '', tls = null } = target
  if (typeof name !== 'string') throw new TypeError('name must be a string: the name of an export')
  if (Buffer.byteLength(name) > limits.nbdNameBytesMax)
    throw new RangeError(`the name of an export has ${limits.nbdNameBytesMax} bytes at most`)
  return { place: placeOf(target), name, tls }
}

function placeOf(target: Exclude<NbdTarget, { uri: string }>): Place {
  if ('socket' in target) {
    if (typeof target.socket !== 'string' || target.socket === '')
      throw new TypeError('socket must be the path of a Unix socket')
    return { kind: 'unix', path: target.socket }
  }
  const { host, port = NBD_PORT } = target
  if (typeof host !== 'string' || host === '')
    throw new TypeError('give uri, socket, or host (and port): one of them says where the server is')
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw new RangeError(`port must be a whole number from 1 to 65535, not ${port}`)
  return { kind: 'tcp', host, port }
}

/** As it stands in messages and in the fact `address`. */
export function addressText({ place }: Pick<Address, 'place'>): string {
  if (place.kind === 'unix') return place.path
  return place.host.includes(':') ? `[${place.host}]:${place.port}` : `${place.host}:${place.port}`
}
