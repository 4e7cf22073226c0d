/** What a failure of the disk's file or of the store is for an NBD client: one of the few errors that the protocol has. */
import { CheckpointError, messageOf } from '../errors.ts'
import { type NbdErrno, NbdError } from './errors.ts'

/** Errors of the system that mean something to a guest; whatever else there is reads EIO. */
const OF_SYSTEM: Readonly<Record<string, NbdErrno>> = {
  ENOSPC: 'ENOSPC',
  EDQUOT: 'ENOSPC',
  EFBIG: 'ENOSPC',
  ENOMEM: 'ENOMEM',
  EPERM: 'EPERM',
  EACCES: 'EPERM',
  EROFS: 'EPERM',
}

/** Causes of causes that are looked at. */
const DEPTH = 8

export function toNbdError(error: unknown): NbdError {
  if (error instanceof NbdError) return error
  const message = messageOf(error)
  return new NbdError(errnoOf(error), message, error)
}

function errnoOf(error: unknown): NbdErrno {
  if (error instanceof CheckpointError) {
    switch (error.code) {
      case 'STORE_CLOSED':
        return 'ESHUTDOWN'
      case 'QUEUE_FULL':
        return 'ENOMEM'
      case 'RANGE_INVALID':
      case 'RANGE_OUTSIDE_DISK':
        return 'EINVAL'
      default:
        return isFull(error) ? 'ENOSPC' : 'EIO' // R33: a log that failed, by what it failed of.
    }
  }
  return OF_SYSTEM[codeOf(error)] ?? 'EIO'
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

/** LevelDB says it in words only. */
function isFull(error: unknown): boolean {
  for (let depth = 0; error instanceof Error && depth < DEPTH; depth++, error = error.cause) {
    if (OF_SYSTEM[codeOf(error)] === 'ENOSPC' || /no space left|disk quota exceeded/i.test(error.message))
      return true
  }
  return false
}
