/**
 * Certificates of every kind, made by the `openssl` program, and a client that goes on behind STARTTLS. One folder of them is
 * made for a test file: about 30 short runs of openssl.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect } from 'node:tls'
import { readTls } from '../../src/nbd/tls.ts'
import { Client, type MemoryExport, OPT, REP, serving } from './support.ts'

const CONFIG = `
[ca]
default_ca = own
[own]
database = index
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[server]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1
[elsewhere]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.example
[client]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
`
const NOW = ['20200101000000Z', '20990101000000Z'] as const
const PAST = ['20200101000000Z', '20210101000000Z'] as const
const FUTURE = ['20980101000000Z', '20990101000000Z'] as const

export interface Certificates {
  readonly path: (name: string) => string
  readonly pem: (name: string) => string
  /** What libnbd and QEMU take: ca-cert.pem, and the client's certificate and key where there is one. */
  readonly folder: (authority: string, client: string | null) => string
  readonly remove: () => Promise<void>
}

export function makeCertificates(): Certificates {
  const cwd = mkdtempSync(join(tmpdir(), 'slicelog-tls-'))
  const path = (name: string) => join(cwd, name)
  const pem = (name: string) => readFileSync(path(name), 'latin1')
  const openssl = (...words: string[]) => execFileSync('openssl', words, { cwd, stdio: 'pipe' })
  writeFileSync(path('config'), CONFIG)
  writeFileSync(path('index'), '')
  writeFileSync(path('serial'), '1000')
  const ask = (name: string) =>
    openssl(
      ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`],
    )
  const sign = (name: string, kind: string, by: string, [from, to]: readonly [string, string] = NOW) => {
    ask(name)
    const signer = by === name ? ['-selfsign'] : ['-cert', `${by}.pem`]
    openssl(
      ...['ca', '-batch', '-notext', '-config', 'config', '-extensions', kind, '-keyfile', `${by}.key`],
      ...[...signer, '-startdate', from, '-enddate', to, '-in', `${name}.csr`, '-out', `${name}.pem`],
    )
  }
  for (const authority of ['ca', 'other-ca']) sign(authority, 'authority', authority)
  sign('old-ca', 'authority', 'old-ca', PAST)
  sign('server', 'server', 'ca')
  sign('elsewhere', 'elsewhere', 'ca')
  sign('expired', 'server', 'ca', PAST)
  sign('future', 'server', 'ca', FUTURE)
  sign('client', 'client', 'ca')
  sign('stranger', 'client', 'other-ca')
  sign('late-client', 'client', 'ca', PAST)
  sign('self', 'client', 'self')
  openssl('pkey', '-in', 'server.key', '-aes256', '-passout', 'pass:x', '-out', 'locked.key')
  let made = 0
  return {
    path,
    pem,
    folder: (authority, client) => {
      const folder = path(`folder-${++made}`)
      mkdirSync(folder)
      writeFileSync(join(folder, 'ca-cert.pem'), pem(`${authority}.pem`))
      if (client !== null) {
        writeFileSync(join(folder, 'client-cert.pem'), pem(`${client}.pem`))
        writeFileSync(join(folder, 'client-key.pem'), pem(`${client}.key`))
      }
      return folder
    },
    remove: () => rm(cwd, { recursive: true, force: true }),
  }
}

export interface DoorOptions {
  readonly server?: string
  /** Whether clients must show a certificate. */
  readonly checked?: boolean
  readonly required?: boolean
  readonly handshakeMs?: number
}

/** A server with a TLS door on TCP beside its Unix socket; `told` are the reasons that it gave for who was kept out. */
export async function tlsDoor(
  certificates: Certificates,
  disks: readonly MemoryExport[],
  { server = 'server', checked = false, required = true, handshakeMs }: DoorOptions = {},
) {
  const told: string[] = []
  const tls = await readTls({
    certificate: certificates.path(`${server}.pem`),
    key: certificates.path(`${server}.key`),
    required,
    ...(checked ? { clientCa: certificates.path('ca.pem') } : {}),
  })
  const door = await serving(disks, {
    tcp: { port: 0, tls },
    onError: (error) => told.push((error as Error).message),
    ...(handshakeMs === undefined ? {} : { handshakeMs }),
  })
  return { ...door, port: door.tcp!.port, told }
}

/** STARTTLS, and its answer. */
export async function acknowledged(client: Client): Promise<void> {
  const replies = await client.option(OPT.startTls)
  if (replies.at(-1)?.type !== REP.ack) throw new Error('no TLS: the server did not acknowledge STARTTLS')
}

/** Behind TLS, once its handshake is through here; with TLS 1.3 the server may still refuse then. */
export function behindTls(beneath: Client, options: ConnectionOptions): Promise<Client> {
  return new Promise((resolve, reject) => {
    const secured = connect({ socket: beneath.socket, servername: 'localhost', ...options })
    secured.once('secureConnect', () => resolve(new Client(secured)))
    secured.once('error', reject)
    secured.once('close', () => reject(new Error('closed during the handshake')))
  })
}

/** From the greeting to behind TLS. */
export async function secured(port: number, options: ConnectionOptions): Promise<Client> {
  const client = new Client(port)
  await client.greet()
  await acknowledged(client)
  return behindTls(client, options)
}
