/**
 * Would the same commands come to the same events today? Every recorded command is decided again by the rules of this version,
 * on the state that it met then. A rule that changed shows as `different` or `refused`, at its position.
 *
 * What the log does not hold cannot be decided again, and is said as `unknown`: commands that changed nothing (their arguments
 * are kept as a hash only), what the store did by itself, and, since a refusal leaves no trace (R21), everything that was refused.
 * The figures of plans are taken as recorded: `verify` makes the plans again.
 */
import { isDeepStrictEqual } from 'node:util'
import type { DomainEvent, LogRecord } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import { decideTransaction } from '../commands/transaction.ts'
import type { BeginBackup, PlanFacts } from '../commands/types.ts'
import { type CommandsOf, commandsOf } from './commands-of.ts'

type EventsRecord = Extract<LogRecord, { kind: 'events' }>

/** A command as the log knows it. */
export interface RecordedCommand {
  /** Of its first event. */
  readonly position: number
  readonly time: number
  /** `begin-backup`, `transaction`, …; null for what the store did by itself. */
  readonly name: string | null
  readonly meta: EventsRecord['meta']
  readonly events: readonly DomainEvent[]
  /** What was asked, read off the events. */
  readonly asked: CommandsOf
}

export type Verdict =
  | { readonly kind: 'same' }
  | { readonly kind: 'different'; readonly today: readonly DomainEvent[] }
  | { readonly kind: 'refused'; readonly error: unknown }
  | { readonly kind: 'unknown'; readonly why: string }

export type Redecided = RecordedCommand & { readonly verdict: Verdict }

/** Recorded commands in order, each with the catalog that it met. */
export function* recordedCommands(
  records: Iterable<LogRecord>,
): Generator<{ readonly command: RecordedCommand; readonly before: Catalog }> {
  const catalog = new Catalog()
  for (const record of records) {
    if (record.kind === 'events') {
      const { first, time, meta, events } = record
      const asked = commandsOf(record, catalog)
      yield {
        command: { position: first, time, name: meta.command ?? null, meta, events, asked },
        before: catalog,
      }
    }
    catalog.apply(record)
  }
}

/** `reasons`: false where they were replaced, so that those made of names cannot be compared. */
export function redecideRecord(command: RecordedCommand, before: Catalog, reasons: boolean): Redecided {
  const { asked } = command
  if (asked.kind === 'unknown') return { ...command, verdict: { kind: 'unknown', why: asked.why } }
  try {
    const { events } = decideTransaction(before, asked.commands, {
      time: command.time,
      unclean: new Set(asked.unclean.keys()),
      uncleanSince: asked.unclean,
      plan: (begin) => factsOf(begin, command.events),
    })
    const same = isDeepStrictEqual(comparable(events, reasons), comparable(command.events, reasons))
    return { ...command, verdict: same ? { kind: 'same' } : { kind: 'different', today: events } }
  } catch (error) {
    return { ...command, verdict: { kind: 'refused', error } }
  }
}

function factsOf(begin: BeginBackup, events: readonly DomainEvent[]): PlanFacts {
  for (const event of events) {
    if (event.type === 'backup-begun' && event.backup === begin.backup)
      return { digest: event.digest, bytes: event.bytes, complete: event.complete }
  }
  throw new Error(`slicelog bug: backup "${begin.backup}" is not in its own record`)
}

/** Absent and undefined are the same here, as they are in a record. */
function comparable(events: readonly DomainEvent[], reasons: boolean): unknown {
  return events.map((event) =>
    JSON.parse(JSON.stringify(event, (key, value: unknown) => (key === 'reason' && !reasons ? '' : value))),
  )
}
