/** R27, explain: histories made by hand, whose figures anyone can add up; then random ones against a naive recomputation. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Explanation, explainBackup, type Store } from '../../src/index.ts'
import { MiB } from '../../src/limits.ts'
import { KiB, refused, SIZE, small, T0 } from '../store/support.ts'
import { proof } from '../support/property.ts'
import { allEvents, DISKS, isWrite, type Logged, randomHistory } from './random-history.ts'

const codes = ({ findings }: Explanation) => findings.map(({ code }) => code)
const finding = (explained: Explanation, code: string) =>
  explained.findings.find((candidate) => candidate.code === code)

/** A full, so that there is a base; then nothing. */
async function based(options = {}) {
  const world = await small(options)
  const full = await world.disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full' })
  await full.succeed()
  return world
}

describe('R27: given writes before and after a bank', () => {
  async function explained(): Promise<Explanation> {
    const { store, disk, bitmap, clock } = await based()
    clock.advance(10_000)
    await disk.recordWrites([
      { offset: 0, length: 4 * KiB },
      { offset: 4 * KiB, length: 512 },
      { offset: 0, length: 512 },
    ])
    clock.advance(10_000)
    await bitmap.bank()
    await disk.recordWrites([{ offset: 64 * KiB, length: 8 * KiB, op: 'discard' }])
    clock.advance(10_000)
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', since: { backup: 'full' }, id: 'incr' })
    return await explainBackup(store, 'incr')
  }

  test('R27: the parts are told with their writes, what they hold and what only they hold', async () => {
    const { sources, backup, equal, base } = await explained()
    expect(backup.bytes).toBe(16 * KiB)
    expect(backup.state).toBe('running')
    expect(equal).toBe(true)
    expect(base).toMatchObject({ kind: 'backup', name: 'full', age: 30_000, backups: ['full'] })
    expect(sources).toMatchObject([
      { kind: 'slice', slice: 0, bytes: 8 * KiB, only: 8 * KiB, writes: 3, written: 5 * KiB },
      { kind: 'active', bytes: 8 * KiB, only: 8 * KiB, writes: 1, written: 8 * KiB },
    ])
  })

  test('R27: what the guest wrote is counted by op and size, and writes over dirty granules are told', async () => {
    const { written } = await explained()
    expect(written).toEqual({
      writes: 4,
      bytes: 13 * KiB,
      ops: {
        write: { writes: 3, bytes: 5 * KiB },
        zero: { writes: 0, bytes: 0 },
        discard: { writes: 1, bytes: 8 * KiB },
      },
      rewrites: 1,
      onlyDiscarded: 8 * KiB,
      sizes: [
        { from: 512, writes: 2, bytes: KiB },
        { from: 4096, writes: 1, bytes: 4 * KiB },
        { from: 8192, writes: 1, bytes: 8 * KiB },
      ],
    })
  })

  test('R27: every granularity is what its granules would have copied', async () => {
    const { granularities } = await explained()
    expect(granularities.map(({ granularity, bytes }) => [granularity, bytes])).toEqual([
      [4 * KiB, 16 * KiB],
      [16 * KiB, 32 * KiB],
      [64 * KiB, 128 * KiB],
      [256 * KiB, 256 * KiB],
      [MiB, MiB],
    ])
    expect(granularities[0]!.amplification).toBeCloseTo(16 / 13)
    expect(granularities[0]!.memory).toBe(32)
  })

  test('R27: the timeline has every write at its time, and what it added', async () => {
    const { timeline } = await explained()
    expect(timeline.width).toBe(1000)
    const busy = timeline.buckets.filter(({ writes }) => writes > 0)
    expect(busy).toEqual([
      { time: T0 + 10_000, writes: 3, bytes: 5 * KiB, added: 8 * KiB },
      { time: T0 + 20_000, writes: 1, bytes: 8 * KiB, added: 8 * KiB },
    ])
  })

  test('R27: the hottest places are told by writes and by bytes, and what was in the backup before', async () => {
    const { hot, previous } = await explained()
    expect(hot.region).toBe(4 * KiB)
    expect(hot.byWrites[0]).toEqual({ offset: 0, length: 8 * KiB, writes: 3, bytes: 5 * KiB })
    expect(hot.byBytes[0]).toEqual({ offset: 64 * KiB, length: 8 * KiB, writes: 1, bytes: 8 * KiB })
    expect(previous).toEqual({ backup: 'full', bytes: SIZE, both: 16 * KiB })
  })

  test('R27: discards that dirtied half of it are a finding, with the figure and what to do', async () => {
    const explanation = await explained()
    expect(finding(explanation, 'DISCARDS')).toMatchObject({ bytes: 8 * KiB })
    expect(finding(explanation, 'DISCARDS')?.says).toContain('1 discard')
    for (const { says, todo } of explanation.findings) expect([says, todo]).not.toContain('')
  })
})

