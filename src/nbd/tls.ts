/**
 * TLS on the TCP door: certificate, key and the authority that vouches for clients are read and checked once, before anything is
 * served; then each connection that asks for it is upgraded. Who may come in is decided by Node's own TLS server, one for each
 * connection, because no other way of Node's both knows its connection and checks the client's certificate by public means.
 * Costs a client some milliseconds at its start (key and certificate are parsed again), and a secure context while it stays.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { createReadStream } from 'node:fs'
import type { Socket } from 'node:net'
import { createSecureContext, createServer, type TLSSocket, type TlsOptions } from 'node:tls'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { Disconnected } from './input.ts'

/** PEM files. They are read once: a renewed certificate is served after a restart. */
export interface NbdTlsFiles {
  /** The server's certificate, then those between it and its root. */
  readonly certificate: string
  /** Its key, without a passphrase. */
  readonly key: string
  /** Only clients with a certificate that one of these signed are let in. Left out: TLS hides what is sent, and lets in whoever comes. */
  readonly clientCa?: string
  /** False: clients that do not ask for TLS are served without. Default: true, every option but STARTTLS and ABORT is refused before it. */
  readonly required?: boolean
}

/** What is told of it. */
export interface NbdTlsFacts {
  readonly required: boolean
  /** Whether clients must show a certificate. */
  readonly clientCertificates: boolean
  /** When the first of the server's certificates ends (milliseconds since the epoch): from then on clients refuse it. */
  readonly expires: number
}

export interface Tls {
  readonly facts: NbdTlsFacts
  /**
   * From the first byte that nobody has read from the socket on. `take` gets what is to be used from then on, in the very moment:
   * Node crashes when both sockets are destroyed within it, so nobody may touch the one beneath any more. Ends with the socket
   * beneath, however long the client takes.
   * @throws Disconnected when the client went away; Error, with the reason, when it cannot be let in
   */
  upgrade(socket: Socket, take: (secured: TLSSocket) => void): Promise<void>
}

/** @throws TypeError for what cannot be meant */
export function checkTlsFiles(tls: unknown): asserts tls is NbdTlsFiles | undefined {
  if (tls === undefined) return
  if (typeof tls !== 'object' || tls === null)
    throw new TypeError('tls must be { certificate, key, clientCa?, required? }')
  const { certificate, key, clientCa, required } = tls as Record<string, unknown>
  const path = (value: unknown): boolean => typeof value === 'string' && value !== ''
  if (!path(certificate) || !path(key))
    throw new TypeError('tls needs certificate and key, the paths of PEM files')
  if (clientCa !== undefined && !path(clientCa))
    throw new TypeError('clientCa must be the path of a PEM file')
  if (required !== undefined && typeof required !== 'boolean')
    throw new TypeError('required must be a boolean')
  if (clientCa !== undefined && required === false)
    throw new TypeError('clientCa keeps nobody out while required is false: leave out the one or the other')
}

/**
 * Reads and checks what a door is to be served with.
 * @throws CheckpointError TLS_INVALID: a file that cannot be read or is of no such kind, a key of another certificate, a
 * certificate that is not valid now (every client would refuse it, and say so less clearly)
 */
export async function readTls({ certificate, key, clientCa, required = true }: NbdTlsFiles): Promise<Tls> {
  const cert = await contentOf(certificate)
  const chain = certificatesIn(certificate, cert)
  const now = Date.now()
  for (const one of chain) refuseUntimely(certificate, one, now)
  const keyText = await contentOf(key)
  if (!chain[0]!.certificate.checkPrivateKey(privateKeyIn(key, keyText)))
    throw invalid(key, 'key-mismatch', `is not the key of the first certificate in ${certificate}`)
  const ca = clientCa === undefined ? undefined : await contentOf(clientCa)
  if (ca !== undefined) {
    const authorities = certificatesIn(clientCa!, ca)
    const timely = authorities.some(({ from, to }) => from <= now && now <= to)
    if (!timely) refuseUntimely(clientCa!, authorities[0]!, now)
  }
  const options: TlsOptions = {
    cert,
    key: keyText,
    minVersion: 'TLSv1.2',
    requestCert: ca !== undefined,
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
  }
  try {
    createSecureContext(options)
  } catch (cause) {
    // Too weak for this system's OpenSSL, for example.
    throw invalid(certificate, 'refused', `cannot be served with: ${reasonOf(cause)}`, cause)
  }
  const expires = Math.min(...chain.map(({ to }) => to))
  return {
    facts: { required, clientCertificates: ca !== undefined, expires },
    upgrade: (socket, take) => upgrade(options, socket, take),
  }
}

