/** What verify can find, each under a code that stays. Meanings and what to do: docs/verify.md. */

export const FINDING_CODES = [
  // the files
  'LOG_UNREADABLE',
  'LEVELDB_DAMAGED',
  'KEY_UNKNOWN',
  'ASIDE_KEPT',
  // records
  'RECORD_DAMAGED',
  'RECORD_MISPLACED',
  'RECORDS_MISSING',
  'RECORD_ADDED',
  'CHAIN_BROKEN',
  'TIME_BACKWARDS',
  'COMMAND_INDEX_WRONG',
  // the end of the log
  'HEAD_MISSING',
  'HEAD_SLOT_DAMAGED',
  'HEAD_DIFFERS',
  'TAIL_CUT',
  'TAIL_ADDED',
  'ANCHOR_CUT',
  'ANCHOR_DIFFERS',
  'ANCHOR_FOLDED',
  // what stands in the place of records
  'RUN_UNVOUCHED',
  'RUN_DIFFERS',
  'RUN_MISSING',
  'RUNS_DISAGREE',
  'GAP_UNVOUCHED',
  // what the records say
  'EVENT_ILLEGAL',
  'PLAN_DIFFERS',
  // what is derived from them
  'DERIVED_DAMAGED',
] as const

export type FindingCode = (typeof FINDING_CODES)[number]

export interface Finding {
  readonly code: FindingCode
  /** First position concerned, or null when it is no place in the log. */
  readonly position: number | null
  /** Number of the record concerned, counted from 0, or null. */
  readonly record: number | null
  /** What can no longer be relied on: `disk vda`, `bitmap vda daily`, `slice vda daily 3`, `backup ID`, `checkpoint NAME`. */
  readonly doubt: readonly string[]
  /** What was found, and what to do about it. */
  readonly todo: string
}

/** Positions whose content is unknown or not to be believed. */
export interface Span {
  readonly from: number
  readonly to: number
}

/** Findings as they come; those about a span get their `doubt` once the whole log has been folded. */
export class Findings {
  readonly #list: { finding: Finding; span: Span | undefined }[] = []

  get count(): number {
    return this.#list.length
  }

  add(
    code: FindingCode,
    todo: string,
    place: {
      readonly position?: number
      readonly record?: number
      readonly doubt?: readonly string[]
      readonly span?: Span
    } = {},
  ): void {
    const { position = null, record = null, doubt = [], span } = place
    this.#list.push({ finding: { code, position, record, doubt, todo }, span })
  }

  list(doubtOf: (span: Span) => readonly string[]): Finding[] {
    return this.#list.map(({ finding, span }) =>
      span === undefined
        ? finding
        : { ...finding, doubt: [...new Set([...finding.doubt, ...doubtOf(span)])] },
    )
  }
}
