/** What `serve` says: where, how, how much so far, and at its end; as JSON for programs, in words for people. */
import type { LostStretch } from '../../events/types.ts'
import type { ServedNbd } from '../nbd/serve.ts'
import type { NbdTcpDoor } from '../nbd/server.ts'
import type { NbdTlsFacts } from '../nbd/tls.ts'
import type { Durability } from '../store/types.ts'
import type { Paint } from './render/paint.ts'
import { facts, table } from './render/table.ts'
import * as text from './render/text.ts'

/** What was found lost when a disk was attached. */
export type LostOf = (disk: string) => readonly LostStretch[]

/** What was asked for, as far as people are told it. */
interface Words {
  readonly durability: Durability
  readonly readOnly?: boolean
  readonly bitmap?: string
}

export function readyShape(served: ServedNbd, durability: Durability, lost: LostOf) {
  return {
    ready: true,
    durability,
    nbd: { socket: served.socket, tcp: served.tcp === null ? null : tcpShape(served.tcp) },
    disks: served.disks.map(({ name, disk, file, size, readOnly, uris }) => ({
      disk,
      name,
      file,
      size,
      'read-only': readOnly,
      lost: lost(disk),
      uris,
    })),
  }
}

function tcpShape({ host, port, tls }: NbdTcpDoor) {
  return {
    host,
    port,
    tls:
      tls === null
        ? null
        : {
            required: tls.required,
            'client-certificates': tls.clientCertificates,
            expires: tls.expires,
          },
  }
}

export function countsShape(served: ServedNbd) {
  const counts = served.counts()
  return {
    clients: counts.connected,
    connections: counts.connections,
    refused: counts.refused,
    reads: counts.reads,
    'read-bytes': counts.readBytes,
    writes: counts.writes,
    'written-bytes': counts.writtenBytes,
    flushes: counts.flushes,
    errors: counts.errors,
  }
}

export function ready(paint: Paint, served: ServedNbd, { durability, readOnly, bitmap }: Words): string {
  const disks = table(
    paint,
    ['disk', '>size', 'file'],
    served.disks.map(({ disk, size, file }) => [disk, text.bytes(size), file]),
  )
  const tls = served.tcp?.tls ?? null
  const uris = served.disks.flatMap(({ uris }) => uris.map((uri) => `  ${text.shown(uri)}`))
  const how = facts(paint, [
    ...(tls === null ? [] : [['TLS', tlsWords(tls)] as const]),
    ['writes', readOnly === true ? 'refused (--read-only)' : `recorded first, level ${durability}`],
    ['ends with', 'Ctrl-C or SIGTERM; every other slicelog command works meanwhile'],
  ])
  const map = bitmap === undefined ? '--list' : `--map=${quoted(`qemu:dirty-bitmap:${bitmap}`)}`
  const uri = served.disks[0]!.uris[0]!
  // libnbd is told in the URI what it trusts, and as whom it comes.
  const trusting = uri.startsWith('nbds:') ? `${uri}?tls-certificates=DIR` : uri
  const look = `  nbdinfo ${map} ${quoted(trusting)}`
  return [disks, '', 'Served at:', ...uris, 'Look at the dirty maps:', text.shown(look), '', how].join('\n')
}

function tlsWords({ clientCertificates, expires }: NbdTlsFacts): string {
  const who = clientCertificates ? 'only clients with a certificate' : 'any client'
  return `${who}, on TCP; the server's certificate ends at ${text.time(expires)}`
}

/** As a shell takes it. */
function quoted(words: string): string {
  return /^[\w@%+=:,./-]+$/.test(words) ? words : `'${words.replaceAll("'", `'\\''`)}'`
}

export type Sample = ReturnType<ServedNbd['counts']> & { readonly at: number }

export function rates(from: Sample, to: Sample): string {
  const seconds = Math.max((to.at - from.at) / 1000, 0.001)
  const per = (before: number, after: number): string => text.count(Math.round((after - before) / seconds))
  const flow = (before: number, after: number): string =>
    `${text.bytes(Math.round((after - before) / seconds))}/s`
  const failed = to.errors === 0 ? '' : `  ${text.plural(to.errors, 'error')}`
  return [
    text.plural(to.connected, 'client'),
    `${per(from.writes, to.writes)} writes/s ${flow(from.writtenBytes, to.writtenBytes)}`,
    `${per(from.reads, to.reads)} reads/s ${flow(from.readBytes, to.readBytes)}`,
    `${text.plural(to.writes, 'write')} so far${failed}`,
  ].join('  ')
}

export function totals(served: ServedNbd): string {
  const counts = served.counts()
  const errors = counts.errors === 0 ? '' : `, ${text.plural(counts.errors, 'error')}`
  return `${text.plural(counts.connections, 'connection')}, ${text.plural(counts.writes, 'write')} (${text.bytes(counts.writtenBytes)}), ${text.plural(counts.reads, 'read')} (${text.bytes(counts.readBytes)})${errors}.`
}
