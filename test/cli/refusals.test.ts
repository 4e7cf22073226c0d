/** Bad input: what the command line refuses, with which exit code, and that nothing is changed by it. */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { openStore } from '../../src/index.ts'
import { captured, slicelog, storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()
const s = 'store'

beforeAll(async () => {
  await done(s, 'init')
  await done(s, 'disk', 'add', 'd', '--size', '1M')
  await done(s, 'bitmap', 'add', 'd', 'b')
  await done(s, 'write', 'd', '0+512')
})

describe('R21: a refused command changes nothing, and says why with a code', () => {
  const refused: [string[], string][] = [
    [['write', 'd', '1M+1'], 'RANGE_OUTSIDE_DISK'],
    [['write', 'd', '0+512', '1048575+2'], 'RANGE_OUTSIDE_DISK'],
    [['write', 'nope', '0+512'], 'DISK_NOT_FOUND'],
    [['bitmap', 'show', 'd', 'nope'], 'BITMAP_NOT_FOUND'],
    [['bitmap', 'show', 'd', 'b', '--slice', '3'], 'SLICE_NOT_FOUND'],
    [['backup', 'succeed', 'nope'], 'BACKUP_NOT_FOUND'],
    [['changed', 'd', '--since', 'backup:nope'], 'BACKUP_NOT_FOUND'],
    [['changed', 'd', '--since', 'checkpoint:nope'], 'CHECKPOINT_NOT_FOUND'],
    [['changed', 'd', '--since', '@99999'], 'POINT_NOT_FOUND'],
    [['changed', 'd', '--since', '@2', '--until', '@1'], 'POINT_ORDER'],
    [['log', '--from', '@2', '--to', '@1'], 'POINT_ORDER'],
    [['log', '--from', '@2', '--to', 'start', '--reverse'], 'POINT_ORDER'],
    [['log', '--from', 'now', '--to', 'start'], 'POINT_ORDER'],
    [['log', '--disk', 'd', '--bitmap', 'nope'], 'BITMAP_NOT_FOUND'],
    [['changed', 'd', '--since', 'start', '--granularity', '1000'], 'GRANULARITY_INVALID'],
    [['checkpoint', 'delete', 'nope'], 'CHECKPOINT_NOT_FOUND'],
    [['disk', 'add', 'd', '--size', '1M'], 'DISK_EXISTS'],
    [['disk', 'add', '', '--size', '1M'], 'NAME_EMPTY'],
    [['bitmap', 'add', 'd', 'b'], 'BITMAP_EXISTS'],
    [['bitmap', 'add', 'd', ''], 'NAME_EMPTY'],
    [['bitmap', 'add', 'd', 'x'.repeat(1024)], 'NAME_TOO_LONG'],
    [['bitmap', 'add', 'd', 'é'.repeat(512)], 'NAME_TOO_LONG'],
    [['bitmap', 'add', 'd', 'odd\ud800name'], 'NAME_INVALID'],
    [['bitmap', 'add', 'd', 'g', '--granularity', '1000'], 'GRANULARITY_INVALID'],
    [['bitmap', 'add', 'd', 'g', '--granularity', '256'], 'GRANULARITY_INVALID'],
    [['bitmap', 'add', 'd', 'g', '--granularity', '4G'], 'GRANULARITY_INVALID'],
    [['slice', 'bank', 'd', 'b', '--force-cycle'], 'RETENTION_ZERO'],
    [['slice', 'delete', 'd', 'b', '0'], 'SLICE_NOT_FOUND'],
    [['replay', 'nope'], 'BACKUP_NOT_FOUND'],
  ]
  test.each(refused)('%j is refused with %s, exit 1', async (words, code) => {
    const before = await json(s, 'bitmap', 'show', 'd', 'b')
    const ran = await cli(s, ...words, '--json')
    expect(ran.error()).toMatchObject({ code, message: expect.any(String), facts: expect.any(Object) })
    expect([ran.code, ran.out]).toEqual([1, ''])
    expect(await json(s, 'bitmap', 'show', 'd', 'b')).toEqual(before)
  })

  const misused: string[][] = [
    ['write', 'd', '-1+512'],
    ['write', 'd', '0.5+512'],
    ['write', 'd', 'NaN+512'],
    ['write', 'd', '9007199254740993+1'],
    ['write', 'd', '9E+1'],
    ['write', 'd', '4096'],
    ['write', 'd', '0+512', '--op', 'scribble'],
    ['write', 'd'],
    ['write', 'd', '0+512', '--command-id', 'x'],
    ['disk', 'add', 'e'],
    ['disk', 'add', 'e', '--size', '1.5M'],
    ['disk', 'add', 'e', '--size', '12Q'],
    ['bitmap', 'retention', 'd', 'b', 'many'],
    ['backup', 'begin', 'd', 'b', '--mode', 'sideways'],
    ['backup', 'begin', 'd', 'b'],
    ['backup', 'plan', 'd', 'b', '--mode', 'incremental', '--since', 'yesterday'],
    ['backup', 'ls', '--state', 'odd'],
    ['changed', 'd', '--since', '@-1'],
    ['changed', 'd', '--since', 'slice:x'],
    ['changed', 'd'],
    ['checkpoint', 'create', 'c', 'no-colon'],
    ['slice', 'delete', 'd', 'b', '1.2.3'],
    ['log', '--limit', '0'],
    ['log', '--follow', '--reverse'],
    ['replay'],
    ['frobnicate'],
    ['help', 'frobnicate'],
    ['help', 'disk', 'frobnicate'],
    ['help', 'log', 'more'],
    ['disk', 'help', 'frobnicate'],
    ['disk'],
    ['status', '--frobnicate'],
    ['import', 'd', 'x.csv', '--at', 'slice:1'],
  ]
  test.each(misused.map((words) => [words]))('%j is bad usage, exit 2', async (words) => {
    const ran = await cli(s, ...words, '--json')
    expect(ran.error()).toMatchObject({
      code: expect.stringMatching(/^(USAGE|POINT_INVALID)$/),
      message: expect.any(String),
    })
    expect([ran.code, ran.out]).toEqual([2, ''])
  })

  test('people get the sentence and the code on stderr', async () => {
    const ran = await cli(s, 'bitmap', 'show', 'd', 'nope')
    expect(ran.out).toBe('')
    expect(ran.err).toMatch(/^slicelog: .*nope.*\ncode BITMAP_NOT_FOUND\n$/)
  })

  test('R6: commands on a busy bitmap are refused; it can still be looked at', async () => {
    await done(s, 'backup', 'begin', 'd', 'b', '--mode', 'full', '--id', 'busy')
    for (const words of [
      ['bitmap', 'clear', 'd', 'b'],
      ['bitmap', 'remove', 'd', 'b'],
      ['bitmap', 'disable', 'd', 'b'],
      ['disk', 'resize', 'd', '2M'],
    ]) {
      expect((await cli(s, ...words, '--json')).error().code, words.join(' ')).toBe('BITMAP_BUSY')
    }
    expect(await json(s, 'bitmap', 'show', 'd', 'b')).toMatchObject({ busy: true, 'successor-count': 0 })
    await done(s, 'backup', 'cancel', 'busy')
    expect((await cli(s, 'backup', 'fail', 'busy', '--json')).error().code).toBe('BACKUP_ENDED')
  })
})

describe('R34: exit codes of the store as a whole', () => {
  test('10: no store there, not a store; 2: no store named', async () => {
    expect((await cli('absent', 'status', '--json')).error().code).toBe('STORE_NOT_FOUND')
    expect((await cli('absent', 'status')).code).toBe(10)
    await mkdir(path('foreign'))
    await writeFile(join(path('foreign'), 'photo.jpg'), 'x')
    expect((await cli('foreign', 'status')).code).toBe(10)
    const init = await cli('foreign', 'init', '--json')
    expect([init.code, init.error().code]).toEqual([10, 'NOT_A_STORE'])
    expect((await cli('absent', 'verify')).code).toBe(10)
    expect((await slicelog(['status'])).code).toBe(2)
    expect((await slicelog(['status'], captured({ SLICELOG_STORE: path(s) }))).code).toBe(0)
  })

  test('1: init on a store says that there is one, and leaves it alone', async () => {
    const before = await json(s, 'head')
    expect((await cli(s, 'init', '--json')).error().code).toBe('STORE_EXISTS')
    expect(await json(s, 'head')).toEqual(before)
  })

  test('11: a second opener is refused', async () => {
    const store = await openStore(path(s))
    try {
      const ran = await cli(s, 'status', '--json')
      expect([ran.code, ran.error().code]).toEqual([11, 'STORE_IN_USE'])
    } finally {
      await store.close()
    }
  })

  test('13: a newer format is refused and nothing is changed', async () => {
    await cp(path(s), path('newer'), { recursive: true })
    const file = join(path('newer'), 'store.json')
    const newer = JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), format: 99 })
    await writeFile(file, newer)
    const ran = await cli('newer', 'status', '--json')
    expect([ran.code, ran.error().code]).toEqual([13, 'FORMAT_TOO_NEW'])
    expect(await readFile(file, 'utf8')).toBe(newer)
  })

  test('trace files that are cut or foreign: exit 1 and their code; nothing is recorded', async () => {
    const trace = await readFile(new URL('../../examples/data/guest-ext4.csv.gz', import.meta.url))
    await writeFile(path('cut.csv.gz'), trace.subarray(0, 100_000))
    await writeFile(path('foreign.bin'), Buffer.from([1, 0, 2, 0]))
    const code = async (file: string) => (await cli(s, 'import', 'd', path(file), '--json')).error().code
    const writes = async () => (await done(s, 'log', '--type', 'write', '--json')).out
    const before = await writes()
    expect([await code('cut.csv.gz'), await code('foreign.bin'), await code('none.csv')]).toEqual([
      'TRACE_UNREADABLE',
      'TRACE_UNKNOWN_FORMAT',
      'TRACE_UNREADABLE',
    ])
    expect(await writes()).toBe(before)
  })
})

