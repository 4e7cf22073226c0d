/** What can be restored, case by case; test/audit/coverage.model.test.ts has the proof (R19, R24, R25, R35). */
import { describe, expect, test } from 'vitest'
import { commandLine } from '../../src/audit/command-line.ts'
import { coverage, wouldBreak } from '../../src/audit/coverage.ts'
import { openMemoryStore } from '../../src/store/open.ts'
import type { BeginRequest } from '../../src/store/types.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { KiB, refused, T0 } from '../store/support.ts'

const HOUR = 3_600_000

/** `vda`, 64 granules of 4 KiB, with `daily` (4 slices) and `weekly`; an hour passes before each backup. */
async function world(retention = 4) {
  const clock = manualClock(T0)
  const store = await openMemoryStore({ clock })
  const disk = await store.ensureDisk('vda', { size: 256 * KiB })
  await disk.addBitmap('daily', { granularity: 4 * KiB, retention })
  await disk.addBitmap('weekly', { granularity: 4 * KiB })
  const write = (granule: number, count = 1) =>
    disk.recordWrites([{ offset: granule * 4 * KiB, length: count * 4 * KiB }])
  const backup = async (id: string, mode: BeginRequest['mode'], rest: Partial<BeginRequest> = {}) => {
    clock.advance(HOUR)
    await (await store.disk('vda').beginBackup({ bitmap: 'daily', mode, id, ...rest })).succeed()
    return store.backup(id).info.point.position
  }
  /** full, then a, b, c, a granule each. */
  const chain = async () => {
    const points = [await backup('full', 'full')]
    for (const [i, id] of ['a', 'b', 'c'].entries()) {
      await write(i)
      points.push(await backup(id, 'incremental'))
    }
    return points
  }
  const forget = (id: string, reason = 'tape 7 broke') => store.backup(id).forget({ reason })
  const states = async () => (await coverage(store, 'vda')).points.map(({ state }) => state)
  return { clock, store, disk, write, backup, chain, forget, states }
}

