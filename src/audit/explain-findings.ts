/** What to make of an explanation, in words: each finding has its figure and what to do. Worst first; never empty. */
import type { Point } from '../../events/types.ts'
import type { BitmapState } from '../../projections/state.ts'
import type { Between, ExplainedSource, ExplainFinding, Explanation, TimeBucket } from './explain-types.ts'
import { bytes, duration, percent, plural, times } from './figures.ts'

type Facts = Omit<Explanation, 'findings'>
type Found = ExplainFinding | null

/** Finer granules are worth a word from here on. */
const GRANULARITY_RATIO = 1.5
/** A burst: half of what was added, in at most so much of the time. */
const BURST_SHARE = 0.5
const BURST_TIME = 0.1
const REPEATED_SHARE = 0.5
const DISCARDED_SHARE = 0.1

export function findingsOf(facts: Facts, bitmap: BitmapState): readonly ExplainFinding[] {
  // What made an increment large is no matter where the whole disk was taken: nothing of it would have helped.
  const found = (
    facts.whole === null
      ? [
          oldBase(facts),
          ...facts.sources.map(stretch),
          resized(facts),
          merged(facts),
          granularity(facts, bitmap),
          discards(facts),
          burst(facts),
          repeated(facts),
        ]
      : [whole(facts), ...(facts.base.kind === 'none' ? [] : [oldBase(facts)])]
  )
    .concat(differs(facts), windows(facts))
    .filter((finding) => finding !== null)
  found.sort((a, b) => rank(b) - rank(a))
  return found.some(({ bytes: cost }) => cost > 0) || found.some(({ code }) => code === 'FIRST')
    ? found
    : [sound(facts), ...found]
}

/** Damage before all, then by what it cost. */
function rank({ code, bytes: cost }: ExplainFinding): number {
  return code === 'DIGEST_DIFFERS' ? Number.POSITIVE_INFINITY : cost
}

function differs({ equal }: Facts): Found {
  if (equal) return null
  return {
    code: 'DIGEST_DIFFERS',
    bytes: 0,
    says: 'the log and the slices do not give the bits that were recorded when it began',
    todo: 'run verify: something in the store is damaged, or the figures here are not to be trusted',
  }
}

function whole(facts: Facts): Found {
  const { backup, whole: reason, base } = facts
  if (reason === null) return null
  const cost = Math.max(0, backup.bytes - reason.without)
  const instead = `from ${place(reason.since)} on, ${bytes(reason.without)} had changed`
  if (base.kind === 'none') {
    if (backup.mode === 'copy')
      return {
        code: 'COPY',
        bytes: cost,
        says: `a copy takes the whole disk (${bytes(backup.bytes)}) and leaves the bitmap alone; ${instead}`,
        todo: 'for an increment begin with --mode incremental',
      }
    if (facts.previous === null)
      return {
        code: 'FIRST',
        bytes: 0,
        says: `the first backup over this bitmap has nothing to be relative to: the whole disk, ${bytes(backup.bytes)}`,
        todo: 'nothing: the next incremental copies only what is written from here on',
      }
    return {
      code: 'FULL',
      bytes: cost,
      says: `a full takes the whole disk; an incremental since ${place(reason.since)} would have copied ${bytes(reason.without)}`,
      todo: 'begin with --mode incremental, unless a new full was wanted',
    }
  }
  const lost = facts.lost[0]
  if (lost !== undefined)
    return {
      code: 'LOST',
      bytes: cost,
      says:
        `writes after ${place(lost.from)} up to ${place(lost.to)} may have gone unrecorded (${lost.reason}), so the whole disk is ` +
        `covered (R35); without that it would have been ${bytes(reason.without)}`,
      todo: 'let the agent detach its disks before it ends, or tell at the next attach that nothing was written (--quiet); backups based on this one are exact again',
    }
  return {
    code: 'OLDER_THAN_DISK',
    bytes: cost,
    says: `its base (${place(base)}) is older than the disk, so the whole disk is covered; since it was added, ${bytes(reason.without)} changed`,
    todo: 'give a base that the disk had: a slice, a backup or a position after it was added',
  }
}

