/** R27 at the command line: explain, blame, history and log, for programs and for people, and what they refuse. */
import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { type Captured, captured, slicelog, storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()
const POINT = { position: expect.any(Number), time: expect.any(Number) }
const s = 'main'
/** A name that would clear the screen and turn the reading direction. */
const EVIL = 'x\u001b[2J\u202Ey'
const [write, second] = ['4K+512', '128K+64K']

beforeAll(async () => {
  await done(s, 'init')
  await done(s, 'disk', 'add', 'vm/vda', '--size', '16M')
  await done(s, 'bitmap', 'add', 'vm/vda', 'daily', '--granularity', '1M', '--retention', '3')
  await done(s, 'backup', 'begin', 'vm/vda', 'daily', '--mode', 'full', '--id', 'full')
  await done(s, 'backup', 'succeed', 'full')
  await done(s, 'write', 'vm/vda', write, second)
  await done(s, 'backup', 'begin', 'vm/vda', 'daily', '--mode', 'incremental', '--id', EVIL)
  await done(s, '--actor', EVIL, 'backup', 'fail', EVIL, '--reason', EVIL)
  await done(s, 'write', 'vm/vda', '8M+4K')
  await done(s, 'backup', 'begin', 'vm/vda', 'daily', '--mode', 'incremental', '--id', 'incr')
})

/** As a terminal of so many columns shows it. */
async function onTerminal(columns: number, ...words: string[]): Promise<string> {
  const io: Captured = captured({ LANG: 'C.UTF-8', NO_COLOR: '1' })
  const stdout = { ...io.stdout, columns, isTTY: true }
  const ran = await slicelog(['--store', path(s), ...words], { ...io, stdout } as Captured)
  expect(ran.err).toBe('')
  return io.text.out
}

const unsafe = /[^\P{Cc}\n]|\p{Bidi_Control}/u

describe('explain', () => {
  test('R27: --json gives every figure under a documented name', async () => {
    const explained = await json(s, 'explain', 'incr')
    expect(explained).toMatchObject({
      backup: { id: 'incr', state: 'running', bytes: 2 << 20 },
      size: 16 << 20,
      base: { kind: 'point', ...POINT, age: expect.any(Number), backups: ['full'], checkpoints: [] },
      reason: expect.any(String),
      equal: true,
      whole: null,
      lost: [],
      sources: [
        {
          kind: 'active',
          slice: null,
          from: POINT,
          to: POINT,
          why: null,
          bytes: 2 << 20,
          only: 2 << 20,
          writes: 3,
          written: 70_144,
        },
      ],
      between: [{ backup: EVIL, mode: 'incremental', point: POINT, state: 'failed', reason: EVIL }],
      'since-last': 1 << 20,
      span: { from: POINT, to: POINT, resolution: 'exact', windows: { count: 0, writes: 0, bytes: 0 } },
      written: { writes: 3, bytes: 70_144, rewrites: 1, 'only-discarded': 0 },
      timeline: { width: expect.any(Number) },
      hot: { region: 1 << 20 },
      previous: { backup: 'full', bytes: 16 << 20, both: 2 << 20 },
      unexplained: 0,
      merged: [],
    })
    // A burst or none: the clock is the machine's here.
    const findings = explained.findings as { code: string }[]
    expect(findings.filter(({ code }) => code !== 'BURST')).toMatchObject([
      { code: 'GRANULARITY', bytes: (2 << 20) - 73_728, says: expect.any(String), todo: expect.any(String) },
      { code: 'BASE_OLD', bytes: 1 << 20 },
    ])
    expect(explained).not.toHaveProperty('bits')
  })

  test.each([80, 120])(
    'R27: at %d columns nothing is wider, and the verdict comes first',
    async (columns) => {
      const report = await onTerminal(columns, 'explain', 'incr')
      for (const line of report.split('\n')) expect([line, line.length <= columns]).toEqual([line, true])
      const titles = [
        'incr  incremental, running: 2 MiB',
        'What to make of it',
        'What it merged',
        'When it was written',
        'Where on the disk',
        'The hottest places',
        'What other granules would have copied',
      ]
      const at = titles.map((title) => report.indexOf(title))
      expect(at).toEqual([...at].sort((a, b) => a - b))
      expect(at[0]).toBe(0)
      expect(report).toContain('1 backup failed')
      expect(report).toContain('◀ this')
      expect(report).toMatch(/[▁▂▃▄▅▆▇█]/)
      expect(report).not.toMatch(unsafe)
    },
  )

  test('R27: piped it is plain: no colours, and no blocks where the locale has none', async () => {
    const { out } = await done(s, 'explain', 'incr')
    expect(out).toContain('< this')
    expect(out).not.toMatch(unsafe)
    expect(out).not.toMatch(/[\u2500-\u25ff]/)
  })

  test('R27: a full says why it is one', async () => {
    expect((await done(s, 'explain', 'full')).out).toContain('has nothing to be relative to')
  })
})

describe('blame', () => {
  test('R27: --json gives the writes, newest first, and since when the range is covered', async () => {
    const blamed = await json(s, 'blame', 'vm/vda', '0', '1M')
    expect(blamed).toMatchObject({
      disk: 'vm/vda',
      offset: 0,
      length: 1 << 20,
      since: { position: -1, time: null },
      until: POINT,
      resolution: 'exact',
      covered: { kind: 'pending', backup: 'incr' },
      more: false,
      read: expect.any(Number),
    })
    expect(blamed.touches).toMatchObject([
      { kind: 'write', op: 'write', offset: 128 << 10, length: 64 << 10, ...POINT },
      {
        kind: 'write',
        offset: 4096,
        length: 512,
        backups: { in: [], pending: ['incr'], failed: [EVIL], forgotten: [], doubtful: [], not: ['full'] },
      },
    ])
  })

  test('R27: people get a table that fits 80 columns, names made harmless', async () => {
    const report = await onTerminal(80, 'blame', 'vm/vda', '0', '1M', '--limit', '1')
    expect(report).toContain('Not covered yet: backup incr')
    expect(report).toContain('… and older ones')
    expect(report).not.toMatch(unsafe)
    for (const line of report.split('\n')) expect([line, line.length <= 80]).toEqual([line, true])
  })
})

describe('history', () => {
  test('R27: --json gives subject, lives and transitions with their causes', async () => {
    const found = await json(s, 'history', 'backup', EVIL)
    expect(found).toMatchObject({
      subject: { kind: 'backup', backup: EVIL },
      lives: [expect.any(Number)],
      transitions: [
        {
          type: 'backup-begun',
          ...POINT,
          life: expect.any(Number),
          says: expect.any(String),
          data: { backup: EVIL, mode: 'incremental' },
          cause: { actor: 'cli', command: 'begin-backup' },
        },
        { type: 'backup-failed', data: { reason: EVIL }, cause: { actor: EVIL } },
      ],
    })
  })

  test.each([
    ['disk', 'vm/vda'],
    ['bitmap', 'vm/vda', 'daily'],
    ['slice', 'vm/vda', 'daily', '0'],
    ['backup', EVIL],
  ])('R27: history %s is told in lines of 80 columns, names made harmless', async (...subject) => {
    const report = await onTerminal(80, 'history', ...subject)
    expect(report).toMatch(/\(cli,\s/)
    expect(report).not.toMatch(unsafe)
    for (const line of report.split('\n')) expect([line, line.length <= 80]).toEqual([line, true])
  })
})

describe('log', () => {
  const lines = async (...words: string[]) =>
    (await done(s, 'log', ...words, '--json')).out
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { type: string; position: number })

  test('R27: filters by command id, actor, range and type, from either end', async () => {
    await done(s, '--command-id', 'once', 'disk', 'add', 'vdb', '--size', '1M')
    expect(await lines('--command', 'once')).toMatchObject([
      { type: 'disk-added', cause: { commandId: 'once' } },
    ])
    expect(await lines('--by', EVIL)).toMatchObject([{ type: 'backup-failed' }])
    expect(await lines('--correlation', 'nobody')).toEqual([])
    expect(await lines('--range', '128K+1')).toMatchObject([{ type: 'write' }])
    const types = await lines('--type', 'backup-begun', '--reverse')
    expect(types.map(({ position }) => position)).toEqual(
      [...types].sort((a, b) => b.position - a.position).map(({ position }) => position),
    )
    expect(types).toHaveLength(3)
  })
})

test.each([
  [['explain', 'nope'], 'BACKUP_NOT_FOUND', 1],
  [['explain', 'incr', '--top', '0'], 'USAGE', 2],
  [['blame', 'nope', '0', '1'], 'DISK_NOT_FOUND', 1],
  [['blame', 'vm/vda', '0', '0'], 'RANGE_INVALID', 1],
  [['blame', 'vm/vda', '16M', '1'], 'RANGE_OUTSIDE_DISK', 1],
  [['blame', 'vm/vda', '1X', '1'], 'USAGE', 2],
  [['blame', 'vm/vda', '-1', '1'], 'USAGE', 2],
  [['blame', 'vm/vda', '0'], 'USAGE', 2],
  [['blame', 'vm/vda', '0', '1', '--limit', '0'], 'USAGE', 2],
  [['blame', 'vm/vda', '0', '1', '--since', 'soon'], 'POINT_INVALID', 2],
  [['blame', 'vm/vda', '0', '1', '--since', 'now', '--until', '@1'], 'POINT_ORDER', 1],
  [['blame', 'vm/vda', '0', '1', '--until', '@99999'], 'POINT_NOT_FOUND', 1],
  [['history', 'bitmap', 'vm/vda', 'nope'], 'BITMAP_NOT_FOUND', 1],
  [['history', 'slice', 'vm/vda', 'daily', '77'], 'SLICE_NOT_FOUND', 1],
  [['history', 'slice', 'vm/vda', 'daily', 'x'], 'USAGE', 2],
  [['history', 'checkpoint', 'nope'], 'CHECKPOINT_NOT_FOUND', 1],
  [['history', 'disk', 'nope'], 'DISK_NOT_FOUND', 1],
  [['history'], 'USAGE', 2],
  [['log', '--range', '0+0'], 'USAGE', 2],
  [['log', '--type', 'nope'], 'USAGE', 2],
] as const)('%j is refused with %s, exit %d', async (words, code, exit) => {
  const ran = await cli(s, ...words, '--json')
  expect([ran.error().code, ran.code, ran.out]).toEqual([code, exit, ''])
})

test('docs/operating.md has the shapes of all four', async () => {
  const text = await readFile('docs/operating.md', 'utf8')
  for (const command of ['explain BACKUP', 'blame DISK OFFSET LENGTH', 'history …', 'log  '])
    expect(text).toContain(`\n${command}`)
})
