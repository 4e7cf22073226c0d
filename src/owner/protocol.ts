/**
 * What an owner and whoever asks it say to each other on the socket: frames of a length, a kind and a payload.
 *
 *     frame  = length:u32be (of the payload) | kind:u8 | payload
 *     asker  → HELLO {version, store}   ASK {argv, cwd, env, stdout, stderr}   STOP {why}
 *     owner  → READY {pid}   OUT bytes   ERR bytes   EXIT {code}   or instead of those REFUSED {code, message, facts}, NOT_RUN
 *
 * Nothing runs before ASK, and ASK is sent only after READY: whoever is cut off before has changed nothing. Every length has a
 * maximum that is checked before a byte of the payload is kept, so a stranger's bytes cost the owner one connection.
 */
import { limits } from '../limits.ts'

export const PROTOCOL_VERSION = 1

export const KIND = {
  hello: 1,
  ask: 2,
  stop: 3,
  ready: 16,
  out: 17,
  err: 18,
  exit: 19,
  refused: 20,
  notRun: 21,
} as const

export type Kind = (typeof KIND)[keyof typeof KIND]

/** Bytes of payload that each side may send in one frame. */
export const FROM_ASKER: ReadonlyMap<number, number> = new Map([
  [KIND.hello, 4096],
  [KIND.ask, limits.ownerAskBytesMax],
  [KIND.stop, 4096],
])
export const FROM_OWNER: ReadonlyMap<number, number> = new Map([
  [KIND.ready, 4096],
  [KIND.out, limits.ownerChunkBytes],
  [KIND.err, limits.ownerChunkBytes],
  [KIND.exit, 4096],
  [KIND.refused, 64 * 1024],
  [KIND.notRun, 4096],
])

const HEADER_BYTES = 5
const WORDS_MAX = 1 << 20
const ENV_MAX = 1024

/** The other side does not speak this protocol, or does not keep to it: the connection ends. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

export interface Frame {
  readonly kind: number
  readonly payload: Buffer
}

export function frame(kind: Kind, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length)
  bytes.writeUInt32BE(payload.length, 0)
  bytes[4] = kind
  bytes.set(payload, HEADER_BYTES)
  return bytes
}

export function jsonFrame(kind: Kind, value: unknown): Buffer {
  return frame(kind, Buffer.from(JSON.stringify(value)))
}

/** Text as frames of bytes, none longer than its maximum. A character may lie across two of them. */
export function* textFrames(kind: typeof KIND.out | typeof KIND.err, text: string): Generator<Buffer> {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += limits.ownerChunkBytes)
    yield frame(kind, bytes.subarray(at, at + limits.ownerChunkBytes))
}

/** Frames out of bytes as they come. Holds at most one frame that is not whole. */
export class FrameReader {
  readonly #allowed: ReadonlyMap<number, number>
  #held: Buffer[] = []
  #bytes = 0

  constructor(allowed: ReadonlyMap<number, number>) {
    this.#allowed = allowed
  }

  /** The frames that are whole now. Throws ProtocolError at the first header that is not allowed. */
  *push(chunk: Buffer): Generator<Frame> {
    this.#held.push(chunk)
    this.#bytes += chunk.length
    for (;;) {
      if (this.#bytes < HEADER_BYTES) return
      const header = this.#peek()
      const length = header.readUInt32BE(0)
      const kind = header[4]!
      const most = this.#allowed.get(kind)
      if (most === undefined) throw new ProtocolError(`a frame of unknown kind ${kind}`)
      if (length > most) throw new ProtocolError(`a frame of ${length} bytes, where ${most} are the most`)
      if (this.#bytes < HEADER_BYTES + length) return
      const all = this.#joined()
      const end = HEADER_BYTES + length
      const rest = all.subarray(end)
      this.#held = rest.length === 0 ? [] : [rest]
      this.#bytes = rest.length
      yield { kind, payload: all.subarray(HEADER_BYTES, end) }
    }
  }

  #peek(): Buffer {
    return this.#held[0]!.length >= HEADER_BYTES ? this.#held[0]! : this.#joined()
  }

  #joined(): Buffer {
    const all = this.#held.length === 1 ? this.#held[0]! : Buffer.concat(this.#held, this.#bytes)
    this.#held = [all]
    return all
  }
}

