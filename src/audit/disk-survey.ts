/** The first reading of a disk's file: whether it is whole, and what it names. Its events are judged when they are recorded. */
import type { DomainEvent, LogRecord } from '../../events/types.ts'
import { aborted } from '../log/entries.ts'
import { type DiskFileHeader, invalidFile, readDiskFile, recordOf } from '../store/disk-file.ts'
import { Positions } from './disk-positions.ts'

/** What a first reading tells: everything about the file but whether its events can follow from each other. */
export interface Survey {
  readonly header: DiskFileHeader
  readonly positions: Positions
  readonly records: number
  readonly events: number
  readonly firstTime: number
  readonly backups: readonly string[]
  readonly checkpoints: readonly string[]
}

export async function surveyOf(path: string, signal: AbortSignal | undefined): Promise<Survey> {
  let header: DiskFileHeader | undefined
  const positions = new Positions()
  const backups = new Set<string>()
  const checkpoints = new Set<string>()
  let records = 0
  let time: number | undefined
  let firstTime = 0
  for await (const frame of readDiskFile(path)) {
    if (signal?.aborted === true) throw aborted(signal)
    if (frame.kind === 'header') header = frame.header
    else if (frame.kind === 'end') {
      if (frame.end.records !== records || frame.end.events !== positions.events)
        throw invalidFile(path, 'it does not hold as many records as it says')
    } else {
      const record = decoded(path, frame.record, records)
      if (record.first !== positions.events || !positions.add(frame.record.runs, record.count))
        throw invalidFile(path, 'its records do not follow each other', records)
      if (time !== undefined && record.time < time) throw invalidFile(path, 'its times go back', records)
      if (records === 0) {
        firstTime = record.time
        refuseOtherStart(path, record, header!, frame.record.runs)
      }
      time = record.lastTime
      records++
      if (record.kind === 'events') for (const event of record.events) noteNames(event, backups, checkpoints)
    }
  }
  if (header === undefined || records === 0) throw invalidFile(path, 'it holds no history')
  const { events } = positions
  return {
    header,
    positions,
    records,
    events,
    firstTime,
    backups: [...backups],
    checkpoints: [...checkpoints],
  }
}

function decoded(path: string, frame: Parameters<typeof recordOf>[0], number: number): LogRecord {
  try {
    return recordOf(frame)
  } catch (cause) {
    throw invalidFile(path, `a record cannot be read (${(cause as Error).message})`, number, cause)
  }
}

function refuseOtherStart(
  path: string,
  record: LogRecord,
  header: DiskFileHeader,
  runs: readonly number[],
): void {
  const first = record.kind === 'events' ? record.events[0] : undefined
  if (first?.type === 'disk-added' && first.disk === header.disk && runs[0] === header.number) return
  throw invalidFile(path, `it does not begin with the adding of disk "${header.disk}"`, 0)
}

function noteNames(event: DomainEvent, backups: Set<string>, checkpoints: Set<string>): void {
  if (event.type === 'backup-begun' || event.type === 'backups-combined') backups.add(event.backup)
  if (event.type === 'checkpoint-created') checkpoints.add(event.checkpoint)
}