describe('points and chains', () => {
  test('R25: without a backup nothing can be restored, and a full is offered', async () => {
    const { store } = await world()
    const report = await coverage(store, 'vda')
    expect(report).toMatchObject({
      covered: false,
      newest: null,
      points: [],
      gaps: [],
      merges: [],
      former: [],
    })
    expect(report.repairs).toMatchObject([{ kind: 'full', bytes: 256 * KiB, request: { mode: 'full' } }])
  })

  test('R25: every point of a kept chain can be restored, each by what lies under it', async () => {
    const { store, chain } = await world()
    const positions = await chain()
    const { points, covered, gaps, repairs, next } = await coverage(store, 'vda')
    expect(points.map(({ point }) => point.position)).toEqual(positions)
    expect(points.map((point) => point.chain)).toEqual([
      ['full'],
      ['full', 'a'],
      ['full', 'a', 'b'],
      ['full', 'a', 'b', 'c'],
    ])
    expect(points.at(-1)?.bytes).toBe(256 * KiB + 3 * 4 * KiB)
    expect([covered, gaps, repairs]).toEqual([true, [], []])
    expect(next.map(({ continues }) => continues)).toEqual([true, true])
  })

  test('R25: the newest point says its age and what was written since', async () => {
    const { clock, store, chain, write } = await world()
    const positions = await chain()
    await write(7, 2)
    clock.advance(2 * HOUR)
    const { newest } = await coverage(store, 'vda')
    expect(newest).toMatchObject({
      point: { position: positions[3] },
      age: 2 * HOUR,
      written: { bytes: 64 * KiB, complete: true },
    })
  })

  test('R25: a chain of fewer images is preferred, whatever bitmap they came from', async () => {
    const { store, chain, backup } = await world()
    await chain()
    await backup('week', 'differential', { bitmap: 'weekly', since: { backup: 'full' } })
    const { points } = await coverage(store, 'vda')
    expect(points.at(-1)?.chain).toEqual(['full', 'week'])
  })

  test('R25: an increment lies on any image of a point since its base', async () => {
    const { store, chain, backup, forget } = await world()
    await chain()
    await backup('copy', 'copy', { bitmap: 'weekly' })
    await backup('d', 'incremental')
    for (const id of ['full', 'a', 'b', 'c']) await forget(id)
    expect((await coverage(store, 'vda')).points.at(-1)?.chain).toEqual(['copy', 'd'])
  })

  test('R35: an increment that a lost stretch made whole begins a chain', async () => {
    const { store, disk, backup } = await world()
    await disk.declareLost('away')
    await backup('x', 'incremental')
    expect((await coverage(store, 'vda')).points).toMatchObject([{ state: 'whole', chain: ['x'] }])
  })

  test('R35: a stretch told later puts the points inside it in doubt; the next backup is whole again', async () => {
    const { store, disk, chain, backup, states } = await world()
    const [, a] = await chain()
    await disk.declareLost('the agent was away', { from: { position: a! } })
    expect(await states()).toEqual(['whole', 'whole', 'doubtful', 'doubtful'])
    expect((await coverage(store, 'vda')).points[2]?.why).toContain('the agent was away')
    await backup('d', 'incremental', { forceCycle: true })
    expect(await states()).toEqual(['whole', 'whole', 'doubtful', 'doubtful', 'whole'])
  })

  test('R11: α taken as it was, with something missing, leaves doubt', async () => {
    const { store, disk, chain, write, backup } = await world()
    await chain()
    await disk.bitmap('daily').disable()
    await write(9)
    await disk.bitmap('daily').enable()
    await backup('bits', 'differential', { since: 'active' })
    const { points, covered } = await coverage(store, 'vda')
    expect(points.at(-1)).toMatchObject({ state: 'doubtful', chain: ['full', 'a', 'b', 'c', 'bits'] })
    expect(covered).toBe(false)
  })

  test('R9: failed, cancelled and running backups are no points', async () => {
    const { store, disk, states } = await world()
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'copy', id: 'x' })).fail('no')
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'copy', id: 'y' })).cancel()
    await disk.beginBackup({ bitmap: 'daily', mode: 'copy', id: 'z' })
    expect(await states()).toEqual([])
    expect((await coverage(store, 'vda')).hindered).toMatchObject([{ bitmap: 'daily', code: 'BITMAP_BUSY' }])
  })

  test('R25: a disk that was removed and added again is another disk; the old copies are told apart', async () => {
    const { store, chain, backup } = await world()
    await chain()
    await store.removeDisk('vda')
    const disk = await store.ensureDisk('vda', { size: 256 * KiB })
    await disk.addBitmap('daily', { granularity: 4 * KiB })
    await backup('new', 'incremental')
    const { points, former, covered } = await coverage(store, 'vda')
    expect(points).toMatchObject([{ state: 'broken', since: null }])
    expect(points[0]?.why).toContain('never made')
    expect(former.map((old) => old.points.length)).toEqual([4])
    expect(covered).toBe(false)
  })

  test('R7: chains go across a resize', async () => {
    const { disk, chain, write, backup, states } = await world(9)
    await chain()
    await disk.resize(128 * KiB)
    await backup('small', 'incremental')
    await disk.resize(512 * KiB)
    await write(100)
    await backup('large', 'incremental')
    expect(await states()).toEqual(Array(6).fill('whole'))
  })
})

