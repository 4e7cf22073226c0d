/**
 * How fast a log grows, and what a compaction would give back: for `status`, from a few reads of the log wherever it is long.
 */
import { headerOf } from '../log/entries.ts'
import type { EventLog } from '../log/event-log.ts'
import type { Compactor } from './compactor.ts'
import { formatPolicy, type PolicyInput } from './policy.ts'

const DAY_MS = 86_400_000
/** Growth is that of the last week, or of as much as there is. */
const GROWTH_DAYS = 7
/** Stored bytes that are looked at to know what an event takes. */
const SAMPLE_BYTES = 256 * 1024
/** Up to so many foldable events all are folded; beyond, so many stretches are, and the rest is taken to be alike. */
const EXACT_EVENTS = 524_288
const STRETCHES = 8

export interface Growth {
  readonly eventsPerDay: number
  readonly bytesPerDay: number
  /** What it was measured over: the last days of the log, at most seven. */
  readonly days: number
}

export interface CompactionEstimate {
  readonly policy: string
  /** Events that are old enough and still whole, and bytes that folding them would give back, before LevelDB compresses. */
  readonly events: number
  readonly bytes: number
  /** False: from a sample. */
  readonly exact: boolean
}

/** Over less than a minute nothing can be said: zero. */
export async function growthOf(log: EventLog): Promise<Growth> {
  const { next, time } = log.head
  const none = { eventsPerDay: 0, bytesPerDay: 0, days: 0 }
  if (time === null) return none
  const from = await log.positionAtTime(time - GROWTH_DAYS * DAY_MS)
  let first: number | undefined
  let events = 0
  let bytes = 0
  for await (const entries of log.values({ from })) {
    for (const entry of entries) {
      const header = headerOf(entry)
      first ??= header.time
      events += header.count
      bytes += entry.value.length
    }
    if (bytes > SAMPLE_BYTES) break
  }
  const days = Math.min(GROWTH_DAYS, (time - Math.max(first ?? time, time - GROWTH_DAYS * DAY_MS)) / DAY_MS)
  if (days * DAY_MS < 60_000) return none
  const eventsPerDay = (next - from) / days
  return {
    eventsPerDay: Math.round(eventsPerDay),
    bytesPerDay: Math.round(events === 0 ? 0 : (eventsPerDay * bytes) / events),
    days: Math.round(days * 100_000) / 100_000,
  }
}

/** Records nothing. Folds at most half a million events, about 0.1 s. */
export async function estimateOf(
  log: EventLog,
  compactor: Compactor,
  input?: PolicyInput,
): Promise<CompactionEstimate> {
  const policy = compactor.policy(input)
  const { rules, ends } = await compactor.stretches(policy)
  const end = ends.at(-1) ?? 0
  const exact = end <= EXACT_EVENTS
  const length = exact ? end : Math.floor(EXACT_EVENTS / STRETCHES)
  let looked = 0
  let events = 0
  let bytes = 0
  for (let i = 0; i < (exact ? 1 : STRETCHES) && end > 0; i++) {
    const from = exact ? 0 : await boundaryAt(log, Math.floor((i * (end - length)) / (STRETCHES - 1)))
    const to = Math.min(end, from + length)
    for (let at = from; at < to; ) {
      const step = await compactor.plan({ from: at, to }, rules)
      for (const run of step.runs) {
        events += run.events
        bytes += run.bytesBefore - run.value.length
      }
      at = step.next
    }
    looked += to - from
  }
  const share = looked === 0 ? 0 : end / looked
  return {
    policy: formatPolicy(policy),
    events: Math.round(events * share),
    bytes: Math.max(0, Math.round(bytes * share)),
    exact,
  }
}

/** The first position of the stored value that holds `position`. */
async function boundaryAt(log: EventLog, position: number): Promise<number> {
  for await (const entries of log.values({ from: position, to: position }))
    return entries[0]?.position ?? position
  return position
}
