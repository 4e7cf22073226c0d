/**
 * The client's end of STARTTLS: the files it trusts and shows, and the upgrade of a socket after the server agreed. Nothing that
 * came before the upgrade is believed afterwards: a socket with bytes left in it is refused before it gets here (Input.release).
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { isIP, type Socket } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, checkServerIdentity, connect, type TLSSocket } from 'node:tls'
import { CheckpointError } from '../../errors.ts'
import { type Address, addressText } from './address.ts'
import type { NbdClientTls } from './types.ts'

export type TlsTrouble = 'required' | 'not-offered' | 'certificate' | 'files'

export function tlsFailed(where: string, why: TlsTrouble, said: string, cause?: unknown): CheckpointError {
  return new CheckpointError(
    'NBD_TLS_FAILED',
    `no TLS with the NBD server at ${where}: ${said}`,
    { address: where, why },
    cause,
  )
}

type Secrets = Pick<ConnectionOptions, 'ca' | 'cert' | 'key'>

/** @throws CheckpointError NBD_TLS_FAILED where a file cannot be read */
export async function readSecrets(where: string, tls: NbdClientTls): Promise<Secrets> {
  const { ca, certificate, key } = { ...filesOf(tls.folder), ...tls }
  if ((certificate === undefined) !== (key === undefined))
    throw tlsFailed(where, 'files', 'certificate and key go together; give both or neither')
  const content = async (file: string): Promise<Buffer> => {
    try {
      return await readFile(file)
    } catch (cause) {
      throw tlsFailed(where, 'files', `${file} cannot be read; give a PEM file`, cause)
    }
  }
  return {
    ...(ca === undefined ? {} : { ca: await content(ca) }),
    ...(certificate === undefined ? {} : { cert: await content(certificate) }),
    ...(key === undefined ? {} : { key: await content(key) }),
  }
}

function filesOf(folder: string | undefined): Pick<NbdClientTls, 'ca' | 'certificate' | 'key'> {
  if (folder === undefined) return {}
  const certificate = join(folder, 'client-cert.pem')
  const ca = join(folder, 'ca-cert.pem')
  if (!existsSync(certificate)) return { ca }
  return { ca, certificate, key: join(folder, 'client-key.pem') }
}

/**
 * From the first byte that nobody has read from the socket on. TLS 1.2 or later. The server's certificate must be signed by an
 * authority that is trusted and carry the host's name (on a Unix socket: `hostname`, if given).
 * @throws CheckpointError NBD_TLS_FAILED
 */
export function upgrade(
  socket: Socket,
  address: Address,
  tls: NbdClientTls,
  secrets: Secrets,
): Promise<TLSSocket> {
  const where = addressText(address)
  const host = tls.hostname ?? (address.place.kind === 'tcp' ? address.place.host : null)
  return new Promise((resolve, reject) => {
    let secured: TLSSocket
    const fail = (cause?: Error): void =>
      reject(
        cause === undefined
          ? tlsFailed(where, 'certificate', 'the server ended the TLS handshake')
          : tlsFailed(where, 'certificate', cause.message, cause),
      )
    try {
      secured = connect({
        socket,
        ...secrets,
        minVersion: 'TLSv1.2',
        rejectUnauthorized: tls.verify ?? true,
        checkServerIdentity: (_, certificate) =>
          host === null ? undefined : checkServerIdentity(host, certificate),
        ...(host === null || isIP(host) !== 0 ? {} : { servername: host }),
      })
    } catch (cause) {
      reject(tlsFailed(where, 'files', `the files cannot be used: ${(cause as Error).message}`, cause))
      return
    }
    const closed = (): void => fail()
    // Stays for the life of the socket: what ends a connection is found by its reader.
    secured.on('error', fail)
    secured.once('close', closed)
    secured.once('secureConnect', () => {
      secured.off('close', closed)
      resolve(secured)
    })
  })
}
