/**
 * The fold that verify makes: the same projections as the live store's, event by event, each asked beforehand whether it could
 * happen, and every begun backup's plan made again from the log alone (R26).
 *
 * Bits of slices are put aside in a store of the audit's own, so memory holds what a live store's does.
 */
import type { DomainEvent, LogRecord, RepairedGap } from '../../events/types.ts'
import { planShape } from '../../projections/plan.ts'
import type { EventLog } from '../log/event-log.ts'
import type { Derived } from '../store/derived.ts'
import { foldWrites } from '../store/fold-writes.ts'
import { finish, type PlanSubject, prepareFixed } from '../store/plan-bits.ts'
import { materialize } from '../store/rebuild.ts'
import { State } from '../store/state.ts'
import type { Findings } from './findings.ts'
import { objectionTo, objectionToEnd, objectionToWrites } from './legal.ts'

type EventsRecord = Extract<LogRecord, { kind: 'events' }>
type Begun = Extract<DomainEvent, { type: 'backup-begun' }>

const WHAT_TO_DO = 'no slicelog records this: keep the folder as evidence and compare with a copy'

export class AuditFold {
  readonly state: State
  /** Position of the last event of the last record. */
  last = -1
  readonly #log: EventLog
  readonly #scratch: Derived
  readonly #findings: Findings
  /** Gaps up to the event that tells of them: plans of that time were made of records that are gone (R28). */
  readonly #untold = new Set<string>()
  /** Every gap that was told. A repair tells those of earlier ones again. */
  readonly #told = new Set<string>()
  /** Plans that differ: until the end, because a repair may still tell of a gap that lies before where the walk began. */
  #differing: { readonly position: number; readonly tell: () => void }[] = []

  /** `state`: what to go on from, when what lies before was folded another time. */
  constructor(log: EventLog, scratch: Derived, findings: Findings, state = new State()) {
    this.state = state
    this.last = state.catalog.last.position
    this.#log = log
    this.#scratch = scratch
    this.#findings = findings
  }

  /** `judged`: false once something before is missing or edited, because then nothing that does not fit is news. */
  async fold(record: LogRecord, number: number, judged: boolean): Promise<void> {
    if (record.kind === 'gap') this.#untold.add(keyOf(record.first, record.first + record.count - 1))
    if (record.kind === 'events') await this.#events(record, number, judged)
    else this.#writes(record, number, judged)
    this.last = record.first + record.count - 1
  }

  #writes(record: Exclude<LogRecord, { kind: 'events' }>, number: number, judged: boolean): void {
    const why = record.kind === 'gap' ? null : objectionToWrites(record, this.state.catalog)
    if (why !== null && judged) this.#illegal(record.first, number, why)
    this.#try(() => this.state.bits.apply(record))
    this.#try(() => this.state.catalog.applyWrites(record))
  }

  async #events(record: EventsRecord, number: number, judged: boolean): Promise<void> {
    const { bits, catalog } = this.state
    const at = { position: record.first + record.count - 1, time: record.lastTime }
    for (const [i, event] of record.events.entries()) {
      const position = record.first + i
      const why = objectionTo(event, catalog, this.last)
      if (why !== null && judged) this.#illegal(position, number, `${event.type}: ${why}`)
      if (event.type === 'log-repaired') this.#repaired(event.gaps)
      if (event.type === 'backup-begun' && why === null && judged && this.#untold.size === 0)
        await this.#plan(event, at, position, number)
      await materialize(this.state, { ...record, first: position, count: 1, events: [event] }, this.#scratch)
      this.#try(() => bits.applyEvent(event, position))
      this.#try(() => catalog.applyEvent(event, position, at))
    }
    const left = judged ? objectionToEnd(record, catalog) : null
    if (left !== null) this.#illegal(record.first, number, left)
    await this.#putAside(record)
  }

  #repaired(gaps: readonly RepairedGap[]): void {
    const fresh = gaps.filter(({ first, last }) => !this.#told.has(keyOf(first, last)))
    this.#differing = this.#differing.filter(({ position }) => !fresh.some(({ first }) => first < position))
    for (const { first, last } of gaps) {
      this.#told.add(keyOf(first, last))
      this.#untold.delete(keyOf(first, last))
    }
  }

  /** Tells what only the end of the log could decide. */
  end(): void {
    for (const { tell } of this.#differing) tell()
    this.#differing = []
  }

  async #plan(
    event: Begun,
    point: { position: number; time: number },
    position: number,
    number: number,
  ): Promise<void> {
    const disk = this.state.catalog.disk(event.disk)!
    const bitmap = disk.bitmaps.get(event.bitmap)!
    const subject: PlanSubject = {
      disk,
      bitmap,
      mode: event.mode,
      base: event.base,
      point,
      shape: planShape(disk, bitmap, event.base, point),
      clockSteps: [], // No part of what was recorded.
    }
    const bits = this.state.bits.bitmap(disk.id, bitmap.name)!
    const plan = finish(
      await prepareFixed(
        subject,
        bits,
        (span, target) => foldWrites(this.#log, span, target),
        this.#scratch,
        point.position,
      ),
      subject,
      bits,
    )
    if (plan.digest === event.digest && plan.bytes === event.bytes && plan.complete === event.complete) return
    const { bytes, digest } = plan
    const tell = () =>
      this.#findings.add(
        'PLAN_DIFFERS',
        `the plan of backup "${event.backup}", made again from the log, has ${bytes} bytes and digest ${digest}; recorded were ${event.bytes} and ${event.digest}. Do not rely on what it copied: make a full backup`,
        { position, record: number, doubt: [`backup ${event.backup}`] },
      )
    this.#differing.push({ position, tell })
  }

  /** Only frozen slices: what was merged or made active again comes back when it is needed. */
  async #putAside(record: EventsRecord): Promise<void> {
    for (const event of record.events) {
      if (event.type !== 'slice-frozen' && event.type !== 'slice-merged') continue
      const slices = this.state.bits.bitmap(event.disk, event.bitmap)?.slices
      const slice = slices?.get(event.type === 'slice-frozen' ? event.slice : event.into)
      if (slice === undefined || slice.own === null) continue
      const { own } = slice
      slice.parts = [...slice.parts, { ref: await this.#scratch.putBits(own), sizeMin: own.size }]
      slice.own = null
    }
  }

  #illegal(position: number, number: number, why: string): void {
    this.#findings.add('EVENT_ILLEGAL', `${why}; ${WHAT_TO_DO}`, {
      position,
      record: number,
      span: { from: position, to: position },
    })
  }

  /** What cannot be folded was objected to already, or follows from something that was. */
  #try(step: () => void): void {
    try {
      step()
    } catch {
      // The state stays as it was; the finding that explains it is there.
    }
  }
}

function keyOf(first: number, last: number): string {
  return `${first}-${last}`
}
