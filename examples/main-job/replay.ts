/**
 * Replays the trace on its own clock: writes are recorded with the times that they had, and between any two of them the
 * schedule's steps run at theirs. The store's clock follows the trace's.
 */

import type { Store } from '../../src/index.ts'
import type { ManualClock } from '../../src/testing/clock.ts'
import { openTrace } from '../../src/traces/reader.ts'
import type { TraceBatch } from '../../src/traces/rows.ts'
import { DISK, SCHEDULE, type Step } from './schedule.ts'

export interface StepDone {
  readonly time: number
  readonly what: string
  readonly outcome: string
}

export interface ReplayDone {
  readonly writes: number
  readonly bytes: number
  readonly steps: readonly StepDone[]
}

export type OnProgress = (read: number, size: number, note: string) => void

export async function replayTrace(
  store: Store,
  clock: ManualClock,
  path: string,
  onProgress: OnProgress,
): Promise<ReplayDone> {
  const start = clock.now()
  const trace = await openTrace(path, { size: store.disk(DISK).size })
  const waiting = [...SCHEDULE]
  const steps: StepDone[] = []
  for await (const batch of trace.batches()) {
    let from = 0
    while (from < batch.count) {
      const step = waiting[0]
      const to = step === undefined ? batch.count : firstRowAt(batch, from, step.at * 1e6)
      if (to > from) await record(store, clock, batch, from, to, start)
      from = to
      if (step !== undefined && from < batch.count)
        steps.push(await run(store, clock, waiting.shift()!, start))
    }
    onProgress(trace.fileBytes, trace.fileSize, `${trace.counts.writes} writes, ${steps.length} steps`)
  }
  for (const step of waiting) steps.push(await run(store, clock, step, start))
  return { writes: trace.counts.writes, bytes: trace.counts.bytes, steps }
}

async function record(
  store: Store,
  clock: ManualClock,
  batch: TraceBatch,
  from: number,
  to: number,
  start: number,
): Promise<void> {
  const times = batch.timesUs.slice(from, to).map((us) => start + Math.floor(us / 1000))
  clock.advanceTo(times.at(-1)!)
  await store.disk(DISK).recordWrites({
    offsets: batch.offsets.subarray(from, to),
    lengths: batch.lengths.subarray(from, to),
    ops: batch.ops.subarray(from, to),
    times,
  })
}

async function run(store: Store, clock: ManualClock, step: Step, start: number): Promise<StepDone> {
  clock.advanceTo(start + step.at * 1000)
  const outcome = await step.run(store)
  return { time: clock.now(), what: step.what, outcome }
}

/** The first row from `from` on whose time is `us` or later: where a step cuts the batch. Rows are in order of time. */
function firstRowAt(batch: TraceBatch, from: number, us: number): number {
  let low = from
  let high = batch.count
  while (low < high) {
    const middle = (low + high) >>> 1
    if (batch.timesUs[middle]! < us) low = middle + 1
    else high = middle
  }
  return low
}
