/**
 * `append`: write ranges through the public API in columns of 4096, validated, one live bitmap, checksum and chain, level
 * `process`. The clock stops when every call is acknowledged and folded into the live bitmap.
 */
import { type Bench, type Benchmark, millionsPerSecond } from '../harness.ts'
import { LmdbLog } from '../lmdb-log.ts'
import { Naive } from '../naive.ts'
import { appendAll, openOurs } from '../ours.ts'
import { randomWrites } from '../workload.ts'

async function run(bench: Bench): Promise<void> {
  // Ours is some twenty times faster: more rows, so that both last about as long. More would only slow the others.
  const ours = randomWrites(bench.full ? 16_000_000 : 3_000_000, 1)
  const theirs = randomWrites(bench.full ? 1_000_000 : 250_000, 1)
  await bench.compare({
    name: 'append',
    unit: 'M events/s',
    better: 'more',
    runs: bench.full ? 9 : 5,
    ours: async () => {
      const { store, disk } = await openOurs(bench.folder())
      const start = performance.now()
      await appendAll(disk, ours)
      const rate = millionsPerSecond(ours.offsets.length, start)
      await store.close()
      return rate
    },
    opponents: [
      {
        against: 'naive',
        measure: async () => {
          const naive = await Naive.open(bench.folder())
          const start = performance.now()
          await naive.append(theirs)
          const rate = millionsPerSecond(theirs.offsets.length, start)
          await naive.close()
          return rate
        },
      },
      {
        against: 'lmdb, put per event, awaited per 1000',
        measure: async () => {
          const lmdb = new LmdbLog(bench.folder())
          const start = performance.now()
          await lmdb.append(theirs)
          const rate = millionsPerSecond(theirs.offsets.length, start)
          await lmdb.close()
          return rate
        },
      },
      {
        against: 'lmdb, transactionSync per 1000',
        measure: async () => {
          const lmdb = new LmdbLog(bench.folder())
          const start = performance.now()
          lmdb.appendSync(theirs)
          const rate = millionsPerSecond(theirs.offsets.length, start)
          await lmdb.close()
          return rate
        },
      },
    ],
  })
}

export const append: Benchmark = { name: 'append', run }
