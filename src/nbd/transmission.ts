/**
 * Transmission: requests are read one after the other and run beside each other; an answer leaves when it is ready, in
 * whatever order (NBD promises none to requests that overlap). How many run and what they hold is bounded by the gate,
 * so a client that sends more waits, and so does one that does not read its answers.
 */
import { limits } from '../limits.ts'
import { BusyPoll } from './busy-poll.ts'
import { Gate } from './gate.ts'
import { Disconnected, type Input } from './input.ts'
import type { Session } from './negotiate.ts'
import type { Outbox } from './outbox.ts'
import { errorReply, perform, refusal, weight } from './requests.ts'
import { decodeRequest, REQUEST_BYTES, type Request } from './wire.ts'

/** What is told of each request when it is answered. Must not throw. */
export type Answered = (request: Request, error: unknown) => void

/** Resolves when the client has left in order, and nothing runs for it any more. @throws Disconnected, likewise after all has ended */
export async function transmit(
  input: Input,
  out: Outbox,
  session: Session,
  answered: Answered,
): Promise<void> {
  const gate = new Gate()
  const poll = new BusyPoll()
  try {
    while (true) {
      const request = decodeRequest(input.take(REQUEST_BYTES) ?? (await input.bytes(REQUEST_BYTES)))
      if (request === null) throw new Disconnected('what came is no request of NBD')
      if (request.command === 'disc') return
      poll.asked()
      await take(input, gate, session, request, (held, data, refused) => {
        void answer(session, request, data, refused).then(({ parts, error }) => {
          answered(request, error)
          poll.answered()
          out.send(parts, () => gate.leave(held))
        })
      })
    }
  } finally {
    await gate.empty()
  }
}

type Start = (held: number, data: Buffer | null, refused: Error | null) => void

/** Lets a request in and reads what came with it. */
async function take(
  input: Input,
  gate: Gate,
  session: Session,
  request: Request,
  start: Start,
): Promise<void> {
  const refused = refusal(session, request)
  const payload = request.command === 'write' ? request.length : 0
  if (payload > limits.nbdPayloadBytesMax) throw new Disconnected(`a write of ${payload} bytes`)
  const held = refused === null ? weight(session, request) : 0
  while (!gate.enter(held)) await gate.change()
  let data: Buffer | null = null
  try {
    if (refused !== null) await input.skip(payload)
    else if (payload > 0) data = input.take(payload) ?? (await input.bytes(payload))
  } catch (error) {
    gate.leave(held)
    throw error
  }
  start(held, data, refused)
}

interface Answer {
  readonly parts: readonly Uint8Array[]
  readonly error: unknown
}

/** Never throws: what fails is the client's answer. */
async function answer(
  session: Session,
  request: Request,
  data: Buffer | null,
  refused: Error | null,
): Promise<Answer> {
  try {
    if (refused !== null) throw refused
    return { parts: await perform(session, request, data), error: null }
  } catch (error) {
    return { parts: errorReply(session, request, error), error }
  }
}
