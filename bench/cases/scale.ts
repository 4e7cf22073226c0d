/**
 * `scale`: the same questions of logs of 1 M, 10 M and 100 M writes, in the shape of a real guest, over 8 disks: how long each
 * takes and how much memory the process ever had that asked. A ratio near 1 says that the answer does not grow with the log.
 */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { makeBigLog } from '../big-log.ts'
import type { Bench, Benchmark } from '../harness.ts'
import { BITMAP } from '../workload.ts'

/** Events, the longest first: it is measured against each of the others. */
const LOGS = [100_000_000, 1_000_000, 10_000_000] as const
const DISK = 'vm/vd0'
const RUNS = 5
const CHILD = fileURLToPath(new URL('../ask-child.js', import.meta.url))

export type Question = 'at' | 'changed' | 'blame' | 'explain' | 'verify'

export interface Asked {
  readonly ms: number
  /** The most that was resident at any time. */
  readonly MiB: number
}

/** A closed store whose last backup spans all of its writes. */
async function make(bench: Bench, events: number): Promise<string> {
  const folder = bench.folder()
  const store = await makeBigLog(folder, { events, say: bench.say })
  await store.disk(DISK).beginBackup({ bitmap: BITMAP, mode: 'incremental', id: 'asked' })
  await store.close()
  return folder
}

async function run(bench: Bench): Promise<void> {
  const folders = new Map<number, string>()
  for (const events of LOGS) folders.set(events, await make(bench, events))
  const asked = async (question: Question, events: number): Promise<Asked> => {
    const child = [CHILD, folders.get(events)!, question, DISK, String(events)]
    const { stdout } = await promisify(execFile)(process.execPath, child)
    return JSON.parse(stdout) as Asked
  }
  // A verify reads all of the log, so its time grows with it; what has to stay is the memory.
  const questions: readonly Question[] = [
    'at',
    'changed',
    'blame',
    'explain',
    ...(bench.full ? ['verify' as const] : []),
  ]
  for (const question of questions) await compare(bench, question, asked)
}

async function compare(
  bench: Bench,
  question: Question,
  asked: (question: Question, events: number) => Promise<Asked>,
): Promise<void> {
  const [long, ...others] = LOGS
  const seen = new Map<number, number[]>(LOGS.map((events) => [events, []]))
  const time = async (events: number) => {
    const { ms, MiB } = await asked(question, events)
    seen.get(events)!.push(MiB)
    return ms
  }
  const against = (events: number) => `${events / 1e6} M events (slicelog: ${long / 1e6} M)`
  await bench.compare({
    name: `${question} of a guest`,
    unit: 'ms',
    better: 'less',
    runs: RUNS,
    ours: () => time(long),
    opponents: others.map((events) => ({ against: against(events), measure: () => time(events) })),
  })
  // The same runs again, in the order in which they were made; the first warmed up, as above.
  const next = (events: number) => () => seen.get(events)!.shift()!
  await bench.compare({
    name: `${question} of a guest`,
    unit: 'MiB at most',
    better: 'less',
    runs: RUNS,
    ours: next(long),
    opponents: others.map((events) => ({ against: against(events), measure: next(events) })),
  })
}

export const scale: Benchmark = { name: 'scale', run }