describe('losses', () => {
  test('R25: a forgotten copy breaks what lies on it, and each point says which and when', async () => {
    const { store, chain, forget } = await world()
    await chain()
    await forget('b')
    const { points, covered, gaps } = await coverage(store, 'vda')
    expect(points.map(({ state }) => state)).toEqual(['whole', 'whole', 'gone', 'broken'])
    expect(points[3]?.since).toMatchObject({ backup: 'b', reason: 'tape 7 broke', at: store.point })
    expect(covered).toBe(false)
    expect(gaps).toMatchObject([
      {
        open: true,
        after: points[1]?.point,
        before: null,
        states: { broken: 1, gone: 1, doubtful: 0 },
        useless: ['c'],
        causes: [{ backup: 'b' }],
      },
    ])
    expect(gaps[0]?.lost).toContain('cannot come back')
  })

  test('R25: of two losses the later one is named: until then there was a chain', async () => {
    const { store, chain, backup, forget } = await world()
    await chain()
    await backup('week', 'differential', { bitmap: 'weekly', since: { backup: 'full' } })
    await backup('d', 'incremental')
    await forget('b')
    expect((await coverage(store, 'vda')).points.at(-1)?.chain).toEqual(['full', 'week', 'd'])
    await forget('week')
    expect((await coverage(store, 'vda')).points.at(-1)?.since?.backup).toBe('week')
  })

  test('R25: a gap with a restorable point behind it is closed, and nothing is offered for it', async () => {
    const { store, chain, backup, forget } = await world()
    await chain()
    await backup('again', 'copy')
    await forget('full')
    const { gaps, covered, repairs, newest } = await coverage(store, 'vda')
    expect(gaps).toMatchObject([{ open: false, after: null, before: newest?.point, recreate: [] }])
    expect([covered, repairs]).toEqual([true, []])
  })

  test('R25: a combined copy stands in for its members', async () => {
    const { store, chain, forget, states } = await world()
    await chain()
    await store.recordCombined('ab', ['a', 'b'])
    await forget('a')
    await forget('b')
    expect(await states()).toEqual(['whole', 'gone', 'whole', 'whole'])
    expect((await coverage(store, 'vda')).points.at(-1)?.chain).toEqual(['full', 'ab', 'c'])
  })

  test('R26: the plan of a combined backup is the union of its members, made again from the log', async () => {
    const { store, chain } = await world()
    await chain()
    await store.recordCombined('abc', ['a', 'b', 'c'])
    const plan = await store.replayPlan('abc')
    expect(plan).toMatchObject({
      bytes: 3 * 4 * KiB,
      extents: [{ offset: 0, length: 12 * KiB }],
      mode: 'incremental',
    })
    expect(plan.base.position).toBe((await store.replayPlan('a')).base.position)
  })

  test('R13: forgetting and combining answer the same again under their command ids', async () => {
    const { store, chain } = await world()
    await chain()
    const forget = () => store.backup('c').forget({ reason: 'x' }, { commandId: 'forget-c' })
    expect(await forget()).toEqual({ id: 'c', copy: 'forgotten', changed: true })
    expect(await forget()).toEqual({ id: 'c', copy: 'forgotten', changed: true })
    expect(await store.backup('c').forget()).toMatchObject({ changed: false })
    const combine = () => store.recordCombined('ab', ['a', 'b'], { commandId: 'combine' })
    const first = (await combine()).info
    expect((await combine()).info).toEqual(first)
    await refused(store, 'COMMAND_ID_REUSED', () => store.backup('b').forget({}, { commandId: 'forget-c' }))
  })
})

