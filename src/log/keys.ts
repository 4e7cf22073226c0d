/**
 * Keys of the log's LevelDB. Big-endian positions, so that byte order is log order and a range read is a scan.
 *
 *     'e' position:u64be            → stored value (events/frame.ts): a record or a pack, by its first position
 *     'i' first 16 bytes of SHA-256(command id) → position:u64be of the record that carries it
 *     'r'                           → position:u64be where the next repack begins
 */
import { createHash } from 'node:crypto'

const EVENT = 0x65
const COMMAND = 0x69
const COMMAND_HASH_BYTES = 16

export const REPACK_KEY: Uint8Array = Uint8Array.of(0x72)
/** Above every key there is. */
export const FAR: Uint8Array = Uint8Array.of(0xff)
export const FARTHER: Uint8Array = Uint8Array.of(0xff, 0xff)

/** The range of the index of command ids. */
export const COMMAND_KEYS = { gte: Uint8Array.of(COMMAND), lt: Uint8Array.of(COMMAND + 1) }

export function isCommandKey(key: Uint8Array): boolean {
  return key[0] === COMMAND && key.length === 1 + COMMAND_HASH_BYTES
}

export function positionBytes(position: number): Uint8Array {
  const bytes = new Uint8Array(8)
  writePosition(bytes, 0, position)
  return bytes
}

function writePosition(bytes: Uint8Array, at: number, position: number): void {
  const high = Math.floor(position / 2 ** 32)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  view.setUint32(at, high)
  view.setUint32(at + 4, position >>> 0)
}

/** Undefined when it is no position: more than 2^53 - 1, or not 8 bytes. */
export function positionOf(bytes: Uint8Array, at = 0): number | undefined {
  if (bytes.length !== at + 8) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const position = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
  return Number.isSafeInteger(position) ? position : undefined
}

export function eventKey(position: number): Uint8Array {
  const key = new Uint8Array(9)
  key[0] = EVENT
  writePosition(key, 1, position)
  return key
}

export function positionOfEventKey(key: Uint8Array): number | undefined {
  return key[0] === EVENT ? positionOf(key, 1) : undefined
}

export function commandKey(commandId: string): Uint8Array {
  const key = new Uint8Array(1 + COMMAND_HASH_BYTES)
  key[0] = COMMAND
  key.set(createHash('sha256').update(commandId).digest().subarray(0, COMMAND_HASH_BYTES), 1)
  return key
}
