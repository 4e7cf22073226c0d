/** What can go wrong with a server as a whole, each with its code and what to do. What a server answers to one request is an NbdError. */
import { CheckpointError } from '../../errors.ts'
import { decodeName } from '../options.ts'
import { optionErrorName } from './wire.ts'

/** What came is no NBD, or more than was asked for. `where` is the server's address. */
export function broken(where: string, why: string): CheckpointError {
  return new CheckpointError(
    'NBD_PROTOCOL',
    `the server at ${where} does not speak NBD as agreed: ${why}; the connection has ended`,
    { address: where, why },
  )
}

export function unreachable(
  where: string,
  why: 'refused' | 'deadline' | 'closed',
  said: string,
  cause?: unknown,
): CheckpointError {
  return new CheckpointError(
    'NBD_UNREACHABLE',
    `no NBD server to be had at ${where}: ${said}; is it running, and is the address right?`,
    { address: where, why },
    cause,
  )
}

export function lost(
  where: string,
  why: 'closed' | 'deadline' | 'changed' | 'attempts' | 'shut-down' | 'ended' | 'unflushed',
  said: string,
  facts: Readonly<Record<string, unknown>> = {},
  cause?: unknown,
): CheckpointError {
  return new CheckpointError(
    'NBD_CONNECTION_LOST',
    `the connection to the NBD server at ${where} was lost: ${said}`,
    { address: where, why, ...facts },
    cause,
  )
}

export function contextMissing(
  where: string,
  name: string,
  missing: readonly string[],
  listed: readonly string[],
  why: string,
): CheckpointError {
  const there = listed.length === 0 ? 'it lists none' : `it lists ${quoted(listed)}`
  return new CheckpointError(
    'NBD_CONTEXT_MISSING',
    `export "${name}" at ${where} has no meta context ${quoted(missing)}: ${why}; ${there}`,
    { address: where, name, missing, listed },
  )
}

export function exportNotFound(where: string, name: string, listed: readonly string[]): CheckpointError {
  const there = listed.length === 0 ? 'it lists none' : `it lists ${quoted(listed)}`
  return new CheckpointError(
    'NBD_EXPORT_NOT_FOUND',
    `the server at ${where} has no export "${name}"; ${there}`,
    { address: where, name, listed },
  )
}

/** A step of the handshake, by the protocol's name for it. */
export function refused(where: string, option: string, error: number, said: string): CheckpointError {
  return new CheckpointError('NBD_REFUSED', `the NBD server at ${where} refused ${option}: ${said}`, {
    address: where,
    option,
    error: optionErrorName(error),
    said,
  })
}

const NAMED_MAX = 20

function quoted(names: readonly string[]): string {
  const some = names.slice(0, NAMED_MAX).map((name) => `"${name}"`)
  return some.join(', ') + (names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : '')
}

/** The words of a server, fit for a message: what would move a terminal's cursor is taken out. */
export function saidBy(bytes: Buffer): string {
  return (decodeName(bytes) ?? 'words that are no UTF-8').replace(/\p{Cc}+/gu, ' ').trim()
}
