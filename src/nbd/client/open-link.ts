/** From an address to a connection that can be asked. */
import type { Address } from './address.ts'
import { agree } from './handshake.ts'
import { Link } from './link.ts'
import { type Dial, dialled } from './socket.ts'
import { Talk } from './talk.ts'

export interface LinkOptions extends Dial {
  readonly contexts: readonly string[]
  readonly requestMs: number | null
}

/** @throws CheckpointError as connectNbd */
export function openLink(address: Address, options: LinkOptions): Promise<Link> {
  return dialled(address, options, async (socket) => {
    const talk = await Talk.begin(socket, address)
    return new Link(talk, await agree(talk, options.contexts), options.requestMs)
  })
}