function upgrade(options: TlsOptions, socket: Socket, take: (secured: TLSSocket) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer(options, (secured) => {
      secured.on('error', () => undefined) // 'close' follows, and ends what is here.
      secured.disableRenegotiation()
      secured.allowHalfOpen = true // Who has said its last still reads what it asked for.
      take(secured)
      resolve()
    })
    server.once('tlsClientError', (error, { authorizationError }) => {
      const why: unknown = authorizationError ?? (isGone(error) ? null : reasonOf(error))
      reject(
        why === null
          ? new Disconnected('the client left during its TLS handshake')
          : new Error(`TLS handshake: ${why}`),
      )
    })
    socket.allowHalfOpen = false // Who ends before TLS is there has nothing to read.
    server.emit('connection', socket)
  })
}

function isGone(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ECONNRESET' || code === 'EPIPE'
}

/** OpenSSL's messages begin with a thread's number and end in a line of its source; the reason is between. */
function reasonOf(error: unknown): string {
  const { reason, message } = error as { readonly reason?: unknown; readonly message?: unknown }
  return String(typeof reason === 'string' ? reason : message)
}

interface Dated {
  readonly certificate: X509Certificate
  readonly from: number
  readonly to: number
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

function certificatesIn(file: string, text: string): readonly Dated[] {
  try {
    const all = [...text.matchAll(CERTIFICATE)].map(([pem]) => new X509Certificate(pem))
    if (all.length > 0)
      return all.map((certificate) => ({
        certificate,
        from: Date.parse(certificate.validFrom),
        to: Date.parse(certificate.validTo),
      }))
  } catch (cause) {
    throw invalid(
      file,
      'not-a-certificate',
      `holds a certificate that cannot be read: ${reasonOf(cause)}`,
      cause,
    )
  }
  throw invalid(file, 'not-a-certificate', 'holds no certificate in PEM')
}

function refuseUntimely(file: string, { certificate, from, to }: Dated, now: number): void {
  if (now > to)
    throw invalid(file, 'expired', `holds a certificate that expired at ${certificate.validTo}; renew it`)
  // Also where a date cannot be read.
  if (!(from <= now && now <= to))
    throw invalid(
      file,
      'not-yet-valid',
      `holds a certificate that is valid from ${certificate.validFrom} on; is the clock right?`,
    )
}

function privateKeyIn(file: string, text: string): KeyObject {
  if (/^-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(text))
    throw invalid(file, 'encrypted-key', 'is locked by a passphrase; `openssl pkey` unlocks it')
  try {
    return createPrivateKey(text)
  } catch (cause) {
    throw invalid(file, 'not-a-key', 'holds no private key in PEM', cause)
  }
}

async function contentOf(file: string): Promise<string> {
  const chunks: Buffer[] = []
  try {
    // One byte beyond the most that is taken: a device never ends.
    const stream = createReadStream(file, { end: limits.nbdTlsFileBytesMax }) as AsyncIterable<Buffer>
    for await (const chunk of stream) chunks.push(chunk)
  } catch (cause) {
    throw invalid(file, 'unreadable', `cannot be read: ${reasonOf(cause)}`, cause)
  }
  const content = Buffer.concat(chunks)
  if (content.length > limits.nbdTlsFileBytesMax)
    throw invalid(file, 'too-large', `has more than ${limits.nbdTlsFileBytesMax} bytes`)
  return content.toString('latin1')
}

function invalid(file: string, why: string, words: string, cause?: unknown): CheckpointError {
  return new CheckpointError(
    'TLS_INVALID',
    `nothing is served with TLS: ${file} ${words}`,
    { file, why },
    cause,
  )
}
