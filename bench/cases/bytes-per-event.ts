/**
 * `bytes-per-event`: every byte of the folder after a clean close, divided by the writes of a real guest's trace. Once as
 * `import` records it, once with each write handed in alone (and awaited, so that each is a record of its own), repacked.
 */

import { openStore } from '../../src/index.ts'
import { importTrace } from '../../src/traces/import.ts'
import { openTrace } from '../../src/traces/reader.ts'
import type { TraceBatch } from '../../src/traces/rows.ts'
import { type Bench, type Benchmark, bytesBelow } from '../harness.ts'
import { LmdbLog } from '../lmdb-log.ts'
import { Naive } from '../naive.ts'
import { BITMAP, DISK, GRANULARITY } from '../workload.ts'

const TRACE = 'examples/data/guest-ext4.csv.gz'
const TRACE_DISK_BYTES = 2147483648
const RUNS = 5
const START = Date.UTC(2026, 10, 18, 12)

async function storeOfTrace(folder: string) {
  const store = await openStore(folder)
  const disk = await store.ensureDisk(DISK, { size: TRACE_DISK_BYTES, quiet: true })
  await disk.ensureBitmap(BITMAP, { granularity: GRANULARITY })
  return { store, disk }
}

async function batchesOf(path: string): Promise<TraceBatch[]> {
  const batches: TraceBatch[] = []
  const trace = await openTrace(path, { size: TRACE_DISK_BYTES })
  for await (const batch of trace.batches()) batches.push(batch)
  return batches
}

function timesOf(batch: TraceBatch): Float64Array {
  return batch.timesUs.map((us) => START + Math.floor(us / 1000))
}

async function naiveBytes(bench: Bench, batches: readonly TraceBatch[]): Promise<number> {
  const folder = bench.folder()
  const naive = await Naive.open(folder)
  for (const batch of batches) await naive.append(batch, timesOf(batch), batch.ops)
  await naive.close()
  return bytesBelow(folder)
}

async function lmdbBytes(bench: Bench, batches: readonly TraceBatch[]): Promise<number> {
  const folder = bench.folder()
  const lmdb = new LmdbLog(folder)
  for (const batch of batches) await lmdb.append(batch, timesOf(batch), batch.ops)
  await lmdb.close()
  return bytesBelow(folder)
}

async function run(bench: Bench): Promise<void> {
  const batches = await batchesOf(TRACE)
  const writes = batches.reduce((sum, batch) => sum + batch.count, 0)
  const others = (name: string) => [
    { against: `naive (${name})`, measure: async () => (await naiveBytes(bench, batches)) / writes },
    { against: `lmdb (${name})`, measure: async () => (await lmdbBytes(bench, batches)) / writes },
  ]
  await bench.compare({
    name: 'bytes-per-event',
    unit: 'bytes',
    better: 'less',
    runs: RUNS,
    ours: async () => {
      const folder = bench.folder()
      const { store } = await storeOfTrace(folder)
      await importTrace(store, DISK, TRACE)
      await store.close()
      return bytesBelow(folder) / writes
    },
    opponents: others('import'),
  })
  await bench.compare({
    name: 'bytes-per-event',
    unit: 'bytes',
    better: 'less',
    runs: RUNS,
    ours: async () => {
      const folder = bench.folder()
      const { store, disk } = await storeOfTrace(folder)
      for (const batch of batches) {
        const times = timesOf(batch)
        for (let i = 0; i < batch.count; i++) {
          await disk.recordWrites({
            offsets: batch.offsets.subarray(i, i + 1),
            lengths: batch.lengths.subarray(i, i + 1),
            ops: batch.ops.subarray(i, i + 1),
            times: times.subarray(i, i + 1).map((time) => Math.max(time, store.head.time ?? 0)),
          })
        }
      }
      await store.repack()
      await store.close()
      return bytesBelow(folder) / writes
    },
    opponents: others('one write at a time, repacked'),
  })
}

export const bytesPerEvent: Benchmark = { name: 'bytes-per-event', run }