test('R32, R35: after an unclean end a write declares the lost stretch and says so; --quiet vouches that there is none', async () => {
  const u = 'unclean'
  await done(u, 'init')
  await done(u, 'disk', 'add', 'd', '--size', '1M')
  await cp(path(u), path('source'), { recursive: true })
  // A copy of the folder of a store that is open and attached is what a killed process leaves.
  const store = await openStore(path('source'))
  await store.ensureDisk('d', { size: 1 << 20 })
  await store.disk('d').recordWrites([{ offset: 0, length: 512 }])
  for (const copy of ['killed', 'vouched']) await cp(path('source'), path(copy), { recursive: true })
  await store.close()
  const told = await done('killed', 'write', 'd', '4K+512')
  expect(told.err).toContain('--quiet')
  expect(await json('killed', 'changed', 'd', '--since', '@2')).toMatchObject({
    complete: false,
    bytes: 1 << 20,
  })
  expect((await done('vouched', 'write', 'd', '4K+512', '--quiet')).err).toBe('')
  expect(await json('vouched', 'changed', 'd', '--since', '@2', '--granularity', '512')).toMatchObject({
    complete: true,
    bytes: 512,
  })
})

test('R32, R35: a command between two unclean ends tells what nobody knows up to it, so nothing of it is forgotten', async () => {
  const u = 'between'
  await done(u, 'init')
  await done(u, 'disk', 'add', 'd', '--size', '1M')
  await done(u, 'bitmap', 'add', 'd', 'b')
  const store = await openStore(path(u))
  const disk = await store.ensureDisk('d', { size: 1 << 20 })
  const backup = await disk.beginBackup({ bitmap: 'b', mode: 'full', id: 'full' })
  const { first } = await disk.recordWrites([{ offset: 0, length: 512 }])
  await cp(path(u), path('left'), { recursive: true })
  await backup.cancel()
  await store.close()
  // Each command is a session that attaches nothing, so what is unknown goes on behind it.
  const failed = await json('left', 'backup', 'fail', 'full', '--reason', 'died')
  expect(failed).toMatchObject({ id: 'full', state: 'failed' })
  const at = (await json<{ position: number }>('left', 'head')).position
  await done('left', 'write', 'd', '4K+512', '--quiet')
  const span = ['--since', `@${first}`, '--until', `@${at}`, '--granularity', '512']
  expect(await json('left', 'changed', 'd', ...span)).toMatchObject({
    complete: false,
    bytes: 1 << 20,
    lost: [{ from: { position: first }, to: { position: at } }],
  })
  expect(await json('left', 'changed', 'd', '--since', `@${at}`, '--granularity', '512')).toMatchObject({
    complete: true,
    bytes: 512,
  })
  expect((await cli('left', 'verify')).code).toBe(0)
})

