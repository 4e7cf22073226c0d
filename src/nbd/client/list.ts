/** What a server has, without choosing anything: its exports, and the meta contexts of one of them. */
import { limits } from '../../limits.ts'
import { addressOf } from './address.ts'
import { broken } from './failures.ts'
import { listContexts, listExports } from './lists.ts'
import { dialled } from './socket.ts'
import { Talk } from './talk.ts'
import type { NbdHandshakeOptions, NbdListed, NbdTarget } from './types.ts'

/**
 * The exports of a server, in its order. A target's `name` means nothing here.
 * @throws CheckpointError NBD_URI_INVALID, NBD_UNREACHABLE, NBD_TLS_FAILED, NBD_REFUSED for a server that does not list, NBD_PROTOCOL, ABORTED
 */
export function listNbd(target: NbdTarget, options: NbdHandshakeOptions = {}): Promise<NbdListed[]> {
  return asking(target, options, listExports)
}

/**
 * The meta contexts of an export that match `queries`: all of them without, those of a namespace with `base:` or `qemu:`.
 * @throws CheckpointError as listNbd, and NBD_EXPORT_NOT_FOUND
 */
export function listNbdContexts(
  target: NbdTarget,
  queries: readonly string[] = [],
  options: NbdHandshakeOptions = {},
): Promise<string[]> {
  return asking(target, options, async (talk) => {
    // Some servers list only for whoever could use it.
    await talk.agreeStructured()
    return listContexts(talk, queries)
  })
}

function asking<T>(
  target: NbdTarget,
  { handshakeMs = limits.nbdHandshakeMs, signal }: NbdHandshakeOptions,
  ask: (talk: Talk) => Promise<T>,
): Promise<T> {
  const address = addressOf(target)
  return dialled(address, { handshakeMs, signal }, async (socket) => {
    const talk = await Talk.begin(socket, address)
    await talk.startTls()
    if (!talk.fixed) throw broken(talk.where, 'it has no options, so it cannot list anything')
    const found = await ask(talk)
    talk.leave()
    return found
  })
}
