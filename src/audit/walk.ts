/**
 * The walk over everything the log stores: each value whole, in its place, chained to the one before, later than it. After a
 * broken link it goes on from what the next value says of itself, so that one edit is one finding and not the rest of the log.
 *
 * Cost: one checksum, one decode and one hash a record; nothing is kept but the place.
 */

import { BODY_AT, HASH_AT } from '../../events/frame.ts'
import {
  decodeStored,
  EMPTY_HASH,
  hashesOf,
  ownHash,
  RecordDamage,
  readHeader,
  type StoredHeader,
} from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { sameHash } from '../log/base-log.ts'
import { refusalAt } from '../log/damaged.ts'
import type { Findings, Span } from './findings.ts'
import { type SeenGap, Vouching } from './vouched.ts'

/** A value that may be folded. */
export interface Walked {
  readonly records: readonly LogRecord[]
  /** Number of its first record. */
  readonly record: number
  /** Chain at the end of each of its records. */
  readonly steps: readonly { readonly next: number; readonly hash: Uint8Array }[]
}

interface Before {
  readonly first: number
  readonly linked: boolean
}

export class ChainWalk {
  /** Position after the last value, or null when that value could not be read. */
  next: number | null = 0
  /** The chain so far; null: unknown, so the next value is taken at its word. */
  #hash: Uint8Array | null = EMPTY_HASH
  #time: number | null = null
  #before: Before | undefined
  /** Of the last value, when it could not be read: it ends where the next one begins. */
  #open: { from: number; to: number } | undefined
  /** Records seen. */
  records = 0
  /** Of the last value that could be read. */
  head: { next: number; time: number | null; hash: Uint8Array } = { next: 0, time: null, hash: EMPTY_HASH }
  /** Something was missing, damaged or edited, so what is folded from here on may be wrong. */
  broken = false
  /** What was found missing, unreadable or edited. */
  readonly damaged: Span[] = []
  /** What stands in the place of records, to be compared with what vouches for it. */
  readonly vouching: Vouching
  readonly #findings: Findings
  /** The gap that the last value was. */
  #gap: SeenGap | undefined

  /** `start`: where to begin, when what lies before was walked another time. */
  constructor(
    findings: Findings,
    start?: { readonly next: number; readonly hash: Uint8Array; readonly time: number | null },
  ) {
    this.#findings = findings
    this.vouching = new Vouching(findings)
    if (start === undefined) return
    this.next = start.next
    this.#hash = start.hash
    this.#time = start.time
    this.head = start
  }

  /** One value under its key's position. Undefined when it cannot be folded. Throws FORMAT_TOO_NEW. */
  step(position: number, value: Uint8Array): Walked | undefined {
    this.#gapBefore(position)
    let records: LogRecord[]
    try {
      records = decodeStored(value)
    } catch (error) {
      if (!(error instanceof RecordDamage)) throw refusalAt(position, error)
      return this.#unreadable(position, value, error)
    }
    const header = readHeader(value)
    if (header.first !== position) return this.#misplaced(position, header.first)
    if (this.next !== null && position < this.next && this.#before?.linked !== false)
      return this.#added(position, header.count)
    return this.#link(position, value, records)
  }

  #gapBefore(position: number): void {
    if (this.#open !== undefined) this.#open.to = Math.max(this.#open.from, position - 1)
    this.#open = undefined
    if (this.next === null || position <= this.next) return
    const span = { from: this.next, to: position - 1 }
    this.#break(
      'RECORDS_MISSING',
      `positions ${span.from} to ${span.to} are not in the log; restore the folder from a copy`,
      span,
    )
    this.#hash = null
    this.next = null
  }

