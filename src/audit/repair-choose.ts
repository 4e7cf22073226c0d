/**
 * Which of the values that were found make the log: the longest line in which each is whole, in place, chained to the one before
 * and not earlier than it. Where the line breaks, it goes on behind the damage; what lay between is lost (R28).
 *
 * A value that the log's files hold as the newest is taken where it stands. Older versions, and what lies in the wrong place or
 * was put aside, are taken only where they join two ends that are known: nothing is ever made up.
 */
import { BODY_AT, HASH_AT } from '../../events/frame.ts'
import {
  checkHeader,
  decodeStored,
  EMPTY_HASH,
  hashesOf,
  RecordTooNew,
  type StoredHeader,
} from '../../events/record.ts'
import { sameHash } from '../log/base-log.ts'
import { refusalAt } from '../log/damaged.ts'
import type { HeadFileContent } from '../log/head-file.ts'
import type { Candidates, Salvage } from '../log/salvage.ts'

export interface Kept {
  readonly kind: 'kept'
  readonly value: Uint8Array
  readonly header: StoredHeader
  /** Not what a reader would have found: an older version, or from elsewhere. */
  readonly restored: boolean
}

export interface Lost {
  readonly kind: 'lost'
  readonly first: number
  readonly last: number
  /** The chain's hash after it, where that is known. */
  readonly hash: Uint8Array | null
  readonly why: readonly string[]
}

export type Piece = Kept | Lost

/** A value that does not go into the log again. */
export interface TakenOut {
  readonly position: number
  readonly value: Uint8Array
  readonly why: string
}

/** How far the log must reach, and with which hash: from the head file. */
export interface Required {
  readonly next: number
  readonly hash: Uint8Array
  readonly time: number | null
  /** The log was closed there, so nothing may follow. */
  readonly closed: boolean
}

export function requiredOf(heads: HeadFileContent, bootId: Uint8Array): Required | null {
  if (heads.kind !== 'good') return null
  const { state, acknowledged, synced, bootId: then } = heads.slot
  const closed = state === 'closed'
  // After a restart of the machine only what was synced has to be there (R32).
  const head = closed || sameHash(then, bootId) ? acknowledged : synced
  return { ...head, closed }
}

const PATH_VALUES_MAX = 100_000

export class Chooser {
  readonly #salvage: Salvage
  readonly #required: Required | null
  readonly #takeOut: (out: TakenOut) => Promise<void>
  readonly #runs: (value: Uint8Array, header: StoredHeader) => string | null
  #next = 0
  #hash: Uint8Array = EMPTY_HASH
  #time = 0
  /** Held back by one, because a broken link puts the value before it in doubt. */
  #held: Kept | undefined
  /** Damage since `#next`, and the hash that the last damaged value carries. */
  #why: string[] = []
  #carried: Uint8Array | null = null
  #reach = 0
  /** More than the head file knows was found behind a closed log. */
  tailAdded = false

  /** `runs`: why a run of windows may not be believed, or null. */
  constructor(
    salvage: Salvage,
    required: Required | null,
    takeOut: (out: TakenOut) => Promise<void>,
    runs: (value: Uint8Array, header: StoredHeader) => string | null = () => null,
  ) {
    this.#runs = runs
    this.#salvage = salvage
    this.#required = required
    this.#takeOut = takeOut
  }

