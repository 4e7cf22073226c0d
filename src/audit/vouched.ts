/**
 * What stands in the place of records, against the events that vouch for it (R28, R29): each run against the last `log-compacted`
 * that names it, each gap against its `log-repaired`, and what those events name against what is there. A repair tells all runs
 * and gaps that it kept, so what was told before it says nothing any more: damage may have taken it, or brought back what it folded.
 *
 * A run comes before the event that vouches for it, so both are noted while the log is walked and compared at its end. Memory:
 * some 500 bytes a run, of which 100 M writes by the minute leave some ten thousand.
 */
import type { CompactedRun, LogRecord, RepairedGap } from '../../events/types.ts'
import type { Findings, Span } from './findings.ts'

export interface SeenRun extends Span {
  readonly record: number
  /** The chain's hash before it, null after damage; the one that it carries; SHA-256 of its windows. Hex. */
  readonly before: string | null
  readonly after: string
  readonly own: string
}

export interface SeenGap extends Span {
  readonly record: number
  readonly before: string | null
  /** Hashes of the chain in the value that follows, hex: one of them must be the one that the repair named. Empty at the end. */
  next: readonly string[]
}

interface Named {
  readonly run: CompactedRun
  /** Of the event. */
  readonly position: number
}

const KEEP = 'keep the folder as evidence and compare with a copy'

export class Vouching {
  readonly #findings: Findings
  readonly #runs: SeenRun[] = []
  readonly #gaps: SeenGap[] = []
  #named: Named[] = []
  #repaired: readonly RepairedGap[] = []

  constructor(findings: Findings) {
    this.#findings = findings
  }

  run(seen: SeenRun): void {
    this.#runs.push(seen)
  }

  gap(seen: SeenGap): void {
    this.#gaps.push(seen)
  }

  /** The run that holds a position, unless it ends there. */
  runAround(position: number): Span | undefined {
    return this.#runs.find(({ from, to }) => from <= position && position < to)
  }

  /** What the events of a record vouch for. */
  events(record: Extract<LogRecord, { kind: 'events' }>): void {
    record.events.forEach((event, i) => {
      const position = record.first + i
      if (event.type === 'log-compacted') for (const run of event.runs) this.#named.push({ run, position })
      if (event.type !== 'log-repaired') return
      this.#named = []
      this.#repaired = event.gaps
    })
  }

  /** `from`: where the walk began. `damaged`: spans in which something was found missing or unreadable already. */
  end(from: number, damaged: readonly Span[]): void {
    const inForce = this.#inForce()
    for (const seen of this.#runs) this.#judge(seen, inForce)
    const there = new Map(this.#runs.map((run) => [run.from, run.to]))
    const lost: Span[] = [...damaged, ...this.#gaps]
    for (const { run, position } of inForce) {
      if (run.first < from || there.get(run.first) === run.last) continue
      if (lost.some((span) => span.from <= run.last && run.first <= span.to)) continue
      this.#findings.add(
        'RUN_MISSING',
        `the compaction told at position ${position} left windows for positions ${run.first} to ${run.last}, and they are not there; ${KEEP}`,
        { position: run.first, span: { from: run.first, to: run.last } },
      )
    }
    for (const seen of this.#gaps) this.#judgeGap(seen)
  }

  /** The runs that no later one took up, ascending. Tells where two events contradict each other. */
  #inForce(): Named[] {
    const hashes = new Map<number, { hash: string; position: number }>()
    const newestFirst = [...this.#named].sort((a, b) => b.position - a.position)
    const kept: Named[] = []
    for (const named of newestFirst) {
      const { run, position } = named
      const clash = this.#clash(hashes, run, position)
      // Ascending by first, so that the ones that may overlap are found without a look at all.
      const at = indexOf(kept, run.first)
      const over = [kept[at - 1], kept[at]].filter(
        (other) => other !== undefined && other.run.first <= run.last && run.first <= other.run.last,
      )
      const inside = over.some((other) => other!.run.first <= run.first && run.last <= other!.run.last)
      if (over.length > 0 && !inside)
        this.#disagree(run, position, 'a later one takes up a part of the same windows')
      else if (clash) this.#disagree(run, position, 'a later one tells another hash for the same place')
      if (over.length === 0) kept.splice(at, 0, named)
    }
    return kept
  }

  /** Notes what the run says of the chain at its two edges; true where a later event said something else. */
  #clash(
    hashes: Map<number, { hash: string; position: number }>,
    run: CompactedRun,
    position: number,
  ): boolean {
    let clash = false
    for (const [at, hash] of [
      [run.first - 1, run.before],
      [run.last, run.after],
    ] as const) {
      const known = hashes.get(at)
      if (known === undefined) hashes.set(at, { hash, position })
      else if (known.hash !== hash) clash = true
    }
    return clash
  }

  #disagree(run: CompactedRun, position: number, why: string): void {
    this.#findings.add(
      'RUNS_DISAGREE',
      `what the compaction told at position ${position} says of positions ${run.first} to ${run.last} cannot be: ${why}; ${KEEP}`,
      { position, span: { from: run.first, to: run.last } },
    )
  }

  #judge(seen: SeenRun, inForce: readonly Named[]): void {
    const { from, to, record } = seen
    const place = { position: from, record, span: { from, to } }
    const named = inForce[indexOf(inForce, from)]
    if (named === undefined || named.run.first !== from || named.run.last !== to) {
      this.#findings.add(
        'RUN_UNVOUCHED',
        `windows stand in the place of positions ${from} to ${to}, and no compaction told in the log left them there; ${KEEP}`,
        place,
      )
      return
    }
    const { run, position } = named
    const differs =
      run.own !== seen.own
        ? 'they are not the ones that it left'
        : run.after !== seen.after || (seen.before !== null && run.before !== seen.before)
          ? 'the chain before or behind them is not the one that it tells'
          : null
    if (differs === null) return
    this.#findings.add(
      'RUN_DIFFERS',
      `windows stand in the place of positions ${from} to ${to}, where the compaction told at position ${position} left some, and ${differs}; ${KEEP}`,
      place,
    )
  }

  #judgeGap({ from, to, record, before, next }: SeenGap): void {
    const named = this.#repaired.findLast((gap) => gap.first === from && gap.last === to)
    const why =
      named === undefined
        ? 'no repair told in the log left it there'
        : before !== null && named.before !== before
          ? 'the chain before it is not the one that the repair tells'
          : named.next !== '' && !next.includes(named.next)
            ? 'what follows it is not what the repair found there'
            : null
    if (why === null) return
    this.#findings.add('GAP_UNVOUCHED', `positions ${from} to ${to} are empty, and ${why}; ${KEEP}`, {
      position: from,
      record,
      span: { from, to },
    })
  }
}

/** Index of the first whose run begins at or after `first`. */
function indexOf(named: readonly Named[], first: number): number {
  let low = 0
  let high = named.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (named[middle]!.run.first < first) low = middle + 1
    else high = middle
  }
  return low
}
