/**
 * `at`, `changed` and `open`: what a long log costs who asks for the past or opens after a kill. The question is how a log of
 * 100 M random writes to one disk compares with one of 1 M and of 10 M; naive has no snapshots and reads from the start.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { openStore, type Store } from '../../src/index.ts'
import { type Bench, type Benchmark, medianOf, type Opponent } from '../harness.ts'
import { Naive } from '../naive.ts'
import { appendAll, openOurs } from '../ours.ts'
import { DISK, GRANULARITY, randomBelow, randomBits, randomWrites } from '../workload.ts'

/** Events, the longest first: it is measured against each of the others. */
const LOGS = [100_000_000, 1_000_000, 10_000_000] as const
const PIECE = 1_000_000
const POINTS_A_RUN = 5
const NAIVE_EVENTS = 200_000

function shown(events: number): string {
  return `${events / 1e6} M`
}

/** A closed store of `events` random writes, made piece by piece so that memory does not grow with it. */
async function makeLog(bench: Bench, events: number): Promise<string> {
  const folder = bench.folder()
  const { store, disk } = await openOurs(folder)
  for (let done = 0; done < events; done += PIECE) {
    bench.say(`making a log of ${shown(events)} events: ${shown(done)}`)
    await appendAll(disk, randomWrites(Math.min(PIECE, events - done), done + 4))
  }
  await store.close()
  return folder
}

interface Log {
  readonly events: number
  readonly store: Store
}

/** The longest, against each of the others. */
function against(
  [long, ...others]: readonly Log[],
  measure: (log: Log) => Promise<number>,
): { ours: () => Promise<number>; opponents: Opponent[] } {
  return {
    ours: () => measure(long!),
    opponents: others.map((log) => ({
      against: `ours at ${shown(log.events)} events (ours: ${shown(long!.events)})`,
      measure: () => measure(log),
    })),
  }
}

async function runAt(bench: Bench): Promise<void> {
  const logs: Log[] = []
  for (const events of LOGS) logs.push({ events, store: await openStore(await makeLog(bench, events)) })
  const naive = await Naive.open(bench.folder())
  await naive.append(randomWrites(NAIVE_EVENTS, 4))
  const bits = randomBits(5)
  const timeAt = async ({ store, events }: Log) => {
    const times = []
    for (let i = 0; i < POINTS_A_RUN; i++) {
      const position = 3 + randomBelow(bits, events)
      const start = performance.now()
      await store.at({ position })
      times.push(performance.now() - start)
    }
    return medianOf(times)
  }
  const { ours, opponents } = against(logs, timeAt)
  await bench.compare({
    name: 'at',
    unit: 'ms',
    better: 'less',
    runs: 9,
    ours,
    opponents: [
      ...opponents,
      {
        against: `naive at ${shown(NAIVE_EVENTS)} events, scan from the start`,
        measure: async () => {
          const start = performance.now()
          await naive.rebuild(randomBelow(bits, NAIVE_EVENTS))
          return performance.now() - start
        },
      },
    ],
  })
  await runChanged(bench, logs)
  await Promise.all([...logs.map(({ store }) => store.close()), naive.close()])
}

/** A random span, on average a third of the log, at 64 KiB. */
async function runChanged(bench: Bench, logs: readonly Log[]): Promise<void> {
  const bits = randomBits(6)
  const timeChanged = async ({ store, events }: Log) => {
    const ends = [3 + randomBelow(bits, events), 3 + randomBelow(bits, events)].sort((a, b) => a - b)
    const [since, until] = ends as [number, number]
    const start = performance.now()
    await store.changed(DISK, {
      since: { position: since },
      until: { position: until },
      granularity: GRANULARITY,
    })
    return performance.now() - start
  }
  await bench.compare({ name: 'changed', unit: 'ms', better: 'less', runs: 9, ...against(logs, timeChanged) })
}

export const at: Benchmark = { name: 'at', run: runAt }

const WRITER = fileURLToPath(new URL('../kill-me.js', import.meta.url))

/** Opens a store in a process of its own, appends, and kills it after its last acknowledged write: how long the open took. */
async function openAndKill(folder: string, events: number): Promise<number> {
  const child = spawn(process.execPath, [WRITER, folder, String(events)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  const said = once(child.stdout, 'data')
  await Promise.race([said, ended])
  if (child.exitCode !== null) throw new Error(`the writer ended with ${child.exitCode} before it was killed`)
  child.kill('SIGKILL')
  await ended
  return Number(String((await said)[0]))
}

async function makeKilled(bench: Bench, events: number): Promise<string> {
  const folder = bench.folder()
  bench.say(`making a log of ${shown(events)} events, to be killed`)
  await openAndKill(folder, events)
  return folder
}

/** Each open is after a kill, with this many events in LevelDB's write-ahead file. */
const BETWEEN_KILLS = 100_000

async function runOpen(bench: Bench): Promise<void> {
  const folders = new Map<number, string>()
  for (const events of LOGS) folders.set(events, await makeKilled(bench, events))
  const [long, ...others] = LOGS
  const timeOpen = (events: number) => openAndKill(folders.get(events)!, BETWEEN_KILLS)
  await bench.compare({
    name: 'open',
    unit: 'ms',
    better: 'less',
    runs: 7,
    ours: () => timeOpen(long),
    opponents: others.map((events) => ({
      against: `ours at ${shown(events)} events (ours: ${shown(long)}), after a kill`,
      measure: () => timeOpen(events),
    })),
  })
}

export const open: Benchmark = { name: 'open', run: runOpen }
