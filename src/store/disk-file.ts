/**
 * A disk's history as a file: gzip of frames, each chained to the one before, so that a file that was cut or changed is refused.
 *
 *     file    = gzip( magic:8 | frame … )
 *     frame   = length:u32le | payload | hash:32               hash = SHA-256(hash before | payload); the first goes on from zeros
 *     payload = msgpack: the header, then records, then the end
 *     header  = ["disk", format, store, disk, number, [position, time, hash of the source's head]]
 *     record  = ["r", end, hash, runs, value]     `end`, `hash`: the source's last position of the record and its chain there
 *     runs    = [position, count, …]              where the record's events stand in the source
 *     value   = the record as it is stored in a log (docs/format.md), its first position counting the file's own events from 0
 *     end     = ["end", records, events]
 *
 * Cost: one frame in memory at a time, in both directions.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { link, rename, rm, stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import { Packr } from 'msgpackr'
import { decodeStored } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { CheckpointError, messageOf } from '../errors.ts'
import { makeParent, partialOf, removeStalePartials, targetExists } from './publish.ts'

export const DISK_FILE_FORMAT = 1
const MAGIC = Buffer.from('slcdisk\n')
const HASH_BYTES = 32
const FRAME_BYTES_MAX = 64 * 1024 * 1024

const packr = new Packr({ useRecords: false })

export interface DiskFileHeader {
  /** Id of the store that it is from. */
  readonly store: string
  readonly disk: string
  /** The disk's incarnation there: position of its `disk-added`. */
  readonly number: number
  /** The source's head when it was exported; `hash` in hex. */
  readonly head: { readonly position: number; readonly time: number | null; readonly hash: string }
}

export interface DiskFileRecord {
  /** In the source: position of the record's last event, and the chain's hash after it. */
  readonly end: number
  readonly hash: Uint8Array
  /** Pairs of first position and count, in the source, of this record's events in order. */
  readonly runs: readonly number[]
  /** As stored; decoded by `recordOf`. */
  readonly value: Uint8Array
}

export interface DiskFileEnd {
  readonly records: number
  readonly events: number
}

export type DiskFrame =
  | { readonly kind: 'header'; readonly header: DiskFileHeader }
  | { readonly kind: 'record'; readonly record: DiskFileRecord }
  | { readonly kind: 'end'; readonly end: DiskFileEnd }

function payloadOf(frame: DiskFrame): Uint8Array {
  switch (frame.kind) {
    case 'header': {
      const { store, disk, number, head } = frame.header
      return packed(['disk', DISK_FILE_FORMAT, store, disk, number, [head.position, head.time, head.hash]])
    }
    case 'record': {
      const { end, hash, runs, value } = frame.record
      return packed(['r', end, hash, runs, value])
    }
    case 'end':
      return packed(['end', frame.end.records, frame.end.events])
    default:
      throw new RangeError(`no frame: ${JSON.stringify(frame satisfies never)}`)
  }
}

/** msgpackr's memory is used again by the next call. */
function packed(plain: unknown): Uint8Array {
  return Uint8Array.from(packr.pack(plain))
}

/** The chain over a file's frames. Its end stands for the whole file. */
export class FrameChain {
  hash: Uint8Array = new Uint8Array(HASH_BYTES)

  add(payload: Uint8Array): Uint8Array {
    this.hash = Uint8Array.from(createHash('sha256').update(this.hash).update(payload).digest())
    return this.hash
  }
}

/** The chain's end for these frames, written nowhere. */
export async function digestOf(frames: AsyncIterable<DiskFrame>): Promise<string> {
  const chain = new FrameChain()
  for await (const frame of frames) chain.add(payloadOf(frame))
  return Buffer.from(chain.hash).toString('hex')
}

/** Writes the file; under its name only when it is whole and on disk. Returns the chain's end. TARGET_EXISTS. */
export async function writeDiskFile(path: string, frames: AsyncIterable<DiskFrame>): Promise<string> {
  const partial = partialOf(path)
  const chain = new FrameChain()
  await makeParent(path)
  await removeStalePartials(path)
  try {
    await pipeline(
      async function* () {
        yield MAGIC
        for await (const frame of frames) {
          const payload = payloadOf(frame)
          const length = Buffer.alloc(4)
          length.writeUInt32LE(payload.length)
          yield Buffer.concat([length, payload, chain.add(payload)])
        }
      },
      createGzip(),
      createWriteStream(partial, { flush: true, mode: 0o640, flags: 'wx' }),
    )
    await publishFile(partial, path)
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined) // The first failure is the one to tell.
    throw error
  }
  return Buffer.from(chain.hash).toString('hex')
}

/** A link never replaces a file, as a rename would. */
async function publishFile(partial: string, path: string): Promise<void> {
  try {
    await link(partial, path)
    await rm(partial)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST') throw targetExists(path, 'is never overwritten', cause)
    if (code !== 'EPERM' && code !== 'ENOTSUP') throw cause
    await rename(partial, path)
  }
}

