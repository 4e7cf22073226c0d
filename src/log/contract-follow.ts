/** The contract of followers: from the log, then live; slow ones are told; an end is no error. */
import assert from 'node:assert/strict'
import { appendAll, type Cases, ContractChain, firsts, readAll, refusedWith } from './contract-chain.ts'
import type { Followed } from './event-log.ts'

export const FOLLOW_CASES: Cases = {
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
}

function textOf(followed: Followed): string {
  return followed.kind === 'records'
    ? firsts(followed.records).join(' ')
    : `${followed.kind} ${followed.next}`
}
