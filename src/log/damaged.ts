/** What the log says when stored bytes are not what was stored: one place, so that every reader says it alike. */
import { RecordDamage, RecordTooNew } from '../../events/record.ts'
import { CheckpointError, type Facts } from '../errors.ts'

export function logDamaged(problem: string, facts: Facts, cause?: unknown): CheckpointError {
  const where = facts.position === undefined ? '' : ` at position ${String(facts.position)}`
  return new CheckpointError(
    'LOG_DAMAGED',
    `the log is damaged${where}: ${problem}; nothing was changed: run verify, then restore the folder from its last good copy`,
    { problem, ...facts },
    cause,
  )
}

/** Turns the codec's refusals into coded ones; anything else passes unchanged. */
export function refusalAt(position: number, error: unknown): unknown {
  if (error instanceof RecordDamage) return logDamaged(error.problem, { position }, error)
  if (!(error instanceof RecordTooNew)) return error
  return new CheckpointError(
    'FORMAT_TOO_NEW',
    `the record at position ${position} was written by a newer slicelog (${error.message}); open it with that version`,
    { position, what: error.what, version: error.version, newest: error.newest },
    error,
  )
}