describe('R27: why it covers the whole disk', () => {
  test('R9: the first full has nothing to be relative to', async () => {
    const { store } = await based()
    const explained = await explainBackup(store, 'full')
    expect(codes(explained)).toEqual(['FIRST'])
    expect(explained.whole).toMatchObject({ why: 'it has no base', without: 0 })
    expect(explained.base.kind).toBe('none')
  })

  test('R9: a later full, and a copy, say what an increment would have been', async () => {
    const { store, disk } = await based()
    await disk.recordWrites([{ offset: 0, length: 9 * KiB }])
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'copy', id: 'copy' })).succeed()
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'again' })).succeed()
    for (const [id, code] of [
      ['copy', 'COPY'],
      ['again', 'FULL'],
    ] as const) {
      const explained = await explainBackup(store, id)
      expect(explained.findings).toMatchObject([{ code, bytes: SIZE - 12 * KiB }])
      expect(explained.whole?.without).toBe(12 * KiB)
      expect(explained.sources).toMatchObject([{ kind: 'active', writes: 1, bytes: 12 * KiB }])
    }
  })

  test('R35: a lost stretch is named, with what it cost', async () => {
    const { store, disk } = await based()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await disk.declareLost('the agent was killed')
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(explained.backup.bytes).toBe(SIZE)
    expect(explained.whole?.without).toBe(4 * KiB)
    expect(explained.findings).toMatchObject([{ code: 'LOST', bytes: SIZE - 4 * KiB }])
    expect(explained.findings[0]!.says).toContain('the agent was killed')
    expect(explained.equal).toBe(true)
  })

  test('R24: a base older than the disk', async () => {
    const { store, disk } = await based()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await disk.beginBackup({ bitmap: 'daily', mode: 'differential', since: 'start', id: 'diff' })
    const explained = await explainBackup(store, 'diff')
    expect(finding(explained, 'OLDER_THAN_DISK')).toMatchObject({ bytes: SIZE - 4 * KiB })
  })
})

describe('R27: what widened an increment', () => {
  test('R10, R12: backups that failed since left the base where it was', async () => {
    const { store, disk, clock } = await based()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    for (const id of ['a', 'b']) {
      clock.advance(86_400_000)
      await (await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id })).fail('no space')
    }
    await disk.recordWrites([{ offset: 64 * KiB, length: 512 }])
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(explained.between).toMatchObject([
      { backup: 'a', state: 'failed', reason: 'no space' },
      { backup: 'b', state: 'failed', reason: 'no space' },
    ])
    expect(explained.sinceLast).toBe(4 * KiB)
    expect(finding(explained, 'BASE_OLD')).toMatchObject({ bytes: 4 * KiB })
    expect(finding(explained, 'BASE_OLD')?.says).toContain('2 backups failed (no space)')
  })

  test.each([
    ['disabled', true],
    ['cleared', false],
  ] as const)(
    'R11: a stretch that the log stood in for (%s) is told with what came by nothing else',
    async (why, off) => {
      const { store, disk, bitmap } = await based()
      if (off) await bitmap.disable()
      await disk.recordWrites([
        { offset: 0, length: 512 },
        { offset: 32 * KiB, length: 512 },
      ])
      if (off) await bitmap.enable()
      else await bitmap.clear()
      await disk.recordWrites([{ offset: 0, length: 512 }])
      await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr', since: { backup: 'full' } })
      const explained = await explainBackup(store, 'incr')
      expect(explained.sources).toMatchObject([
        { kind: 'log', why, bytes: 8 * KiB, only: 4 * KiB, writes: 2, written: KiB },
        { kind: 'active', bytes: 4 * KiB, only: 0 },
      ])
      expect(finding(explained, 'STRETCH')).toMatchObject({ bytes: 4 * KiB })
    },
  )

  test('R7: bytes that a resize brought', async () => {
    const { store, disk } = await based()
    await disk.resize(SIZE + 100 * KiB)
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(finding(explained, 'RESIZED')).toMatchObject({ bytes: 100 * KiB })
    expect(explained.unexplained).toBe(0)
  })

  test('R4: bits merged from another bitmap', async () => {
    const { store, disk, bitmap } = await small()
    await disk.ensureBitmap('other', { granularity: 4 * KiB })
    await disk.recordWrites([{ offset: 0, length: 20 * KiB }])
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full' })).succeed()
    await bitmap.merge([{ bitmap: 'other' }])
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(explained).toMatchObject({ merged: ['other'], unexplained: 20 * KiB })
    expect(finding(explained, 'MERGED')).toMatchObject({ bytes: 20 * KiB })
  })

  test('R2: coarse granules under scattered small writes', async () => {
    const { store, disk } = await small()
    await disk.resize(16 * MiB)
    await disk.ensureBitmap('coarse', { granularity: MiB })
    await (await disk.beginBackup({ bitmap: 'coarse', mode: 'full', id: 'full' })).succeed()
    await disk.recordWrites(Array.from({ length: 8 }, (_, i) => ({ offset: i * 2 * MiB, length: 4 * KiB })))
    await disk.beginBackup({ bitmap: 'coarse', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(explained.findings[0]).toMatchObject({ code: 'GRANULARITY', bytes: 8 * MiB - 32 * KiB })
    expect(explained.findings[0]!.says).toContain('256 ×')
    expect(explained.granularities.at(-1)).toMatchObject({
      granularity: MiB,
      bytes: 8 * MiB,
      amplification: 256,
    })
  })

  test('R3, R29: a window counts as what it is, and the answer says so', async () => {
    const { store, disk } = await based()
    const from = { position: store.head.position }
    await disk.recordWindow({ from, extents: [[0, 8 * KiB]], writes: 7 })
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(explained.span).toMatchObject({
      resolution: 'window',
      windows: { count: 1, writes: 7, bytes: 8 * KiB },
    })
    expect(explained.written).toMatchObject({
      writes: 8,
      rewrites: 1,
      ops: { write: { writes: 1, bytes: 512 } },
    })
    expect(codes(explained)).toContain('WINDOWS')
  })

  test('nothing written, nothing wrong: it says so', async () => {
    const { store, disk } = await based()
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    const explained = await explainBackup(store, 'incr')
    expect(explained.findings).toMatchObject([{ code: 'SOUND', bytes: 0 }])
    expect(explained.granularities[0]).toMatchObject({ bytes: 0, amplification: null })
  })
})