describe('repairs', () => {
  test('R25: the smallest new backup continues from the newest restorable point; each is a dry run', async () => {
    const { store, chain, forget } = await world()
    await chain()
    await forget('b')
    const head = store.head
    const { repairs, next } = await coverage(store, 'vda')
    expect(store.head).toEqual(head)
    expect(repairs[0]).toMatchObject({
      kind: 'increment',
      bytes: 2 * 4 * KiB,
      request: { disk: 'vda', mode: 'incremental', since: { backup: 'a' } },
      chain: ['full', 'a'],
    })
    expect(repairs.at(-1)).toMatchObject({
      kind: 'full',
      bytes: 256 * KiB,
      request: { mode: 'copy' },
      liesOn: null,
    })
    expect(next[0]).toMatchObject({ bitmap: 'daily', continues: false, request: { since: { backup: 'a' } } })
    expect(next[0]?.command).toBe('slicelog backup begin vda daily --mode incremental --since backup:a')
  })

  test('R25: carried out, it closes the gap, and the next increment continues', async () => {
    const { store, disk, chain, forget } = await world()
    await chain()
    await forget('b')
    const { repairs } = await coverage(store, 'vda')
    await (await disk.beginBackup({ ...repairs[0]!.request, id: 'r' })).succeed()
    const report = await coverage(store, 'vda')
    expect(report).toMatchObject({ covered: true, repairs: [], newest: { chain: ['full', 'a', 'r'] } })
    expect(report.next.find(({ bitmap }) => bitmap === 'daily')?.continues).toBe(true)
    expect(report.gaps).toMatchObject([{ open: false }])
  })

  test('R25: a deleted backup is made again from retained slices, as of now', async () => {
    const { store, chain, forget, write } = await world()
    await chain()
    await write(20)
    await forget('b')
    const [again] = (await coverage(store, 'vda')).gaps[0]!.recreate
    expect(again).toMatchObject({ kind: 'recreate', of: 'b', bytes: 3 * 4 * KiB, chain: ['full', 'a'] })
    expect(again?.merges.map(({ kind }) => kind)).toEqual(['slice', 'slice', 'active'])
  })

  test('R24: without slices it is made again from the log', async () => {
    const { store, chain, forget } = await world(0)
    await chain()
    await forget('b')
    const [again] = (await coverage(store, 'vda')).gaps[0]!.recreate
    expect(again?.merges.map(({ kind }) => kind)).toContain('log')
    expect(again?.bytes).toBe(2 * 4 * KiB)
  })

  test('R25: one whose base no restorable point reaches is not made again: nothing could be laid under it', async () => {
    const { store, chain, forget } = await world()
    await chain()
    await forget('b')
    await forget('c')
    const { gaps, points } = await coverage(store, 'vda')
    const { recreate, causes } = gaps[0]!
    expect(recreate.map(({ of }) => of)).toEqual(['b'])
    // Once b was gone, the loss of c took nothing more.
    expect(causes.map(({ backup }) => backup)).toEqual(['b'])
    expect(points[3]?.why).toMatch(/^"b", which it has to lie on, .* and so is its own copy$/)
  })

  test('R25: a deleted full is made again as a copy, which leaves the slices alone', async () => {
    const { store, chain, forget } = await world()
    await chain()
    await forget('full')
    const { gaps, repairs } = await coverage(store, 'vda')
    expect(gaps[0]?.recreate).toMatchObject([{ of: 'full', request: { mode: 'copy' }, bytes: 256 * KiB }])
    expect(repairs).toMatchObject([{ kind: 'full' }])
  })

  test('R15: where retention is full a differential is offered, and it says so', async () => {
    const { store, chain, forget } = await world(3)
    await chain()
    await forget('b')
    const { repairs, hindered } = await coverage(store, 'vda', { bitmap: 'daily' })
    expect(repairs[0]).toMatchObject({ kind: 'increment', request: { mode: 'differential' } })
    expect(hindered).toMatchObject([{ bitmap: 'daily', code: 'RETENTION_FULL' }])
  })

  test('R25: a long chain is worth merging', async () => {
    const { store, chain, write, backup } = await world(20)
    await chain()
    for (let i = 0; i < 6; i++) {
      await write(10 + i)
      await backup(`more-${i}`, 'incremental')
    }
    const { merges } = await coverage(store, 'vda')
    expect(merges).toMatchObject([{ bytesAtMost: 9 * 4 * KiB }])
    await store.recordCombined('one', merges[0]!.of)
    expect((await coverage(store, 'vda')).newest?.chain).toEqual(['full', 'one'])
  })

  test('R25: points of one bitmap alone can be asked for', async () => {
    const { store, chain, backup } = await world()
    await chain()
    await backup('week', 'copy', { bitmap: 'weekly' })
    expect((await coverage(store, 'vda', { bitmap: 'weekly' })).points).toHaveLength(1)
    expect((await coverage(store, 'vda', { bitmap: 'daily' })).points).toHaveLength(4)
  })

  test('R21: an unknown disk or bitmap is refused, and an aborted question ends', async () => {
    const { store } = await world()
    await refused(store, 'DISK_NOT_FOUND', () => coverage(store, 'vdb'))
    await refused(store, 'BITMAP_NOT_FOUND', () => coverage(store, 'vda', { bitmap: 'hourly' }))
    await refused(store, 'ABORTED', () => coverage(store, 'vda', { signal: AbortSignal.abort() }))
  })

  test('R25: the report is JSON as it is', async () => {
    const { store, chain, forget } = await world()
    await chain()
    await forget('b')
    const report = await coverage(store, 'vda')
    expect(JSON.parse(JSON.stringify(report))).toEqual(report)
  })
})

