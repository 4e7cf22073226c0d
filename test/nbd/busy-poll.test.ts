/** Looking for the next request without sleeping: only behind an answer, only while clients come back soon, and never for long. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { BusyPoll } from '../../src/nbd/busy-poll.ts'

const WINDOW = 0.2
let poll: BusyPoll
let now = 0

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setImmediate'] })
  now = 1000
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  poll = new BusyPoll(WINDOW)
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** Turns of the loop that it stays awake for, each of a twentieth of a millisecond, at most 100. */
function turns(): number {
  let count = 0
  while (vi.getTimerCount() > 0 && count < 100) {
    count++
    now += 0.05
    vi.advanceTimersToNextTimer()
  }
  return count
}

/** An answer, and after `pause` the next request and its answer: the turns behind that one. */
function exchange(pause: number): number {
  const from = now
  poll.answered()
  turns()
  now = from + pause
  poll.asked()
  poll.answered()
  return turns()
}

test('a client that comes back within the window is awaited for one window', () => {
  const count = exchange(WINDOW / 2)
  expect(count).toBeGreaterThan(2)
  expect(count).toBeLessThan(8)
})

test('nobody is awaited behind the first request of all', () => {
  poll.asked()
  poll.answered()
  expect(turns()).toBe(0)
})

test('nobody is awaited behind an answer, before a client ever came back', () => {
  poll.answered()
  expect(turns()).toBe(0)
})

test('nobody is awaited while a client takes its time', () => {
  expect(exchange(WINDOW * 5)).toBe(0)
})

test('nobody is awaited on a machine with one processor', () => {
  poll = new BusyPoll(0)
  expect(exchange(0)).toBe(0)
})

test('answers that follow each other extend one look, and do not begin others', () => {
  poll.answered()
  poll.asked()
  for (let i = 0; i < 10; i++) poll.answered()
  expect(vi.getTimerCount()).toBe(1)
})

test('it stops as soon as a client comes back later than the window', () => {
  expect(exchange(WINDOW / 2)).toBeGreaterThan(0)
  expect(exchange(WINDOW * 2)).toBe(0)
  expect(exchange(WINDOW / 2)).toBeGreaterThan(0)
})
