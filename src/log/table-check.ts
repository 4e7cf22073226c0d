/**
 * LevelDB's tables, checked before LevelDB reads them: classic-level opens them without verifying, and LevelDB ends the process
 * when a flipped bit makes a key too short or keys run backwards (seen: `Assertion internal_key.size() >= 8 failed`).
 *
 * A damaged block that still reads as a block is left to the checksums of the records in it, which name the place. Tables never
 * change, so each is read once and remembered by size and times. Cost: 2 ns a byte of what is new; a stat of what is not.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { maskedCrc32c } from './crc32c.ts'
import { positionOf } from './keys.ts'
import { liveTables, tableFiles } from './manifest.ts'
import { entriesOf, readVarint, unpack } from './table-block.ts'

const FOOTER_BYTES = 48
const HANDLES_BYTES = FOOTER_BYTES - 8
const TRAILER_BYTES = 5
const BLOCK_BYTES_MAX = 64 * 1024 * 1024
const MAGIC = 0xdb4775248b80fb57n

export interface TableDamage {
  readonly name: string
  readonly why: string
  /** LevelDB may end the process over it. */
  readonly deadly: boolean
}

type Marks = Record<string, string>

/**
 * Damage in tables that the manifest names. `marks`: a file that remembers what was found sound, for the next time.
 * Missing tables, and a damaged manifest, are left to LevelDB to name.
 */
export function damagedTables(folder: string, marks?: string): TableDamage[] {
  const live = liveTables(folder)
  const known = marks === undefined ? {} : readMarks(marks)
  const sound: Marks = {}
  const damage: TableDamage[] = []
  for (const { name, number } of tableFiles(folder)) {
    if (live?.has(number) !== true) continue
    const path = join(folder, name)
    const mark = markOf(path)
    if (mark === undefined) continue // Its owner compacted it away just now.
    const found = known[name] === mark ? [] : tableDamage(path)
    if (found.length === 0) sound[name] = mark
    damage.push(...found.map((one) => ({ name, ...one })))
  }
  if (marks !== undefined && JSON.stringify(sound) !== JSON.stringify(known)) writeMarks(marks, sound)
  return damage
}

