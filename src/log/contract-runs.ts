/** The contract of replacing records by runs of windows (R29). */
import assert from 'node:assert/strict'
import { type EncodedRecord, encodeWindows } from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import { appendAll, type Cases, ContractChain, firsts, readAll, refusedWith } from './contract-chain.ts'
import type { EventLog, Swap } from './event-log.ts'

export const RUN_CASES: Cases = {
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
