/** What was agreed with a server, in the words of the library. */
import { TRANSMISSION } from '../wire.ts'
import type { Address } from './address.ts'
import type { Agreed } from './handshake.ts'
import type { NbdExportInfo } from './types.ts'

export function infoOf(
  { name, tls }: Address,
  { size, flags, blockSize, structured, contexts }: Agreed,
): NbdExportInfo {
  const has = (flag: number): boolean => (flags & flag) !== 0
  return {
    name,
    size,
    readOnly: has(TRANSMISSION.readOnly),
    canFlush: has(TRANSMISSION.flush),
    canFua: has(TRANSMISSION.fua),
    canTrim: has(TRANSMISSION.trim),
    canZero: has(TRANSMISSION.writeZeroes),
    canFastZero: has(TRANSMISSION.fastZero),
    canCache: has(TRANSMISSION.cache),
    multiConn: has(TRANSMISSION.multiConn),
    blockSize,
    structured,
    tls: tls !== null,
    contexts: [...contexts.values()],
  }
}
