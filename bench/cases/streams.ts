/**
 * `streams`: live subscriptions while a writer appends as fast as it can. The clock stops when every reader has had every event,
 * so whoever falls behind reads the rest from the log within the time. Against: the same writer with nobody reading.
 */
import type { Store } from '../../src/index.ts'
import { type Bench, type Benchmark, millionsPerSecond } from '../harness.ts'
import { appendAll, openOurs } from '../ours.ts'
import { type Columns, randomWrites } from '../workload.ts'

type Read = (store: Store, last: number) => Promise<void>

/** Records with columns, as `follow` gives them; every row is looked at. */
const columns: Read = async (store, last) => {
  let bytes = 0
  for await (const followed of store.follow({ from: 'start' })) {
    if (followed.kind !== 'records') continue
    for (const record of followed.records) {
      if (record.kind === 'writes')
        for (const { columns } of record.sections)
          for (let i = 0; i < columns.lengths.length; i++) bytes += columns.lengths[i]!
      if (record.first + record.count > last) {
        if (bytes === 0) throw new Error('nothing was read')
        return
      }
    }
  }
}

/** Events as objects, as `events$` gives them. */
const objects: Read = (store, last) =>
  new Promise((resolve, reject) => {
    const subscription = store.events$({ from: 'start' }).subscribe({
      next: ({ position }) => {
        if (position < last) return
        resolve()
        subscription.unsubscribe()
      },
      error: reject,
    })
  })

/** Events a second that reached each of `readers`; 0 readers: that were appended. */
async function rate(bench: Bench, writes: Columns, readers: number, read: Read): Promise<number> {
  const { store, disk } = await openOurs(bench.folder())
  const last = store.head.position + writes.offsets.length
  const reading = Array.from({ length: readers }, () => read(store, last))
  const start = performance.now()
  await appendAll(disk, writes)
  await Promise.all(reading)
  const events = millionsPerSecond(writes.offsets.length, start)
  await store.close()
  return events
}

async function run(bench: Bench): Promise<void> {
  const many = randomWrites(bench.full ? 8_000_000 : 1_500_000, 1)
  const few = randomWrites(bench.full ? 2_000_000 : 400_000, 1)
  const cases: readonly (readonly [string, Columns, number, Read])[] = [
    ['streams, 1 reader of columns', many, 1, columns],
    ['streams, 10 readers of columns', few, 10, columns],
    ['streams, 1 subscriber of events$', few, 1, objects],
  ]
  for (const [name, writes, readers, read] of cases) {
    await bench.compare({
      name,
      unit: 'M events/s',
      better: 'more',
      runs: bench.full ? 9 : 5,
      ours: () => rate(bench, writes, readers, read),
      opponents: [{ against: 'append without readers', measure: () => rate(bench, writes, 0, read) }],
    })
  }
}

export const streams: Benchmark = { name: 'streams', run }
