/**
 * `append-single`: one call per write, 1000 callers at once, each waiting for its own acknowledgement before its next
 * write. Against the same callers with one packed `put` per call.
 */
import { type Bench, type Benchmark, millionsPerSecond } from '../harness.ts'
import { LmdbLog } from '../lmdb-log.ts'
import { Naive } from '../naive.ts'
import { openOurs } from '../ours.ts'
import { type Columns, randomWrites } from '../workload.ts'

const CALLERS = 1000

/** Every caller takes the next write, records it, waits, and takes another. */
async function callers(
  writes: Columns,
  record: (offset: number, length: number) => Promise<unknown>,
): Promise<void> {
  let next = 0
  const caller = async () => {
    while (next < writes.offsets.length) {
      const i = next++
      await record(writes.offsets[i]!, writes.lengths[i]!)
    }
  }
  await Promise.all(Array.from({ length: CALLERS }, caller))
}

async function run(bench: Bench): Promise<void> {
  const ours = randomWrites(bench.full ? 4_000_000 : 1_000_000, 2)
  const theirs = randomWrites(bench.full ? 400_000 : 100_000, 2)
  await bench.compare({
    name: 'append-single',
    unit: 'M events/s',
    better: 'more',
    runs: bench.full ? 9 : 5,
    ours: async () => {
      const { store, disk } = await openOurs(bench.folder())
      const start = performance.now()
      await callers(ours, (offset, length) => disk.recordWrites([{ offset, length }]))
      const rate = millionsPerSecond(ours.offsets.length, start)
      await store.close()
      return rate
    },
    opponents: [
      {
        against: 'naive, packed put per call',
        measure: async () => {
          const naive = await Naive.open(bench.folder())
          const start = performance.now()
          await callers(theirs, (offset, length) => naive.appendOne(offset, length))
          const rate = millionsPerSecond(theirs.offsets.length, start)
          await naive.close()
          return rate
        },
      },
      {
        against: 'lmdb, put per call',
        measure: async () => {
          const lmdb = new LmdbLog(bench.folder())
          const start = performance.now()
          await callers(theirs, (offset, length) => lmdb.appendOne(offset, length))
          const rate = millionsPerSecond(theirs.offsets.length, start)
          await lmdb.close()
          return rate
        },
      },
    ],
  })
}

export const appendSingle: Benchmark = { name: 'append-single', run }