/** The same for a log that is open: a table at a time, others having their turn between. One that is compacted away is passed over. */
export async function* damagedTablesOf(folder: string): AsyncGenerator<TableDamage> {
  const live = liveTables(folder)
  for (const { name, number } of tableFiles(folder)) {
    if (live?.has(number) !== true) continue
    await breathe()
    try {
      yield* tableDamage(join(folder, name)).map((one) => ({ name, ...one }))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
}

/** The first damage that LevelDB would not survive. */
export function deadlyTable(folder: string, marks?: string): TableDamage | undefined {
  return damagedTables(folder, marks).find(({ deadly }) => deadly)
}

/** After a clean end: what this process wrote, and LevelDB synced, need not be read again. */
export function markTables(folder: string, marks: string): void {
  const live = liveTables(folder)
  const sound: Marks = {}
  for (const { name, number } of tableFiles(folder)) {
    const mark = live?.has(number) === true ? markOf(join(folder, name)) : undefined
    if (mark !== undefined) sound[name] = mark
  }
  writeMarks(marks, sound)
}

function markOf(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  return found && `${found.size} ${found.ino} ${found.mtimeNs} ${found.ctimeNs}`
}

/** A file that cannot be read, or says something else, only costs time. */
function readMarks(path: string): Marks {
  try {
    const marks: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return typeof marks === 'object' && marks !== null ? (marks as Marks) : {}
  } catch {
    return {}
  }
}

function writeMarks(path: string, marks: Marks): void {
  try {
    writeFileSync(path, JSON.stringify(marks))
  } catch {
    // A full or read-only disk: then all is read again the next time.
  }
}

function tableDamage(path: string): Omit<TableDamage, 'name'>[] {
  const deadly = (why: string) => [{ why, deadly: true }]
  const file = openSync(path, 'r')
  try {
    const { size } = fstatSync(file)
    if (size < FOOTER_BYTES) return deadly(`it has only ${size} bytes`)
    const bytes = Buffer.alloc(size)
    readSync(file, bytes, 0, size, 0)
    const footer = bytes.subarray(size - FOOTER_BYTES)
    if (footer.readBigUInt64LE(HANDLES_BYTES) !== MAGIC) return deadly('its end is not that of a table')
    const body = bytes.subarray(0, size - FOOTER_BYTES)
    const [list, next] = handleAt(footer, 0)
    const [index] = handleAt(footer, next)
    const others = entriesOf(blockAt(body, list, true))
    const blocks = entriesOf(blockAt(body, index, true))
    // What is left is the filter, which can only make LevelDB miss a key, and blocks of data.
    return [...others.flatMap(({ value }) => filterDamage(body, value)), ...blocksDamage(body, blocks)]
  } catch (error) {
    if (error instanceof RangeError) return deadly(error.message)
    throw error
  } finally {
    closeSync(file)
  }
}

function filterDamage(body: Buffer, value: Uint8Array): Omit<TableDamage, 'name'>[] {
  const [handle] = handleAt(value, 0)
  return isWhole(body, handle)
    ? []
    : [{ why: 'its filter is damaged, so a key that is there may not be found', deadly: false }]
}

function blocksDamage(
  body: Buffer,
  blocks: readonly { key: Uint8Array; value: Uint8Array }[],
): Omit<TableDamage, 'name'>[] {
  const damage: Omit<TableDamage, 'name'>[] = []
  let before: Uint8Array | undefined
  for (const { key, value } of blocks) {
    const [handle] = handleAt(value, 0)
    if (!isWhole(body, handle)) {
      const where = `a block${placeOf(before, key)} is damaged`
      damage.push({ why: where, deadly: !readsAsBlock(body, handle, before, key) })
    }
    before = key
  }
  return damage
}

interface Handle {
  readonly offset: number
  readonly length: number
}

function handleAt(bytes: Uint8Array, at: number): [Handle, number] {
  const [offset, afterOffset] = readVarint(bytes, at, bytes.length)
  const [length, next] = readVarint(bytes, afterOffset, bytes.length)
  return [{ offset, length }, next]
}

function isWhole(body: Buffer, { offset, length }: Handle): boolean {
  const end = offset + length
  if (end + TRAILER_BYTES > body.length) throw new RangeError('a block lies outside the table')
  return maskedCrc32c(body.subarray(offset, end + 1)) === body.readUInt32LE(end + 1)
}

function blockAt(body: Buffer, handle: Handle, checked: boolean): Uint8Array {
  if (checked && !isWhole(body, handle)) throw new RangeError('its index is damaged')
  const { offset, length } = handle
  const bytes = body.subarray(offset, offset + length)
  const type = body[offset + length]
  if (type === 0) return bytes
  if (type === 1) return unpack(bytes, BLOCK_BYTES_MAX)
  throw new RangeError(`a block of unknown kind ${type}`)
}

/** What does not unpack is an error to LevelDB, as it should be; what unpacks must hold keys in order, between its neighbours'. */
function readsAsBlock(
  body: Buffer,
  handle: Handle,
  before: Uint8Array | undefined,
  last: Uint8Array,
): boolean {
  let block: Uint8Array
  try {
    block = blockAt(body, handle, false)
  } catch {
    return announcedLength(body, handle) <= BLOCK_BYTES_MAX
  }
  try {
    const entries = entriesOf(block)
    const userKey = (key: Uint8Array) => key.subarray(0, -8)
    return entries.every(
      ({ key }) =>
        (before === undefined || Buffer.compare(userKey(key), userKey(before)) >= 0) &&
        Buffer.compare(userKey(key), userKey(last)) <= 0,
    )
  } catch {
    return false
  }
}

/** LevelDB asks for that much memory before it looks further. */
function announcedLength(body: Buffer, { offset, length }: Handle): number {
  if (body[offset + length] !== 1) return 0
  try {
    return readVarint(body, offset, offset + length)[0]
  } catch {
    return 0
  }
}

/** Index keys lie between blocks and are cut short, so they say about where. */
function placeOf(before: Uint8Array | undefined, last: Uint8Array): string {
  const position = (key: Uint8Array | undefined) => {
    if (key === undefined || key[0] !== 0x65) return undefined
    const padded = new Uint8Array(8)
    padded.set(key.subarray(1, Math.min(9, key.length - 8)))
    return positionOf(padded)
  }
  const from = position(before)
  const to = position(last)
  if (from === undefined && to === undefined) return ''
  return ` (about position ${from ?? 0} to ${to ?? 'the end'})`
}
