/**
 * `verify`: events a second of a whole verify (checksums, chain, legality, past plans, snapshots, index) against a bare read of
 * the same log through the public library, which checks checksums and places only.
 */
import { openStore, verifyStore } from '../../src/index.ts'
import { type Bench, type Benchmark, millionsPerSecond } from '../harness.ts'
import { appendAll, openOurs } from '../ours.ts'
import { BITMAP, randomWrites } from '../workload.ts'

const PIECES = 4

async function run(bench: Bench): Promise<void> {
  const events = bench.full ? 32_000_000 : 4_000_000
  const folder = bench.folder()
  const { store, disk } = await openOurs(folder, {}, PIECES)
  for (let piece = 0; piece < PIECES; piece++) {
    await appendAll(disk, randomWrites(events / PIECES, piece + 20))
    await (await disk.beginBackup({ bitmap: BITMAP, mode: 'incremental' })).succeed()
  }
  await store.close()
  await bench.compare({
    name: 'verify',
    unit: 'M events/s',
    better: 'more',
    runs: 5,
    ours: async () => {
      const start = performance.now()
      const report = await verifyStore(folder)
      const rate = millionsPerSecond(report.events, start)
      if (report.findings.length > 0 || report.events < events) throw new Error('verify found something')
      return rate
    },
    opponents: [
      {
        against: 'a bare read of the same log',
        measure: async () => {
          const store = await openStore(folder)
          const start = performance.now()
          let read = 0
          for await (const followed of store.follow({ from: 'start' })) {
            if (followed.kind === 'caughtUp') break
            if (followed.kind === 'records') for (const record of followed.records) read += record.count
          }
          const rate = millionsPerSecond(read, start)
          await store.close()
          if (read < events) throw new Error(`read ${read} of ${events} events`)
          return rate
        },
      },
    ],
  })
}

export const verify: Benchmark = { name: 'verify', run }
