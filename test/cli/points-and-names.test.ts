/** What the words of a command line may hold: colons in names, slices as points, times of the past, and what would steer a terminal. */
import { writeFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()

describe('DISK:BITMAP where names hold colons', () => {
  const s = 'colons'
  const disks = [
    ['vm:17:vda', 'daily'],
    ['vm', 'a:b'],
    ['x', 'y:z'],
    ['x:y', 'z'],
    ['plain', ':odd:'],
  ] as const

  beforeAll(async () => {
    await done(s, 'init')
    for (const [disk, bitmap] of disks) {
      await done(s, 'disk', 'add', disk, '--size', '64K')
      await done(s, 'bitmap', 'add', disk, bitmap, '--granularity', '4K', '--retention', '9')
      await done(s, 'write', disk, '0+512')
    }
    await done(s, 'bitmap', 'add', 'vm', 'b', '--retention', '9')
  })

  test.each([
    ['vm:17:vda:daily', 'vm:17:vda', 'daily'],
    ['vm:a:b', 'vm', 'a:b'],
    ['vm:b', 'vm', 'b'],
    ['plain::odd:', 'plain', ':odd:'],
  ])('R19: %s is the bitmap that there is', async (words, disk, bitmap) => {
    const made = await json(s, 'checkpoint', 'create', `of ${words}`, words)
    expect(made).toMatchObject({ bitmaps: [{ disk, bitmap }] })
    expect(await json(s, 'slice', 'ls', disk, bitmap)).toMatchObject({ slices: [{}] })
  })

  test('R19, R21: words that mean two bitmaps are refused with both, exit 2, and nothing is recorded', async () => {
    const before = await json(s, 'head')
    const ran = await cli(s, 'checkpoint', 'create', 'two', 'vm:b', 'x:y:z', '--json')
    expect([ran.code, ran.error().code]).toEqual([2, 'USAGE'])
    expect(ran.error().facts.possibilities).toEqual([
      { disk: 'x:y', bitmap: 'z' },
      { disk: 'x', bitmap: 'y:z' },
    ])
    for (const named of ['bitmap "z" of disk "x:y"', 'bitmap "y:z" of disk "x"'])
      expect(ran.error().message).toContain(named)
    expect(await json(s, 'head')).toEqual(before)
  })

  test.each([
    ['nobody:b', 'DISK_NOT_FOUND'],
    ['a:b:c:d', 'DISK_NOT_FOUND'],
    ['vm:nothing', 'BITMAP_NOT_FOUND'],
  ])('R19: %s is refused with %s as before', async (words, code) => {
    const ran = await cli(s, 'checkpoint', 'create', 'none', words, '--json')
    expect([ran.code, ran.error().code]).toEqual([1, code])
  })

  test.each(['nocolon', ':', ':b', 'd:', '::'.slice(1)])('R19: "%s" is no bitmap, exit 2', async (words) => {
    expect((await cli(s, 'checkpoint', 'create', 'none', words, '--json')).code).toBe(2)
  })

  test('R4: so is a source of a merge', async () => {
    for (const disk of ['vm', 'vm:17:vda']) await done(s, 'write', disk, '0+512')
    await done(s, 'bitmap', 'add', 'vm', 'all', '--granularity', '4K')
    expect(await json(s, 'bitmap', 'merge', 'vm', 'all', 'vm:a:b')).toMatchObject({ count: 4096 })
    await done(s, 'bitmap', 'clear', 'vm', 'all')
    expect(await json(s, 'bitmap', 'merge', 'vm', 'all', 'a:b'), 'a bitmap of the same disk').toMatchObject({
      count: 4096,
    })
    await done(s, 'bitmap', 'clear', 'vm', 'all')
    expect(await json(s, 'bitmap', 'merge', 'vm', 'all', 'vm:17:vda:daily')).toMatchObject({ count: 4096 })
    expect((await cli(s, 'bitmap', 'merge', 'vm', 'all', 'x:y:z')).code).toBe(2)
  })

  test('R13: a command id keeps its meaning when other bitmaps could be meant by now', async () => {
    const words = ['checkpoint', 'create', 'once', 'vm:a:b', '--command-id', 'once', '--json']
    const first = await done(s, ...words)
    await done(s, 'disk', 'add', 'vm:a', '--size', '64K')
    await done(s, 'bitmap', 'add', 'vm:a', 'b', '--retention', '1')
    expect((await cli(s, 'checkpoint', 'create', 'twice', 'vm:a:b')).code).toBe(2)
    expect((await done(s, ...words)).out).toBe(first.out)
  })
})

describe('slices as points', () => {
  const s = 'slices'
  /** Two bitmaps whose slices 0 begin at other points, so that it matters which is meant. */
  beforeAll(async () => {
    await done(s, 'init')
    await done(s, 'disk', 'add', 'd', '--size', '1M')
    for (const bitmap of ['a', 'b']) await done(s, 'bitmap', 'add', 'd', bitmap, '--retention', '4')
    await done(s, 'slice', 'bank', 'd', 'a')
    await done(s, 'write', 'd', '0+512')
    await done(s, 'slice', 'bank', 'd', 'b')
    await done(s, 'write', 'd', '128K+512')
    for (const bitmap of ['a', 'b']) await done(s, 'slice', 'bank', 'd', bitmap)
  })
  const startOf = async (bitmap: string, slice: number) => {
    const { slices } = await json<{ slices: { slice: number; from: { position: number } }[] }>(
      s,
      'slice',
      'ls',
      'd',
      bitmap,
    )
    return slices.find((held) => held.slice === slice)!.from.position
  }

  test.each([
    ['a', 2],
    ['b', 1],
  ])(
    'R11, R23: `changed --since slice:1 --bitmap %s` begins where that slice does',
    async (bitmap, extents) => {
      const changed = await json<{ since: { position: number }; extents: unknown[] }>(
        s,
        'changed',
        'd',
        '--since',
        'slice:1',
        '--bitmap',
        bitmap,
      )
      expect(changed.since.position).toBe(await startOf(bitmap, 1))
      expect(changed.extents).toHaveLength(extents)
    },
  )

  test('R22: `at` and `log` take them of the bitmap that is named', async () => {
    for (const bitmap of ['a', 'b']) {
      const position = await startOf(bitmap, 1)
      expect(await json(s, 'at', 'slice:1', '--disk', 'd', '--bitmap', bitmap)).toMatchObject({
        point: { position },
      })
      const { out } = await done(
        s,
        'log',
        '--disk',
        'd',
        '--bitmap',
        bitmap,
        '--from',
        'slice:1',
        '--json',
        '--limit',
        '1',
      )
      expect(JSON.parse(out).position).toBe(position + 1)
      const { out: upTo } = await done(
        s,
        'log',
        '--disk',
        'd',
        '--bitmap',
        bitmap,
        '--to',
        'slice:1',
        '--json',
        '--reverse',
        '--limit',
        '1',
      )
      expect(JSON.parse(upTo).position).toBe(position)
    }
  })

  test('R18: without --bitmap, where there are two, and of what is not there, they are refused', async () => {
    const refused = async (...words: string[]) => {
      const ran = await cli(s, ...words, '--json')
      expect(ran.code, words.join(' ')).not.toBe(0)
      return ran.error().code
    }
    for (const words of [
      ['changed', 'd', '--since', 'slice:1'],
      ['at', 'slice:1', '--disk', 'd'],
      ['at', 'slice:1'],
      ['log', '--disk', 'd', '--from', 'slice:1'],
    ])
      expect(await refused(...words)).toBe('POINT_INVALID')
    for (const words of [
      ['changed', 'd', '--since', 'slice:9', '--bitmap', 'a'],
      ['at', 'slice:9', '--disk', 'd', '--bitmap', 'a'],
    ])
      expect(await refused(...words)).toBe('SLICE_NOT_FOUND')
    expect(await refused('changed', 'd', '--since', 'slice:1', '--bitmap', 'nobody')).toBe('BITMAP_NOT_FOUND')
  })
})

test('R22: an import into the time before the last event is refused, and nothing is recorded', async () => {
  const s = 'past'
  await done(s, 'init')
  await done(s, 'disk', 'add', 'd', '--size', '1M')
  const { out } = await done(s, 'log', '--json', '--limit', '1')
  const { time } = JSON.parse(out) as { time: number }
  await writeFile(path('trace.csv'), 'offset,length,t_us,op\n0,512,0,w\n4096,512,1,w\n')
  const before = await json(s, 'head')
  for (const at of ['2001-01-01T00:00:00Z', new Date(time - 1).toISOString()]) {
    const ran = await cli(s, 'import', 'd', path('trace.csv'), '--at', at, '--json')
    expect([ran.code, ran.error().code], ran.err).toEqual([1, 'TIME_INVALID'])
    expect(await json(s, 'head')).toEqual(before)
  }
})

describe('names that would steer a terminal', () => {
  const EVIL = 'x\u001b[2J\u0007\u202Ey'
  const UNSAFE = /[^\P{Cc}\n]|\p{Bidi_Control}/u
  const s = 'evil'
  const disk = `d${EVIL}`
  const bitmap = `b${EVIL}`

  beforeAll(async () => {
    await done(s, 'init')
    await done(s, 'disk', 'add', 'other', '--size', '1M')
  })

  /** In this order; each goes on from what the one before left. */
  const CONFIRMED: string[][] = [
    ['disk', 'add', disk, '--size', '1M'],
    ['bitmap', 'add', disk, bitmap, '--retention', '4'],
    ['bitmap', 'add', disk, 'c'],
    ['write', disk, '0+512'],
    ['bitmap', 'disable', disk, bitmap],
    ['bitmap', 'enable', disk, bitmap],
    ['bitmap', 'clear', disk, bitmap],
    ['bitmap', 'merge', disk, bitmap, 'c'],
    ['bitmap', 'retention', disk, bitmap, '5'],
    ['disk', 'resize', disk, '2M'],
    ['disk', 'lost', disk, '--reason', EVIL],
    ['checkpoint', 'create', EVIL, `${disk}:${bitmap}`],
    ['slice', 'bank', disk, bitmap],
    ['slice', 'delete', disk, bitmap, '1'],
    ['backup', 'plan', disk, bitmap, '--mode', 'full'],
    ['backup', 'begin', disk, bitmap, '--mode', 'full', '--id', EVIL],
    ['backup', 'fail', EVIL, '--reason', EVIL],
    ['backup', 'begin', disk, bitmap, '--mode', 'full', '--id', `2${EVIL}`],
    ['backup', 'succeed', `2${EVIL}`],
    ['backup', 'plan', disk, bitmap, '--mode', 'differential', '--since', `backup:2${EVIL}`],
    ['changed', disk, '--since', 'start'],
    ['bitmap', 'show', disk, bitmap],
    ['disk', 'ls'],
    ['bitmap', 'ls'],
    ['slice', 'ls', disk, bitmap],
    ['backup', 'ls'],
    ['checkpoint', 'ls'],
    ['at', 'now'],
    ['log'],
    ['coverage', disk],
    ['explain', `2${EVIL}`],
    ['blame', disk, '0', '4K'],
    ['history', 'disk', disk],
    ['replay', '--all'],
    ['backup', 'forget', `2${EVIL}`, '--reason', EVIL],
    ['checkpoint', 'delete', EVIL],
    ['bitmap', 'remove', disk, 'c'],
    ['disk', 'detach', disk],
    ['disk', 'remove', disk],
    ['log'],
  ]

  test('R21: nothing that a command says moves the cursor or turns the reading direction, and what was named is seen', async () => {
    for (const words of CONFIRMED) {
      const { out, err } = await done(s, '--actor', EVIL, ...words)
      const told = words.join(' ').replaceAll(EVIL, 'EVIL')
      expect(out + err, told).not.toMatch(UNSAFE)
      if (out.includes('2J')) expect(out, told).toContain('\\x1b[2J\\x07\\u{202e}')
      if (words[1] === 'ls' && words[0] !== 'slice') expect(out, told).toContain('\\x1b[2J')
    }
  })

  test.each([
    ['disk', 'resize', EVIL, '1M'],
    ['disk', 'add', 'other', '--size', EVIL],
    ['bitmap', 'show', 'other', EVIL],
    ['backup', 'succeed', `no${EVIL}`],
    ['checkpoint', 'delete', `no${EVIL}`],
    ['changed', 'other', '--since', `backup:no${EVIL}`],
    ['changed', 'other', '--since', `checkpoint:no${EVIL}`],
    ['changed', 'other', '--since', EVIL],
    ['import', 'other', EVIL],
    ['log', '--type', EVIL],
    [EVIL],
    ['status', `--${EVIL}`],
  ])('R21: neither does a refusal: %j %j', async (...words) => {
    const { code, out, err } = await cli(s, ...words)
    expect(code).not.toBe(0)
    expect(out + err).not.toMatch(UNSAFE)
    expect(err).toContain('\\x1b[2J')
  })

  test('R21: JSON has the very names', async () => {
    await done(s, 'disk', 'add', EVIL, '--size', '64K')
    const { disks } = await json<{ disks: { disk: string }[] }>(s, 'disk', 'ls')
    expect(disks.map((info) => info.disk)).toContain(EVIL)
    const ran = await cli(s, 'disk', 'resize', `no${EVIL}`, '1M', '--json')
    expect(ran.error().facts).toMatchObject({ disk: `no${EVIL}` })
    expect(ran.err).not.toMatch(/[^\P{Cc}\n]/u)
  })
})
