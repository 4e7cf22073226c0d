/** The log's end against what was noted of it elsewhere: the store's own head file, and an anchor that somebody exported (R28). */
import { EMPTY_HASH } from '../../events/record.ts'
import { sameHash } from '../log/base-log.ts'
import type { LogHead } from '../log/event-log.ts'
import { COPY_AT, decodeSlot, type HeadFileContent, SLOT_BYTES, SLOT_SPACING } from '../log/head-file.ts'
import type { Findings, Span } from './findings.ts'
import type { ChainWalk } from './walk.ts'

export interface Anchor {
  /** Of the last event it vouches for; -1: of an empty log. */
  readonly position: number
  /** The chain's hash after it, in hex. */
  readonly hash: string
}

/** The chain's hash at the few places that are asked for later. */
export class HeadMarks {
  readonly #seen = new Map<number, Uint8Array | null>()
  /** The windows that hold the anchor, where it lies before the walk. */
  folded: Span | undefined

  constructor(heads: HeadFileContent, anchor: Anchor | undefined) {
    if (heads.kind === 'good') {
      this.#seen.set(heads.slot.acknowledged.next, null)
      this.#seen.set(heads.slot.synced.next, null)
    }
    if (anchor !== undefined) this.#seen.set(anchor.position + 1, null)
    this.seen(0, EMPTY_HASH)
  }

  seen(next: number, hash: Uint8Array): void {
    if (this.#seen.has(next)) this.#seen.set(next, hash)
  }

  /** Null: no record ends there. */
  at(next: number): Uint8Array | null {
    return this.#seen.get(next) ?? null
  }
}

export interface HeadCheck {
  readonly heads: HeadFileContent
  /** The head file as it is. */
  readonly raw: Uint8Array
  readonly bootChanged: boolean
  readonly marks: HeadMarks
  readonly walk: ChainWalk
  /** A store that is only being made has no head file yet. */
  readonly mayBeMissing: boolean
  readonly anchor: Anchor | undefined
  readonly findings: Findings
}

export function checkHead(check: HeadCheck): void {
  const { heads, findings, anchor } = check
  if (heads.kind === 'missing') {
    if (!check.mayBeMissing)
      findings.add(
        'HEAD_MISSING',
        'the head file is gone, so a log that was cut would not be noticed; compare with a head saved elsewhere (verify --against)',
      )
  } else if (heads.kind === 'unreadable') {
    findings.add(
      'HEAD_SLOT_DAMAGED',
      'both slots of the head file are damaged, so a log that was cut would not be noticed; compare with a head saved elsewhere (verify --against)',
    )
  } else if (heads.kind === 'good') {
    checkSlots(check, heads.index, heads.slot.sequence)
    const { acknowledged, synced, state } = heads.slot
    if (check.bootChanged && state === 'open' && check.walk.head.next < acknowledged.next)
      reach(check, synced)
    else reach(check, acknowledged)
    if (state === 'closed' && check.walk.head.next > acknowledged.next) {
      const span = { from: acknowledged.next, to: check.walk.head.next - 1 }
      findings.add(
        'TAIL_ADDED',
        `the log was closed at position ${acknowledged.next - 1} and has more: what follows was added afterwards; compare with a copy`,
        { position: span.from, span },
      )
    }
  }
  if (anchor !== undefined) checkAnchor(check, anchor)
}

/** Each slot stands twice. One that was never written is of the very first open, or of a version that wrote no copies. */
function checkSlots({ raw, findings }: HeadCheck, good: number, sequence: number): void {
  const sound = [0, SLOT_SPACING].every((at) => {
    const first = raw.subarray(at, at + SLOT_BYTES)
    const again = raw.subarray(at + COPY_AT, at + COPY_AT + SLOT_BYTES)
    const unwritten = sequence === 1 && at !== good * SLOT_SPACING && isZero(first)
    return unwritten || (isWhole(first) && (isWhole(again) || isZero(again)))
  })
  if (sound) return
  findings.add(
    'HEAD_SLOT_DAMAGED',
    'a slot of the head file is damaged; its copy or the other one holds. Opening and closing the store writes it anew',
  )
}

function isWhole(bytes: Uint8Array): boolean {
  return typeof decodeSlot(bytes) === 'object'
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}

function reach({ walk, marks, findings }: HeadCheck, head: LogHead): void {
  if (walk.head.next < head.next) {
    // A last record that cannot be read was reported as such.
    if (walk.next === null) return
    const span = { from: walk.head.next, to: head.next - 1 }
    findings.add(
      'TAIL_CUT',
      `the log ends at position ${walk.head.next - 1}, and the head file says that it reached ${head.next - 1}: its tail is gone; restore the folder from a copy`,
      { position: span.from, span },
    )
    return
  }
  const found = marks.at(head.next)
  if (found === null ? walk.broken : sameHash(found, head.hash)) return
  const span = { from: Math.max(0, head.next - 1), to: walk.head.next - 1 }
  findings.add(
    'HEAD_DIFFERS',
    `at position ${head.next - 1} the chain's hash is not the one in the head file: the record that ends there was replaced, or the head file was; compare with a copy`,
    { position: span.from, span },
  )
}

function checkAnchor({ walk, marks, findings }: HeadCheck, anchor: Anchor): void {
  const next = anchor.position + 1
  if (next > walk.head.next) {
    findings.add(
      'ANCHOR_CUT',
      `the log ends at position ${walk.head.next - 1}, before the ${anchor.position} of the head given: its tail is gone; restore the folder from a copy`,
      { position: walk.head.next },
    )
    return
  }
  const found = marks.at(next)
  if (found !== null && Buffer.from(found).toString('hex') === anchor.hash.toLowerCase()) return
  const run = found === null ? (walk.vouching.runAround(anchor.position) ?? marks.folded) : undefined
  if (run !== undefined) {
    findings.add(
      'ANCHOR_FOLDED',
      `the head given, at position ${anchor.position}, lies inside windows that a compaction left for positions ${run.from} to ${run.to}, so it cannot be compared any more; save a new head more often than writes are compacted`,
      { position: anchor.position },
    )
    return
  }
  findings.add(
    'ANCHOR_DIFFERS',
    `at position ${anchor.position} the chain's hash is not the one given: the log up to there was rewritten; compare with a copy of the time`,
    { position: anchor.position },
  )
}