describe('before a copy is forgotten', () => {
  test('R25: what would break is told, and what to combine first', async () => {
    const { store, chain, states, forget } = await world()
    const [, a, b, c] = await chain()
    const would = wouldBreak(store, 'a')
    expect(would.loses.map(({ point }) => point.position)).toEqual([a])
    expect(would.breaks.map(({ point }) => point.position)).toEqual([b, c])
    expect(would.combine).toEqual([['a', 'b']])
    await store.recordCombined('a+b', would.combine[0]!)
    expect(wouldBreak(store, 'a').breaks).toEqual([])
    await forget('a')
    expect(await states()).toEqual(['whole', 'gone', 'whole', 'whole'])
  })

  test('R25: what other copies give as well is not lost', async () => {
    const { store, chain, backup } = await world()
    await chain()
    await backup('week', 'differential', { bitmap: 'weekly', since: { backup: 'full' } })
    expect(wouldBreak(store, 'c')).toMatchObject({ breaks: [], combine: [] })
    expect(wouldBreak(store, 'week').loses).toHaveLength(1)
  })

  test('R35: a point that would be left with a doubtful copy alone counts as broken', async () => {
    const { store, disk, chain, write, backup } = await world(9)
    const [, , , c] = await chain()
    await write(30)
    // One record, one point: an increment that misses what is told later, and a whole copy that misses nothing.
    const both = await store.beginBackups([
      { disk: 'vda', bitmap: 'daily', mode: 'incremental', id: 'd' },
      { disk: 'vda', bitmap: 'weekly', mode: 'copy', id: 'copy' },
    ])
    for (const one of both) await one.succeed()
    await disk.declareLost('away', { from: { position: c! } })
    await backup('e', 'incremental')
    expect(wouldBreak(store, 'copy').loses).toMatchObject([{ state: 'whole', chain: ['copy'] }])
    expect(wouldBreak(store, 'd')).toMatchObject({ loses: [], breaks: [] })
  })

  test('R25: one that is forgotten already breaks nothing more', async () => {
    const { store, chain, forget } = await world()
    await chain()
    await forget('a')
    expect(wouldBreak(store, 'a')).toEqual({ backup: 'a', loses: [], breaks: [], combine: [] })
  })

  test('R21: an unknown backup is refused', async () => {
    const { store } = await world()
    await refused(store, 'BACKUP_NOT_FOUND', () => wouldBreak(store, 'nobody'))
  })
})

describe('command lines', () => {
  test.each([
    [['backup', 'begin', 'vm/vda', '--since', '@17'], 'slicelog backup begin vm/vda --since @17'],
    [['a b', "it's"], "slicelog 'a b' 'it'\\''s'"],
    [['$(rm -rf ~)', '`x`', '*'], "slicelog '$(rm -rf ~)' '`x`' '*'"],
    [['', 'é'], "slicelog '' $'\\xc3\\xa9'"],
    [["\u001b[2J'\\"], "slicelog $'\\x1b[2J\\'\\\\'"],
  ])('a shell reads %j as what was meant', (words, line) => {
    expect(commandLine(null, words)).toBe(line)
  })

  test('the store is named when it has a folder', () => {
    expect(commandLine('/srv/my store', ['head'])).toBe("slicelog --store '/srv/my store' head")
  })
})
