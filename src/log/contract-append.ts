/** The contract of appending and reading: positions, command ids, times, repacking, reopening. */
import assert from 'node:assert/strict'
import { EMPTY_HASH, encodeEvents, encodeWrites } from '../../events/record.ts'
import { appendAll, type Cases, ContractChain, firsts, readAll, refusedWith } from './contract-chain.ts'

export const APPEND_CASES: Cases = {
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
  'repacking joins small records and changes nothing that can be read': async ({ log }) => {
    const chain = new ContractChain()
    for (let i = 0; i < 40; i++)
      await appendAll(log, [chain.writes(1 + (i % 3)), ...(i % 10 === 9 ? [chain.event(`c${i}`)] : [])])
    const before = await readAll(log)
    const { before: values, after } = await log.repack()
    assert.ok(values >= 4 && values <= 44, `${values} values before`)
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

function oneWrite() {
  return { offsets: Float64Array.of(0), lengths: Float64Array.of(512) }
}
