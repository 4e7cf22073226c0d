/** Followers by themselves: each event once whatever interleaves, and memory that has a bound which is counted, not hoped for. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { EMPTY_HASH, encodeWindows } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { limits } from '../../src/limits.ts'
import { ContractChain } from '../../src/log/contract.ts'
import type { Followed } from '../../src/log/event-log.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { proof } from '../support/property.ts'

const turn = () => new Promise((resolve) => setImmediate(resolve))

type Step =
  | { readonly kind: 'append'; readonly rows: readonly number[] }
  | { readonly kind: 'read'; readonly reader: number; readonly times: number }
  | { readonly kind: 'begin'; readonly share: number; readonly records: number; readonly bytes: number }
  | { readonly kind: 'stop'; readonly reader: number; readonly how: 'abort' | 'return' }
  | { readonly kind: 'repack' }
  | { readonly kind: 'turn' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('append' as const),
      rows: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 6 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      reader: fc.nat(),
      times: fc.integer({ min: 1, max: 8 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('begin' as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      records: fc.integer({ min: 1, max: 8 }),
      bytes: fc.integer({ min: 60, max: 2000 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('stop' as const),
      reader: fc.nat(),
      how: fc.constantFrom('abort' as const, 'return' as const),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'repack' as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'turn' as const }) },
)

/** A reader that is pulled by the test; `next()` calls wait for one another as a `for await` would. */
class Reader {
  readonly stop = new AbortController()
  readonly got: Followed[] = []
  ended = false
  #iterator: AsyncIterator<Followed>
  #pulling: Promise<void> = Promise.resolve()
  waiting = 0

  constructor(
    log: MemoryEventLog,
    readonly from: number,
    bufferRecords: number,
    bufferBytes: number,
  ) {
    const options = { from, signal: this.stop.signal, bufferRecords, bufferBytes }
    this.#iterator = log.follow(options)[Symbol.asyncIterator]()
  }

  pull(times: number): Promise<void> {
    for (let i = 0; i < times; i++) {
      this.waiting++
      this.#pulling = this.#pulling.then(async () => {
        const step = this.ended ? undefined : await this.#iterator.next()
        this.waiting--
        if (step === undefined || step.done === true) this.ended = true
        else this.got.push(step.value)
      })
    }
    return this.#pulling
  }

  async return(): Promise<void> {
    this.stop.abort()
    await this.#pulling
    await this.#iterator.return?.()
    this.ended = true
  }

  get caughtUpAt(): number | undefined {
    const last = this.got.at(-1)
    return last?.kind === 'caughtUp' ? last.next : undefined
  }

  /** Positions in the order in which they came. */
  get positions(): number[] {
    return this.got.flatMap((followed) =>
      followed.kind === 'records' ? followed.records.flatMap(positionsOf) : [],
    )
  }
}

const positionsOf = ({ first, count }: LogRecord) => Array.from({ length: count }, (_, i) => first + i)

test('any interleaving of appends, slow readers, overflows and aborts: exactly the log, once, in bounded memory', async () => {
  let fellBehind = 0
  let most = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }), async (steps) => {
      const log = new MemoryEventLog()
      const chain = new ContractChain()
      const readers: Reader[] = []
      const bounds: { records: number; bytes: number }[] = []
      const check = () => {
        const { readers: number, records, bytes } = log.followers
        expect(number).toBeLessThanOrEqual(readers.length)
        expect(records).toBeLessThanOrEqual(bounds.reduce((sum, bound) => sum + bound.records, 0))
        expect(bytes).toBeLessThanOrEqual(bounds.reduce((sum, bound) => sum + bound.bytes, 0))
        most = Math.max(most, bytes)
      }
      for (const one of steps) {
        if (one.kind === 'append') {
          const records = one.rows.map((rows) => chain.writes(rows))
          await log.append(records, { expected: records[0]!.first, sync: false })
        } else if (one.kind === 'begin') {
          readers.push(new Reader(log, Math.floor(log.head.next * one.share), one.records, one.bytes))
          bounds.push({ records: one.records, bytes: one.bytes })
          void readers.at(-1)!.pull(1)
        } else if (one.kind === 'read') {
          void readers[one.reader % Math.max(1, readers.length)]?.pull(one.times)
        } else if (one.kind === 'stop') {
          const reader = readers[one.reader % Math.max(1, readers.length)]
          if (one.how === 'abort') reader?.stop.abort()
          else await reader?.return()
        } else if (one.kind === 'repack') await log.repack()
        else await turn()
        check()
      }
      const left = readers.filter(({ stop }) => !stop.signal.aborted)
      for (const reader of left) {
        while (reader.caughtUpAt !== log.head.next && !reader.ended) {
          if (reader.waiting === 0) void reader.pull(1)
          await turn()
        }
      }
      for (const reader of readers) {
        const { positions } = reader
        // A record that holds `from` comes whole.
        const first = positions[0] ?? reader.from
        expect(first).toBeLessThanOrEqual(reader.from)
        expect(positions).toEqual(Array.from({ length: positions.length }, (_, i) => first + i))
        if (left.includes(reader)) expect(positions.at(-1) ?? reader.from - 1).toBe(log.head.next - 1)
        fellBehind += reader.got.filter(({ kind }) => kind === 'fellBehind').length
        for (const [i, followed] of reader.got.entries()) {
          if (followed.kind !== 'fellBehind') continue
          const again = reader.got.slice(i + 1).find(({ kind }) => kind !== 'records')
          expect(again?.kind ?? 'caughtUp', 'after falling behind comes catching up').toBe('caughtUp')
        }
      }
      await log.close()
      for (const reader of readers) await reader.return()
      expect(log.followers).toMatchObject({ readers: 0, records: 0, bytes: 0 })
    }),
    proof('followers interleaved', 300, 20_000),
  )
  expect(fellBehind, 'overflows happened').toBeGreaterThan(10)
  expect(most, 'something was buffered').toBeGreaterThan(100)
})