  async *pieces(): AsyncGenerator<Piece, void, void> {
    for await (const found of this.#salvage.candidates()) yield* this.#group(found)
    yield* this.#end()
  }

  async *#group(found: Candidates): AsyncGenerator<Piece, void, void> {
    const { position, newest } = found
    if (newest === undefined && found.others.length === 0) return
    if (position > this.#next || (position === this.#next && newest === undefined))
      yield* this.#bridge(position)
    if (newest === undefined) return
    if (position < this.#next) {
      await this.#takeOut({ position, value: newest, why: 'it lies inside the one before it' })
      return
    }
    const judged = this.#judge(position, newest)
    if (typeof judged === 'string') {
      if (this.#required?.closed === true && position >= this.#required.next)
        return await this.#added(position, newest)
      yield* this.#bridge(position + 1)
      if (position < this.#next) await this.#takeOut({ position, value: newest, why: judged })
      else await this.#damaged(position, newest, judged)
      return
    }
    if (this.#required?.closed === true && position >= this.#required.next)
      return await this.#added(position, newest)
    if (position > this.#next || this.#why.length > 0) yield* this.#resume(newest, judged)
    else if (!this.#atItsWord && !linked(newest, judged, this.#hash)) {
      yield* this.#bridge(position + 1)
      if (position < this.#next)
        await this.#takeOut({ position, value: newest, why: 'another one fits here' })
      else await this.#broken(position, newest)
    } else yield* this.#accept(newest, judged, false)
  }

  /** Behind a gap that an earlier repair left without knowing the hash, which `log-repaired` vouched for. */
  get #atItsWord(): boolean {
    return this.#next > 0 && sameHash(this.#hash, EMPTY_HASH)
  }

  async #added(position: number, value: Uint8Array): Promise<void> {
    this.tailAdded = true
    await this.#takeOut({ position, value, why: 'it was added behind the end of a closed log' })
  }

  /** The header, or why the value cannot stand under this position. Throws FORMAT_TOO_NEW. */
  #judge(position: number, value: Uint8Array): StoredHeader | string {
    let header: StoredHeader
    try {
      header = checkHeader(value)
      decodeStored(value)
    } catch (error) {
      if (error instanceof RecordTooNew) throw refusalAt(position, error)
      return `it is damaged (${(error as Error).message})`
    }
    if (header.first !== position) return `it is the record of position ${header.first}`
    if (header.time < this.#time && position >= this.#next)
      return 'its time is before that of the one before it'
    const forged = header.layout === 'run' ? this.#runs(value, header) : null
    if (forged !== null) return forged
    return this.#againstHead(value, header)
  }

  /** The record that ends where the head file says must have the hash that it says. */
  #againstHead(value: Uint8Array, header: StoredHeader): StoredHeader | string {
    const required = this.#required
    const end = header.first + header.count
    if (required === null || required.next <= header.first || required.next > end) return header
    const other = 'the record that ends where the head file says is another one'
    if (end === required.next) return sameHash(header.hash, required.hash) ? header : other
    if (required.closed) return other
    // Behind damage the links inside a pack cannot be followed; those of a run are gone.
    if (header.first !== this.#next || this.#why.length > 0 || header.layout !== 'pack') return header
    const step = hashesOf(value, this.#hash).find(({ next }) => next === required.next)
    return step !== undefined && sameHash(step.hash, required.hash) ? header : other
  }

  *#accept(value: Uint8Array, header: StoredHeader, restored: boolean): Generator<Piece, void, void> {
    if (this.#held !== undefined) yield this.#held
    this.#held = { kind: 'kept', value, header, restored }
    this.#next = header.first + header.count
    this.#hash = header.hash
    this.#time = header.lastTime
  }

  /** Behind damage: the value is taken at its word, unless what was damaged still carries the hash that it follows from. */
  *#resume(value: Uint8Array, header: StoredHeader): Generator<Piece, void, void> {
    const hash =
      [this.#carried, this.#hash].find((known) => known !== null && linked(value, header, known)) ?? null
    yield* this.#lose(header.first - 1, hash)
    yield* this.#accept(value, header, false)
  }

  *#lose(last: number, hash: Uint8Array | null): Generator<Piece, void, void> {
    if (this.#held !== undefined) yield this.#held
    this.#held = undefined
    const why = this.#why.length === 0 ? ['nothing was found there'] : this.#why
    if (last >= this.#next) yield { kind: 'lost', first: this.#next, last, hash, why }
    this.#next = Math.max(this.#next, last + 1)
    this.#why = []
    this.#carried = null
  }

  async #damaged(position: number, value: Uint8Array, why: string): Promise<void> {
    this.#why.push(`at position ${position} ${why}`)
    this.#carried = value.length >= BODY_AT ? value.slice(HASH_AT, BODY_AT) : null
    this.#reach = Math.max(this.#reach, position + 1)
    await this.#takeOut({ position, value, why })
  }

  /** The value does not follow from the one before: either was edited, and nothing tells which. */
  async #broken(position: number, value: Uint8Array): Promise<void> {
    const why = 'its hash does not follow from the record before it, or that one was edited'
    const before = this.#held
    if (before !== undefined) {
      this.#held = undefined
      this.#next = before.header.first
      await this.#takeOut({
        position: before.header.first,
        value: before.value,
        why: 'the next one does not follow from it',
      })
    }
    await this.#damaged(position, value, why)
    this.#reach = Math.max(this.#reach, position + checkHeader(value).count)
  }

  /** Values from elsewhere that lead, link by link, from where the line stands to a newest value before `until`, or to the head. */
  async *#bridge(until: number): AsyncGenerator<Piece, void, void> {
    if (this.#why.length > 0) return
    const path: { value: Uint8Array; header: StoredHeader }[] = []
    let next = this.#next
    let hash = this.#hash
    while (path.length < PATH_VALUES_MAX) {
      const { newest, others } = await this.#salvage.at(next)
      if (path.length > 0 && newest !== undefined && this.#fits(newest, next, hash)) break
      const step = others.find((value) => this.#fits(value, next, hash))
      if (step === undefined) {
        const required = this.#required
        if (required !== null && next === required.next && sameHash(hash, required.hash) && path.length > 0)
          break
        return
      }
      const header = checkHeader(step)
      path.push({ value: step, header })
      next = header.first + header.count
      hash = header.hash
    }
    if (next < until && path.length === 0) return
    for (const { value, header } of path) yield* this.#accept(value, header, true)
  }

  #fits(value: Uint8Array, position: number, hash: Uint8Array): boolean {
    try {
      const header = checkHeader(value)
      decodeStored(value)
      if (header.first !== position || !linked(value, header, hash)) return false
      return header.layout !== 'run' || this.#runs(value, header) === null
    } catch {
      return false
    }
  }

  *#end(): Generator<Piece, void, void> {
    const required = this.#required
    const end = Math.max(this.#next, this.#reach, required?.next ?? 0)
    const atHead = required !== null && end === required.next
    if (end > this.#next) yield* this.#lose(end - 1, atHead ? required.hash : null)
    if (this.#held !== undefined) yield this.#held
    this.#held = undefined
  }
}

function linked(value: Uint8Array, header: StoredHeader, hash: Uint8Array): boolean {
  try {
    return sameHash(hashesOf(value, hash).at(-1)!.hash, header.hash)
  } catch {
    return false
  }
}
