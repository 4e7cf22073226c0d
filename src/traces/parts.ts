/**
 * Which of a trace's disks is read. A block trace may hold several devices, a log several files or exports: with one it
 * is taken, with several one must be named, because writes of two disks in one history would be a third disk that never
 * was. All of the file is read before that is refused, so that the refusal names what there is to choose from.
 */
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { type PartKind, TRACE_ACTIONS, type TraceAction, type TraceFormat, type TraceRow } from './format.ts'

/** What to take of a trace that holds more than one disk's writes, or more than one line for each. */
export interface TraceChoice {
  /** blkparse: `8,0`; MSR Cambridge: `HOST_DISK`. Needed where there are several. */
  readonly device?: string
  /** fio: the file's name as it stands in the log. */
  readonly file?: string
  /** nbdkit: the export that a client asked for; `''` is the default one. */
  readonly export?: string
  /** blkparse: the step whose lines are taken. Default Q. */
  readonly action?: TraceAction
}

/** A choice that fits its format. */
export interface CheckedChoice {
  readonly part: string | undefined
  readonly action: TraceAction
}

const PART_KINDS: readonly PartKind[] = ['device', 'file', 'export']

/** @throws CheckpointError TRACE_CHOICE_INVALID when the format has nothing of that kind to choose. */
export function choiceOf(path: string, format: TraceFormat, choice: TraceChoice): CheckedChoice {
  for (const kind of PART_KINDS) {
    if (choice[kind] !== undefined && format.parts !== kind) throw noSuchChoice(path, format, kind)
  }
  if (choice.action !== undefined && format.actions !== true) throw noSuchChoice(path, format, 'action')
  const action = choice.action ?? 'Q'
  if (!TRACE_ACTIONS.includes(action)) {
    throw invalid(path, `action ${String(action)} is none of ${TRACE_ACTIONS.join(', ')}`, {})
  }
  return { part: format.parts === undefined ? undefined : choice[format.parts], action }
}

/** Sorts lines by disk while a file is read, and judges at its end. */
export class TraceParts {
  /** The one whose writes are handed out: the chosen one, or the first that writes. */
  part: string | null
  readonly #path: string
  readonly #kind: PartKind | undefined
  readonly #chosen: string | undefined
  /** Writes by disk. */
  readonly #writes = new Map<string, number>()
  #uncounted = 0

  constructor(path: string, format: TraceFormat, choice: CheckedChoice) {
    this.#path = path
    this.#kind = format.parts
    this.#chosen = choice.part
    this.part = choice.part ?? null
  }

  /** Leaves a good line of another disk as `other`: counted, its time kept, its range nobody's business. */
  sort(row: TraceRow): void {
    if (this.#kind === undefined || row.kind === 'bad') return
    if (row.kind === 'write') {
      this.#count(row.part)
      this.part ??= row.part
    }
    if (this.part !== null && row.part !== this.part) row.kind = 'other'
  }

  /**
   * @param missed why a step's lines were passed over, if they were
   * @throws CheckpointError TRACE_CHOICE_INVALID
   */
  finish(missed: string | null): void {
    if (missed !== null) throw invalid(this.#path, `${missed}; say which one counts (--action)`, {})
    const kind = this.#kind
    if (kind === undefined) return
    const there = [...this.#writes].map(([name, writes]) => ({ name, writes }))
    const list = there
      .map(({ name, writes }) => `${kind} "${name}" (${writes} ${writes === 1 ? 'write' : 'writes'})`)
      .join(', ')
    const more =
      this.#uncounted === 0
        ? ''
        : `, and others with ${this.#uncounted} ${this.#uncounted === 1 ? 'write' : 'writes'}`
    const facts = { kind, there }
    if (this.#chosen === undefined && there.length > 1) {
      throw invalid(
        this.#path,
        `it holds the writes of several: ${list}${more}; choose one (--${kind})`,
        facts,
      )
    }
    if (
      this.#chosen !== undefined &&
      there.length > 0 &&
      !this.#writes.has(this.#chosen) &&
      this.#uncounted === 0
    ) {
      throw invalid(this.#path, `no write in it is of ${kind} "${this.#chosen}"; it holds ${list}`, facts)
    }
  }

  #count(part: string): void {
    const count = this.#writes.get(part)
    if (count !== undefined || this.#writes.size < limits.tracePartsMax) {
      this.#writes.set(part, (count ?? 0) + 1)
    } else this.#uncounted++
  }
}

function noSuchChoice(path: string, format: TraceFormat, kind: PartKind | 'action'): CheckpointError {
  return invalid(path, `a trace in ${format.name} has no ${kind} to choose; leave out --${kind}`, { kind })
}

function invalid(path: string, why: string, facts: Record<string, unknown>): CheckpointError {
  return new CheckpointError('TRACE_CHOICE_INVALID', `${path}: ${why}.`, { path, ...facts })
}
