/** The way in: an NBD server's export, ready to be read and written. */
import { limits } from '../../limits.ts'
import { addressOf } from './address.ts'
import { NbdClient } from './client.ts'
import { Lifeline } from './lifeline.ts'
import { openLink } from './open-link.ts'
import type { ConnectNbdOptions, NbdTarget } from './types.ts'

/**
 * Connects to an export of any NBD server.
 * @throws CheckpointError NBD_URI_INVALID, NBD_UNREACHABLE, NBD_TLS_FAILED, NBD_REFUSED, NBD_EXPORT_NOT_FOUND, NBD_CONTEXT_MISSING,
 * NBD_PROTOCOL, SIZE_INVALID, ABORTED; TypeError and RangeError for options that are none
 */
export async function connectNbd(target: NbdTarget, options: ConnectNbdOptions = {}): Promise<NbdClient> {
  const { contexts = [], handshakeMs = limits.nbdHandshakeMs, requestMs, reconnect, signal } = options
  const { requestsMax, bytesMax } = options
  checkContexts(contexts)
  for (const [name, value] of Object.entries({ handshakeMs, requestMs, requestsMax, bytesMax }))
    if (value !== undefined) checkWhole(name, value, 1)
  if (reconnect !== undefined) {
    checkWhole('reconnect.attempts', reconnect.attempts, 1)
    checkWhole('reconnect.delayMs', reconnect.delayMs ?? 0, 0)
    checkWhole('reconnect.delayMaxMs', reconnect.delayMaxMs ?? 0, 0)
  }
  const address = addressOf(target)
  const how = { contexts: [...new Set(contexts)], handshakeMs, requestMs: requestMs ?? null, signal }
  const first = await openLink(address, how)
  return new NbdClient(address, new Lifeline(address, how, reconnect ?? null, first), options)
}

/** Timers take no more; a whole number of anything else is less. */
const WHOLE_MAX = 2 ** 31 - 1

function checkWhole(name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least || value > WHOLE_MAX)
    throw new RangeError(`${name} must be a whole number from ${least} to ${WHOLE_MAX}, not ${value}`)
}

function checkContexts(contexts: readonly string[]): void {
  if (!Array.isArray(contexts) || contexts.some((name) => typeof name !== 'string' || name === ''))
    throw new TypeError('contexts must be a list of names of meta contexts')
  if (contexts.length > limits.nbdContextsMax)
    throw new RangeError(`contexts has ${limits.nbdContextsMax} names at most, not ${contexts.length}`)
  if (contexts.some((name) => Buffer.byteLength(name) > limits.nbdNameBytesMax))
    throw new RangeError(`the name of a context has ${limits.nbdNameBytesMax} bytes at most`)
}
