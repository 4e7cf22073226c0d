/** Words that scripts get wrong (empty variables, pipes for files, options that need another one), and how answers read then. */
import { execFileSync } from 'node:child_process'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { beforeAll, describe, expect, test } from 'vitest'
import { buildProgram } from '../../src/cli/program.ts'
import { paintFor } from '../../src/cli/render/paint.ts'
import { columnPlot } from '../../src/cli/render/plot.ts'
import { Session } from '../../src/cli/session.ts'
import { openStore } from '../../src/index.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { captured, slicelog, storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()
const s = 'store'

beforeAll(async () => {
  await done(s, 'init')
  await done(s, 'disk', 'add', 'd', '--size', '1M')
  await done(s, 'bitmap', 'add', 'd', 'b', '--retention', '3')
  for (const id of ['kept', 'failed', 'running'])
    await done(s, 'bitmap', 'add', 'd', id).then(() =>
      done(s, 'backup', 'begin', 'd', id, '--mode', 'full', '--id', id),
    )
  await done(s, 'backup', 'succeed', 'kept')
  await done(s, 'backup', 'fail', 'failed', '--reason', 'no space')
  execFileSync('mkfifo', [path('pipe')])
})

describe('an empty word is no wish for nothing', () => {
  test.each([
    [['log', '--type', '']],
    [['log', '--type', ',']],
    [['incident', 'export', '/nowhere', '--disk', '']],
    [['verify', '--against', '']],
    [['verify', '--since', '']],
    [['copy', '']],
    [['disk', 'export', 'd', '']],
    [['disk', 'import', '']],
    [['import', 'd', '']],
    [['incident', 'info', '']],
    [['log', '--bitmap', 'b']],
  ])('R21: %j is bad usage, and the head stays', async (words) => {
    const before = await json(s, 'head')
    const refused = await cli(s, ...words, '--json')
    expect(refused.code).toBe(2)
    expect(refused.error().code).toBe('USAGE')
    expect(refused.out).toBe('')
    expect(await json(s, 'head')).toEqual(before)
  })
})

test.each([
  [['disk', 'import'], 'DISK_FILE_INVALID'],
  [['disk', 'export', 'd', '--verify'], 'DISK_FILE_INVALID'],
  [['incident', 'info'], 'IO_FAILED'],
  [['import', 'd'], 'TRACE_UNREADABLE'],
])('R21: %j does not wait for a pipe that nobody writes to', async (words, code) => {
  const refused = await cli(s, ...words, path('pipe'), '--json')
  expect([refused.code, refused.error().code]).toEqual([1, code])
  expect(refused.error().message).toMatch(/pipe|regular file/)
})

test.each(['failed', 'running'])('R21: a dry run refuses what the run refuses: forgetting %s', async (id) => {
  const real = await cli(s, 'backup', 'forget', id, '--json')
  const dry = await cli(s, 'backup', 'forget', id, '--dry-run', '--json')
  expect(real.error().code).toBe('BACKUP_STATE')
  expect([dry.code, dry.error().code, dry.error().message]).toEqual([
    real.code,
    real.error().code,
    real.error().message,
  ])
})

