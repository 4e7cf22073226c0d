/** The real command line against a store that another process owns and serves, as an operator would use both. */
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { openStore } from '../../src/store/open.ts'
import { cli, folders, makeStore, type OwnerProcess, owner } from './support.ts'

const { path, copy } = folders()
const TRACE = 'examples/data/guest-ext4.csv.gz'

describe('an owner that does nothing else', () => {
  let process: OwnerProcess
  let live: string
  let closed: string

  beforeAll(async () => {
    const base = path()
    await makeStore(base)
    live = await copy(base)
    closed = await copy(base)
    process = await owner(live, 'idle')
  })

  const COMMANDS: readonly (readonly string[])[] = [
    ['backup', 'plan', 'vda', 'daily', '--mode', 'incremental'],
    ['bitmap', 'show', 'vda', 'daily'],
    ['log', '--json'],
    ['changed', 'vda', '--since', '2001-01-01T00:00', '--json'],
    ['slice', 'ls', 'vda', 'none'],
    ['verify'],
    ['disk', 'add'],
  ]

  test.each(COMMANDS.map((words) => [words.join(' '), words] as const))(
    'R34: %s gives the words and the exit code that a closed store gives',
    async (_, words) => {
      const [asked, opened] = await Promise.all([
        cli(['--store', live, ...words]).ended,
        cli(['--store', closed, ...words]).ended,
      ])
      const common = ({ code, out, err }: typeof asked) => ({
        code,
        out: out.replaceAll(/s\d+/g, 'S'),
        err: err.replaceAll(/s\d+/g, 'S'),
      })
      expect(common(asked)).toEqual(common(opened))
    },
  )

  test('R34: files on the command line are those of the folder that it was typed in', async () => {
    const cwd = path('elsewhere')
    await mkdir(cwd)
    await copyFile(TRACE, join(cwd, 'trace.csv.gz'))
    const added = await cli(['--store', live, 'disk', 'add', 'guest', '--size', '2G'], { cwd }).ended
    expect(added).toMatchObject({ code: 0, err: '' })
    const imported = await cli(['--store', live, 'import', 'guest', 'trace.csv.gz', '--json'], { cwd }).ended
    expect(imported.code).toBe(0)
    expect(JSON.parse(imported.out)).toMatchObject({ disk: 'guest', writes: 65_677 })
    const head = await cli(['--store', live, 'head', '--json'], { cwd }).ended
    await writeFile(join(cwd, 'head.json'), head.out)
    const sound = await cli(['--store', live, 'verify', '--against', 'head.json'], { cwd }).ended
    expect(sound).toMatchObject({ code: 0, out: expect.stringContaining('sound') })
    await writeFile(join(cwd, 'head.json'), head.out.replace(/[0-9a-f]{64}/, '0'.repeat(64)))
    const found = await cli(['--store', live, 'verify', '--against', 'head.json'], { cwd }).ended
    expect(found).toMatchObject({ code: 12, out: expect.stringContaining('ANCHOR_DIFFERS') })
  })

  test('R34: another user is refused in words that name the owner, and changes nothing', async (context) => {
    if (globalThis.process.getuid?.() !== 0) return context.skip('only root can act as another user')
    // Everything else of the store, and the way to it, is open to all: the socket alone decides.
    await Promise.all([chmod(live, 0o755), chmod(path('.'), 0o755)])
    const asked = await cli(['--store', live, 'disk', 'add', 'theirs', '--size', '1G', '--json'], {
      uid: 65_534,
    }).ended
    const { error } = JSON.parse(asked.err) as { error: { code: string; facts: unknown; message: string } }
    expect([asked.code, asked.out, error.code]).toEqual([11, '', 'OWNER_UNREACHABLE'])
    expect(error.facts).toMatchObject({ reason: 'EACCES', heldBy: { pid: process.pid } })
    expect(error.message).toContain('answers only its own user')
    expect((await cli(['--store', live, 'disk', 'ls']).ended).out).not.toContain('theirs')
  })
})

describe('an owner that writes all the time', () => {
  test('R34: two follow what comes while a third one writes; Ctrl-C ends each with 130; the store is sound', async () => {
    const folder = path()
    const process = await owner(folder, 'writing')
    const followers = [1, 2].map(() => cli(['--store', folder, 'log', '--follow', '--json']))
    const lines = (i: number) => followers[i]!.text.out.split('\n').length
    while (Math.min(lines(0), lines(1)) < 20) await sleep(20)
    const seen = [lines(0), lines(1)]
    const banked = await cli(['--store', folder, 'slice', 'bank', 'busy', 'b', '--actor', 'operator']).ended
    expect(banked).toMatchObject({ code: 0, err: '' })
    while (!followers.every(({ text }) => text.out.includes('operator'))) await sleep(20)
    for (const [i, { child }] of followers.entries()) {
      expect(lines(i)).toBeGreaterThan(seen[i]!)
      child.kill('SIGINT')
    }
    for (const { ended } of followers) {
      const { code, out } = await ended
      expect(code).toBe(130)
      const positions = out
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { position: number }).position)
      expect(positions).toEqual(positions.map((_, i) => i))
    }
    const sound = await cli(['--store', folder, 'verify']).ended
    expect(sound).toMatchObject({ code: 0, err: '' })
    await process.close()
    expect((await cli(['--store', folder, 'verify']).ended).code).toBe(0)
  })

  test('R34: an asker that is killed in the middle leaves its owner as it was', async () => {
    const folder = path()
    const process = await owner(folder, 'writing')
    const following = cli(['--store', folder, 'log', '--follow'])
    while (following.text.out.length < 1000) await sleep(20)
    following.child.kill('SIGKILL')
    await following.ended
    const { position } = await process.look()
    expect((await cli(['--store', folder, 'log', '--limit', '1']).ended).code).toBe(0)
    expect((await process.look()).position).toBeGreaterThan(position)
    await process.close()
    const store = await openStore(folder)
    expect((await store.status()).opened).toMatchObject({ clean: true })
    await store.close()
  })

  test('R34: an owner that is killed in the middle is told: of a read that it ended, of a write that nobody knows', async () => {
    const folder = path()
    const process = await owner(folder, 'writing')
    const following = cli(['--store', folder, 'log', '--follow', '--json'])
    while (following.text.out.length < 1000) await sleep(20)
    // A trace long enough to be in the middle of.
    const rows = Array.from({ length: 600_000 }, (_, i) => `${(i % 1000) * 65536},512,${i},w\n`)
    const trace = path('long.csv')
    await writeFile(trace, `offset,length,t_us,op\n${rows.join('')}`)
    const { position } = await process.look()
    const importing = cli(['--store', folder, 'import', 'busy', trace, '--json'])
    while ((await process.look()).position < position + 20_000) await sleep(5)
    await process.kill()
    const [read, write] = await Promise.all([following.ended, importing.ended])
    const told = (err: string) => (JSON.parse(err) as { error: { code: string; facts: object } }).error
    expect([read.code, told(read.err).code]).toEqual([1, 'OWNER_GONE'])
    expect([write.code, write.out, told(write.err).code]).toEqual([1, '', 'OUTCOME_UNKNOWN'])
    expect(told(write.err).facts).toEqual({ folder, pid: process.pid })
    // The store opens again, by whoever asks next.
    expect((await cli(['--store', folder, 'verify']).ended).code).toBe(0)
  })
})