function oldBase(facts: Facts): Found {
  const { between, sinceLast, backup, base, whole: reason } = facts
  const last = between.at(-1)
  if (last === undefined || sinceLast === null) return null
  const had = reason === null ? backup.bytes : reason.without
  const cost = Math.max(0, had - sinceLast)
  const age = base.age === null ? '' : `, ${duration(base.age)} old`
  return {
    code: 'BASE_OLD',
    bytes: cost,
    says: `since its base (${place(reason === null ? base : reason.since)}${age}) ${endings(between)}; since the last of them, "${last.backup}", it would have been ${bytes(sinceLast)}`,
    todo: todoOfBase(last, facts),
  }
}

function endings(between: readonly Between[]): string {
  const kinds = ['failed', 'cancelled', 'succeeded', 'running', 'pending', 'interrupted'] as const
  return kinds
    .flatMap((kind) => {
      const some = between.filter(({ state }) => state === kind)
      if (some.length === 0) return []
      const reasons = [...new Set(some.flatMap(({ reason }) => (reason === null ? [] : [reason])))]
      const said = reasons.length === 0 ? '' : ` (${reasons.slice(0, 3).join('; ')})`
      const still = kind === 'failed' || kind === 'cancelled' || kind === 'succeeded'
      return [
        `${plural(some.length, 'backup')} ${still ? kind : `${some.length === 1 ? 'was' : 'were'} ${kind}`}${said}`,
      ]
    })
    .join(', ')
}

function todoOfBase(last: Between, { backup }: Facts): string {
  if (last.state !== 'succeeded')
    return 'a backup that does not succeed leaves the base where it was: see why, and end them sooner'
  if (backup.mode === 'differential')
    return `a differential keeps its base by design; begin with --since backup:${last.backup}, or take an incremental, to start anew`
  return `begin with --since backup:${last.backup}`
}

function stretch(source: ExplainedSource): Found {
  if (source.kind !== 'log' || source.from === null || source.to === null) return null
  const where = `from ${place(source.from)} to ${place(source.to)}`
  const [what, todo] = STRETCHES[source.why ?? ''] ?? ['no slice held it', 'see history bitmap']
  return {
    code: 'STRETCH',
    bytes: source.only,
    says: `${where} ${what}, so the log's ${plural(source.writes, 'write')} stand in: ${bytes(source.bytes)}, of which ${bytes(source.only)} came by nothing else`,
    todo,
  }
}

const STRETCHES: Readonly<Record<string, readonly [what: string, todo: string]>> = {
  disabled: [
    'the bitmap was disabled',
    'leave it enabled between backups; nothing was missed, the log had it',
  ],
  cleared: [
    'the bitmap had been cleared',
    'do not clear a bitmap that backups are based on; nothing was missed, the log had it',
  ],
  absent: ['the bitmap did not exist yet', 'nothing: it goes away with the next base'],
  'before-slices': ['its slices are gone', 'raise the retention, if bases that old are wanted'],
  'inside-slice': [
    'the base lies inside a slice',
    'name a slice, a backup or a checkpoint as the base to be spared the read of the log',
  ],
}

function resized({ sources }: Facts): Found {
  const outside = sources.find(({ kind }) => kind === 'outside')
  if (outside === undefined) return null
  return {
    code: 'RESIZED',
    bytes: outside.only,
    says: `the disk was resized since the base: bytes that lay outside it then, or since, are copied too (R7), ${bytes(outside.bytes)}`,
    todo: 'nothing: it goes away with the next base',
  }
}

function merged({ merged: names, unexplained }: Facts): Found {
  if (names.length === 0 || unexplained === 0) return null
  return {
    code: 'MERGED',
    bytes: unexplained,
    says: `${bytes(unexplained)} were not written since the base but came with the bits of ${names.join(', ')}, merged into this bitmap`,
    todo: 'see history bitmap for who merged it, and when',
  }
}

