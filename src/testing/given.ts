/**
 * Given events, when a command, then events or a refusal: the kit in which the rules are tested, exported for agents
 * that want to test how their own commands would be answered.
 *
 * Pure and free of any test framework: a mismatch throws an AssertionError with a difference, and all else is silence.
 * ```ts
 * given(diskAdded('vda'), bitmapAdded('vda', 'daily')).when({ type: 'bank', disk: 'vda', bitmap: 'daily' }).thenRefused('RETENTION_ZERO')
 * ```
 */
import assert from 'node:assert/strict'
import type { DomainEvent, LogRecord, WriteColumns } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import type { Answer } from '../commands/answer.ts'
import { answerOf } from '../commands/answer.ts'
import { decide } from '../commands/decide.ts'
import { decideTransaction } from '../commands/transaction.ts'
import type { Command, DecideContext } from '../commands/types.ts'
import { CheckpointError, type ErrorCode, type Facts } from '../errors.ts'

/** Writes whose ranges do not matter: they only move the log on by `count` positions. */
export interface SomeWrites {
  readonly type: 'writes'
  readonly disk: string
  readonly count: number
}

/** One argument is one record: an event, the events of a transaction, or writes. */
export type Given = DomainEvent | readonly DomainEvent[] | SomeWrites

/** Time of the event at `position`, ms: one second an event from 2026-01-01 on, so that tests can name times. */
export function timeAt(position: number): number {
  return Date.UTC(2026, 0, 1) + position * 1000
}

/** What `decide` gets unless a test says otherwise: plans without figures, no disk that ended uncleanly. */
export const CALM: DecideContext = {
  plan: () => ({ digest: 'digest', bytes: 0, complete: true }),
  unclean: new Set(),
}

/** Folds records from the start of an empty log. */
export function given(...records: readonly Given[]): Scenario {
  const catalog = new Catalog()
  for (const record of records) catalog.apply(recordOf(catalog, record))
  return new Scenario(catalog)
}

export class Scenario {
  constructor(readonly catalog: Catalog) {}

  /** One command, or a list as one transaction (R20). Nothing is judged before a `then`. */
  when(command: Command | readonly Command[], context: Partial<DecideContext> = {}): Outcome {
    const all = { ...CALM, ...context }
    const single = !isList(command)
    try {
      if (single) {
        const events = decide(this.catalog, command, all)
        return new Outcome(this.catalog, events, [answerOf(command, events, this.catalog)], null)
      }
      const { events, answers } = decideTransaction(this.catalog, command, all)
      return new Outcome(this.catalog, events, answers, null)
    } catch (error) {
      return new Outcome(this.catalog, [], [], error)
    }
  }
}

function isList(command: Command | readonly Command[]): command is readonly Command[] {
  return Array.isArray(command)
}

/** What came of a command. Every `then…` throws on a mismatch and returns this, so that they can be chained. */
export class Outcome {
  constructor(
    private readonly before: Catalog,
    readonly events: readonly DomainEvent[],
    readonly answers: readonly Answer[],
    readonly error: unknown,
  ) {}

  /** Exactly these events, in this order. */
  // biome-ignore lint/suspicious/noThenProperty: given/when/then is the name of the thing; awaiting it is refused below.
  then(...expected: readonly DomainEvent[]): this {
    if (typeof expected[0] === 'function')
      throw new TypeError('given/when/then is synchronous: do not await it')
    this.#accepted()
    assert.deepEqual(this.events, expected)
    return this
  }

  /** Accepted, and nothing changes. */
  thenNothing(): this {
    return this.then()
  }

  /** Refused with this code, and with these facts among its own. The state is as it was (R21). */
  thenRefused(code: ErrorCode, facts: Facts = {}): this {
    if (!(this.error instanceof CheckpointError)) {
      if (this.error !== null) throw this.error
      assert.fail(
        `expected a refusal with ${code}, but the command was accepted: ${JSON.stringify(this.events, null, 2)}`,
      )
    }
    assert.equal(this.error.code, code, `expected ${code}, was ${this.error.code}: ${this.error.message}`)
    const named = Object.fromEntries(
      Object.keys(facts).map((name) => [name, (this.error as CheckpointError).facts[name]]),
    )
    assert.deepEqual(named, facts)
    return this
  }

  /** The answer to the command; of a transaction, to the one at `index`. */
  thenAnswer(expected: Answer, index = 0): this {
    this.#accepted()
    assert.deepEqual(this.answers[index], expected)
    return this
  }

  /** The catalog with the events folded in, for a closer look. */
  thenState(look: (after: Catalog) => void): this {
    this.#accepted()
    look(this.#after())
    return this
  }

  /** The next act: what just happened becomes the given. */
  when(command: Command | readonly Command[], context: Partial<DecideContext> = {}): Outcome {
    this.#accepted()
    return new Scenario(this.#after()).when(command, context)
  }

  /** Writes that follow what just happened. */
  after(...records: readonly Given[]): Scenario {
    this.#accepted()
    const catalog = this.#after()
    for (const record of records) catalog.apply(recordOf(catalog, record))
    return new Scenario(catalog)
  }

  #after(): Catalog {
    const after = Catalog.fromPlain(this.before.toPlain())
    if (this.events.length > 0) after.apply(recordOf(after, this.events))
    return after
  }

  #accepted(): void {
    if (this.error !== null) throw this.error
  }
}

/** The record that `given` would come to next in the log that `catalog` is the fold of. */
export function recordOf(catalog: Catalog, item: Given): LogRecord {
  const first = catalog.last.position + 1
  if ('type' in item && item.type === 'writes') return writesOf(catalog, item, first)
  const events: readonly DomainEvent[] = 'type' in item ? [item] : item
  const time = timeAt(first + events.length - 1)
  return { kind: 'events', first, count: events.length, time, lastTime: time, meta: {}, events }
}

function writesOf(catalog: Catalog, { disk, count }: SomeWrites, first: number): LogRecord {
  const number = catalog.disk(disk)?.number
  if (number === undefined) throw new RangeError(`disk "${disk}" must be given before writes to it`)
  const offsets = new Float64Array(count)
  const lengths = new Float64Array(count).fill(512)
  const times = Float64Array.from({ length: count }, (_, index) => timeAt(first + index))
  const columns: WriteColumns = { offsets, lengths, times }
  return {
    kind: 'writes',
    first,
    count,
    time: timeAt(first),
    lastTime: timeAt(first + count - 1),
    sections: [{ disk: number, columns }],
  }
}
