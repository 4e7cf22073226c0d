/**
 * `rebuild`: bitmaps from the log alone. Everything derived is deleted and the store opened: its log is checked (checksums,
 * places, no hole), decoded and folded into catalog and bitmap. The others read their keys into the same kind of bitmap.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { openStore } from '../../src/index.ts'
import { type Bench, type Benchmark, millionsPerSecond } from '../harness.ts'
import { LmdbLog } from '../lmdb-log.ts'
import { Naive } from '../naive.ts'
import { makeOurs } from '../ours.ts'
import { BITMAP, DISK, randomWrites } from '../workload.ts'

async function run(bench: Bench): Promise<void> {
  const ours = randomWrites(bench.full ? 32_000_000 : 5_000_000, 3)
  const theirs = randomWrites(bench.full ? 2_000_000 : 200_000, 3)
  const events = ours.offsets.length
  const folder = bench.folder()
  await makeOurs(folder, ours)
  const naive = await Naive.open(bench.folder())
  await naive.append(theirs)
  const lmdb = new LmdbLog(bench.folder())
  await lmdb.append(theirs)
  await bench.compare({
    name: 'rebuild',
    unit: 'M events/s',
    better: 'more',
    runs: bench.full ? 9 : 5,
    ours: async () => {
      rmSync(join(folder, 'derived'), { recursive: true, force: true })
      const start = performance.now()
      const store = await openStore(folder)
      const rate = millionsPerSecond(events, start)
      const { replayed } = (await store.status()).opened
      const { count } = await store.bits(DISK, BITMAP)
      await store.close()
      if (replayed < events || count === 0) throw new Error(`replayed ${replayed} of ${events} events`)
      return rate
    },
    opponents: [
      {
        against: 'naive',
        measure: async () => {
          const start = performance.now()
          const bitmap = await naive.rebuild(theirs.offsets.length)
          const rate = millionsPerSecond(theirs.offsets.length, start)
          if (!bitmap.equals(naive.bitmap)) throw new Error('naive rebuilt other bits than it had')
          return rate
        },
      },
      {
        against: 'lmdb, getRange',
        measure: () => {
          const start = performance.now()
          const bitmap = lmdb.rebuild(theirs.offsets.length)
          const rate = millionsPerSecond(theirs.offsets.length, start)
          if (!bitmap.equals(lmdb.bitmap)) throw new Error('lmdb rebuilt other bits than it had')
          return rate
        },
      },
    ],
  })
  await naive.close()
  await lmdb.close()
}

export const rebuild: Benchmark = { name: 'rebuild', run }
