/**
 * `nbd`: a tracked disk next to a disk that nobody tracks, and one that QEMU tracks. The same client (fio), the same file size, the page
 * cache for all three; every file is written once before, so that nobody allocates. At level `power` the region is small and each of its
 * granules was touched before (armed): what a first touch costs is `nbd-touch`.
 */
import { closeSync, fdatasyncSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { GiB, KiB, MiB } from '../../src/index.ts'
import { fio, type Traffic } from '../fio.ts'
import type { Bench, Benchmark, Opponent } from '../harness.ts'
import { installed, type Served, serveDaemon, serveOurs, serveQemuNbd } from '../nbd-servers.ts'
import { DISK_BYTES } from '../workload.ts'

const RUNS = 5
const UNTRACKED = 'qemu-nbd, raw file, no bitmap'
const TRACKED = 'qemu-storage-daemon, raw file, a bitmap that records'
const ARMED_BYTES = 64 * MiB

type Level = 'process' | 'power'

interface Row {
  readonly level: Level
  readonly traffic: Omit<Traffic, 'region' | 'seconds'>
  /** Ratio: what it has to be, and what was estimated before it was measured (docs/performance.md). */
  readonly target: number
  readonly estimate: number
}

const ROWS: readonly Row[] = [
  { level: 'process', traffic: { kind: 'randwrite', block: 4 * KiB, depth: 1 }, target: 0.9, estimate: 0.9 },
  { level: 'process', traffic: { kind: 'randwrite', block: 4 * KiB, depth: 32 }, target: 1.3, estimate: 1.4 },
  { level: 'process', traffic: { kind: 'randread', block: 4 * KiB, depth: 1 }, target: 1, estimate: 1.1 },
  { level: 'process', traffic: { kind: 'randread', block: 4 * KiB, depth: 32 }, target: 1, estimate: 1.6 },
  { level: 'process', traffic: { kind: 'write', block: MiB, depth: 8 }, target: 1, estimate: 1 },
  { level: 'process', traffic: { kind: 'read', block: MiB, depth: 8 }, target: 1, estimate: 0.9 },
  { level: 'power', traffic: { kind: 'randwrite', block: 4 * KiB, depth: 1 }, target: 0.8, estimate: 0.9 },
  { level: 'power', traffic: { kind: 'randwrite', block: 4 * KiB, depth: 32 }, target: 1, estimate: 1.4 },
  { level: 'power', traffic: { kind: 'write', block: MiB, depth: 8 }, target: 1, estimate: 1 },
]

function nameOf({ level, traffic: { kind, block, depth } }: Row): string {
  const size = block < MiB ? `${block / KiB} KiB` : `${block / MiB} MiB`
  return `nbd ${kind} ${size}, depth ${depth}, ${level === 'power' ? 'power, armed' : level}`
}

async function run(bench: Bench): Promise<void> {
  const bytes = bench.full ? 2 * GiB : 256 * MiB
  const seconds = bench.full ? 4 : 1
  const servers = installed('fio') ? await start(bench, bytes) : null
  try {
    for (const row of ROWS) {
      const region = row.level === 'power' ? ARMED_BYTES : bytes
      const traffic: Traffic = { ...row.traffic, region, seconds }
      const opponent = (against: string, served: Served | null | undefined): Opponent =>
        served == null
          ? { against, missing: true }
          : { against, measure: () => measured(served, row.level, traffic) }
      await bench.compare({
        name: nameOf(row),
        unit: traffic.block < MiB ? 'IOPS' : 'MiB/s',
        better: 'more',
        runs: RUNS,
        ours: servers === null ? null : () => measured(servers[row.level], row.level, traffic),
        opponents: [opponent(UNTRACKED, servers?.untracked), opponent(TRACKED, servers?.tracked)],
        reach: `ratio ≥ ${row.target} (estimate ${row.estimate})`,
      })
    }
  } finally {
    await servers?.stop()
  }
}

async function measured({ uri }: Served, level: Level, traffic: Traffic): Promise<number> {
  // Armed for certain, and the same for all three.
  if (level === 'power') await fillOnce(uri, traffic.region)
  const { requests, bytes } = await fio(uri, traffic)
  return traffic.block < MiB ? requests : bytes / MiB
}

async function fillOnce(uri: string, region: number): Promise<void> {
  await fio(uri, { kind: 'write', block: MiB, depth: 8, region, seconds: null })
}

interface Servers extends Readonly<Record<Level, Served>> {
  /** null where QEMU's program is not here. */
  readonly untracked: Served | null
  readonly tracked: Served | null
  stop(): Promise<void>
}

/** All four, each with a file that is there byte for byte. */
async function start(bench: Bench, bytes: number): Promise<Servers> {
  const folder = bench.folder()
  const file = (name: string) => sparse(join(folder, name), bytes)
  const running: Served[] = []
  const started = async (served: Promise<Served>): Promise<Served> => {
    running.push(await served)
    return running.at(-1)!
  }
  const stop = async () => {
    for (const served of running.splice(0)) await served.stop()
  }
  try {
    const servers: Servers = {
      process: await started(serveOurs(join(folder, 'a'), file('a.raw'), 'process')),
      power: await started(serveOurs(join(folder, 'b'), file('b.raw'), 'power')),
      untracked: installed('qemu-nbd') ? await started(serveQemuNbd(folder, file('c.raw'))) : null,
      tracked: installed('qemu-storage-daemon') ? await started(serveDaemon(folder, bytes)) : null,
      stop,
    }
    for (const [i, { uri }] of running.entries()) {
      bench.say(`nbd: filling file ${i + 1} of ${running.length}`)
      await fillOnce(uri, bytes)
    }
    return servers
  } catch (error) {
    await stop()
    throw error
  }
}

function sparse(path: string, bytes: number): string {
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

/**
 * First touches at level `power`, all over a disk of 1 TiB: each waits for a sync of the log, alone at depth 1, and with those that
 * wait at the same time at depth 32. Next to it what the machine's disk does when it is asked for nothing else.
 */
async function touches(bench: Bench): Promise<void> {
  const seconds = bench.full ? 4 : 1
  const folder = bench.folder()
  const served = installed('fio')
    ? await serveOurs(join(folder, 'store'), sparse(join(folder, 'a.raw'), DISK_BYTES), 'power')
    : null
  try {
    for (const [depth, unit, estimate] of [
      [1, 'syncs/s', '0.7'],
      [32, 'first touches/s', '10'],
    ] as const) {
      const traffic: Traffic = { kind: 'randwrite', block: 4 * KiB, depth, region: DISK_BYTES, seconds }
      await bench.compare({
        name: `nbd-touch, depth ${depth}`,
        unit,
        better: 'more',
        runs: RUNS,
        ours: served === null ? null : async () => (await fio(served.uri, traffic)).requests,
        opponents: [
          {
            against: "this machine's fdatasync/s, 4 KiB appended to a file",
            measure: () => syncsPerSecond(join(folder, 'synced'), seconds),
          },
        ],
        reach: `no target (estimate ${estimate})`,
      })
    }
  } finally {
    await served?.stop()
  }
}

function syncsPerSecond(path: string, seconds: number): number {
  const file = openSync(path, 'a')
  const block = Buffer.alloc(4 * KiB, 1)
  const begin = performance.now()
  let syncs = 0
  let time = 0
  for (; time < seconds * 1000; time = performance.now() - begin, syncs++) {
    writeSync(file, block)
    fdatasyncSync(file)
  }
  closeSync(file)
  return (syncs / time) * 1000
}

export const nbd: Benchmark = { name: 'nbd', run }
export const nbdTouch: Benchmark = { name: 'nbd-touch', run: touches }
