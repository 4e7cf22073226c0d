/** Exit codes (spec section 3) and how a failure is told: a sentence and its code for people, one object for programs. */
import { CommanderError } from 'commander'
import { CheckpointError, type ErrorCode, type Facts, messageOf } from '../errors.ts'

export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  noStore: 10,
  inUse: 11,
  damage: 12,
  tooNew: 13,
  cancelled: 130,
} as const

export const EXIT_CODES_HELP =
  'Exit codes: 0 done, 1 failed, 2 bad usage, 10 no store there, 11 store in use, 12 damage found, 13 newer format, 130 cancelled.'

/** A wrong argument of the command line itself: never reached the store. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  constructor(
    message: string,
    readonly facts: Facts = {},
  ) {
    super(message)
  }
}

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  STORE_NOT_FOUND: EXIT.noStore,
  NOT_A_STORE: EXIT.noStore,
  STORE_IN_USE: EXIT.inUse,
  OWNER_UNREACHABLE: EXIT.inUse,
  LOG_DAMAGED: EXIT.damage,
  REPAIR_IMPOSSIBLE: EXIT.damage,
  FORMAT_TOO_NEW: EXIT.tooNew,
  POINT_INVALID: EXIT.usage,
  ABORTED: EXIT.cancelled,
}

export interface Failure {
  readonly exit: number
  readonly code: string
  readonly message: string
  readonly facts: Facts
}

/** What an error means to the shell. Commander's help and version are errors too: those exit 0 and say nothing more. */
export function failureOf(error: unknown): Failure {
  if (error instanceof CheckpointError) {
    return {
      exit: BY_CODE[error.code] ?? EXIT.failed,
      code: error.code,
      message: error.message,
      facts: error.facts,
    }
  }
  if (error instanceof UsageError)
    return { exit: EXIT.usage, code: 'USAGE', message: error.message, facts: error.facts }
  if (error instanceof CommanderError) {
    const exit = error.exitCode === 0 ? EXIT.done : EXIT.usage
    // The help has been shown instead of a command.
    const message = error.code === 'commander.help' ? 'Which command?' : error.message.replace(/^error: /, '')
    return { exit, code: 'USAGE', message, facts: {} }
  }
  if (error instanceof RangeError || error instanceof TypeError) {
    return { exit: EXIT.failed, code: 'ARGUMENT_INVALID', message: error.message, facts: {} }
  }
  if (error instanceof Error && error.name === 'AbortError') {
    return {
      exit: EXIT.cancelled,
      code: 'ABORTED',
      message: 'Stopped. Nothing was changed by this command.',
      facts: {},
    }
  }
  return {
    exit: EXIT.failed,
    code: 'FAILED',
    message: messageOf(error),
    facts: {},
  }
}