test('R27: a copy forgotten without a reason leaves no empty place for one', async () => {
  await done(s, 'backup', 'forget', 'kept')
  expect((await done(s, 'history', 'backup', 'kept')).out).toMatch(/is reported gone\s+\(cli/)
})

test('refusals read as they were typed', async () => {
  const message = async (...words: string[]) => (await cli(s, ...words, '--json')).error().message
  expect(await message('history', 'slice', 'd', 'b', '7.1')).toContain('(d b 7.1)')
  expect(await message('compact', '--policy', '1d:1h,1h:1m')).toMatch(/^1d:1h,1h:1m is no policy/)
  expect(await message('compact', '--policy', '')).toMatch(/^"" is no policy/)
  expect(await message('--actor', '', 'bitmap', 'disable', 'd', 'b')).toContain('the name of an actor')
  await done(s, 'disk', 'export', 'd', path('export'))
  expect(await message('disk', 'export', 'd', path('export'))).toContain('exists and is never overwritten')
})

test('one is not many', async () => {
  await writeFile(path('one.csv'), 'offset,length,t_us,op\n0,512,0,w\n0,0,1,f\n')
  expect((await done(s, 'import', 'd', path('one.csv'))).out).toContain('0 reads, 1 flush, 0 others')
  const several = await cli(s, 'import', 'd', 'test/fixtures/traces/blkparse.txt')
  expect(several.err).toContain('device "8,16" (1 write)')
})

test('status says what growth was measured by', async () => {
  await writeFile(path('slow.csv'), 'offset,length,t_us,op\n0,512,0,w\n512,512,300000000,w\n')
  await done('slow', 'init')
  await done('slow', 'disk', 'add', 'd', '--size', '1M')
  await done('slow', 'import', 'd', path('slow.csv'))
  expect((await done('slow', 'status')).out).toMatch(/grows +.* of records \(by the last 5\.0 min\)/)
})

test('every command has help that ends with examples, and a description', async () => {
  const io = captured()
  const { command } = buildProgram(
    io,
    true,
    (program) => new Session(io, new AbortController().signal, program),
  )
  const leaves = (of: Command, names: readonly string[]): string[][] =>
    of.commands.length === 0
      ? [[...names]]
      : of.commands
          .filter((one) => one.name() !== 'help')
          .flatMap((one) => leaves(one, [...names, one.name()]))
  const all = leaves(command, [])
  expect(all.length).toBeGreaterThan(40)
  for (const words of all) {
    const { code, out } = await slicelog([...words, '--help'])
    expect(code, words.join(' ')).toBe(0)
    expect(out, words.join(' ')).toMatch(new RegExp(`Examples:\n  \\$ slicelog .*${words.join(' ')}`))
  }
})

test.each(['C.UTF-8', 'C'])('plots have all their labels, whole, in %s', (LANG) => {
  const output = { write: () => true, once: () => undefined, off: () => undefined, isTTY: false, columns: 60 }
  const format = (value: number) => (value === 2 ? '1 GiB' : value === 1 ? '512 MiB' : '0 B')
  const drawn = columnPlot(paintFor(output, { LANG }), {
    values: [1, 2, 0],
    rows: 5,
    width: 50,
    format,
    ends: ['a', 'b'],
  })
  expect(
    drawn
      .split('\n')
      .map((line) => /^ *(\d+ \w+)/.exec(line)?.[1])
      .filter(Boolean),
  ).toEqual(['1 GiB', '512 MiB', '0 B'])
})

describe('R22: the time of an import', () => {
  beforeAll(() => writeFile(path('future.csv'), 'offset,length,t_us,op\n0,512,0,w\n'))

  test.each(['', 'yesterday', '2026-13-01', '12:00'])(
    '%j is no time, and is told what is one',
    async (at) => {
      const refused = await cli(s, 'import', 'd', path('future.csv'), '--at', at, '--json')
      expect([refused.code, refused.error().code]).toEqual([2, 'POINT_INVALID'])
      expect(refused.error().message).toBe(`"${at}" is no time; give ISO 8601 such as 2026-11-18T18:00:00Z`)
    },
  )

  test('far ahead of the clock, it is said on stderr, before anything else is; a day is not far', async () => {
    await done('ahead', 'init')
    await done('ahead', 'disk', 'add', 'd', '--size', '1M')
    const at = async (ms: number) => {
      const time = new Date(Date.now() + ms).toISOString()
      const { err } = await done('ahead', 'import', 'd', path('future.csv'), '--at', time)
      return { time, err }
    }
    expect((await at(3600_000)).err).toBe('')
    const { time, err } = await at(400 * 86_400_000)
    expect(err).toContain(`--at ${time} lies in the future`)
    const refused = await cli('ahead', 'import', 'none', path('future.csv'), '--at', '2999-01-01')
    expect([refused.code, refused.err.includes('future')]).toEqual([1, false])
  })
})

test('R29: compact tells what the log takes on disk once it is done with it', async () => {
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const store = await openStore(path('folded'), { clock })
  const disk = await store.ensureDisk('d', { size: 2 ** 30 })
  for (let i = 0; i < 60; i++) {
    clock.advance(1000)
    const offsetOf = (row: number) => (((i * 4096 + row) * 7919 * 7919) % 2 ** 12) * 2 ** 12
    await disk.recordWrites(
      Array.from({ length: 4096 }, (_, row) => ({ offset: offsetOf(row), length: 512 + row })),
    )
  }
  await store.close()
  const { log, runs } = await json<{ log: { before: number; after: number }; runs: number }>(
    'folded',
    'compact',
    '--policy',
    '1d:1h',
  )
  const folder = join(path('folded'), 'log')
  const sizes = await Promise.all(
    (await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size),
  )
  expect(runs).toBeGreaterThan(0)
  expect(log.after).toBe(sizes.reduce((sum, size) => sum + size, 0))
  expect(log.after).toBeLessThan(log.before / 2)
})
