/**
 * NBD URIs, as libnbd reads them (NetworkBlockDevice/nbd, doc/uri.md): where a server is, which export, and TLS. What cannot
 * be done here (vsock, ssh, pre-shared keys) is refused by name instead of being read as something near to it.
 */
import { CheckpointError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { type Address, NBD_PORT, type Place } from './address.ts'
import type { NbdClientTls } from './types.ts'

/** RFC 3986, appendix B: scheme, authority, path, query, fragment. */
const PARTS = /^([^:/?#]+):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/s
const AUTHORITY = /^(?:([^@]*)@)?(\[[^\]]*\]|[^:]*)(?::(\d*))?$/

const SHAPES = 'nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH, nbds and nbds+unix with TLS'

/** @throws CheckpointError NBD_URI_INVALID */
export function parseNbdUri(uri: string): Address {
  if (typeof uri !== 'string') throw new TypeError('an NBD URI must be a string')
  const found = PARTS.exec(uri)
  if (found === null) throw invalid(uri, `it is no URI; write ${SHAPES}`)
  const [, scheme = '', authority = '', path = '', query = '', fragment] = found
  if (fragment !== undefined) throw invalid(uri, `it has a fragment; write # as %23`)
  const [transport, tls] = schemeOf(uri, scheme)
  const asked = queryOf(uri, query)
  return {
    place: transport === 'unix' ? unixPlace(uri, authority, asked) : tcpPlace(uri, authority, asked),
    name: nameOf(uri, path),
    tls: tlsOf(uri, tls, asked),
  }
}

function invalid(uri: string, why: string): CheckpointError {
  return new CheckpointError('NBD_URI_INVALID', `"${uri}" cannot be used as an NBD URI: ${why}`, { uri, why })
}

function schemeOf(uri: string, scheme: string): readonly ['tcp' | 'unix', boolean] {
  switch (scheme.toLowerCase()) {
    case 'nbd':
      return ['tcp', false]
    case 'nbds':
      return ['tcp', true]
    case 'nbd+unix':
      return ['unix', false]
    case 'nbds+unix':
      return ['unix', true]
    default:
      throw invalid(uri, `the scheme ${scheme} is not known here; write ${SHAPES}`)
  }
}

/** A plus sign is a plus sign: URIs of NBD are no forms of a web page. */
function decoded(uri: string, text: string): string {
  try {
    const plain = decodeURIComponent(text)
    if (!plain.includes('\0')) return plain
  } catch {
    // Told below.
  }
  throw invalid(uri, `"${text}" is not percent-escaped UTF-8; write a percent sign as %25`)
}

/** Names that are not known are passed over, as the specification wants; one that is there twice is a mistake. */
function queryOf(uri: string, query: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const pair of query.split(/[&;]/)) {
    if (pair === '') continue
    const at = pair.indexOf('=')
    const name = decoded(uri, at < 0 ? pair : pair.slice(0, at)).toLowerCase()
    if (found.has(name)) throw invalid(uri, `it says ${name} twice; say it once`)
    found.set(name, decoded(uri, at < 0 ? '' : pair.slice(at + 1)))
  }
  return found
}

function unixPlace(uri: string, authority: string, asked: ReadonlyMap<string, string>): Place {
  if (authority !== '')
    throw invalid(uri, `a Unix socket has no host; write three slashes: nbd+unix:///EXPORT?socket=PATH`)
  const path = asked.get('socket') ?? ''
  if (path === '') throw invalid(uri, 'it does not say where the Unix socket is; add ?socket=PATH')
  return { kind: 'unix', path }
}

function tcpPlace(uri: string, authority: string, asked: ReadonlyMap<string, string>): Place {
  if (asked.has('socket')) throw invalid(uri, 'a socket goes with nbd+unix:///EXPORT?socket=PATH')
  const found = AUTHORITY.exec(authority)
  if (found === null)
    throw invalid(uri, `"${authority}" is no host and port; IPv6 goes in brackets: [::1]:10809`)
  const [, user, bracketed = '', digits = ''] = found
  if (user !== undefined) throw invalid(uri, 'users and passwords are not known here; leave them out')
  const port = digits === '' ? NBD_PORT : Number(digits)
  if (port < 1 || port > 65_535) throw invalid(uri, `port ${digits} is not from 1 to 65535`)
  const host = decoded(uri, bracketed.startsWith('[') ? bracketed.slice(1, -1) : bracketed)
  if (bracketed.startsWith('[') && !host.includes(':')) throw invalid(uri, `${bracketed} is no IPv6 address`)
  return { kind: 'tcp', host: host === '' ? 'localhost' : host, port }
}

function nameOf(uri: string, path: string): string {
  const name = decoded(uri, path.startsWith('/') ? path.slice(1) : path)
  if (Buffer.byteLength(name) > limits.nbdNameBytesMax)
    throw invalid(uri, `the name of an export has ${limits.nbdNameBytesMax} bytes at most`)
  return name
}

function tlsOf(uri: string, wanted: boolean, asked: ReadonlyMap<string, string>): NbdClientTls | null {
  const given = [...asked.keys()].find((name) => name.startsWith('tls-'))
  if (!wanted) {
    if (given !== undefined) throw invalid(uri, `${given} goes with nbds or nbds+unix`)
    return null
  }
  if (asked.has('tls-psk-file')) throw invalid(uri, 'pre-shared keys are not known here; use certificates')
  const folder = asked.get('tls-certificates')
  const hostname = asked.get('tls-hostname')
  const verify = asked.get('tls-verify-peer')
  if (verify !== undefined && !/^(true|false|1|0)$/.test(verify))
    throw invalid(uri, 'tls-verify-peer is true or false')
  return {
    ...(folder === undefined ? {} : { folder }),
    ...(hostname === undefined ? {} : { hostname }),
    ...(verify === undefined ? {} : { verify: verify === 'true' || verify === '1' }),
  }
}