  #unreadable(position: number, value: Uint8Array, error: RecordDamage): undefined {
    this.#open = { from: position, to: Number.MAX_SAFE_INTEGER }
    this.#break(
      'RECORD_DAMAGED',
      `the record at position ${position} is damaged (${error.problem}: ${error.message}); restore the folder from a copy`,
      this.#open,
    )
    this.records++
    // If the damage is elsewhere in the value, the next one still chains from the hash that it carries.
    this.#hash = value.length >= BODY_AT ? value.slice(HASH_AT, BODY_AT) : null
    this.next = null
    this.#before = undefined
    return undefined
  }

  #misplaced(position: number, found: number): undefined {
    this.#open = { from: position, to: Number.MAX_SAFE_INTEGER }
    this.#break(
      'RECORD_MISPLACED',
      `under position ${position} lies the record of position ${found}: records were swapped or moved; restore the folder from a copy`,
      this.#open,
    )
    this.records++
    this.#hash = null
    this.next = null
    this.#before = undefined
    return undefined
  }

  #added(position: number, count: number): undefined {
    this.#break(
      'RECORD_ADDED',
      `a record at position ${position} lies inside the one before it, which is chained as it should be: it was added; take it out, or restore the folder from a copy`,
      { from: position, to: position + count - 1 },
    )
    return undefined
  }

  #link(position: number, value: Uint8Array, records: readonly LogRecord[]): Walked {
    const header = readHeader(value)
    const next = header.first + header.count
    // After a value that could not be read, a chain that does not go on is no second finding.
    const chained = this.#hash === null ? null : hashesOf(value, this.#hash)
    const linked =
      chained === null || this.next === null || sameHash(chained[chained.length - 1]!.hash, header.hash)
    if (!linked) {
      const from = this.#before?.first ?? position
      const other = from === position ? '' : `, or the one before it at position ${from},`
      this.#break(
        'CHAIN_BROKEN',
        `the record at position ${position}${other} was edited or replaced: its hash does not follow from what is there; compare with a copy and restore the folder`,
        { from, to: next - 1 },
        position,
      )
    }
    if (this.#time !== null && header.time < this.#time) {
      this.#findings.add(
        'TIME_BACKWARDS',
        `the record at position ${position} has time ${header.time}, before the ${this.#time} of the one before it; compare with a copy`,
        { position, record: this.records },
      )
    }
    const steps = linked && chained !== null ? chained : [{ next, hash: header.hash }]
    this.#note(value, header, records, steps)
    const walked = {
      records,
      record: this.records,
      steps,
    }
    this.records += header.records
    this.next = next
    // A repair that did not know the hash behind a gap left zeros: what follows is taken at its word, as `log-repaired` tells (R28).
    this.#hash = header.layout === 'run' && sameHash(header.hash, EMPTY_HASH) ? null : header.hash
    this.#time = header.lastTime
    this.#before = { first: position, linked }
    this.head = { next, time: header.lastTime, hash: header.hash }
    return walked
  }

  /** A run and a gap are believed when an event further on vouches for them; of a gap that also tells what follows it. */
  #note(
    value: Uint8Array,
    header: StoredHeader,
    records: readonly LogRecord[],
    steps: Walked['steps'],
  ): void {
    if (this.#gap !== undefined) this.#gap.next = [header.hash, ...steps.map((step) => step.hash)].map(hex)
    this.#gap = undefined
    if (header.layout !== 'run') return
    const seen = {
      from: header.first,
      to: header.first + header.count - 1,
      record: this.records,
      before: this.#hash === null ? null : hex(this.#hash),
    }
    if (records[0]?.kind === 'gap') {
      this.#gap = { ...seen, next: [] }
      this.vouching.gap(this.#gap)
    } else this.vouching.run({ ...seen, after: hex(header.hash), own: hex(ownHash(value)) })
  }

  #break(
    code: 'RECORDS_MISSING' | 'RECORD_DAMAGED' | 'RECORD_MISPLACED' | 'RECORD_ADDED' | 'CHAIN_BROKEN',
    todo: string,
    span: { from: number; to: number },
    position = span.from,
  ): void {
    this.broken = true
    this.damaged.push(span)
    this.#findings.add(code, todo, { position, record: this.records, span })
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}
