/** The hole that LevelDB leaves between its write-ahead files, closed before a synced append is acknowledged. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { ContractChain } from '../../src/log/contract.ts'
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
  await log.append([chain.writes(1)], { expected: 2, sync: false })
  expect(log.syncedHead.next).toBe(2)
  await log.append([chain.writes(1)], { expected: 3, sync: true })
  expect(synced.filter((path) => path.endsWith('.log')).length).toBeGreaterThan(0)
  expect(log.syncedHead.next).toBe(4)
  synced.length = 0
  await log.append([chain.writes(1)], { expected: 4, sync: false })
  await log.append([], { expected: 5, sync: true })
  expect(synced.length).toBeGreaterThan(0)
  expect(log.syncedHead.next).toBe(5)
  await log.close()
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
