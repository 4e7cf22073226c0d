/**
 * What every EventLog must do, as a suite for whoever writes one: bring `test` of your framework and a way to open an empty
 * log. Checks are node:assert's, so any framework that fails a test on a throw will do.
 */
import assert from 'node:assert/strict'
import {
  EMPTY_HASH,
  type EncodedRecord,
  encodeEvents,
  encodeWindows,
  encodeWrites,
} from '../../events/record.ts'
import type { DomainEvent, LogRecord } from '../../events/types.ts'
import { CheckpointError, type ErrorCode } from '../errors.ts'
import type { EventLog, Followed, ReadOptions, Swap } from './event-log.ts'

export interface ContractSubject {
  readonly log: EventLog
  /** Closes the log and opens it again on the same content. Without it those tests are left out, by name. */
  readonly reopen?: () => Promise<EventLog>
  readonly dispose?: () => Promise<void>
}

export interface ContractOptions {
  readonly name: string
  /** A new empty log. */
  readonly open: () => Promise<ContractSubject>
  readonly test: (title: string, run: () => Promise<void>) => void
}

/** Makes a chain of records to append: of `rows` writes each, or an event with a command id. */
export class ContractChain {
  next = 0
  time = 1_700_000_000_000
  hash: Uint8Array = EMPTY_HASH

  writes(rows = 1, step = 1): EncodedRecord {
    const offsets = Float64Array.from({ length: rows }, (_, i) => ((this.next + i) % 1000) * 4096)
    const lengths = new Float64Array(rows).fill(4096)
    const times = Float64Array.from({ length: rows }, (_, i) => this.time + i * step)
    return this.#took(
      encodeWrites(this.next, this.time, [{ disk: 0, columns: { offsets, lengths, times } }], this.hash),
      step,
    )
  }

  event(
    commandId?: string,
    event: DomainEvent = { type: 'disk-added', disk: 'vda', size: 1 << 30 },
  ): EncodedRecord {
    const meta =
      commandId === undefined ? {} : { command: 'add-disk', commandId, argumentsHash: 'a'.repeat(64) }
    return this.#took(encodeEvents(this.next, this.time, meta, [event], this.hash), 1)
  }

  #took(record: EncodedRecord, step: number): EncodedRecord {
    this.next = record.first + record.count
    this.time = record.lastTime + step
    this.hash = record.hash
    return record
  }
}

async function refusedWith(code: ErrorCode, promise: Promise<unknown>): Promise<CheckpointError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof CheckpointError, `expected ${code}, got ${String(error)}`)
  assert.equal(error.code, code)
  return error
}

export async function readAll(log: EventLog, options?: ReadOptions): Promise<LogRecord[]> {
  const all: LogRecord[] = []
  for await (const records of log.read(options)) all.push(...records)
  return all
}

async function appendAll(log: EventLog, records: readonly EncodedRecord[], sync = false): Promise<void> {
  for (const record of records) await log.append([record], { expected: record.first, sync })
}

type Case = (subject: ContractSubject) => Promise<void>

/** Registers the suite. */
export function eventLogContract({ name, open, test }: ContractOptions): void {
  for (const [title, run] of Object.entries(CASES)) {
    test(`${name}: ${title}`, async () => {
      const subject = await open()
      try {
        await run(subject)
      } finally {
        await subject.log.close()
        await subject.dispose?.()
      }
    })
  }
}

const firsts = (records: readonly LogRecord[]) => records.map((record) => record.first)

