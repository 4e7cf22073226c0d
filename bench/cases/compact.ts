/**
 * `compact` and `compact-bytes`: folding a log into windows of a minute, its space given back included, against a bare read of the
 * same log; and the bytes that are left of it. Ten thousand writes a second, nine in ten of them to a hot quarter of a GiB.
 */
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { KiB, MiB } from '../../src/limits.ts'
import { openStore } from '../../src/store/open.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { type Bench, type Benchmark, bytesBelow, millionsPerSecond } from '../harness.ts'
import { BITMAP, CALL_ROWS, DISK, DISK_BYTES, GRANULARITY, randomBelow, randomBits } from '../workload.ts'

const START = Date.UTC(2026, 0, 1)
const CALL_MS = 400
const HOT_BYTES = 256 * MiB

/** A closed store of `events` writes. Returns the time of the last. */
async function makeLog(folder: string, events: number): Promise<number> {
  const clock = manualClock(START)
  const store = await openStore(folder, { clock })
  const disk = await store.ensureDisk(DISK, { size: DISK_BYTES })
  await disk.ensureBitmap(BITMAP, { granularity: GRANULARITY })
  const bits = randomBits(9)
  for (let done = 0; done < events; done += CALL_ROWS) {
    const offsets = new Float64Array(CALL_ROWS)
    const lengths = new Float64Array(CALL_ROWS)
    const times = new Float64Array(CALL_ROWS)
    for (let i = 0; i < CALL_ROWS; i++) {
      const room = randomBelow(bits, 10) === 0 ? DISK_BYTES - 64 * KiB : HOT_BYTES
      offsets[i] = randomBelow(bits, room / (4 * KiB)) * 4 * KiB
      lengths[i] = (1 + randomBelow(bits, 4)) * 4 * KiB
      times[i] = clock.now() + Math.floor((i * CALL_MS) / CALL_ROWS)
    }
    await disk.recordWrites({ offsets, lengths, times })
    clock.advance(CALL_MS)
  }
  await store.close()
  return clock.now()
}

async function run(bench: Bench): Promise<void> {
  const events = bench.full ? 10_000_000 : 2_000_000
  const original = bench.folder()
  const time = await makeLog(original, events)
  const before = bytesBelow(join(original, 'log'))
  let after = before
  const copy = () => {
    const folder = bench.folder()
    cpSync(original, folder, { recursive: true })
    return folder
  }
  const compacted = async () => {
    const folder = copy()
    const store = await openStore(folder, { clock: manualClock(time + 60_000) })
    const start = performance.now()
    const { events: folded } = await store.compact({ policy: '0s:1m' })
    const rate = millionsPerSecond(folded, start)
    await store.close()
    after = bytesBelow(join(folder, 'log'))
    return rate
  }
  const read = async () => {
    const store = await openStore(copy(), { clock: manualClock(time + 60_000) })
    const start = performance.now()
    let seen = 0
    for await (const records of store.records()) for (const { count } of records) seen += count
    const rate = millionsPerSecond(seen, start)
    await store.close()
    return rate
  }
  await bench.compare({
    name: 'compact',
    unit: 'M events/s',
    better: 'more',
    runs: 5,
    ours: compacted,
    opponents: [{ against: `a bare read of the same ${events / 1e6} M events`, measure: read }],
  })
  await bench.compare({
    name: 'compact-bytes',
    unit: 'bytes/event',
    better: 'less',
    runs: 5,
    ours: () => after / events,
    opponents: [{ against: 'the log before, closed', constant: before / events }],
  })
}

export const compact: Benchmark = { name: 'compact', run }
