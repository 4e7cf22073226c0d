/** The index of command ids against the log, both ways: an id that is not found would be carried out a second time (R13). */
import type { LogRecord } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import type { EventLog } from '../log/event-log.ts'
import { commandKey, positionOf } from '../log/keys.ts'
import type { Findings } from './findings.ts'

const WHAT_TO_DO =
  'a command sent again under this id would not be recognized; restore the folder from a copy'

export async function checkCommand(
  log: EventLog,
  record: Extract<LogRecord, { kind: 'events' }>,
  number: number,
  findings: Findings,
): Promise<void> {
  const { commandId } = record.meta
  if (commandId === undefined) return
  const found = await reading(log.positionOfCommand(commandId))
  if (found === record.first) return
  findings.add(
    'COMMAND_INDEX_WRONG',
    `the record at position ${record.first} carries command id "${commandId}", and the index ${found === undefined ? 'does not know it' : `names position ${found}`}; ${WHAT_TO_DO}`,
    {
      position: record.first,
      record: number,
    },
  )
}

export async function checkIndexEntry(
  log: EventLog,
  key: Uint8Array,
  value: Uint8Array,
  findings: Findings,
): Promise<void> {
  const position = positionOf(value)
  const record = position === undefined ? undefined : await reading(recordAt(log, position))
  const carried = record?.kind === 'events' && record.first === position ? record.meta.commandId : undefined
  if (carried !== undefined && Buffer.compare(commandKey(carried), key) === 0) return
  findings.add(
    'COMMAND_INDEX_WRONG',
    `the index of command ids names position ${String(position)}, where no record carries that id; ${WHAT_TO_DO}`,
    position === undefined ? {} : { position },
  )
}

async function recordAt(log: EventLog, position: number): Promise<LogRecord | undefined> {
  if (position >= log.head.next) return undefined
  for await (const records of log.read({ from: position, to: position })) return records[0]
  return undefined
}

/** What cannot be read is reported by the walk. */
async function reading<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise
  } catch (error) {
    if (error instanceof CheckpointError && error.code === 'LOG_DAMAGED') return undefined
    throw error
  }
}
