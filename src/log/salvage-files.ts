/**
 * What LevelDB's files hold, read without LevelDB: it drops what is torn, ends the process over some damage, and shows only the
 * newest version of a key. Here every block and every fragment with a right checksum is read, whatever became of the rest.
 *
 * Formats: leveldb's doc/table_format.md and doc/log_format.md. Cost: one file in memory at a time (2 MiB, or a large record).
 */
import { readFileSync } from 'node:fs'
import { CrcRun } from './crc-run.ts'
import { maskedCrc32c } from './crc32c.ts'
import { entriesOf, readVarint, unpack } from './table-block.ts'

/** One version of a key. `value` undefined: it was deleted. */
export interface Version {
  readonly key: Uint8Array
  /** Order of writing: the highest is the newest. */
  readonly sequence: number
  readonly value: Uint8Array | undefined
}

export interface SalvagedFile {
  readonly versions: Version[]
  /** What could not be read, in words; empty when all could. */
  readonly damage: string[]
}

const TABLE_FOOTER_BYTES = 48
const TABLE_TRAILER_BYTES = 5
const BLOCK_BYTES_MAX = 64 * 1024 * 1024
const WAL_BLOCK_BYTES = 32 * 1024
const WAL_HEADER_BYTES = 7
const BATCH_HEADER_BYTES = 12

export function salvageTable(path: string): SalvagedFile {
  const bytes = readFileSync(path)
  const damage: string[] = []
  const versions: Version[] = []
  const take = (block: Uint8Array | undefined) => {
    if (block === undefined) return damage.push('a block that is damaged')
    try {
      for (const { key, value } of entriesOf(block)) {
        const version = internal(key, value)
        if (version !== undefined) versions.push(version)
      }
      return undefined
    } catch {
      return damage.push('a block that holds no entries')
    }
  }
  const blocks = listedBlocks(bytes)
  if (blocks === undefined) {
    damage.push('its index is damaged')
    for (const block of foundBlocks(bytes)) take(block)
  } else for (const { offset, length } of blocks) take(blockAt(bytes, offset, length))
  return { versions, damage }
}

interface Handle {
  readonly offset: number
  readonly length: number
}

/** The table's own list of its blocks, or undefined when that cannot be read. */
function listedBlocks(bytes: Buffer): Handle[] | undefined {
  try {
    const footer = bytes.subarray(bytes.length - TABLE_FOOTER_BYTES)
    const [, , next] = handleAt(footer, 0)
    const [offset, length] = handleAt(footer, next)
    const index = blockAt(bytes, offset, length)
    return (
      index &&
      entriesOf(index).map(({ value }) => {
        const [at, size] = handleAt(value, 0)
        return { offset: at, length: size }
      })
    )
  } catch {
    return undefined
  }
}

function handleAt(bytes: Uint8Array, at: number): [offset: number, length: number, next: number] {
  const [offset, after] = readVarint(bytes, at, bytes.length)
  const [length, next] = readVarint(bytes, after, bytes.length)
  return [offset, length, next]
}

/** Undefined when it does not have its checksum. */
function blockAt(bytes: Buffer, offset: number, length: number): Uint8Array | undefined {
  const end = offset + length
  if (end + TABLE_TRAILER_BYTES > bytes.length) return undefined
  if (maskedCrc32c(bytes.subarray(offset, end + 1)) !== bytes.readUInt32LE(end + 1)) return undefined
  return unpacked(bytes.subarray(offset, end), bytes[end]!)
}

function unpacked(bytes: Uint8Array, type: number): Uint8Array | undefined {
  try {
    return type === 0 ? bytes : type === 1 ? unpack(bytes, BLOCK_BYTES_MAX) : undefined
  } catch {
    return undefined
  }
}

