/**
 * How a comparison is made: ours and every opponent take turns in one process, run after run, so that whatever else the
 * machine does hits all of them alike; what is told is the median of each and their ratio.
 */
import { mkdtempSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** One line of the result. `ratio` > 1 means that ours is better, whichever way the unit counts. */
export interface Result {
  readonly name: string
  readonly unit: string
  /** null: not measured, because a program that it takes is missing here. */
  readonly ours: number | null
  readonly theirs: number | null
  readonly against: string
  readonly ratio: number | null
  readonly runs: number
  /** In words, where the case itself says what its figure has to reach, and what was estimated before. */
  readonly reach?: string
}

/** A measured opponent, one whose figure is known from elsewhere (then `against` says from where), or one that is not here. */
export type Opponent =
  | { readonly against: string; readonly measure: () => Promise<number> | number }
  | { readonly against: string; readonly constant: number }
  | { readonly against: string; readonly missing: true }

export interface Comparison {
  readonly name: string
  readonly unit: string
  readonly better: 'more' | 'less'
  /** At least 5. */
  readonly runs: number
  /** null where what measures is missing: then nothing is measured, and each row says so. */
  readonly ours: (() => Promise<number> | number) | null
  readonly opponents: readonly Opponent[]
  readonly reach?: string
}

export interface Bench {
  /** Sizes for a long, quiet run. */
  readonly full: boolean
  compare(comparison: Comparison): Promise<void>
  /** A fresh folder on a real disk, removed when the benchmark is over. */
  folder(): string
  /** A line for whoever waits. */
  say(text: string): void
}

export interface Benchmark {
  readonly name: string
  readonly run: (bench: Bench) => Promise<void>
}

const TMPFS = 0x01021994
const RAMFS = 0x858458f6
const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  [TMPFS]: 'tmpfs',
  [RAMFS]: 'ramfs',
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  2035054128: 'overlayfs',
  801189825: 'zfs',
}

/** Where stores are made: SLICELOG_BENCH_DIR, or the system's temporary folder. */
export function benchRoot(): string {
  return process.env.SLICELOG_BENCH_DIR ?? tmpdir()
}

export function fileSystemOf(path: string): string {
  const { type } = statfsSync(path)
  return FILE_SYSTEMS[type] ?? `0x${type.toString(16)}`
}

/** Throws where a sync would cost nothing: figures of memory are no figures of a log. */
export function refuseMemory(path: string): void {
  const type = fileSystemOf(path)
  if (type === 'tmpfs' || type === 'ramfs') {
    throw new Error(`${path} is ${type}, which is memory; set SLICELOG_BENCH_DIR to a folder on a disk`)
  }
}

export class Runner implements Bench {
  readonly full: boolean
  readonly #tell: (result: Result) => void
  readonly #folders: string[] = []
  readonly say: (text: string) => void

  constructor(full: boolean, tell: (result: Result) => void, say: (text: string) => void) {
    this.full = full
    this.#tell = tell
    this.say = say
  }

  folder(): string {
    const folder = mkdtempSync(join(benchRoot(), 'slicelog-bench-'))
    this.#folders.push(folder)
    return folder
  }

  async compare({ name, unit, better, runs, ours, opponents, reach }: Comparison): Promise<void> {
    const words = reach === undefined ? {} : { reach }
    if (ours === null) {
      for (const { against } of opponents)
        this.#tell({ name, unit, ours: null, theirs: null, against, ratio: null, runs: 0, ...words })
      return
    }
    const mine: number[] = []
    const others: number[][] = opponents.map(() => [])
    // The first round warms the compiler and the page cache and is thrown away.
    for (let run = 0; run <= runs; run++) {
      this.say(`${name}: ${run === 0 ? 'warming up' : `run ${run} of ${runs}`}`)
      const value = await quietly(ours)
      if (run > 0) mine.push(value)
      for (const [i, opponent] of opponents.entries()) {
        if ('missing' in opponent) continue
        const theirs = 'constant' in opponent ? opponent.constant : await quietly(opponent.measure)
        if (run > 0) others[i]!.push(theirs)
      }
    }
    const median = medianOf(mine)
    for (const [i, opponent] of opponents.entries()) {
      const theirs = 'missing' in opponent ? null : medianOf(others[i]!)
      const ratio = theirs === null ? null : better === 'more' ? median / theirs : theirs / median
      this.#tell({
        name,
        unit,
        ours: round(median),
        theirs: theirs === null ? null : round(theirs),
        against: opponent.against,
        ratio: ratio === null ? null : round(ratio),
        runs,
        ...words,
      })
    }
  }

  /** Removes every folder made so far. */
  clear(): void {
    for (const folder of this.#folders.splice(0)) rmSync(folder, { recursive: true, force: true })
  }
}

/** One measurement after a collection (with --expose-gc), so that nobody pays for the garbage of the one before. */
async function quietly(measure: () => Promise<number> | number): Promise<number> {
  globalThis.gc?.()
  return await measure()
}

export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Four digits: more would claim a precision that no run has. */
function round(value: number): number {
  return Number(value.toPrecision(4))
}

/** Events a second, in millions. */
export function millionsPerSecond(events: number, since: number): number {
  return events / (performance.now() - since) / 1000
}

/** Bytes of every file below a folder. */
export function bytesBelow(folder: string): number {
  let total = 0
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) total += statSync(join(entry.parentPath, entry.name)).size
  }
  return total
}