test('130: Ctrl-C during an import leaves what is recorded, says how far it got, and a sound store', async () => {
  const c = 'cancel'
  await done(c, 'init')
  await done(c, 'disk', 'add', 'd', '--size', '2G')
  const io = captured()
  const running = slicelog(
    ['--store', path(c), 'import', 'd', 'examples/data/guest-ext4.csv.gz', '--json'],
    io,
  )
  setTimeout(() => io.interrupt(), 60)
  const ran = await running
  expect(ran.code).toBe(130)
  const told = JSON.parse(ran.err.trim().split('\n').at(-1)!).error
  expect(told).toMatchObject({ code: 'ABORTED', facts: { writes: expect.any(Number) } })
  const status = await json<{ opened: { clean: boolean } }>(c, 'status')
  expect(status.opened.clean).toBe(true)
  const recorded = (await done(c, 'log', '--type', 'write', '--json')).out.split('\n').length - 1
  expect(recorded).toBe(told.facts.writes)
  expect((await cli(c, 'verify')).code).toBe(0)
})

test('help of a command that is none is refused by its name; help of one that is, is help', async () => {
  for (const words of [
    ['help', 'frobnicate'],
    ['help', 'disk', 'frobnicate'],
    ['disk', 'help', 'frobnicate'],
  ]) {
    const { code, out, err } = await slicelog(words)
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toBe("slicelog: unknown command 'frobnicate' (see slicelog help)\ncode USAGE\n")
  }
  for (const [words, usage] of [
    [['help'], 'slicelog [options] [command]'],
    [['help', 'disk'], 'slicelog disk [options] [command]'],
    [['help', 'disk', 'add'], 'slicelog disk add [options] <disk>'],
    [['disk', 'help', 'add'], 'slicelog disk add [options] <disk>'],
    [['help', 'log'], 'slicelog log [options]'],
  ] as const) {
    const { code, out } = await slicelog(words)
    expect([code, out.split('\n')[0]]).toEqual([0, `Usage: ${usage}`])
  }
})

test('R22: a span of the log that begins right behind its end is empty; a bitmap that was removed may still be named', async () => {
  const { position: head } = await json<{ position: number }>(s, 'head')
  expect((await done(s, 'log', '--from', 'now', '--to', 'now')).out).toBe('')
  expect((await done(s, 'log', '--from', `@${head}`, '--to', `@${head}`, '--json')).json()).toMatchObject({
    position: head,
  })
  expect((await done(s, 'log', '--from', '2999-01-01', '--to', '2999-01-02')).out).toBe('')
  await done(s, 'bitmap', 'add', 'd', 'gone')
  await done(s, 'bitmap', 'remove', 'd', 'gone')
  expect((await done(s, 'log', '--disk', 'd', '--bitmap', 'gone', '--type', 'bitmap-removed')).out).toContain(
    'gone',
  )
  const { message, facts } = (await cli(s, 'log', '--disk', 'd', '--bitmap', 'nope', '--json')).error()
  expect(message).toContain('it has "b"')
  expect(facts).toEqual({ disk: 'd', bitmap: 'nope', bitmaps: ['b'] })
})
