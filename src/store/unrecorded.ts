/**
 * Where it is written that a disk goes on without a log (R33, `continue`): a file for each such disk, made and synced before
 * anything is wrong, so that it can be set in place when everything is full. The next open turns it into a lost stretch (R35).
 *
 *     unrecorded/NUMBER = sector:512 | id (padded to 3584), 4096 bytes
 *     sector = "SLUM" | version:u8 | state:u8 (1 clear, 2 set) | 0:u16 | number:u64le | next:u64le | time:u64le (all ones: null)
 *            | hash:32 | since:u64le (ms) | length:u16le | why (UTF-8, ended at 420) | crc32:u32le over all before it
 *     id     = length:u16le | UTF-8 | crc32:u32le over all before it, at the end
 *
 * `next`, `time` and `hash` are the log's head when it failed. Setting writes the one sector, which a disk takes whole or not at
 * all, and syncs it; nothing is allocated, on file systems that write in place. Costs 4 KiB a disk, and nothing while the log works.
 */
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { LogHead } from '../log/event-log.ts'
import { syncFolder } from './publish.ts'

const BYTES = 4096
const SECTOR = 512
const MAGIC = 0x4d554c53
const VERSION = 1
const HASH_AT = 32
const SINCE_AT = 64
const WHY_AT = 74
const WHY_BYTES = 420
const ID_AT = SECTOR + 2
const NULL = 0xffff_ffff_ffff_ffffn

interface Sector {
  readonly state: 'clear' | 'set'
  readonly number: number
  /** Where the log ended. */
  readonly head: Pick<LogHead, 'next' | 'time' | 'hash'>
  /** When it failed, ms. */
  readonly since: number
  readonly why: string
}

/** A mark as found. `sector` null: it cannot be read, so nobody knows since when nothing was recorded. */
export interface FoundMark {
  readonly number: number
  readonly id: string | null
  readonly sector: Sector | null
}

/** The mark of one disk that is served. */
export class UnrecordedMark {
  readonly #path: string
  readonly #file: FileHandle
  readonly #number: number
  #set = false

  private constructor(path: string, file: FileHandle, number: number) {
    this.#path = path
    this.#file = file
    this.#number = number
  }

  /** Clear, and durable, its name too. Throws what the system says. */
  static async prepare(folder: string, number: number, id: string, head: LogHead): Promise<UnrecordedMark> {
    const path = join(folder, String(number))
    await mkdir(folder, { recursive: true, mode: 0o750 })
    // The store was opened since, which tells and removes all that are set: one that is there was set by this very store.
    const there = await readMark(folder, String(number))
    if (there !== null && there.sector?.state !== 'clear')
      throw new Error(`${path} is set: writes went unrecorded since the store was opened`)
    const file = await open(`${path}.new`, 'w', 0o640)
    try {
      const clear: Sector = { state: 'clear', number, head, since: 0, why: '' }
      await file.writeFile(Buffer.concat([encodeSector(clear), encodeId(id)]))
      await file.sync()
      await rename(`${path}.new`, path)
      syncFolder(folder)
      return new UnrecordedMark(path, file, number)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Durable once it resolves: from then on bytes may change that no record tells of. */
  async set(head: Pick<LogHead, 'next' | 'time' | 'hash'>, since: number, why: string): Promise<void> {
    const sector = encodeSector({ state: 'set', number: this.#number, head, since, why })
    this.#set = true // Whatever becomes of it: half of it may be there.
    const { bytesWritten } = await this.#file.write(sector, 0, SECTOR, 0)
    if (bytesWritten !== SECTOR) throw new Error(`wrote ${bytesWritten} of ${SECTOR} bytes of ${this.#path}`)
    await this.#file.datasync()
  }

  /** Goes, unless somebody has to be told. */
  async close(): Promise<void> {
    await this.#file.close()
    if (!this.#set) await rm(this.#path, { force: true })
  }
}

/** Marks that are set, or that nobody can read. */
export async function setMarks(folder: string): Promise<readonly FoundMark[]> {
  const found: FoundMark[] = []
  for (const name of await marksIn(folder)) {
    const mark = await readMark(folder, name)
    if (mark !== null && mark.sector?.state !== 'clear') found.push(mark)
  }
  return found
}

/** Once what they say is in the log, synced. */
export async function removeMarks(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => [])
  if (names.length === 0) return
  for (const name of names) await rm(join(folder, name), { force: true })
  syncFolder(folder)
}

/** Into a copy of the store: what is not recorded here is not there either. */
export async function copyMarks(from: string, to: string): Promise<void> {
  for (const { number } of await setMarks(from)) {
    await mkdir(to, { recursive: true, mode: 0o750 })
    const name = String(number)
    await writeFile(join(to, name), await readFile(join(from, name)), { mode: 0o640, flush: true })
    syncFolder(to)
  }
}

async function marksIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => /^\d+$/.test(name))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function readMark(folder: string, name: string): Promise<FoundMark | null> {
  let bytes: Buffer
  try {
    bytes = await readFile(join(folder, name))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
  return { number: Number(name), id: decodeId(bytes), sector: decodeSector(bytes, Number(name)) }
}

function encodeSector({ state, number, head, since, why }: Sector): Buffer {
  const bytes = Buffer.alloc(SECTOR)
  bytes.writeUInt32LE(MAGIC, 0)
  bytes[4] = VERSION
  bytes[5] = state === 'clear' ? 1 : 2
  bytes.writeBigUInt64LE(BigInt(number), 8)
  bytes.writeBigUInt64LE(BigInt(head.next), 16)
  bytes.writeBigUInt64LE(head.time === null ? NULL : BigInt(head.time), 24)
  bytes.set(head.hash, HASH_AT)
  bytes.writeBigUInt64LE(BigInt(since), SINCE_AT)
  bytes.writeUInt16LE(bytes.write(why, WHY_AT, WHY_BYTES), WHY_AT - 2)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, SECTOR - 4)), SECTOR - 4)
  return bytes
}

function decodeSector(bytes: Buffer, number: number): Sector | null {
  if (bytes.length < SECTOR || bytes.readUInt32LE(0) !== MAGIC || bytes[4] !== VERSION) return null
  if (bytes.readUInt32LE(SECTOR - 4) !== crc32(bytes.subarray(0, SECTOR - 4))) return null
  if (Number(bytes.readBigUInt64LE(8)) !== number) return null
  const time = bytes.readBigUInt64LE(24)
  return {
    state: bytes[5] === 1 ? 'clear' : 'set',
    number,
    head: {
      next: Number(bytes.readBigUInt64LE(16)),
      time: time === NULL ? null : Number(time),
      hash: new Uint8Array(bytes.subarray(HASH_AT, SINCE_AT)),
    },
    since: Number(bytes.readBigUInt64LE(SINCE_AT)),
    why: bytes.toString('utf8', WHY_AT, WHY_AT + Math.min(WHY_BYTES, bytes.readUInt16LE(WHY_AT - 2))),
  }
}

function encodeId(id: string): Buffer {
  const bytes = Buffer.alloc(BYTES - SECTOR)
  bytes.writeUInt16LE(bytes.write(id, 2), 0)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
  return bytes
}

function decodeId(bytes: Buffer): string | null {
  if (bytes.length !== BYTES) return null
  if (bytes.readUInt32LE(BYTES - 4) !== crc32(bytes.subarray(SECTOR, BYTES - 4))) return null
  return bytes.toString('utf8', ID_AT, ID_AT + bytes.readUInt16LE(SECTOR))
}
