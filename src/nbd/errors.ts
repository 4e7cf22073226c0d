/**
 * The one error of the NBD doors: what went wrong, as an errno that the protocol has, and a sentence for the client.
 * The server puts both on the wire; whatever is thrown at it that is no `NbdError` is our failure and reads EIO there.
 */

/** The errors of NBD, with their numbers on the wire (Linux's, on every system). */
export const NBD_ERRNO = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const

export type NbdErrno = keyof typeof NBD_ERRNO

export class NbdError extends Error {
  override readonly name = 'NbdError'

  constructor(
    readonly errno: NbdErrno,
    message: string,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause })
  }
}
