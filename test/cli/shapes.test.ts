/** The faces that scripts rely on (spec section 5): every command once, with the fields that it promises. */
import { readFile, writeFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()
const POINT = { position: expect.any(Number), time: expect.any(Number) }
const DIGEST = expect.stringMatching(/^[0-9a-f]{64}$/)

describe('a store worked on by the command line alone', () => {
  const s = 'main'
  beforeAll(async () => {
    await done(s, 'init')
    await done(s, 'disk', 'add', 'vm/vda', '--size', '1M')
    await done(s, 'bitmap', 'add', 'vm/vda', 'daily', '--granularity', '64K', '--retention', '2')
    await done(s, 'write', 'vm/vda', '4K+512', '128K+64K', '0+0')
  })

  test('R5: bitmap show gives generation, count, digest and extents as [offset, length]', async () => {
    const shown = await json(s, 'bitmap', 'show', 'vm/vda', 'daily')
    expect(shown).toMatchObject({
      disk: 'vm/vda',
      bitmap: 'daily',
      generation: expect.any(Number),
      granularity: 65_536,
      count: 131_072,
      digest: DIGEST,
      recording: true,
      busy: false,
    })
    expect(shown.extents).toEqual([
      [0, 65_536],
      [131_072, 65_536],
    ])
  })

  test('R22: bitmap show --at shows the past', async () => {
    const shown = await json(s, 'bitmap', 'show', 'vm/vda', 'daily', '--at', 'start').catch(
      (error: unknown) => String(error),
    )
    expect(shown).toContain('DISK_NOT_FOUND')
    const added = await json<{ position: number }>(s, 'log', '--type', 'bitmap-added')
    expect(await json(s, 'bitmap', 'show', 'vm/vda', 'daily', '--at', `@${added.position}`)).toMatchObject({
      count: 0,
      extents: [],
    })
  })

  test('R23: changed gives points, resolution, completeness, digest and extents', async () => {
    const changed = await json(s, 'changed', 'vm/vda', '--since', '@2', '--granularity', '512')
    expect(changed).toMatchObject({
      disk: 'vm/vda',
      since: POINT,
      until: POINT,
      granularity: 512,
      bytes: 66_048,
      resolution: 'exact',
      complete: true,
      lost: [],
      digest: DIGEST,
    })
    expect(changed.extents).toEqual([
      [4096, 512],
      [131_072, 65_536],
    ])
  })

  test('R24: a base older than the disk covers the whole disk, and says so', async () => {
    expect(await json(s, 'changed', 'vm/vda', '--since', 'start')).toMatchObject({
      bytes: 1 << 20,
      since: { position: -1, time: null },
    })
  })

  test('R25: backup plan has no id, records nothing, and begin gives the same with id and state', async () => {
    const before = await json(s, 'head')
    const plan = await json(s, 'backup', 'plan', 'vm/vda', 'daily', '--mode', 'incremental')
    expect(await json(s, 'head')).toEqual(before)
    expect(plan).toMatchObject({
      disk: 'vm/vda',
      bitmap: 'daily',
      generation: expect.any(Number),
      mode: 'incremental',
      base: { kind: 'point', ...POINT },
      point: POINT,
      complete: true,
      lost: [],
      bytes: 131_072,
      granularity: 65_536,
      digest: DIGEST,
      reason: expect.any(String),
    })
    expect(plan.extents).toEqual([
      [0, 65_536],
      [131_072, 65_536],
    ])
    expect(plan).not.toHaveProperty('id')
    const begun = await json(s, 'backup', 'begin', 'vm/vda', 'daily', '--mode', 'incremental', '--id', 'one')
    expect(begun).toMatchObject({
      id: 'one',
      state: 'running',
      digest: plan.digest,
      extents: plan.extents,
    })
  })

  test('R10: a running backup is found by the next call, its bitmap is busy; fail gives the stable answer', async () => {
    expect(await json(s, 'backup', 'ls', '--state', 'running')).toMatchObject({
      backups: [{ id: 'one', state: 'running' }],
    })
    expect((await cli(s, 'bitmap', 'clear', 'vm/vda', 'daily', '--json')).error()).toMatchObject({
      code: 'BITMAP_BUSY',
    })
    const failed = await json(s, 'backup', 'fail', 'one', '--reason', 'no space')
    expect(failed).toEqual({
      id: 'one',
      state: 'failed',
      slice: null,
      generation: expect.any(Number),
      'dropped-slices': [],
    })
  })

  test('R9, R15: succeed gives the slice, and a forced cycle the dropped slices as [{BITMAP: N}]', async () => {
    const answers = []
    for (const id of ['two', 'three', 'four']) {
      await done(s, 'write', 'vm/vda', '512K+1K')
      await done(
        s,
        'backup',
        'begin',
        'vm/vda',
        'daily',
        '--mode',
        'incremental',
        '--force-cycle',
        '--id',
        id,
      )
      answers.push(await json(s, 'backup', 'succeed', id))
    }
    const generation = expect.any(Number)
    expect(answers).toEqual([
      { id: 'two', state: 'succeeded', slice: 0, generation, 'dropped-slices': [] },
      { id: 'three', state: 'succeeded', slice: 1, generation, 'dropped-slices': [] },
      { id: 'four', state: 'succeeded', slice: 2, generation, 'dropped-slices': [{ daily: 0 }] },
    ])
  })

  test('R15: without force the begin is refused, naming the slices in the way, and R21: the head stays', async () => {
    const before = await json(s, 'head')
    const refused = await cli(s, 'backup', 'begin', 'vm/vda', 'daily', '--mode', 'incremental', '--json')
    expect(refused.code).toBe(1)
    expect(refused.error()).toMatchObject({ code: 'RETENTION_FULL' })
    expect(refused.out).toBe('')
    expect(await json(s, 'head')).toEqual(before)
  })

  test('R18: slice ls gives generation, next and the slices with digest, from, to, lost', async () => {
    expect(await json(s, 'slice', 'ls', 'vm/vda', 'daily')).toEqual({
      generation: expect.any(Number),
      next: 3,
      slices: [1, 2].map((slice) => ({
        slice,
        count: 65_536,
        digest: DIGEST,
        from: POINT,
        to: POINT,
        lost: [],
      })),
    })
    expect(await json(s, 'bitmap', 'show', 'vm/vda', 'daily', '--slice', '2')).toMatchObject({
      slice: 2,
      count: 65_536,
    })
  })

  test('R16, R18: slice delete merges into the older; dropped, merged, never given and older are four refusals', async () => {
    expect(await json(s, 'slice', 'delete', 'vm/vda', 'daily', '2')).toMatchObject({ slice: 2, into: 1 })
    const code = async (slice: string): Promise<string> =>
      (await cli(s, 'slice', 'delete', 'vm/vda', 'daily', slice, '--json')).error().code
    expect([await code('0'), await code('2'), await code('77')]).toEqual([
      'SLICE_DROPPED',
      'SLICE_MERGED',
      'SLICE_NOT_FOUND',
    ])
    const { generation } = await json(s, 'slice', 'ls', 'vm/vda', 'daily')
    expect(await code(`${generation}.77`)).toBe('SLICE_NOT_FOUND')
    await done(s, 'bitmap', 'add', 'vm/vda', 'brief', '--retention', '1')
    const first = (await json(s, 'slice', 'bank', 'vm/vda', 'brief')).generation
    await done(s, 'backup', 'begin', 'vm/vda', 'brief', '--mode', 'full', '--id', 'reset')
    expect(await json(s, 'backup', 'succeed', 'reset')).toMatchObject({ slice: null })
    expect((await cli(s, 'slice', 'delete', 'vm/vda', 'brief', `${first}.0`, '--json')).error().code).toBe(
      'SLICE_OLD_GENERATION',
    )
    await done(s, 'bitmap', 'remove', 'vm/vda', 'brief')
  })

  test('R17: slice bank gives its number; R15: retention lowers with force', async () => {
    expect(await json(s, 'slice', 'bank', 'vm/vda', 'daily')).toEqual({
      slice: 3,
      generation: expect.any(Number),
      'dropped-slices': [],
    })
    expect(await json(s, 'bitmap', 'retention', 'vm/vda', 'daily', '1', '--force-cycle')).toMatchObject({
      retention: 1,
      'dropped-slices': [{ daily: 1 }],
    })
  })

  test('R19: checkpoints are created, listed, used as points, deleted', async () => {
    expect(await json(s, 'checkpoint', 'create', 'here', 'vm/vda:daily', '--force-cycle')).toMatchObject({
      checkpoint: 'here',
      point: POINT,
      bitmaps: [{ disk: 'vm/vda', bitmap: 'daily' }],
    })
    expect(await json(s, 'checkpoint', 'ls')).toMatchObject({ checkpoints: [{ checkpoint: 'here' }] })
    expect(await json(s, 'changed', 'vm/vda', '--since', 'checkpoint:here')).toMatchObject({ bytes: 0 })
    expect(await json(s, 'checkpoint', 'delete', 'here')).toMatchObject({
      checkpoint: 'here',
      merged: expect.any(Array),
      kept: [],
      gone: [],
    })
  })

  test('R4: disable, enable, clear, merge, remove and ls', async () => {
    await done(s, 'bitmap', 'add', 'vm/vda', 'other', '--granularity', '4K', '--disabled')
    await done(s, 'bitmap', 'enable', 'vm/vda', 'other')
    await done(s, 'write', 'vm/vda', '0+1', '--op', 'discard')
    expect(await json(s, 'bitmap', 'show', 'vm/vda', 'other')).toMatchObject({ count: 4096 })
    expect(await json(s, 'bitmap', 'disable', 'vm/vda', 'other')).toMatchObject({ recording: false })
    expect(await json(s, 'bitmap', 'clear', 'vm/vda', 'other')).toMatchObject({ bitmap: 'other' })
    expect(await json(s, 'bitmap', 'merge', 'vm/vda', 'other', 'daily')).toMatchObject({ count: 65_536 })
    expect(await json(s, 'bitmap', 'ls')).toMatchObject({
      bitmaps: [{ bitmap: 'daily' }, { bitmap: 'other', recording: false }],
    })
    expect(await json(s, 'bitmap', 'remove', 'vm/vda', 'other')).toMatchObject({ removed: true })
  })

  test('R7, R35: disks are resized, detached, declared lost, listed, removed', async () => {
    await done(s, 'disk', 'add', 'spare', '--size', '64K')
    expect(await json(s, 'disk', 'resize', 'spare', '128K')).toMatchObject({ size: 131_072 })
    await done(s, 'write', 'spare', '0+512')
    expect(await json(s, 'disk', 'lost', 'spare', '--reason', 'power', '--since', '@5')).toMatchObject({
      lost: [{ reason: 'power', from: POINT, to: POINT }],
    })
    expect(await json(s, 'changed', 'spare', '--since', '@6')).toMatchObject({
      complete: false,
      bytes: 131_072,
      lost: [{ reason: 'power' }],
    })
    expect((await json<{ disks: unknown[] }>(s, 'disk', 'ls')).disks).toHaveLength(2)
    expect(await json(s, 'disk', 'remove', 'spare')).toEqual({ disk: 'spare', removed: true })
  })

  test('R22: at gives disks with bitmaps and slices, backups and checkpoints', async () => {
    const then = await json(s, 'at', 'backup:four')
    expect(then).toMatchObject({ point: POINT, checkpoints: [] })
    expect(then.disks).toMatchObject([
      {
        disk: 'vm/vda',
        bitmaps: [{ bitmap: 'daily', busy: true, digest: DIGEST, slices: [{ slice: 0 }, { slice: 1 }] }],
      },
    ])
    expect((then.backups as { id: string }[]).map(({ id }) => id)).toEqual(['one', 'two', 'three', 'four'])
  })

  test('R27: log --json prints one event a line, with filters and limit, from either end', async () => {
    const lines = (await done(s, 'log', '--json', '--type', 'write', '--range', '4K+1')).out
      .trim()
      .split('\n')
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { type: 'write', disk: 'vm/vda', data: { op: 'write', offset: 4096, length: 512 } },
    ])
    const newest = (await done(s, 'log', '--json', '--reverse', '--limit', '3')).out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).position)
    expect(newest).toEqual([...newest].sort((a, b) => b - a))
    expect(newest).toHaveLength(3)
    expect((await done(s, 'log', '--json', '--by', 'nobody')).out).toBe('')
  })

  test('R13: the same command id gives the first answer again, other arguments are refused', async () => {
    const bank = (name: string) =>
      json(s, '--command-id', 'bank-1', '--actor', 'cron', 'checkpoint', 'create', name)
    const first = await bank('twice')
    expect(await bank('twice')).toEqual(first)
    expect(
      (await cli(s, '--command-id', 'bank-1', 'checkpoint', 'create', 'other', '--json')).error(),
    ).toMatchObject({ code: 'COMMAND_ID_REUSED' })
    expect((await done(s, 'log', '--by', 'cron')).out).toContain('bank-1')
  })

  test('R26: replay compares past plans with the log', async () => {
    const replayed = await json<{ equal: boolean; backups: { id: string; equal: boolean }[] }>(
      s,
      'replay',
      '--all',
    )
    expect(replayed.equal).toBe(true)
    expect(replayed.backups.map(({ id }) => id)).toEqual(['one', 'two', 'three', 'four', 'reset'])
    expect((await done(s, 'replay', 'two')).out).toContain('equal')
  })

  test('R28: head, status and verify; verify --against takes what head --json gave', async () => {
    const head = await json(s, 'head')
    expect(head).toEqual({ ...POINT, hash: DIGEST })
    expect(await json(s, 'status')).toMatchObject({
      events: (head.position as number) + 1,
      disks: 1,
      backups: { succeeded: 4, failed: 1 },
    })
    await writeFile(path('head.json'), JSON.stringify(head))
    const report = await json(s, 'verify', '--against', path('head.json'))
    expect(report).toMatchObject({
      head: { position: head.position, hash: head.hash },
      events: (head.position as number) + 1,
      findings: [],
    })
    await writeFile(path('other.json'), JSON.stringify({ ...head, hash: '0'.repeat(64) }))
    const found = await cli(s, 'verify', '--against', path('other.json'), '--json')
    expect(found.code).toBe(12)
    expect(found.json<{ findings: unknown[] }>().findings[0]).toMatchObject({
      code: expect.any(String),
      doubt: expect.any(Array),
      todo: expect.any(String),
    })
    expect((await cli(s, 'verify', '--against', path('main/store.json'))).code).toBe(2)
  })

  test('R29: compact tells what it folded, a dry run what it would, status how the log grows', async () => {
    const shape = {
      policy: '0s:1ms',
      'dry-run': true,
      runs: expect.any(Number),
      windows: expect.any(Number),
      events: expect.any(Number),
      bytes: { before: expect.any(Number), after: expect.any(Number) },
      log: { before: expect.any(Number), after: expect.any(Number) },
      'up-to': POINT,
    }
    expect(await json(s, 'compact', '--policy', '0s:1ms', '--dry-run')).toEqual(shape)
    expect(await json(s, 'compact', '--policy', '7d:1m')).toMatchObject({ policy: '7d:1m', 'dry-run': false })
    expect(await json(s, 'status')).toMatchObject({
      growth: {
        'events-per-day': expect.any(Number),
        'bytes-per-day': expect.any(Number),
        days: expect.any(Number),
      },
      compaction: {
        policy: '7d:1m,90d:1h',
        events: expect.any(Number),
        bytes: expect.any(Number),
        exact: true,
        last: null,
      },
    })
    for (const bad of ['1d', '1d:1h:1m', 'x:y']) {
      const refused = await cli(s, 'compact', '--policy', bad, '--json')
      expect(refused.code, bad).toBe(1)
      expect(JSON.parse(refused.err), bad).toMatchObject({ error: { code: 'POLICY_INVALID' } })
    }
  })

  test('people get tables, without colour when piped', async () => {
    for (const words of [
      ['status'],
      ['head'],
      ['disk', 'ls'],
      ['bitmap', 'ls'],
      ['slice', 'ls', 'vm/vda', 'daily'],
      ['bitmap', 'show', 'vm/vda', 'daily'],
      ['backup', 'ls'],
      ['checkpoint', 'ls'],
      ['at', 'now'],
      ['log'],
      ['changed', 'vm/vda', '--since', '@3'],
      ['backup', 'plan', 'vm/vda', 'daily', '--mode', 'full'],
      ['replay', 'two'],
      ['verify'],
    ]) {
      const { out, err } = await done(s, ...words)
      expect(out.length, words.join(' ')).toBeGreaterThan(20)
      expect(out).not.toContain('\u001b[')
      expect(err).toBe('')
    }
  })
})