const CASES: Readonly<Record<string, Case>> = {
  'a new log is empty': async ({ log }) => {
    assert.equal(log.head.next, 0)
    assert.equal(log.head.time, null)
    assert.deepEqual(log.head.hash, EMPTY_HASH)
    assert.deepEqual(await readAll(log), [])
    assert.equal(await log.positionAtTime(0), 0)
  },
  'R3: what was appended is read back, each event at its own position': async ({ log }) => {
    const chain = new ContractChain()
    const records = [chain.event(), chain.writes(3), chain.writes(1), chain.event('c1')]
    await log.append(records, { expected: 0, sync: true })
    assert.equal(log.head.next, 6)
    assert.equal(log.syncedHead.next, 6)
    assert.deepEqual(log.head.hash, chain.hash)
    assert.deepEqual(firsts(await readAll(log)), [0, 1, 4, 5])
  },
  'an append at another position is refused with POSITION_CONFLICT and writes nothing': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(2)])
    const late = new ContractChain().writes(1)
    await refusedWith('POSITION_CONFLICT', log.append([late], { expected: 0, sync: false }))
    const stranger = encodeWrites(2, chain.time, [{ disk: 0, columns: oneWrite() }], EMPTY_HASH)
    await refusedWith('POSITION_CONFLICT', log.append([stranger], { expected: 2, sync: false }))
    assert.equal(log.head.next, 2)
    await appendAll(log, [chain.writes(1)])
    assert.equal((await readAll(log)).length, 2)
  },
  'R13: a command id that is in the log is refused with its position': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(2), chain.event('once')])
    const again = encodeEvents(
      3,
      chain.time,
      { commandId: 'once' },
      [{ type: 'nothing-changed' }],
      chain.hash,
    )
    const error = await refusedWith('COMMAND_ID_REUSED', log.append([again], { expected: 3, sync: false }))
    assert.equal(error.facts.position, 2)
    assert.equal(await log.positionOfCommand('once'), 2)
    assert.equal(await log.positionOfCommand('never'), undefined)
    assert.equal(log.head.next, 3)
  },
  'R13: a command id twice in one append is refused': async ({ log }) => {
    const chain = new ContractChain()
    await refusedWith(
      'COMMAND_ID_REUSED',
      log.append([chain.event('x'), chain.event('x')], { expected: 0, sync: false }),
    )
    assert.equal(log.head.next, 0)
  },
  'reads begin inside a record, end inside one, and go backwards': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(4), chain.writes(4), chain.writes(4), chain.writes(4)])
    assert.deepEqual(firsts(await readAll(log, { from: 5 })), [4, 8, 12])
    assert.deepEqual(firsts(await readAll(log, { from: 5, to: 8 })), [4, 8])
    assert.deepEqual(firsts(await readAll(log, { reverse: true })), [12, 8, 4, 0])
    assert.deepEqual(firsts(await readAll(log, { from: 5, to: 9, reverse: true })), [8, 4])
    assert.deepEqual(firsts(await readAll(log, { from: 16 })), [])
  },
  'a read without writes passes over them, packed or not, and still finds a hole': async ({ log }) => {
    const chain = new ContractChain()
    for (let i = 0; i < 40; i++)
      await appendAll(log, [chain.writes(1 + (i % 3)), ...(i % 10 === 9 ? [chain.event(`c${i}`)] : [])])
    for (let i = 0; i < 2; i++) {
      const expected = (await readAll(log)).filter((record) => record.kind !== 'writes')
      assert.equal(expected.length, 4)
      assert.deepEqual(await readAll(log, { without: 'writes' }), expected)
      assert.deepEqual(await readAll(log, { without: 'writes', reverse: true }), [...expected].reverse())
      const [first, second] = expected
      assert.deepEqual(
        firsts(await readAll(log, { without: 'writes', from: first!.first + 1, to: second!.first })),
        [second!.first],
      )
      assert.deepEqual(await readAll(log, { without: 'writes', from: 0, to: 3 }), [])
      await log.repack()
    }
  },
  'a read ends at the head it began with': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(1), chain.writes(1)])
    const reader = log.read()[Symbol.asyncIterator]()
    const first = await reader.next()
    await appendAll(log, [chain.writes(1)])
    let count = first.done === true ? 0 : first.value.length
    for (let more = await reader.next(); more.done !== true; more = await reader.next())
      count += more.value.length
    assert.equal(count, 2)
  },
  'an aborted read is refused with ABORTED': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(1)])
    await refusedWith('ABORTED', readAll(log, { signal: AbortSignal.abort() }))
  },
  'R22: a time is found by bisection, inside records and between them': async ({ log }) => {
    const chain = new ContractChain()
    const start = chain.time
    await appendAll(log, [chain.writes(10, 5), chain.event(), chain.writes(10, 5)])
    const times: number[] = []
    for (const record of await readAll(log)) {
      if (record.kind !== 'writes') times.push(record.time)
      else times.push(...record.sections[0]!.columns.times!)
    }
    for (let time = start - 2; time < chain.time + 2; time++) {
      const found = times.findIndex((candidate) => candidate >= time)
      assert.equal(await log.positionAtTime(time), found < 0 ? 21 : found, `time ${time - start}`)
    }
  },
  'followers see everything once, from the log and then live': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(2), chain.writes(2)])
    const stop = new AbortController()
    const seen: string[] = []
    const done = (async () => {
      for await (const followed of log.follow({ from: 0, signal: stop.signal })) {
        seen.push(textOf(followed))
        if (followed.kind === 'caughtUp' && followed.next === 6) stop.abort()
      }
    })()
    await new Promise((resolve) => setTimeout(resolve, 20))
    await appendAll(log, [chain.writes(2)])
    await done
    assert.deepEqual(seen, ['0 2', 'caughtUp 4', '4', 'caughtUp 6'])
  },
  'a follower that is too slow is told, and misses nothing': async ({ log }) => {
    const chain = new ContractChain()
    const seen: Followed[] = []
    const follower = log.follow({ from: 0, bufferRecords: 2 })[Symbol.asyncIterator]()
    seen.push((await follower.next()).value as Followed)
    for (let i = 0; i < 10; i++) await appendAll(log, [chain.writes(1)])
    while (seen.at(-1)?.kind !== 'caughtUp' || seen.length === 1)
      seen.push((await follower.next()).value as Followed)
    await follower.return?.()
    const positions = seen.flatMap((followed) =>
      followed.kind === 'records' ? firsts(followed.records) : [],
    )
    assert.deepEqual(positions, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert.ok(seen.some((followed) => followed.kind === 'fellBehind'))
  },
  'a follower may lag by so many bytes; then it goes on from the log, and from a cursor where another ended':
    async ({ log }) => {
      const chain = new ContractChain()
      const seen: number[] = []
      for (let round = 0; round < 3; round++) {
        const kinds: string[] = []
        const from = seen.length
        for await (const followed of log.follow({ from, bufferBytes: 1 })) {
          kinds.push(followed.kind)
          if (followed.kind === 'records') seen.push(...firsts(followed.records))
          if (followed.kind === 'caughtUp' && kinds.includes('fellBehind')) break
          if (followed.kind === 'caughtUp')
            for (let i = 0; i < 4; i++) await appendAll(log, [chain.writes(1)])
        }
        assert.deepEqual(kinds, ['caughtUp', 'fellBehind', 'records', 'caughtUp'])
      }
      assert.deepEqual(seen, firsts(await readAll(log)))
    },
  'an aborted follower ends, waiting or reading, without an error': async ({ log }) => {
    const chain = new ContractChain()
    for (let i = 0; i < 20; i++) await appendAll(log, [chain.writes(1)])
    for (const reads of [0, 1, 2]) {
      const stop = new AbortController()
      const follower = log.follow({ from: 0, signal: stop.signal })[Symbol.asyncIterator]()
      for (let i = 0; i < reads; i++) await follower.next()
      const waiting = reads === 2 ? follower.next() : undefined
      stop.abort()
      if (waiting !== undefined) assert.equal((await waiting).done, true)
      assert.equal((await follower.next()).done, true)
    }
  },
  'a follower without `from` begins at the head of its call': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(1)])
    const follower = log.follow()[Symbol.asyncIterator]()
    await appendAll(log, [chain.writes(2)])
    const first = await follower.next()
    assert.equal(first.done === true ? 'ended' : textOf(first.value), '1')
    await follower.return?.()
  },
  'closing ends a follower in the middle of the log, without an error': async ({ log }) => {
    const chain = new ContractChain()
    for (let i = 0; i < 300; i++) await appendAll(log, [chain.writes(1)])
    const follower = log.follow({ from: 0 })[Symbol.asyncIterator]()
    assert.equal((await follower.next()).done, false)
    await log.close()
    assert.equal((await follower.next()).done, true)
  },
  'closing ends followers, and everything after it is refused': async ({ log }) => {
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(1)])
    const kinds: string[] = []
    const done = (async () => {
      for await (const followed of log.follow({ from: 0 })) kinds.push(followed.kind)
    })()
    await new Promise((resolve) => setTimeout(resolve, 20))
    await log.close()
    await done
    await log.close()
    assert.deepEqual(kinds, ['records', 'caughtUp'])
    await refusedWith('STORE_CLOSED', log.append([chain.writes(1)], { expected: 1, sync: false }))
    await refusedWith('STORE_CLOSED', readAll(log))
  },
  'repacking joins small records and changes nothing that can be read': async ({ log }) => {
    const chain = new ContractChain()
    for (let i = 0; i < 40; i++)
      await appendAll(log, [chain.writes(1 + (i % 3)), ...(i % 10 === 9 ? [chain.event(`c${i}`)] : [])])
    const before = await readAll(log)
    const { before: values, after } = await log.repack()
    assert.equal(values, 44)
    assert.ok(after < 4, `${after} values left`)
    assert.deepEqual(await readAll(log), before)
    assert.deepEqual(firsts(await readAll(log, { reverse: true })), firsts(before).reverse())
    assert.deepEqual(
      firsts(await readAll(log, { from: 7, to: 9 })),
      firsts(await readAll(log, { from: 7, to: 9, reverse: true })).reverse(),
    )
    const commanded = before.find((record) => record.kind === 'events' && record.meta.commandId === 'c19')!
    assert.equal(await log.positionOfCommand('c19'), commanded.first)
    const again = chain.writes(1)
    await appendAll(log, [again])
    assert.equal(await log.positionAtTime(again.time), again.first)
    await log.repack()
    assert.equal((await readAll(log)).length, before.length + 1)
  },
  'R29: runs take the place of whole records, in one batch with what vouches for them': async ({
    log,
    reopen,
  }) => {
    const chain = new ContractChain()
    const records = Array.from({ length: 30 }, () => chain.writes(2))
    await appendAll(log, records)
    await log.repack() // So that the runs cut packs.
    await appendAll(log, [chain.writes(2), chain.event('kept')])
    const before = await readAll(log)
    const reader = log.read()[Symbol.asyncIterator]()
    const begun = await reader.next()
    const vouching = chain.event('vouching')
    const replace = [swapOf(records.slice(2, 6)), swapOf(records.slice(6, 10)), swapOf(records.slice(20))]
    await log.append([vouching], { expected: 63, sync: true, replace })
    await log.reclaim(0, 63)
    const seen = begun.done === true ? [] : [...begun.value]
    for (let more = await reader.next(); more.done !== true; more = await reader.next())
      seen.push(...more.value)
    assert.deepEqual(seen, before, 'a reader goes on seeing what was there')
    const check = async (now: EventLog) => {
      const after = await readAll(now)
      const kinds = after.map(({ first, count, kind }) => `${kind} ${first}+${count}`)
      assert.deepEqual(
        kinds.filter((kind) => !kind.startsWith('writes')),
        ['windows 4+8', 'windows 12+8', 'windows 40+20', 'events 62+1', 'events 63+1'],
      )
      const kept = (record: LogRecord) => record.kind === 'writes'
      const untouched = (first: number) => first < 4 || (first >= 20 && first < 40) || first >= 60
      assert.deepEqual(
        after.filter(kept),
        before.filter((record) => kept(record) && untouched(record.first)),
      )
      for (const record of records) {
        const end = record.first + record.count - 1
        const known = untouched(record.first) || [11, 19, 59].includes(end)
        assert.deepEqual(await now.hashAt(end), known ? record.hash : undefined, `after ${end}`)
      }
      assert.deepEqual(firsts(await readAll(now, { reverse: true })), firsts(after).reverse())
      assert.deepEqual(
        firsts(await readAll(now, { from: 15, to: 41 })),
        [12, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40],
      )
      assert.equal(await now.positionOfCommand('kept'), 62)
      assert.equal(await now.positionOfCommand('vouching'), 63)
      assert.equal(await now.positionAtTime(records[2]!.time), 4)
      assert.equal(await now.positionAtTime(records[9]!.lastTime + 1), 20)
    }
    await check(log)
    // What was left of the packs can be joined again; a run never is.
    await appendAll(log, [chain.writes(1)])
    await log.repack()
    assert.deepEqual((await readAll(log)).filter(({ kind }) => kind === 'windows').length, 3)
    const [first, second] = replace
    const wider = swapOf(records.slice(2, 12))
    const again = chain.event('again')
    assert.equal(second!.first, first!.last + 1)
    await log.append([again], { expected: 65, sync: true, replace: [wider] })
    assert.equal((await readAll(log)).filter(({ kind }) => kind === 'windows').length, 2)
    if (reopen === undefined) return
    const opened = await reopen()
    try {
      assert.deepEqual(opened.head.hash, chain.hash)
      assert.equal((await readAll(opened)).filter(({ kind }) => kind === 'windows').length, 2)
      await opened.repack()
    } finally {
      await opened.close()
    }
  },
  'R21, R29: a run that does not fit what is there is refused, and the log goes on': async ({ log }) => {
    const chain = new ContractChain()
    const records = Array.from({ length: 10 }, () => chain.writes(4))
    await appendAll(log, records)
    const before = await readAll(log)
    const head = log.head
    const event = new ContractChain()
    Object.assign(event, { next: chain.next, time: chain.time, hash: chain.hash })
    const vouching = event.event()
    const misfits: readonly (readonly [string, readonly Swap[]])[] = [
      ['it ends inside a record', [swapOf(records.slice(0, 2), { last: 6 })]],
      ['it begins inside a record', [swapOf(records.slice(1, 3), { first: 5 })]],
      ['the chain is another', [swapOf(records.slice(0, 2), { hash: records[4]!.hash })]],
      ['two overlap', [swapOf(records.slice(0, 4)), swapOf(records.slice(2, 6))]],
      ['it reaches beyond the end', [swapOf(records.slice(8), { last: 43 })]],
    ]
    for (const [why, replace] of misfits) {
      const error = await refusedWith(
        'POSITION_CONFLICT',
        log.append([vouching], { expected: 40, sync: true, replace }),
      )
      assert.ok(error.message.length > 20, why)
    }
    await assert.rejects(
      log.append([vouching], { expected: 40, sync: false, replace: [swapOf(records)] }),
      RangeError,
    )
    assert.deepEqual(await readAll(log), before)
    assert.deepEqual(log.head, head)
    await log.append([vouching], { expected: 40, sync: true, replace: [swapOf(records)] })
    assert.equal((await readAll(log)).length, 2)
  },
  'what was acknowledged is there after reopening, with the same head': async ({ log, reopen }) => {
    if (reopen === undefined) return
    const chain = new ContractChain()
    await appendAll(log, [chain.writes(100), chain.event('kept'), chain.writes(1), chain.writes(1)])
    const before = await readAll(log)
    const again = await reopen()
    try {
      assert.deepEqual(again.head, { next: chain.next, time: before.at(-1)!.lastTime, hash: chain.hash })
      assert.deepEqual(await readAll(again), before)
      assert.equal(await again.positionOfCommand('kept'), 100)
      await appendAll(again, [chain.writes(1)], true)
    } finally {
      await again.close()
    }
  },
}

/** A run in the place of these records. */
function swapOf(
  records: readonly EncodedRecord[],
  edit: { readonly first?: number; readonly last?: number; readonly hash?: Uint8Array } = {},
): Swap {
  const head = records[0]!
  const end = records[records.length - 1]!
  const { first = head.first, last = end.first + end.count - 1, hash = end.hash } = edit
  const count = last + 1 - first
  const section = {
    disk: 0,
    writes: count,
    bytes: count * 4096,
    last: { position: last, time: end.lastTime },
    columns: { offsets: Float64Array.of(0), lengths: Float64Array.of(4096_000) },
  }
  const window = { first, count, time: head.time, lastTime: end.lastTime, sections: [section] }
  return { first, last, value: encodeWindows(first, [window], hash) }
}

function textOf(followed: Followed): string {
  return followed.kind === 'records'
    ? firsts(followed.records).join(' ')
    : `${followed.kind} ${followed.next}`
}

function oneWrite() {
  return { offsets: Float64Array.of(0), lengths: Float64Array.of(512) }
}
