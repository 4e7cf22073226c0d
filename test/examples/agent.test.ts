import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BackupAgent } from '../../examples/agent.ts'
import { MiB, openMemoryStore, openStore, type Plan } from '../../src/index.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { script } from '../support/script.ts'
import { agentOptions, DISK, fileMover, memoryMover } from './agent-support.ts'

const HOUR = 3_600_000

test('the agent takes a full backup first, then an incremental whenever one is due, and keeps its retention', async () => {
  const clock = manualClock()
  const store = await openMemoryStore({ clock })
  const mover = memoryMover()
  const agent = await BackupAgent.start(
    store,
    agentOptions({ clock, mover, every: HOUR, retryAfter: 60_000 }),
  )
  for (let hour = 0; hour < 5; hour++) {
    await store.disk(DISK).recordWrites([{ offset: hour * 65_536, length: 1 }])
    expect(await agent.tick()).toBe(`daily-${hour + 1}`)
    expect(await agent.tick()).toBeNull()
    clock.advance(HOUR)
  }
  expect(mover.copied.map(({ plan }) => [plan.mode, plan.bytes])).toEqual([
    ['full', MiB],
    ...Array(4).fill(['incremental', 65_536]),
  ])
  const { slices } = await store.disk(DISK).bitmap('daily').slices()
  expect(slices.map(({ slice }) => slice)).toEqual([2, 3])
  await store.close()
})

test('R10: after a failure the agent tries again sooner, and the next backup holds what the failed one would have', async () => {
  const clock = manualClock()
  const store = await openMemoryStore({ clock })
  const mover = memoryMover((id) => id === 'daily-2')
  const agent = await BackupAgent.start(
    store,
    agentOptions({ clock, mover, every: HOUR, retryAfter: 60_000 }),
  )
  await agent.tick()
  await store.disk(DISK).recordWrites([{ offset: 0, length: 1 }])
  clock.advance(HOUR)
  await agent.tick()
  expect(store.backup('daily-2').info.phase).toMatchObject({ kind: 'failed', reason: 'the target is full' })
  clock.advance(59_000)
  expect(await agent.tick()).toBeNull()
  await store.disk(DISK).recordWrites([{ offset: 131_072, length: 1 }])
  clock.advance(1000)
  expect(await agent.tick()).toBe('daily-3')
  expect(mover.copied.at(-1)!.plan.extents.map(({ offset }) => offset)).toEqual([0, 131_072])
  await store.close()
})

test('the agent runs until its signal fires', async () => {
  const store = await openMemoryStore()
  const mover = memoryMover()
  const stop = new AbortController()
  const clock = { now: () => Date.now(), monotonic: () => performance.now() }
  const options = agentOptions({
    clock,
    mover,
    every: 20,
    onEvent: () => mover.copied.length >= 3 && stop.abort(),
  })
  await (await BackupAgent.start(store, options)).run(stop.signal)
  expect(mover.copied).toHaveLength(3)
  await store.close()
})

describe('R10, R32: an agent that is killed in the middle of a backup', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'slicelog-agent-'))
    await mkdir(join(folder, 'snapshots'))
    const run = promisify(execFile)(process.execPath, [
      ...script('test/examples/agent-child.ts'),
      join(folder, 'store'),
      join(folder, 'snapshots'),
    ])
    await expect(run).rejects.toMatchObject({ signal: 'SIGKILL' })
    await cp(join(folder, 'store'), join(folder, 'again'), { recursive: true })
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  test('resumes it with the plan of its begin while the snapshot is there', async () => {
    const store = await openStore(join(folder, 'store'))
    const { digest, state } = store.backup('daily-3').info
    expect(state).toBe('running')
    const plans: Plan[] = []
    const mover = fileMover(join(folder, 'snapshots'), async (_, plan) => void plans.push(plan))
    await BackupAgent.start(store, agentOptions({ mover }), true)
    expect(plans.map((plan) => [plan.digest, plan.extents])).toEqual([
      [digest, [{ offset: 131_072, length: 65_536 }]],
    ])
    expect(store.backup('daily-3').info.phase).toMatchObject({ kind: 'succeeded', slice: 1 })
    await store.close()
  })

  test('fails it when the snapshot is gone, and R35: the next backup covers the disk, since writes may have gone unrecorded', async () => {
    const store = await openStore(join(folder, 'again'))
    const mover = memoryMover()
    const agent = await BackupAgent.start(
      store,
      agentOptions({ mover: { ...mover, hasSnapshot: async () => false } }),
    )
    expect(store.backup('daily-3').info.state).toBe('failed')
    expect(await agent.tick()).toBe('daily-4')
    expect(mover.copied[0]!.plan).toMatchObject({
      mode: 'incremental',
      bytes: MiB,
      lost: [{ reason: expect.any(String) }],
    })
    await store.close()
  })
})