/**
 * The frames of a file, each checked before it is told; the last is always its end. `digest` of the chain so far stands beside.
 * @throws CheckpointError DISK_FILE_INVALID, FORMAT_TOO_NEW
 */
export async function* readDiskFile(path: string): AsyncGenerator<DiskFrame & { readonly digest: string }> {
  const chain = new FrameChain()
  let ended = false
  let frame = 0
  const invalid = (why: string, cause?: unknown) => invalidFile(path, why, frame, cause)
  try {
    for await (const { payload, hash } of frames(path)) {
      if (ended) throw invalid('something follows its end')
      if (Buffer.compare(chain.add(payload), hash) !== 0) throw invalid('a part of it was changed')
      const read = frameOf(payload)
      if (read === undefined) throw invalid('a part of it says nothing that a disk export says')
      if ((read.kind === 'header') !== (frame === 0)) throw invalid('it does not begin as a disk export does')
      if (read.kind === 'header') refuseNewer(path, payload)
      ended = read.kind === 'end'
      frame++
      yield { ...read, digest: Buffer.from(chain.hash).toString('hex') }
    }
  } catch (error) {
    if (error instanceof CheckpointError) throw error
    throw invalid(messageOf(error), error)
  }
  if (!ended) throw invalid('its end is missing')
}

async function* frames(path: string): AsyncGenerator<{ payload: Uint8Array; hash: Uint8Array }> {
  // Opening a pipe waits for its writer, with the store held meanwhile.
  if ((await stat(path)).isFIFO()) throw new RangeError('it is a pipe, and an export is read more than once')
  const source = createReadStream(path)
  const gunzip = createGunzip()
  source.on('error', (error) => gunzip.destroy(error))
  source.pipe(gunzip)
  let buffer: Buffer = Buffer.alloc(0)
  let begun = false
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) {
      buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk])
      if (!begun) {
        if (buffer.length < MAGIC.length) continue
        if (Buffer.compare(buffer.subarray(0, MAGIC.length), MAGIC) !== 0)
          throw new RangeError('it is no disk export')
        buffer = buffer.subarray(MAGIC.length)
        begun = true
      }
      for (;;) {
        if (buffer.length < 4) break
        const length = buffer.readUInt32LE(0)
        if (length > FRAME_BYTES_MAX) throw new RangeError('a part of it is larger than any can be')
        const end = 4 + length + HASH_BYTES
        if (buffer.length < end) break
        yield { payload: buffer.subarray(4, 4 + length), hash: buffer.subarray(4 + length, end) }
        buffer = buffer.subarray(end)
      }
    }
  } finally {
    source.destroy()
  }
  if (!begun || buffer.length > 0) throw new RangeError('it ends early')
}

function frameOf(payload: Uint8Array): DiskFrame | undefined {
  const row = packr.unpack(payload) as unknown
  if (!Array.isArray(row)) return undefined
  const count = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
  if (row[0] === 'r') {
    const [, end, hash, runs, value] = row as unknown[]
    const whole =
      count(end) && hash instanceof Uint8Array && Array.isArray(runs) && value instanceof Uint8Array
    if (!whole || !runs.every(count) || runs.length % 2 !== 0) return undefined
    return {
      kind: 'record',
      record: { end, hash: Uint8Array.from(hash), runs, value: Uint8Array.from(value) },
    }
  }
  if (row[0] === 'end') {
    const [, records, events] = row as unknown[]
    return count(records) && count(events) ? { kind: 'end', end: { records, events } } : undefined
  }
  if (row[0] !== 'disk' || !Array.isArray(row[5])) return undefined
  const [, , store, disk, number, head] = row as unknown[]
  const [position, time, hash] = head as unknown[]
  if (typeof store !== 'string' || typeof disk !== 'string' || !count(number)) return undefined
  if (!count(position) || typeof hash !== 'string' || !(time === null || count(time))) return undefined
  return { kind: 'header', header: { store, disk, number, head: { position, time, hash } } }
}

function refuseNewer(path: string, payload: Uint8Array): void {
  const format = (packr.unpack(payload) as readonly unknown[])[1]
  if (format === DISK_FILE_FORMAT) return
  throw new CheckpointError(
    'FORMAT_TOO_NEW',
    `${path} is a disk export of format ${String(format)}; this version knows up to ${DISK_FILE_FORMAT}. Upgrade slicelog`,
    { file: path, format, known: DISK_FILE_FORMAT },
  )
}

/** The record in a frame. Throws RecordDamage, RecordTooNew. */
export function recordOf({ value }: DiskFileRecord): LogRecord {
  const [record, ...others] = decodeStored(value)
  if (record === undefined || others.length > 0) throw new RangeError('a frame holds one record')
  return record
}

export function invalidFile(path: string, why: string, frame?: number, cause?: unknown): CheckpointError {
  return new CheckpointError(
    'DISK_FILE_INVALID',
    `${path} cannot be taken for a disk's history: ${why}; nothing was recorded: export the disk again, or fetch the file again`,
    { file: path, why, ...(frame === undefined ? {} : { frame }) },
    cause,
  )
}
