/** What waits for the log is bounded, and a close waits for bytes that are on their way (R8). */
import { expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { gate, KiB, SpyLog, small, turns } from './support.ts'

const one = [{ offset: 0, length: 512 }]

/** Calls the store until it refuses, awaiting nothing. */
function pile(call: () => Promise<unknown>, most: number) {
  const refused: unknown[] = []
  let taken = 0
  const all = Array.from({ length: most }, () =>
    call().then(
      () => taken++,
      (error: unknown) => refused.push(error),
    ),
  )
  return { all: Promise.all(all), refused, taken: () => taken }
}

test('a log that hangs: beyond the bound calls are refused with QUEUE_FULL, those before are recorded once it goes on', async () => {
  const log = new SpyLog(new MemoryEventLog())
  const { store, disk } = await small({ log })
  const stalled = gate()
  log.gate = stalled.promise
  const over = 1000
  const { all, refused, taken } = pile(() => disk.recordWrites(one), limits.queuedCallsMax + over)
  await turns()
  expect(refused.length).toBe(over)
  expect(refused[0]).toMatchObject({ code: 'QUEUE_FULL', facts: { calls: limits.queuedCallsMax } })
  const before = store.head.position
  stalled.open()
  await all
  expect(taken()).toBe(limits.queuedCallsMax)
  expect(store.head.position - before).toBe(limits.queuedCallsMax)
  // The queue is empty again, so the next call is taken.
  expect((await disk.recordWrites(one)).count).toBe(1)
  await store.close()
}, 60_000)

test('rows count as well as calls, and a command is refused like a write', async () => {
  const log = new SpyLog(new MemoryEventLog())
  const { store, disk, bitmap } = await small({ log })
  const stalled = gate()
  log.gate = stalled.promise
  const columns = {
    offsets: new Float64Array(limits.callWritesMax),
    lengths: new Float64Array(limits.callWritesMax).fill(512),
  }
  const calls = limits.queuedRowsMax / limits.callWritesMax
  const first = pile(() => disk.recordWrites(columns), calls)
  // What is being put has left the queue; the rest of the room is taken then.
  await turns()
  const second = pile(() => disk.recordWrites(columns), calls)
  await turns()
  expect(first.refused).toEqual([])
  expect(second.refused.length).toBeGreaterThan(0)
  await expect(bitmap.bank()).rejects.toMatchObject({ code: 'QUEUE_FULL' })
  stalled.open()
  await Promise.all([first.all, second.all])
  await bitmap.bank()
  await store.close()
}, 60_000)

test('who awaits each call before the next is never refused, however many there are', async () => {
  const { store, disk } = await small()
  for (let i = 0; i < 2000; i++) await disk.recordWrites(one)
  await store.close()
})

test('R8: a close waits for bytes that a move still carries, so that the detach behind it is a clean one', async () => {
  const { store, disk } = await small()
  const moved = gate()
  const recorded = disk.recordWrites([{ offset: 4 * KiB, length: 512 }], () => moved.promise)
  await turns()
  let closed = false
  const close = store.close().then(() => {
    closed = true
  })
  await turns()
  expect(closed).toBe(false)
  await expect(disk.recordWrites(one)).rejects.toMatchObject({ code: 'STORE_CLOSED' })
  moved.open()
  await recorded
  await close
})

test('R8: a move that fails does not keep the store open, and its caller is told', async () => {
  const { store, disk } = await small()
  const recorded = disk.recordWrites(one, async () => {
    await turns(3)
    throw new Error('the disk is gone')
  })
  recorded.catch(() => undefined)
  await turns(1)
  await store.close()
  await expect(recorded).rejects.toThrow('the disk is gone')
})