test('R27: a backup is explained as it was begun, whatever became of its bitmap and disk since', async () => {
  const { store, disk, bitmap } = await based()
  await disk.recordWrites([{ offset: 0, length: 512 }])
  const incr = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
  await incr.fail('no space')
  const {
    findings: _,
    backup: __,
    bits: ___,
    previousBits: ____,
    ...before
  } = await explainBackup(store, 'incr')
  await bitmap.remove()
  await store.removeDisk('vda')
  expect(await explainBackup(store, 'incr')).toMatchObject(before)
})

describe('R27: what is refused', () => {
  test('a backup that is not there', async () => {
    const { store } = await based()
    await refused(store, 'BACKUP_NOT_FOUND', () => explainBackup(store, 'nope'))
  })

  test('a copy that was combined from others names those', async () => {
    const { store, disk } = await based()
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })).succeed()
    await store.transaction([{ type: 'record-combined', backup: 'both', of: ['full', 'incr'] }])
    const error = await refused(store, 'BACKUP_STATE', () => explainBackup(store, 'both'))
    expect(error.message).toContain('"full", "incr"')
  })

  test('a caller who gave up', async () => {
    const { store, disk } = await based()
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'incr' })
    await refused(store, 'ABORTED', () => explainBackup(store, 'incr', { signal: AbortSignal.abort() }))
  })
})

test('R27: explain counts what a naive reading of the log counts', async () => {
  const seen = { backups: 0, stretches: 0, whole: 0, windows: 0 }
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 - 1 }), async (seed) => {
      const store = await randomHistory(seed, 120)
      const log = await allEvents(store)
      for (const { id } of store.backups().filter(({ of }) => of === null)) {
        const explained = await explainBackup(store, id, { top: 1_000_000 })
        seen.backups++
        seen.stretches += explained.sources.filter(({ kind }) => kind === 'log').length
        if (explained.whole !== null) seen.whole++
        seen.windows += explained.span.windows.count
        await agrees(store, log, explained)
      }
      await store.close()
    }),
    proof('explain against a naive reading', 10, 400),
  )
  expect(Object.entries(seen).filter(([, times]) => times === 0)).toEqual([])
})

