/** R22: an answer that reaches across a step of the clock says so, where its point was given by the clock. */
import { expect, test } from 'vitest'
import { openStore } from '../../src/index.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { storeFolder } from '../cli/support.ts'
import { again, small, T0 } from './support.ts'

const HOUR = 3_600_000

/** Writes at 0:01 and 1:00, a step back to 0:30 told with the next write, and one at 2:00 of the clock as it is then. */
async function stepped() {
  const world = await small()
  const { store, disk, bitmap, clock } = world
  const write = (granule: number) => disk.recordWrites([{ offset: granule * 4096, length: 1 }])
  clock.advance(60_000)
  await write(1)
  clock.advanceTo(T0 + HOUR)
  const { first: before } = await write(2)
  clock.step(T0 + HOUR / 2)
  await write(3)
  const step = { at: { position: before + 1, time: T0 + HOUR }, from: T0 + HOUR, to: T0 + HOUR / 2 }
  clock.advance(1.5 * HOUR)
  await write(4)
  return { ...world, store, disk, bitmap, write, before, step }
}

test('R22: a plan since a time tells the steps of the clock between there and its point; since anything else none', async () => {
  const { disk, before, step } = await stepped()
  const steps = async (since?: Parameters<typeof disk.plan>[0]['since']) => {
    const plan = await disk.plan({
      bitmap: 'daily',
      mode: 'differential',
      ...(since === undefined ? {} : { since }),
    })
    return plan.clockSteps
  }
  expect(await steps({ time: T0 + 60_000 })).toEqual([step])
  expect(await steps({ time: T0 + HOUR })).toEqual([step])
  expect(await steps({ time: T0 + 2 * HOUR })).toEqual([])
  for (const since of [undefined, 'start', 'active', { position: before }] as const)
    expect(await steps(since)).toEqual([])
})

test('R22, R26: a begun backup has them too; its replay is equal, and is told of no step that came after its begin', async () => {
  const { store, disk, clock, write, step, log } = await stepped()
  const since = { time: T0 + HOUR }
  const options = { commandId: 'once' }
  const request = { bitmap: 'daily', mode: 'differential', id: 'b', since } as const
  const begun = await disk.beginBackup(request, options)
  expect(begun.plan.clockSteps).toEqual([step])
  clock.step(T0 + 9 * HOUR)
  await write(5)
  expect((await disk.plan({ bitmap: 'daily', mode: 'differential', since })).clockSteps).toHaveLength(2)
  const replayed = await store.replayPlan('b')
  expect(JSON.parse(JSON.stringify(replayed))).toEqual(JSON.parse(JSON.stringify(begun.plan)))
  expect((await disk.beginBackup(request, options)).plan.clockSteps).toEqual([step])
  expect(JSON.parse(JSON.stringify(begun.plan)).clockSteps).toEqual([step])
  await begun.succeed()
  await store.close()
  const later = await again(log, { clock: manualClock(T0 + 9 * HOUR) })
  expect((await later.replayPlan('b')).clockSteps).toEqual([step])
  await later.close()
})

test('R22: a plan whose base is a backup tells none, also where that backup was relative to a time', async () => {
  const { store, disk } = await stepped()
  const since = { time: T0 + HOUR }
  await (await disk.beginBackup({ bitmap: 'daily', mode: 'copy', id: 'all' })).succeed()
  await (await disk.beginBackup({ bitmap: 'daily', mode: 'differential', id: 'd', since })).succeed()
  const next = await disk.plan({ bitmap: 'daily', mode: 'differential', since: { backup: 'd' } })
  expect([next.base.kind, next.clockSteps]).toEqual(['backup', []])
  await store.close()
})

test('R22: a combined backup tells each step of its members once', async () => {
  const { store, disk, step } = await stepped()
  const begin = (mode: 'full' | 'differential', id: string, time?: number) =>
    disk.beginBackup({ bitmap: 'daily', mode, id, ...(time === undefined ? {} : { since: { time } }) })
  await (await begin('full', 'all')).succeed()
  await (await begin('differential', 'one', T0 + HOUR)).succeed()
  await (await begin('differential', 'two', T0 + HOUR)).succeed()
  await store.recordCombined('week', ['all', 'one', 'two'])
  expect((await store.replayPlan('week')).clockSteps).toEqual([step])
})

test('R22: at() by a time tells the steps since then, and the one that the time fell into; by a position none', async () => {
  const { store, before, step } = await stepped()
  const steps = async (time: number) => (await store.at({ time })).clockSteps
  expect(await steps(T0 + 60_000), 'before it').toEqual([step])
  expect(await steps(T0 + HOUR / 2), 'a time that was gone through twice').toEqual([step])
  expect(await steps(T0 + HOUR), 'the time that repeats').toEqual([step])
  expect(await steps(T0 + HOUR + 1), 'behind it').toEqual([])
  expect(await steps(T0 + 2 * HOUR)).toEqual([])
  expect((await store.at({ position: before })).clockSteps).toEqual([])
  for (const point of ['start', 'now'] as const) expect((await store.at(point)).clockSteps).toEqual([])
})

test('R22: a time that the clock skipped is told as such', async () => {
  const { store, disk, clock } = await small()
  await disk.recordWrites([{ offset: 0, length: 1 }])
  clock.step(T0 + HOUR)
  await disk.recordWrites([{ offset: 4096, length: 1 }])
  const skipped = await store.at({ time: T0 + HOUR / 2 })
  expect(skipped.clockSteps).toMatchObject([{ from: T0, to: T0 + HOUR }])
  expect((await store.at({ time: T0 + HOUR + 1 })).clockSteps).toEqual([])
})

const { path, done, json } = storeFolder()

test('R22: `backup plan|begin` and `at` carry clock-steps, and say them to people only where there are any', async () => {
  const clock = manualClock(T0 + HOUR)
  const store = await openStore(path('s'), { clock })
  const disk = await store.addDisk('d', { size: 1 << 20 })
  await disk.addBitmap('b')
  const { position } = store.head
  clock.step(T0)
  await disk.addBitmap('c')
  await store.close()
  const steps = [{ at: { position: position + 1, time: T0 + HOUR }, from: T0 + HOUR, to: T0 }]
  const time = new Date(T0 + HOUR).toISOString()
  const plan = ['backup', 'plan', 'd', 'b', '--mode', 'differential']
  expect(await json('s', ...plan, '--since', time)).toMatchObject({ 'clock-steps': steps })
  expect(await json('s', ...plan, '--since', `@${position}`)).toMatchObject({ 'clock-steps': [] })
  expect(await json('s', 'at', time)).toMatchObject({ 'clock-steps': steps })
  expect(await json('s', 'at', `@${position}`)).toMatchObject({ 'clock-steps': [] })
  const said = /clock steps +@\d+ from 2026-01-01 01:00:00.000Z to 2026-01-01 00:00:00.000Z/
  expect((await done('s', 'at', time)).out).toMatch(said)
  expect((await done('s', ...plan, '--since', time)).out).toMatch(said)
  for (const words of [['at', 'now'], plan])
    expect((await done('s', ...words)).out).not.toContain('clock steps')
  const begin = ['backup', 'begin', 'd', 'b', '--mode', 'differential', '--id', 'x', '--since', time]
  expect(await json('s', ...begin)).toMatchObject({ 'clock-steps': steps })
})
