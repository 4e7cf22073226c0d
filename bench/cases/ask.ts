/**
 * `blame`, `explain`, `history`: how long a question of the past takes on a long log, against reading all of it, which is
 * what an answer costs without an index, without heads and with an object for every write.
 */
import { blame, explainBackup, history, openStore, type Store } from '../../src/index.ts'
import { makeBigLog } from '../big-log.ts'
import type { Bench, Benchmark } from '../harness.ts'
import { BITMAP } from '../workload.ts'

const DISK = 'vm/vd0'
const BACKUP = 'asked'
const RUNS = 5

interface Range {
  readonly offset: number
  readonly length: number
}

async function run(bench: Bench): Promise<void> {
  const events = bench.full ? 100_000_000 : 4_000_000
  const folder = bench.folder()
  const made = await makeBigLog(folder, { events, say: bench.say })
  // Its base is where the bitmap began: the span is the whole log.
  await made.disk(DISK).beginBackup({ bitmap: BITMAP, mode: 'incremental', id: BACKUP })
  await made.close()
  const store = await openStore(folder)
  const hot = await writeOf(store, true)
  const cold = await writeOf(store, false)
  const reading = {
    against: 'a scan of the log for the same range',
    measure: () => timed(() => scan(store, cold)),
  }
  const cases: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['blame-hot', () => blame(store, DISK, hot, { limit: 20 })],
    ['blame-cold', () => blame(store, DISK, cold, { limit: 1_000_000 })],
    ['explain', () => explainBackup(store, BACKUP)],
    ['history', () => history(store, { kind: 'bitmap', disk: DISK, bitmap: BITMAP })],
  ]
  for (const [name, ask] of cases)
    await bench.compare({
      name,
      unit: 'ms',
      better: 'less',
      runs: RUNS,
      ours: () => timed(ask),
      opponents: [reading],
    })
  await store.close()
}

async function timed(ask: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await ask()
  return performance.now() - start
}

/** The disk's last write, or its first. */
async function writeOf(store: Store, last: boolean): Promise<Range> {
  for await (const { data } of store.log({ disk: DISK, types: ['write'], reverse: last, limit: 1 })) {
    const { offset, length } = data as { offset: number; length: number }
    return { offset, length }
  }
  throw new Error('the log has no write')
}

async function scan(store: Store, range: Range): Promise<number> {
  let found = 0
  for await (const _ of store.log({ disk: DISK, range })) found++
  return found
}

export const ask: Benchmark = { name: 'ask', run }