function granularity({ granularities, backup }: Facts, bitmap: BitmapState): Found {
  const own = granularities.find((figure) => figure.granularity === backup.granularity)
  const finest = granularities.find((figure) => figure.bytes !== null)
  if (
    own === undefined ||
    own.bytes === null ||
    finest === undefined ||
    finest.bytes === null ||
    finest.bytes === 0
  )
    return null
  const ratio = own.bytes / finest.bytes
  if (finest === own || ratio < GRANULARITY_RATIO) return null
  return {
    code: 'GRANULARITY',
    bytes: own.bytes - finest.bytes,
    says:
      `granules of ${bytes(backup.granularity)} copy ${bytes(own.bytes)} where ${bytes(finest.bytes)} changed (${times(ratio)}); ` +
      `at ${bytes(finest.granularity)} the same writes would have made ${bytes(finest.bytes)}`,
    todo: `add a bitmap beside "${bitmap.name}" with --granularity ${finest.granularity} and base the next full on it: it takes up to ${bytes(finest.memory)} of memory`,
  }
}

function discards({ written, backup }: Facts): Found {
  const { onlyDiscarded, ops } = written
  if (onlyDiscarded === 0 || onlyDiscarded < DISCARDED_SHARE * backup.bytes) return null
  return {
    code: 'DISCARDS',
    bytes: onlyDiscarded,
    says: `${plural(ops.discard.writes, 'discard')} alone dirtied ${bytes(onlyDiscarded)}: discards dirty like writes (R1), but what they leave reads as zeros`,
    todo: 'a copy that skips zeros, or an image format that compresses them, makes them free; or trim less often',
  }
}

/** The shortest run of buckets that brought half of it. */
function burst({ timeline: { buckets, width }, backup }: Facts): Found {
  const total = buckets.reduce((sum, { added }) => sum + added, 0)
  if (total === 0 || buckets.length < 1 / BURST_TIME) return null
  const run = shortestRun(buckets, total * BURST_SHARE)
  if (run === null || run.count > buckets.length * BURST_TIME) return null
  const start = buckets[run.first]!.time
  return {
    code: 'BURST',
    bytes: Math.min(run.added, backup.bytes),
    says: `${percent(run.added / total)} of it was first written within ${duration(run.count * width)}, from ${new Date(start).toISOString()} on`,
    todo: `see what ran then: log --disk ${backup.disk} --from ${new Date(start).toISOString()}`,
  }
}

function shortestRun(buckets: readonly TimeBucket[], wanted: number) {
  let best: { first: number; count: number; added: number } | null = null
  let added = 0
  let first = 0
  for (let last = 0; last < buckets.length; last++) {
    added += buckets[last]!.added
    while (added - buckets[first]!.added >= wanted) added -= buckets[first++]!.added
    const count = last - first + 1
    if (
      added >= wanted &&
      (best === null || count < best.count || (count === best.count && added > best.added))
    )
      best = { first, count, added }
  }
  return best
}

function repeated({ previous, backup, size }: Facts): Found {
  // After a whole disk everything is there twice, which says nothing.
  if (previous === null || previous.bytes >= size || backup.bytes === 0) return null
  const share = previous.both / backup.bytes
  if (share < REPEATED_SHARE || previous.both === 0) return null
  return {
    code: 'REPEATED',
    bytes: 0,
    says: `${percent(share)} of it (${bytes(previous.both)}) was in the backup before, "${previous.backup}", too`,
    todo: 'the guest rewrites the same places: see the hottest regions; a journal, swap or a temporary file may live on a disk of its own',
  }
}

function windows({ span }: Facts): Found {
  if (span.resolution === 'exact') return null
  const { count, writes, maybe } = span.windows
  const cut =
    maybe === 0
      ? ''
      : `; ${maybe} of them ${maybe === 1 ? 'is' : 'are'} what may have been written before a power cut (R30)`
  return {
    code: 'WINDOWS',
    bytes: 0,
    says: `${plural(writes, 'write')} of the span are known only together, in ${plural(count, 'window')} (R3, R29): bits and counts are exact, times, sizes and kinds of single writes are not known${cut}`,
    todo: 'nothing',
  }
}

function sound({ backup, written }: Facts): ExplainFinding {
  return {
    code: 'SOUND',
    bytes: 0,
    says:
      written.writes === 0
        ? `nothing was written since its base`
        : `the guest wrote ${bytes(written.bytes)} in ${plural(written.writes, 'write')}, and ${bytes(backup.bytes)} is what that dirtied: nothing stands out`,
    todo: 'nothing',
  }
}

function place({ position }: Pick<Point, 'position'>): string {
  return position < 0 ? 'the start' : `@${position}`
}
