/**
 * The numbers of the NBD protocol and the shapes of its messages (NetworkBlockDevice/nbd, doc/proto.md): constants,
 * encoders and decoders, all big-endian. Pure: buffers in, buffers out. An encoder costs one small allocation.
 */
import { NBD_ERRNO, type NbdErrno } from './errors.ts'
import { RUN_BYTES, type Runs } from './runs.ts'

/** 'NBDMAGIC' and 'IHAVEOPT'. */
export const GREETING = 0x4e42444d41474943n
export const OPTION_MAGIC = 0x49484156454f5054n
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_MAGIC = 0x67446698
export const CHUNK_MAGIC = 0x668e33ef

/** The server's, and the same two bits of the client's. */
export const HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const

export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const

export const REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errTlsRequired: 0x80000005,
  errUnknown: 0x80000006,
  errTooBig: 0x80000009,
} as const

export type OptionError = Extract<keyof typeof REPLY, `err${string}`>

export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const

/** Of an export. */
export const TRANSMISSION = {
  hasFlags: 0x1,
  readOnly: 0x2,
  flush: 0x4,
  fua: 0x8,
  trim: 0x20,
  writeZeroes: 0x40,
  df: 0x80,
  multiConn: 0x100,
  cache: 0x400,
  fastZero: 0x800,
} as const

export const COMMANDS = [
  'read',
  'write',
  'disc',
  'flush',
  'trim',
  'cache',
  'writeZeroes',
  'blockStatus',
] as const
export type Command = (typeof COMMANDS)[number]

/** Of a request. */
export const FLAG = { fua: 0x1, noHole: 0x2, df: 0x4, reqOne: 0x8, fastZero: 0x10 } as const

export const CHUNK = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5, error: 0x8001 } as const
export const CHUNK_DONE = 1
const CHUNK_HEADER_BYTES = 20

export function greeting(flags: number): Buffer {
  const bytes = Buffer.alloc(18)
  bytes.writeBigUInt64BE(GREETING, 0)
  bytes.writeBigUInt64BE(OPTION_MAGIC, 8)
  bytes.writeUInt16BE(flags, 16)
  return bytes
}

export const OPTION_HEADER_BYTES = 16

/** `u64 magic | u32 option | u32 length | data`; null when it begins with anything else. */
export function decodeOption(header: Buffer): { readonly option: number; readonly length: number } | null {
  if (header.readBigUInt64BE(0) !== OPTION_MAGIC) return null
  return { option: header.readUInt32BE(8), length: header.readUInt32BE(12) }
}

/** `u64 magic | u32 option | u32 reply | u32 length | data` */
export function optionReply(option: number, reply: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(20 + data.length)
  bytes.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(reply, 12)
  bytes.writeUInt32BE(data.length, 16)
  bytes.set(data, 20)
  return bytes
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

export const REQUEST_BYTES = 28

export interface Request {
  /** null: one that this protocol does not have. */
  readonly command: Command | null
  readonly type: number
  readonly flags: number
  readonly cookie: bigint
  /** In bytes. Beyond 2^53 it is rounded, and still far outside every disk. */
  readonly offset: number
  readonly length: number
}

/** `u32 magic | u16 flags | u16 type | u64 cookie | u64 offset | u32 length`; null when it begins with anything else. */
export function decodeRequest(header: Buffer): Request | null {
  if (header.readUInt32BE(0) !== REQUEST_MAGIC) return null
  const type = header.readUInt16BE(6)
  return {
    command: COMMANDS[type] ?? null,
    type,
    flags: header.readUInt16BE(4),
    cookie: header.readBigUInt64BE(8),
    offset: header.readUInt32BE(16) * 2 ** 32 + header.readUInt32BE(20),
    length: header.readUInt32BE(24),
  }
}

/** `u32 magic | u32 errno | u64 cookie`, then the bytes of a read that went well. */
export function simpleReply(cookie: bigint, errno: NbdErrno | null): Buffer {
  const bytes = Buffer.alloc(16)
  bytes.writeUInt32BE(SIMPLE_MAGIC, 0)
  bytes.writeUInt32BE(errno === null ? 0 : NBD_ERRNO[errno], 4)
  bytes.writeBigUInt64BE(cookie, 8)
  return bytes
}

/** `u32 magic | u16 flags | u16 type | u64 cookie | u32 length`, and room for `room` of the `length` bytes that follow. */
function chunk(cookie: bigint, type: number, done: boolean, length: number, room: number): Buffer {
  const bytes = Buffer.alloc(CHUNK_HEADER_BYTES + room)
  bytes.writeUInt32BE(CHUNK_MAGIC, 0)
  bytes.writeUInt16BE(done ? CHUNK_DONE : 0, 4)
  bytes.writeUInt16BE(type, 6)
  bytes.writeBigUInt64BE(cookie, 8)
  bytes.writeUInt32BE(length, 16)
  return bytes
}

/** An answer of nothing: for a read of no bytes, which has no data chunk. */
export function emptyChunk(cookie: bigint): Buffer {
  return chunk(cookie, CHUNK.none, true, 0, 0)
}

/** What goes before the bytes of a read: the whole of it in one chunk, so that DF holds. */
export function dataChunkHeader(cookie: bigint, offset: number, length: number): Buffer {
  const bytes = chunk(cookie, CHUNK.offsetData, true, 8 + length, 8)
  bytes.writeBigUInt64BE(BigInt(offset), CHUNK_HEADER_BYTES)
  return bytes
}

/** `u32 context | (u32 length | u32 flags)*` */
export function statusChunk(cookie: bigint, contextId: number, runs: Runs, done: boolean): Buffer {
  const body = 4 + RUN_BYTES * runs.count
  const bytes = chunk(cookie, CHUNK.blockStatus, done, body, body)
  bytes.writeUInt32BE(contextId, CHUNK_HEADER_BYTES)
  runs.writeTo(bytes, CHUNK_HEADER_BYTES + 4)
  return bytes
}

/** `u32 errno | u16 length | text`: an error that says why. */
export function errorChunk(cookie: bigint, errno: NbdErrno, message: string): Buffer {
  const text = cutText(message)
  const bytes = chunk(cookie, CHUNK.error, true, 6 + text.length, 6 + text.length)
  bytes.writeUInt32BE(NBD_ERRNO[errno], CHUNK_HEADER_BYTES)
  bytes.writeUInt16BE(text.length, CHUNK_HEADER_BYTES + 4)
  bytes.set(text, CHUNK_HEADER_BYTES + 6)
  return bytes
}

/** The protocol's strings have 4096 bytes at most; a cut never leaves half a character. */
export function cutText(text: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length <= 4096) return bytes
  let end = 4096
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}
