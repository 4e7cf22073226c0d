/**
 * Several commands as one: decided in order, each seeing what those before it did, one record or nothing (R20).
 *
 * Everything in the record has the record's end for its point, which is known only when all is decided. So the commands
 * are decided twice on forks: first to count the events, then with the true end. Plans are asked for in the second round
 * only. Cost: two forks, and twice the deciding, which is microseconds a command.
 */
import { isToldWrites } from '../../events/told.ts'
import type { BitmapRef, DomainEvent, Point } from '../../events/types.ts'
import type { Catalog } from '../../projections/catalog.ts'
import { assert, CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { type Answer, answerOf } from './answer.ts'
import { decideIn } from './decide.ts'
import type { Command, DecideContext } from './types.ts'
import { settledBy, toldAhead, toldBefore } from './unclean.ts'

export interface DecidedTransaction {
  /** In the order of the record; removals last. Empty: nothing changes, so no record is written. */
  readonly events: readonly DomainEvent[]
  /** One answer for each command, in the order of the commands. */
  readonly answers: readonly Answer[]
}

/** Stands for the record's end while it is unknown: after every point there is, and equal to itself. */
const UNKNOWN_END = Number.MAX_SAFE_INTEGER

/**
 * Decides all commands, or throws the first refusal, and nothing has changed. One command alone works the same way.
 * @throws CheckpointError of any command, with the fact `index`; TRANSACTION_ABORTED. RangeError: too many commands.
 */
export function decideTransaction(
  catalog: Catalog,
  commands: readonly Command[],
  context: DecideContext,
): DecidedTransaction {
  if (commands.length > limits.transactionCommandsMax) {
    throw new RangeError(
      `a transaction takes ${limits.transactionCommandsMax} commands at most, not ${commands.length}; split it`,
    )
  }
  const time = context.time ?? null
  const unplanned = { ...context, plan: () => ({ digest: '', bytes: 0, complete: true }) }
  const counted = decideAll(catalog, commands, unplanned, { position: UNKNOWN_END, time })
  const end = catalog.last.position + counted.events.length
  const decided = decideAll(catalog, commands, context, { position: end, time })
  assert(decided.events.length === counted.events.length, 'deciding a transaction again gives as many events')
  return decided
}

function decideAll(
  catalog: Catalog,
  commands: readonly Command[],
  context: DecideContext,
  at: Point,
): DecidedTransaction {
  const fork = catalog.fork()
  const first = catalog.last.position + 1
  const events: DomainEvent[] = []
  const removals: DomainEvent[] = []
  const apply = (event: DomainEvent): void => {
    fork.applyEvent(event, first + events.length, at)
    events.push(event)
  }
  const unclean = new Set(context.unclean)
  const now = { ...context, unclean }
  const answers = commands.map((command, index) => {
    toldBefore(command, fork, now, at).forEach(apply)
    const decided = naming(index, () => {
      const own = decideIn({ state: fork, context: now, at, before: events }, command)
      checkToldInTime(own, events)
      return own
    })
    toldAhead(command, decided, fork, now, { first: first + events.length, at }).forEach(apply)
    const settled = settledBy(command)
    if (settled !== null) unclean.delete(settled)
    const answer = answerOf(command, decided, fork, first + events.length)
    if (command.type === 'remove-bitmap') {
      hold(fork, command)
      removals.push(...decided)
      return answer
    }
    decided.forEach(apply)
    return answer
  })
  return { events: [...events, ...removals], answers }
}

/**
 * What is told of the time before the record lies before its point, so a plan of that point has to know it, and the next one,
 * which is relative to it, covers it no more (R25, R35). A plan is made where its begin stands: told behind that is too late.
 * @throws CheckpointError TOLD_TOO_LATE
 */
function checkToldInTime(decided: readonly DomainEvent[], before: readonly DomainEvent[]): void {
  for (const event of decided) {
    if (event.type !== 'stretch-lost' && !isToldWrites(event)) continue
    const begun = before.find((earlier) => earlier.type === 'backup-begun' && earlier.disk === event.disk)
    if (begun?.type !== 'backup-begun') continue
    const what = event.type === 'stretch-lost' ? 'a lost stretch' : 'a window'
    throw new CheckpointError(
      'TOLD_TOO_LATE',
      `${what} of disk "${event.disk}" is told behind the begin of backup "${begun.backup}", whose plan would miss it; put it ahead of the begin, or tell it afterwards in a command of its own`,
      { disk: event.disk, backup: begun.backup },
    )
  }
}

/** R20: until the transaction ends the name is taken and the bitmap busy. */
function hold(fork: Catalog, { disk, bitmap }: BitmapRef): void {
  const state = fork.disk(disk)?.bitmaps.get(bitmap)
  assert(state !== undefined, 'a bitmap that may be removed exists')
  fork.setBitmap(disk, { ...state, holder: { kind: 'removal' } })
}

/** Which command of the list was refused is a fact of the refusal. */
function naming(index: number, decideOne: () => DomainEvent[]): DomainEvent[] {
  try {
    return decideOne()
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
    throw new CheckpointError(error.code, error.message, { ...error.facts, index }, error.cause)
  }
}
