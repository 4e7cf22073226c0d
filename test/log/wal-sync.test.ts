/** The hole that LevelDB leaves between its write-ahead files, closed before a synced append is acknowledged. */
import { spawnSync } from 'node:child_process'
import { cpSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { ContractChain } from '../../src/log/contract.ts'
import { journalPath } from '../../src/log/journal.ts'
import { openIn } from './open.ts'
import { temporaryFolder } from './support.ts'

test('R30: before a synced append, write-ahead files with unsynced records are synced; without any, none is', async () => {
  const synced: string[] = []
  const root = await temporaryFolder()
  const { log } = await openIn(root, { hooks: { synced: (path) => synced.push(path) } })
  const chain = new ContractChain()
  await log.append([chain.writes(1)], { expected: 0, sync: true })
  synced.length = 0
  await log.append([chain.writes(1)], { expected: 1, sync: true })
  expect(synced).toEqual([])
  // Too much for the journal, so that it goes into a write-ahead file at once.
  await log.append([chain.writes(4000)], { expected: 2, sync: false })
  expect(log.syncedHead.next).toBe(2)
  await log.append([chain.writes(1)], { expected: 4002, sync: true })
  expect(synced.filter((path) => path.endsWith('.log')).length).toBeGreaterThan(0)
  expect(log.syncedHead.next).toBe(4003)
  synced.length = 0
  await log.append([chain.writes(4000)], { expected: 4003, sync: false })
  await log.append([], { expected: 8003, sync: true })
  expect(synced.length).toBeGreaterThan(0)
  expect(log.syncedHead.next).toBe(8003)
  await log.close()
})

test('R30: what is in the journal only goes into a write-ahead file together with the next synced append, or with a sync alone', async () => {
  for (const records of [1, 0]) {
    const root = await temporaryFolder()
    const { log } = await openIn(root)
    const chain = new ContractChain()
    await log.append([chain.writes(1)], { expected: 0, sync: true })
    await log.append([chain.writes(1)], { expected: 1, sync: false })
    const more = records === 0 ? [] : [chain.writes(1)]
    await log.append(more, { expected: 2, sync: true })
    expect(log.syncedHead.next).toBe(2 + records)
    const cut = await temporaryFolder()
    cpSync(root, cut, { recursive: true })
    rmSync(journalPath(join(cut, 'log')))
    const { log: found } = await openIn(cut)
    expect(found.head.next).toBe(2 + records)
    await found.close()
    await log.close()
  }
})

const strace = spawnSync('strace', ['-V']).status === 0

test.skipIf(!strace)(
  'R30: seen with strace, no write-ahead file with unsynced records is left behind by a synced append',
  async () => {
    const root = await temporaryFolder()
    const trace = join(root, 'trace')
    const script = fileURLToPath(new URL('./rotate.ts', import.meta.url))
    const calls = 'trace=openat,close,write,fdatasync,fsync,unlink'
    const ran = spawnSync(
      'strace',
      ['-f', '-y', '-s', '40', '-e', calls, '-o', trace, process.execPath, '--import', 'tsx', script, root],
      {
        encoding: 'utf8',
      },
    )
    if (ran.status !== 0 && /PTRACE|ptrace|not permitted/.test(ran.stderr)) return
    expect(ran.stderr).toBe('')
    // A file is dirty from a write until an fdatasync or its deletion; at each "acknowledged" no log file may be dirty.
    const dirty = new Set<string>()
    let acknowledged = 0
    let rotated = 0
    for (const line of readFileSync(trace, 'utf8').split('\n')) {
      const call = /(write|fdatasync|fsync|unlink)\((?:\d+<([^>]*)>|"([^"]*)")(.*)/.exec(line)
      if (call === null) continue
      const [, name, byDescriptor, byPath, rest] = call
      const path = (byDescriptor ?? byPath)!
      if (name === 'write' && rest!.includes('acknowledged')) {
        acknowledged++
        expect([...dirty], `at acknowledgement ${acknowledged}`).toEqual([])
      } else if (/\/log\/\d+\.log$/.test(path)) {
        if (name === 'write') dirty.add(path)
        else dirty.delete(path)
        if (name === 'unlink') rotated++
      }
    }
    expect(acknowledged).toBe(6)
    expect(rotated).toBeGreaterThan(1)
  },
)