test('import: the shift is told, distances are kept, bad lines are reported by number or counted', async () => {
  const s = 'import'
  await done(s, 'init')
  await done(s, 'disk', 'add', 'd', '--size', '1M')
  await writeFile(
    path('t.csv'),
    'offset,length,t_us,op\n0,512,5000000,w\n512,512,7500000,t\n9999999,1,8000000,w\n0,0,9000000,f\n',
  )
  const before = await json(s, 'head')
  const refused = await cli(s, 'import', 'd', path('t.csv'), '--json')
  expect(refused.error()).toMatchObject({ code: 'TRACE_LINE_INVALID', facts: { line: 4, bad: 1 } })
  const after = await json<{ position: number }>(s, 'head')
  // Only the attaching and detaching of this session; no write (R21).
  expect((await done(s, 'log', '--type', 'write', '--json')).out).toBe('')
  expect(after.position - (before.position as number)).toBeLessThanOrEqual(2)
  const at = '2099-11-18T18:00:00.000Z'
  const imported = await json(s, 'import', 'd', path('t.csv'), '--at', at, '--skip-bad')
  expect(imported).toMatchObject({
    disk: 'd',
    lines: 5,
    writes: 2,
    flushes: 1,
    bad: 1,
    bytes: 1024,
    shift: Date.parse(at) - 5000,
    from: Date.parse(at),
    to: Date.parse(at) + 4000,
  })
  expect(imported['bad-lines']).toMatchObject([{ line: 4 }])
  const times = (await done(s, 'log', '--type', 'write', '--json')).out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).time)
  expect(times).toEqual([Date.parse(at), Date.parse(at) + 2500])
  expect(
    (await cli(s, 'import', 'd', path('t.csv'), '--at', '1999-01-01', '--skip-bad', '--json')).error(),
  ).toMatchObject({ code: 'TIME_INVALID' })
  expect((await cli(s, 'import', 'd', path('t.csv'), '--skip-bad')).out).toContain('shift')
})

test('every command of the contract has help with examples', async () => {
  const { slicelog } = await import('./support.ts')
  const commands = [
    'init',
    'disk add',
    'disk resize',
    'disk remove',
    'bitmap add',
    'bitmap retention',
    'bitmap show',
    'import',
    'write',
    'changed',
    'backup plan',
    'backup begin',
    'backup succeed',
    'backup fail',
    'backup cancel',
    'slice delete',
    'slice bank',
    'slice ls',
    'checkpoint create',
    'checkpoint delete',
    'checkpoint ls',
    'at',
    'log',
    'verify',
    'compact',
    'replay',
    'status',
    'head',
  ]
  for (const command of commands) {
    const help = await slicelog([...command.split(' '), '--help'])
    expect(help.code, command).toBe(0)
    expect(help.out, command).toContain(`$ slicelog --store ./state ${command}`)
  }
  for (const words of [['--help'], ['help']]) {
    const help = await slicelog(words)
    expect([help.code, help.err]).toEqual([0, ''])
    expect(help.out).toContain('130 cancelled')
  }
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
  expect((await slicelog(['--version'])).out.trim()).toBe(version)
})