describe('a reader that does not read', () => {
  test('costs no more than its bounds, in bytes before records where records are large', async () => {
    const log = new MemoryEventLog()
    const chain = new ContractChain()
    const reader = log.follow({ from: 0 })[Symbol.asyncIterator]()
    expect((await reader.next()).value).toEqual({ kind: 'caughtUp', next: 0 })
    let bytes = 0
    let buffered = 0
    while (bytes < 3 * limits.subscriberBufferBytes) {
      const record = chain.writes(limits.recordWritesMax)
      bytes += record.bytes.length
      await log.append([record], { expected: record.first, sync: false })
      expect(log.followers.bytes).toBeLessThanOrEqual(limits.subscriberBufferBytes)
      expect(log.followers.records).toBeLessThan(limits.subscriberBufferRecords)
      buffered = Math.max(buffered, log.followers.bytes)
    }
    expect(buffered).toBeGreaterThan(limits.subscriberBufferBytes / 2)
    expect(log.followers.bytes, 'let go of once it overflowed').toBe(0)
    const seen: string[] = []
    let next = 0
    for (let step = await reader.next(); step.done !== true; step = await reader.next()) {
      seen.push(step.value.kind)
      if (step.value.kind === 'records')
        for (const record of step.value.records) {
          expect(record.first).toBe(next)
          next = record.first + record.count
        }
      if (step.value.kind === 'caughtUp') break
    }
    expect(next).toBe(log.head.next)
    expect(seen[0]).toBe('fellBehind')
    await reader.return?.()
    await log.close()
  })

  test('and is not live costs nothing at all', async () => {
    const log = new MemoryEventLog()
    const chain = new ContractChain()
    const append = async () => {
      const record = chain.writes(10)
      await log.append([record], { expected: record.first, sync: false })
    }
    await append()
    const reader = log.follow({ from: 0 })[Symbol.asyncIterator]()
    await reader.next()
    for (let i = 0; i < 50; i++) await append()
    expect(log.followers).toMatchObject({ readers: 1, records: 0, bytes: 0, next: [10] })
    await reader.return?.()
    await log.close()
  })
})

test('R29: a cursor inside a window gets that window whole and no earlier one; windows and gaps come as what they are', async () => {
  const chain = new ContractChain()
  const [a, b] = [chain.writes(4, 0), chain.writes(4)]
  const section = (position: number) => ({
    disk: 0,
    writes: 2,
    bytes: 1024,
    last: { position, time: a.time },
    columns: { offsets: Float64Array.of(0), lengths: Float64Array.of(512) },
  })
  const windows = [0, 2].map((first) => ({
    first,
    count: 2,
    time: a.time,
    lastTime: a.time,
    sections: [section(first + 1)],
  }))
  const run = encodeWindows(0, windows, a.hash)
  const log = new MemoryEventLog({
    entries: [
      { position: 0, value: run },
      { position: 4, value: b.bytes },
    ],
    commands: new Map(),
  })
  expect(EMPTY_HASH.length).toBe(32)
  const firstOf = async (from: number) => {
    for await (const followed of log.follow({ from }))
      if (followed.kind === 'records') return followed.records
    throw new Error('ended')
  }
  expect(await firstOf(0)).toMatchObject([{ kind: 'windows', first: 0, count: 4, windows }, { first: 4 }])
  expect(await firstOf(1)).toMatchObject([{ kind: 'windows', first: 0, count: 4, windows }, { first: 4 }])
  expect(await firstOf(2)).toMatchObject([
    { kind: 'windows', first: 2, count: 2, windows: [windows[1]] },
    { first: 4 },
  ])
  expect(await firstOf(3)).toMatchObject([
    { kind: 'windows', first: 2, count: 2, windows: [windows[1]] },
    { first: 4 },
  ])
  expect(await firstOf(4)).toMatchObject([{ kind: 'writes', first: 4 }])
  await log.close()
})

test('without `from` a follower begins at the head of its call, not of its first read', async () => {
  const log = new MemoryEventLog()
  const chain = new ContractChain()
  const follower = log.follow()[Symbol.asyncIterator]()
  const record = chain.writes(3)
  await log.append([record], { expected: 0, sync: false })
  expect((await follower.next()).value).toMatchObject({ kind: 'records', records: [{ first: 0 }] })
  await follower.return?.()
  await log.close()
})

test('an abort ends a waiting reader in that turn, and leaves nothing behind', async () => {
  const log = new MemoryEventLog()
  const stop = new AbortController()
  let ended = false
  const reading = (async () => {
    for await (const followed of log.follow({ from: 0, signal: stop.signal })) void followed
    ended = true
  })()
  await turn()
  expect(log.followers.readers).toBe(1)
  stop.abort()
  await turn()
  expect(ended).toBe(true)
  await reading
  expect(log.followers.readers).toBe(0)
  await log.close()
})
