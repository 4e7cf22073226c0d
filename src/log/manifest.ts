/**
 * Which tables LevelDB will keep: it deletes, or writes over, every table that its manifest does not name. A manifest that lost
 * its end names too few, so what it leaves out is known before LevelDB opens, and can be kept (R28). Cost: one small file.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { maskedCrc32c } from './crc32c.ts'

const BLOCK_BYTES = 32 * 1024
const HEADER_BYTES = 7
const FULL = 1
const LAST = 4
const TABLE_NAME = /^(\d+)\.(ldb|sst)$/

/**
 * What is wrong with how LevelDB would find its manifest; null: nothing. LevelDB takes what CURRENT says as a path, and tells what comes
 * of that as an error of the disk.
 */
export function currentProblem(folder: string): string | null {
  let name: string
  try {
    name = currentIn(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'CURRENT is missing'
    throw error
  }
  if (!/^MANIFEST-\d+\n$/.test(name)) return 'CURRENT names no manifest'
  return existsSync(join(folder, name.trimEnd())) ? null : `${name.trimEnd()} is missing`
}

/** Numbers of the tables in the newest version, or undefined when the manifest is damaged. An end that is torn is an end. */
export function liveTables(folder: string): ReadonlySet<number> | undefined {
  try {
    const name = currentIn(folder).trimEnd()
    const live = new Set<number>()
    for (const edit of logRecords(readFileSync(join(folder, name)))) applyEdit(edit, live)
    return live
  } catch {
    return undefined
  }
}

function currentIn(folder: string): string {
  return readFileSync(join(folder, 'CURRENT'), 'latin1')
}

export function tableFiles(folder: string): { readonly name: string; readonly number: number }[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder).flatMap((name) => {
    const number = TABLE_NAME.exec(name)?.[1]
    return number === undefined ? [] : [{ name, number: Number(number) }]
  })
}

/** Table files that LevelDB would delete at open. None when the manifest is damaged: then LevelDB refuses to open. */
export function orphanTables(folder: string): string[] {
  const live = liveTables(folder)
  if (live === undefined) return []
  return tableFiles(folder)
    .filter(({ number }) => !live.has(number))
    .map(({ name }) => name)
}

/** LevelDB's log format: blocks of 32 KiB, records in fragments, each with its checksum. */
function* logRecords(bytes: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let parts: Uint8Array[] = []
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const left = BLOCK_BYTES - (at % BLOCK_BYTES)
    if (left < HEADER_BYTES) {
      at += left
      continue
    }
    const length = view.getUint16(at + 4, true)
    const type = bytes[at + 6]!
    const end = at + HEADER_BYTES + length
    if (type === 0 && length === 0) return
    if (end > bytes.length) return
    if (maskedCrc32c(bytes.subarray(at + 6, end)) !== view.getUint32(at, true)) {
      throw new RangeError('a record of the manifest is damaged')
    }
    parts.push(bytes.subarray(at + HEADER_BYTES, end))
    if (type === FULL || type === LAST) {
      yield Buffer.concat(parts)
      parts = []
    }
    at = end
  }
}

function applyEdit(edit: Uint8Array, live: Set<number>): void {
  let at = 0
  const varint = (): number => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = edit[at++]
      if (byte === undefined) throw new RangeError('an edit of the manifest ends early')
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
    }
  }
  const skipText = (): void => {
    const length = varint() // First: reading it moves `at`.
    at += length
  }
  while (at < edit.length) {
    const tag = varint()
    if (tag === 1) skipText()
    else if (tag === 2 || tag === 3 || tag === 4 || tag === 9) varint()
    else if (tag === 5) {
      varint()
      skipText()
    } else if (tag === 6) {
      varint()
      live.delete(varint())
    } else if (tag === 7) {
      varint()
      live.add(varint())
      varint()
      skipText()
      skipText()
    } else throw new RangeError(`the manifest has an edit of unknown kind ${tag}`)
  }
}