/** Without an index: blocks lie one after the other, and where one ends its checksum says. What follows a damaged one is lost. */
function* foundBlocks(bytes: Buffer): Generator<Uint8Array | undefined> {
  let start = 0
  while (start + TABLE_TRAILER_BYTES < bytes.length) {
    const run = new CrcRun()
    let end = -1
    for (let at = start; at + 4 < bytes.length; at++) {
      run.add(bytes[at]!)
      if (bytes[at]! < 2 && run.masked === bytes.readUInt32LE(at + 1)) {
        end = at
        break
      }
    }
    if (end < 0) return
    yield unpacked(bytes.subarray(start, end), bytes[end]!)
    start = end + TABLE_TRAILER_BYTES
  }
}

/** A key of a table: the user's, then sequence × 256 + type. */
function internal(key: Uint8Array, value: Uint8Array): Version | undefined {
  const own = key.subarray(key.length - 8)
  const type = own[0]!
  if (type > 1) return undefined
  let sequence = 0
  for (let i = 7; i >= 1; i--) sequence = sequence * 256 + own[i]!
  return { key: key.slice(0, -8), sequence, value: type === 1 ? value.slice() : undefined }
}

/** A write-ahead file: batches that are whole. Goes on after what is not, where the next block begins. */
export function salvageWal(path: string): SalvagedFile {
  const bytes = readFileSync(path)
  const versions: Version[] = []
  const damage: string[] = []
  for (const batch of walRecords(bytes, damage)) {
    try {
      versions.push(...batchEntries(batch))
    } catch {
      damage.push('a batch that is damaged')
    }
  }
  return { versions, damage }
}

function* walRecords(bytes: Buffer, damage: string[]): Generator<Buffer> {
  let parts: Buffer[] | undefined
  for (let at = 0; at + WAL_HEADER_BYTES <= bytes.length; ) {
    const left = WAL_BLOCK_BYTES - (at % WAL_BLOCK_BYTES)
    if (left < WAL_HEADER_BYTES) {
      at += left
      continue
    }
    const length = bytes.readUInt16LE(at + 4)
    const type = bytes[at + 6]!
    const end = at + WAL_HEADER_BYTES + length
    if (type === 0 && length === 0 && bytes.readUInt32LE(at) === 0) return // Preallocated, never written.
    const whole =
      WAL_HEADER_BYTES + length <= left &&
      end <= bytes.length &&
      maskedCrc32c(bytes.subarray(at + 6, end)) === bytes.readUInt32LE(at)
    if (!whole) {
      // A torn end is no damage: it was never acknowledged as written. Anything else may hide what follows in its block.
      if (end < bytes.length || at + left < bytes.length) damage.push('a fragment that is damaged')
      parts = undefined
      at +=
        WAL_HEADER_BYTES + length <= left && end <= bytes.length && length > 0
          ? WAL_HEADER_BYTES + length
          : left
      continue
    }
    const piece = bytes.subarray(at + WAL_HEADER_BYTES, end)
    if (type === 1) yield piece
    else if (type === 2) parts = [piece]
    else if (type === 3) parts?.push(piece)
    else if (type === 4 && parts !== undefined) {
      yield Buffer.concat([...parts, piece])
      parts = undefined
    }
    at = end
  }
}

function batchEntries(batch: Buffer): Version[] {
  const versions: Version[] = []
  if (batch.length < BATCH_HEADER_BYTES) throw new RangeError('a batch without a head')
  let sequence = Number(batch.readBigUInt64LE(0))
  const count = batch.readUInt32LE(8)
  let at = BATCH_HEADER_BYTES
  const text = (): Uint8Array => {
    const [length, next] = readVarint(batch, at, batch.length)
    at = next + length
    if (at > batch.length) throw new RangeError('a batch that ends early')
    return new Uint8Array(batch.subarray(next, at))
  }
  for (let i = 0; i < count; i++) {
    const type = batch[at++]
    if (type !== 0 && type !== 1) throw new RangeError(`an entry of kind ${String(type)}`)
    const key = text()
    versions.push({ key, sequence: sequence++, value: type === 1 ? text() : undefined })
  }
  return versions
}
