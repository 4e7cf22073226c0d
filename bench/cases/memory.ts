/**
 * `memory`: what 1000 retained slices of 1 TiB cost a process that holds the store, against the same writes without slices.
 * Each figure is a process of its own that opens the store and collects its garbage.
 */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type Bench, type Benchmark, medianOf } from '../harness.ts'
import { appendAll, openOurs } from '../ours.ts'
import { BITMAP, randomWrites } from '../workload.ts'

const SLICES = 1000
const WRITES_A_SLICE = 1000
const RUNS = 5
const OPENER = fileURLToPath(new URL('../open-and-weigh.js', import.meta.url))
const MiB = 1024 * 1024
const LIMIT_MIB = 16
/** Less than this is noise: two processes alike differ by more. */
const SMALLEST_MIB = 0.1

export interface Weight {
  readonly slices: number
  readonly rss: number
  /** Of the heap and of the array buffers beside it. */
  readonly heap: number
}

async function makeStore(bench: Bench, slices: number): Promise<string> {
  const folder = bench.folder()
  const { store, disk } = await openOurs(folder, {}, SLICES)
  for (let i = 0; i < SLICES; i++) {
    await appendAll(disk, randomWrites(WRITES_A_SLICE, 40 + i))
    // Without slices the bits are forgotten, so that neither store has an α to weigh.
    if (slices > 0) await disk.bitmap(BITMAP).bank()
    else await disk.bitmap(BITMAP).clear()
    if (i % 100 === 0) bench.say(`memory: making a store with ${slices} slices, ${i}`)
  }
  await store.close()
  return folder
}

async function weigh(folder: string): Promise<Weight> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', OPENER, folder])
  return JSON.parse(stdout) as Weight
}

async function run(bench: Bench): Promise<void> {
  const none = await makeStore(bench, 0)
  const many = await makeStore(bench, SLICES)
  const { slices } = await weigh(many)
  if (slices !== SLICES) throw new Error(`${slices} slices instead of ${SLICES}`)
  for (const what of ['rss', 'heap'] as const) {
    const empty: number[] = []
    for (let i = 0; i < RUNS; i++) empty.push((await weigh(none))[what])
    await bench.compare({
      name: 'memory',
      unit: 'MiB more',
      better: 'less',
      runs: RUNS,
      ours: async () => Math.max(SMALLEST_MIB, ((await weigh(many))[what] - medianOf(empty)) / MiB),
      opponents: [
        {
          against: `a limit of ${LIMIT_MIB} MiB (${what === 'rss' ? 'resident' : 'heap and buffers'})`,
          constant: LIMIT_MIB,
        },
      ],
    })
  }
}

export const memory: Benchmark = { name: 'memory', run }
