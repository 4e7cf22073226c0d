/**
 * The file of a recorded incident: small, whole or refused, and readable by itself.
 *
 *     slicelog-incident 1\n | sha256:32 bytes | gzip( length:u32le | header as JSON | (length:u32le | stored value) … )
 *
 * The checksum is over all that follows it. Stored values are the log's own (docs/format.md), from position 0 without a hole,
 * chained: an incident that begins later has windows where its past was folded (R29). Nothing of a file is believed before its
 * checksum, every value's own and the chain between them have passed.
 */
import { hash as oneShot } from 'node:crypto'
import { gunzipSync, gzipSync } from 'node:zlib'
import { chainOf, decodeStored, EMPTY_HASH, RecordTooNew, readHeader } from '../../events/record.ts'
import type { LogRecord, Point } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { sameHash } from '../log/base-log.ts'
import type { StoredEntry } from '../log/entries.ts'

export const INCIDENT_VERSION = 1
const MAGIC = 'slicelog-incident '
const SUM_BYTES = 32
/** Of the unpacked file: a log of some 100 million writes, which no test wants. */
const UNPACKED_MAX = 1 << 30

/** What an incident says of itself. */
export interface IncidentInfo {
  /** Where the exact part begins, after this point; what lies before was folded into windows. Position -1: all is exact. */
  readonly from: Point
  /** Its last event. */
  readonly to: Point
  readonly events: number
  readonly records: number
  readonly disks: readonly string[]
  readonly backups: readonly string[]
  readonly checkpoints: readonly string[]
  /** Whether names, ids and reasons were replaced by made-up ones. */
  readonly anonymised: boolean
  /** Whether all times were moved by the same distance. */
  readonly shifted: boolean
}

export interface IncidentContent {
  readonly info: IncidentInfo
  readonly entries: readonly StoredEntry[]
}

export function encodeIncident({ info, entries }: IncidentContent): Uint8Array {
  const header = Buffer.from(JSON.stringify(info))
  const parts: Uint8Array[] = [lengthOf(header), header]
  for (const { value } of entries) parts.push(lengthOf(value), value)
  const body = gzipSync(Buffer.concat(parts), { level: 9 })
  // Without the operating system's mark, so that the same incident is the same bytes everywhere.
  body[9] = 255
  return new Uint8Array(Buffer.concat([Buffer.from(`${MAGIC}${INCIDENT_VERSION}\n`), sum(body), body]))
}

/** @throws CheckpointError INCIDENT_INVALID; FORMAT_TOO_NEW for a file, or a record in it, of a later version */
export function decodeIncident(bytes: Uint8Array): IncidentContent {
  const body = checkedBody(bytes)
  let plain: Buffer
  try {
    plain = gunzipSync(body, { maxOutputLength: UNPACKED_MAX })
  } catch (cause) {
    throw invalid('its content cannot be unpacked', cause)
  }
  const parts = splitParts(plain)
  const header = parts.shift()
  if (header === undefined) throw invalid('it has no header')
  const info = infoOf(header)
  const entries = entriesOf(parts)
  const last = entries[entries.length - 1]
  const next = last === undefined ? 0 : readHeader(last.value).first + readHeader(last.value).count
  if (next !== info.events) throw invalid(`it announces ${info.events} events and holds ${next}`)
  return { info, entries }
}

/** Every record, in order. */
export function* recordsIn(entries: readonly StoredEntry[]): Generator<LogRecord> {
  for (const { value } of entries) yield* decodeStored(value)
}

function checkedBody(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(10)
  const line = Buffer.from(bytes.subarray(0, Math.min(Math.max(end, 0), 64))).toString('latin1')
  const version = line.startsWith(MAGIC) ? line.slice(MAGIC.length) : ''
  if (!/^[1-9]\d{0,5}$/.test(version)) throw invalid('it does not begin as one does')
  if (Number(version) > INCIDENT_VERSION) {
    throw new CheckpointError(
      'FORMAT_TOO_NEW',
      `the incident is of version ${version}, this program knows up to ${INCIDENT_VERSION}; upgrade slicelog`,
      { version: Number(version), known: INCIDENT_VERSION },
    )
  }
  const stored = bytes.subarray(end + 1, end + 1 + SUM_BYTES)
  const body = bytes.subarray(end + 1 + SUM_BYTES)
  if (stored.length < SUM_BYTES) throw invalid('it is cut off')
  if (!sameHash(stored, sum(body))) throw invalid('its checksum does not match: it was changed or cut off')
  return body
}

function splitParts(plain: Buffer): Uint8Array[] {
  const parts: Uint8Array[] = []
  for (let at = 0; at < plain.length; ) {
    if (at + 4 > plain.length) throw invalid('its content ends in the middle')
    const length = plain.readUInt32LE(at)
    at += 4
    if (at + length > plain.length) throw invalid('its content ends in the middle')
    parts.push(new Uint8Array(plain.subarray(at, at + length)))
    at += length
  }
  return parts
}

function infoOf(header: Uint8Array): IncidentInfo {
  try {
    const info = JSON.parse(Buffer.from(header).toString('utf8')) as IncidentInfo
    if (typeof info.events === 'number' && typeof info.from.position === 'number') return info
  } catch (cause) {
    throw invalid('its header cannot be read', cause)
  }
  throw invalid('its header lacks what a header has')
}

function entriesOf(values: readonly Uint8Array[]): StoredEntry[] {
  const entries: StoredEntry[] = []
  let next = 0
  let hash = EMPTY_HASH
  for (const value of values) {
    try {
      const header = readHeader(value)
      decodeStored(value)
      if (header.first !== next) throw invalid(`its events end at ${next} and go on at ${header.first}`)
      if (!sameHash(chainOf(value, hash), header.hash)) throw invalid(`its chain breaks at position ${next}`)
      entries.push({ position: header.first, value })
      next = header.first + header.count
      hash = header.hash
    } catch (cause) {
      if (cause instanceof CheckpointError) throw cause
      if (cause instanceof RecordTooNew)
        throw new CheckpointError(
          'FORMAT_TOO_NEW',
          `the incident holds ${cause.message}; upgrade slicelog`,
          {},
          cause,
        )
      throw invalid(`its value at position ${next} cannot be read`, cause)
    }
  }
  return entries
}

export function invalid(why: string, cause?: unknown): CheckpointError {
  return new CheckpointError(
    'INCIDENT_INVALID',
    `this is no whole incident file: ${why}; export it again`,
    { why },
    cause,
  )
}

function lengthOf(bytes: Uint8Array): Uint8Array {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return length
}

function sum(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(oneShot('sha256', bytes, 'buffer'))
}