// — payloads, each checked field by field: JSON says nothing about what is in it

export interface Hello {
  readonly version: number
  /** The id in store.json as the asker reads it; null when it may not. A socket that was moved or copied is not mistaken. */
  readonly store: string | null
}

/** What the asker's terminal can show. */
export interface Screen {
  readonly tty: boolean
  readonly columns: number | null
}

export interface Ask {
  readonly argv: readonly string[]
  /** Absolute: what relative paths in `argv` are relative to. */
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly stdout: Screen
  readonly stderr: Screen
}

export interface Refused {
  readonly code: string
  readonly message: string
  readonly facts: Readonly<Record<string, unknown>>
}

/** Of an asker's environment only what changes how an answer looks, and what is ours. */
export function sentEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const sent: Record<string, string> = {}
  for (const [name, value] of Object.entries(env))
    if (value !== undefined && mayBeSent(name)) sent[name] = value
  return sent
}

const SENT = new Set(['COLUMNS', 'NO_COLOR', 'FORCE_COLOR', 'TERM', 'TZ', 'LANG', 'LC_ALL', 'LC_CTYPE'])

function mayBeSent(name: string): boolean {
  return SENT.has(name) || name.startsWith('SLICELOG_')
}

function object(payload: Buffer): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(payload.toString('utf8'))
  } catch {
    throw new ProtocolError('a payload that is no JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ProtocolError('a payload that is no object')
  return value as Record<string, unknown>
}

function need(right: boolean, what: string): asserts right {
  if (!right) throw new ProtocolError(`${what} is missing or wrong`)
}

export function readHello(payload: Buffer): Hello {
  const { version, store } = object(payload)
  need(Number.isSafeInteger(version), 'version')
  need(store === null || typeof store === 'string', 'store')
  return { version: version as number, store }
}

export function readAsk(payload: Buffer): Ask {
  const { argv, cwd, env, stdout, stderr } = object(payload)
  need(Array.isArray(argv) && argv.length <= WORDS_MAX, 'argv')
  need(
    argv.every((word): word is string => typeof word === 'string'),
    'argv',
  )
  need(typeof cwd === 'string' && cwd.startsWith('/') && !cwd.includes('\0'), 'cwd')
  need(typeof env === 'object' && env !== null && !Array.isArray(env), 'env')
  const given = Object.entries(env)
  need(
    given.length <= ENV_MAX && given.every(([name, value]) => mayBeSent(name) && typeof value === 'string'),
    'env',
  )
  return {
    argv,
    cwd,
    env: Object.fromEntries(given) as Record<string, string>,
    stdout: screen(stdout),
    stderr: screen(stderr),
  }
}

function screen(value: unknown): Screen {
  need(typeof value === 'object' && value !== null, 'a screen')
  const { tty, columns } = value as Record<string, unknown>
  need(typeof tty === 'boolean', 'tty')
  need(
    columns === null ||
      (Number.isSafeInteger(columns) && (columns as number) > 0 && (columns as number) <= 1e4),
    'columns',
  )
  return { tty, columns: columns as number | null }
}

export function readStop(payload: Buffer): 'interrupt' | 'closed-pipe' {
  const { why } = object(payload)
  need(why === 'interrupt' || why === 'closed-pipe', 'why')
  return why
}

export function readReady(payload: Buffer): number {
  const { pid } = object(payload)
  need(Number.isSafeInteger(pid), 'pid')
  return pid as number
}

export function readExit(payload: Buffer): number {
  const { code } = object(payload)
  need(Number.isSafeInteger(code) && (code as number) >= 0 && (code as number) <= 255, 'code')
  return code as number
}

export function readRefused(payload: Buffer): Refused {
  const { code, message, facts } = object(payload)
  need(typeof code === 'string' && typeof message === 'string', 'a refusal')
  need(typeof facts === 'object' && facts !== null && !Array.isArray(facts), 'facts')
  return { code, message, facts: facts as Record<string, unknown> }
}
