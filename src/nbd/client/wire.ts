/** The client's direction of the wire: what it encodes and the server decodes (../wire.ts), and the other way round. Pure. */
import {
  CHUNK_MAGIC,
  COMMANDS,
  type Command,
  GREETING,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_MAGIC,
  u16,
  u32,
} from '../wire.ts'

export const GREETING_BYTES = 16
const OLD_STYLE_MAGIC = 0x00420281861253n

/** `'NBDMAGIC' | 'IHAVEOPT'`, or what the servers before 2011 say there. */
export function greetingStyle(bytes: Buffer): 'new' | 'old' | null {
  if (bytes.readBigUInt64BE(0) !== GREETING) return null
  const style = bytes.readBigUInt64BE(8)
  return style === OPTION_MAGIC ? 'new' : style === OLD_STYLE_MAGIC ? 'old' : null
}

/** `u64 magic | u32 option | u32 length | data` */
export function encodeOption(option: number, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(OPTION_HEADER_BYTES + data.length)
  bytes.writeBigUInt64BE(OPTION_MAGIC, 0)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(data.length, 12)
  bytes.set(data, OPTION_HEADER_BYTES)
  return bytes
}

export const OPTION_REPLY_BYTES = 20

export interface OptionReplyHead {
  readonly option: number
  readonly reply: number
  readonly length: number
}

/** `u64 magic | u32 option | u32 reply | u32 length`; null when it begins with anything else. */
export function decodeOptionReply(header: Buffer): OptionReplyHead | null {
  if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) return null
  return {
    option: header.readUInt32BE(8),
    reply: header.readUInt32BE(12),
    length: header.readUInt32BE(16),
  }
}

const ERROR_BIT = 0x8000_0000

export function isOptionError(reply: number): boolean {
  return reply >= ERROR_BIT
}

/** As the specification calls them. */
const OPTION_ERRORS: Readonly<Record<number, string>> = {
  1: 'NBD_REP_ERR_UNSUP',
  2: 'NBD_REP_ERR_POLICY',
  3: 'NBD_REP_ERR_INVALID',
  4: 'NBD_REP_ERR_PLATFORM',
  5: 'NBD_REP_ERR_TLS_REQD',
  6: 'NBD_REP_ERR_UNKNOWN',
  7: 'NBD_REP_ERR_SHUTDOWN',
  8: 'NBD_REP_ERR_BLOCK_SIZE_REQD',
  9: 'NBD_REP_ERR_TOO_BIG',
}

export function optionErrorName(reply: number): string {
  return OPTION_ERRORS[reply - ERROR_BIT] ?? `error ${reply - ERROR_BIT}`
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([u32(bytes.length), bytes])
}

/** INFO and GO. */
export function infoData(name: string, infos: readonly number[]): Buffer {
  return Buffer.concat([text(name), u16(infos.length), ...infos.map(u16)])
}

/** LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextsData(name: string, queries: readonly string[]): Buffer {
  return Buffer.concat([text(name), u32(queries.length), ...queries.map(text)])
}

/** What is asked, apart from its cookie and its bytes. */
export interface Shape {
  readonly command: Command
  readonly flags: number
  readonly offset: number
  readonly length: number
}

/** `u32 magic | u16 flags | u16 type | u64 cookie | u64 offset | u32 length` */
export function encodeRequest({ command, flags, offset, length }: Shape, cookie: number): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES)
  bytes.writeUInt32BE(REQUEST_MAGIC, 0)
  bytes.writeUInt16BE(flags, 4)
  bytes.writeUInt16BE(COMMANDS.indexOf(command), 6)
  writeNumber(bytes, cookie, 8)
  writeNumber(bytes, offset, 16)
  bytes.writeUInt32BE(length, 24)
  return bytes
}

function writeNumber(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at)
  bytes.writeUInt32BE(value >>> 0, at + 4)
}

/** A u64. Beyond 2^53 it is rounded, which no cookie, offset or size of ours ever reaches. */
export function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4)
}

/** What simple replies and chunks have in common; a chunk goes on with `u32 length`. */
export const REPLY_HEAD_BYTES = 16

export type ReplyHead =
  | { readonly kind: 'simple'; readonly errno: number; readonly cookie: number }
  | { readonly kind: 'chunk'; readonly flags: number; readonly type: number; readonly cookie: number }

/** `u32 magic | u32 errno | u64 cookie` or `u32 magic | u16 flags | u16 type | u64 cookie`; null when it is neither. */
export function decodeReplyHead(bytes: Buffer): ReplyHead | null {
  const magic = bytes.readUInt32BE(0)
  const cookie = readNumber(bytes, 8)
  if (magic === SIMPLE_MAGIC) return { kind: 'simple', errno: bytes.readUInt32BE(4), cookie }
  if (magic !== CHUNK_MAGIC) return null
  return { kind: 'chunk', flags: bytes.readUInt16BE(4), type: bytes.readUInt16BE(6), cookie }
}
