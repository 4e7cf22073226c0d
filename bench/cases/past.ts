/**
 * `at`, `changed` and `open`: what a long log costs who asks for the past or opens after a kill. The question is how a log
 * ten times as long compares (a hundred times, with --full); naive has no snapshots and reads from the start.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { openStore, type Store } from '../../src/index.ts'
import { type Bench, type Benchmark, medianOf } from '../harness.ts'
import { Naive } from '../naive.ts'
import { appendAll, openOurs } from '../ours.ts'
import { DISK, GRANULARITY, randomBelow, randomBits, randomWrites } from '../workload.ts'

const SHORT = 1_000_000
const PIECE = 1_000_000
const POINTS_A_RUN = 5
const NAIVE_EVENTS = 200_000

function longOf(bench: Bench): number {
  return bench.full ? 100_000_000 : 10_000_000
}

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

async function runAt(bench: Bench): Promise<void> {
  const long = longOf(bench)
  const few = await openStore(await makeLog(bench, SHORT))
  const many = await openStore(await makeLog(bench, long))
  const naive = await Naive.open(bench.folder())
  await naive.append(randomWrites(NAIVE_EVENTS, 4))
  const bits = randomBits(5)
  const timeAt = async (store: Store, events: number) => {
    const times = []
    for (let i = 0; i < POINTS_A_RUN; i++) {
      const position = 3 + randomBelow(bits, events)
      const start = performance.now()
      await store.at({ position })
      times.push(performance.now() - start)
    }
    return medianOf(times)
  }
  await bench.compare({
    name: 'at',
    unit: 'ms',
    better: 'less',
    runs: 9,
    ours: () => timeAt(many, long),
    opponents: [
      { against: `ours at ${shown(SHORT)} events (ours: ${shown(long)})`, measure: () => timeAt(few, SHORT) },
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
  await runChanged(bench, few, many, long)
  await Promise.all([few.close(), many.close(), naive.close()])
}

/** Informative: a random span, on average a third of the log, at 64 KiB. */
async function runChanged(bench: Bench, few: Store, many: Store, long: number): Promise<void> {
  const bits = randomBits(6)
  const timeChanged = async (store: Store, events: number) => {
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
  await bench.compare({
    name: 'changed',
    unit: 'ms',
    better: 'less',
    runs: 9,
    ours: () => timeChanged(many, long),
    opponents: [
      {
        against: `ours at ${shown(SHORT)} events (ours: ${shown(long)})`,
        measure: () => timeChanged(few, SHORT),
      },
    ],
  })
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
  const long = longOf(bench)
  const few = await makeKilled(bench, SHORT)
  const many = await makeKilled(bench, long)
  const timeOpen = (folder: string) => openAndKill(folder, BETWEEN_KILLS)
  await bench.compare({
    name: 'open',
    unit: 'ms',
    better: 'less',
    runs: 7,
    ours: () => timeOpen(many),
    opponents: [
      {
        against: `ours at ${shown(SHORT)} events (ours: ${shown(long)}), after a kill`,
        measure: () => timeOpen(few),
      },
    ],
  })
}

export const open: Benchmark = { name: 'open', run: runOpen }