/** Every figure again, from events one by one. */
async function agrees(store: Store, log: readonly Logged[], explained: Explanation): Promise<void> {
  const { backup, span, size } = explained
  const mine = log.filter(
    ({ disk, position }) =>
      disk === backup.disk && position > span.from.position && position <= span.to.position,
  )
  const writes = mine.filter(isWrite)
  const windows = mine.filter(({ type }) => type === 'window')
  const ranges = mine.flatMap((event) => event.ranges)
  const sum = (of: readonly Logged[]) => of.reduce((total, event) => total + event.bytes, 0)
  const counted = windows.reduce((total, window) => total + window.writes, 0)
  expect(explained.written.writes).toBe(writes.length + counted)
  expect(explained.written.bytes).toBe(sum(mine.filter((event) => event.ranges.length > 0)))
  for (const op of ['write', 'zero', 'discard'] as const) {
    const some = writes.filter((event) => event.op === op)
    expect(explained.written.ops[op]).toEqual({ writes: some.length, bytes: sum(some) })
  }
  const granulesOf = (list: readonly (readonly [number, number])[], granularity: number) => {
    const set = new Set<number>()
    for (const [offset, length] of list)
      for (let g = Math.floor(offset / granularity); g * granularity < Math.min(size, offset + length); g++)
        set.add(g)
    return set
  }
  const bytesOf = (set: ReadonlySet<number>, granularity: number) =>
    [...set].reduce((total, g) => total + Math.min(granularity, size - g * granularity), 0)
  for (const { granularity, bytes } of explained.granularities)
    expect([granularity, bytes]).toEqual([granularity, bytesOf(granulesOf(ranges, granularity), granularity)])
  const { granularity } = backup
  let rewrites = 0
  const dirty = new Set<number>()
  for (const event of mine) {
    const touched = granulesOf(event.ranges, granularity)
    if (isWrite(event) && [...touched].every((g) => dirty.has(g))) rewrites++
    for (const g of touched) dirty.add(g)
  }
  expect(explained.written.rewrites).toBe(rewrites)
  const inTime = explained.timeline.buckets
  expect(inTime.length).toBeLessThanOrEqual(60)
  expect(inTime.reduce((total, bucket) => total + bucket.writes, 0)).toBe(explained.written.writes)
  expect(inTime.reduce((total, bucket) => total + bucket.added, 0)).toBe(dirty.size * granularity)
  const { width } = explained.timeline
  for (const { time, bytes } of inTime) {
    const then = mine.filter(
      (event) => event.time >= time && event.time < time + width && event.ranges.length > 0,
    )
    expect(bytes).toBe(sum(then))
  }
  expect(explained.hot.byBytes.reduce((total, region) => total + region.bytes, 0)).toBe(
    ranges.reduce((total, [offset, length]) => total + Math.min(size, offset + length) - offset, 0),
  )
  expect(explained.equal, `R26: ${backup.id}: ${explained.reason}`).toBe(true)
  expect(explained.bits.digest()).toBe(backup.digest)
  for (const part of explained.sources) {
    if (part.from === null || part.to === null) continue
    const { from, to } = part
    const own = mine.filter(({ position }) => position > from.position && position <= to.position)
    expect(part.writes).toBe(own.reduce((total, event) => total + event.writes, 0))
    if (part.kind !== 'log') continue
    expect(part.bytes).toBe(
      bytesOf(
        granulesOf(
          own.flatMap((event) => event.ranges),
          granularity,
        ),
        granularity,
      ),
    )
  }
  // What each part alone brought is what the plan would be short of without it.
  const sets = await Promise.all(
    explained.sources.map(async (part) => {
      if (part.kind === 'outside') return null
      if (part.kind === 'log')
        return granulesOf(
          mine
            .filter(({ position }) => position > part.from!.position && position <= part.to!.position)
            .flatMap((event) => event.ranges),
          granularity,
        )
      const then = await store.at(
        backup.point.position === 0 ? 'start' : { position: begunAfter(log, backup.id) },
      )
      const selector = part.slice === null ? {} : { slice: part.slice }
      const { extents } = await then.bits(backup.disk, backup.bitmap, selector)
      return granulesOf(extents, granularity)
    }),
  )
  if (sets.includes(null)) return
  sets.forEach((set, i) => {
    const others = new Set(sets.flatMap((other, j) => (j === i ? [] : [...other!])))
    const only = new Set([...set!].filter((g) => !others.has(g)))
    expect([explained.sources[i]!.kind, explained.sources[i]!.only]).toEqual([
      explained.sources[i]!.kind,
      bytesOf(only, granularity),
    ])
    expect(explained.sources[i]!.bytes).toBe(bytesOf(set!, granularity))
  })
}

/** The position before the begin of a backup that is alone in its record. */
function begunAfter(log: readonly Logged[], id: string): number {
  return log.find((event) => event.type === 'backup-begun' && event.backup === id)!.position - 1
}

test('the random histories have several disks', () => {
  expect(DISKS.length).toBeGreaterThan(1)
})
