/** `coverage`, `backup forget` and `backup combined` as people and scripts meet them. */
import { stripVTControlCharacters } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { captured, slicelog, storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()
const POINT = { position: expect.any(Number), time: expect.any(Number) }

/** full, a, b, c in a chain over `daily`, which keeps four slices. */
async function chain(name: string): Promise<void> {
  await done(name, 'init')
  await done(name, 'disk', 'add', 'vda', '--size', '1M')
  await done(name, 'bitmap', 'add', 'vda', 'daily', '--retention', '4')
  for (const [i, id] of ['full', 'a', 'b', 'c'].entries()) {
    await done(name, 'write', 'vda', `${i * 64}K+512`)
    await done(
      name,
      'backup',
      'begin',
      'vda',
      'daily',
      '--mode',
      i === 0 ? 'full' : 'incremental',
      '--id',
      id,
    )
    await done(name, 'backup', 'succeed', id)
  }
}

interface Report {
  readonly covered: boolean
  readonly points: { state: string; chain: string[]; since: { backup: string } | null }[]
  readonly gaps: { open: boolean; recreate: { of: string }[] }[]
  readonly repairs: {
    kind: string
    bytes: number
    command: string
    request: object
    'lies-on': object | null
  }[]
  readonly next: { continues: boolean }[]
}

describe('a chain that loses a copy', () => {
  const s = 'lost'
  beforeAll(() => chain(s))

  test('R25: the report has every field that scripts rely on', async () => {
    const report = await json(s, 'coverage', 'vda')
    expect(report).toEqual({
      disk: 'vda',
      at: POINT,
      covered: true,
      newest: {
        point: POINT,
        chain: ['full', 'a', 'b', 'c'],
        age: expect.any(Number),
        written: { bytes: 0, complete: true, reason: expect.any(String) },
      },
      points: expect.any(Array),
      gaps: [],
      repairs: [],
      hindered: [],
      next: [
        {
          bitmap: 'daily',
          continues: true,
          why: expect.any(String),
          request: expect.any(Object),
          command: expect.stringContaining('backup begin vda daily --mode incremental'),
        },
      ],
      merges: [],
      lost: expect.any(Array),
      former: [],
    })
    expect((report.points as object[])[1]).toEqual({
      point: POINT,
      state: 'whole',
      copies: [{ id: 'a', bitmap: 'daily', mode: 'incremental', kept: true, of: null }],
      chain: ['full', 'a'],
      bytes: 1024 * 1024 + 65_536,
      since: null,
      why: '',
    })
  })

  test('R21: forget --dry-run says what would break, and records nothing', async () => {
    const before = await json(s, 'head')
    const told = await done(s, 'backup', 'forget', 'b', '--dry-run')
    expect(told.out).toMatch(
      /Forgetting b would lose:\n {2}its own point @\d+\n {2}@\d+, because c can be laid/,
    )
    expect(told.out).toContain('Combine b and c first')
    expect(await json(s, 'backup', 'forget', 'b', '--dry-run')).toEqual({
      id: 'b',
      copy: 'kept',
      changed: false,
      loses: [{ point: POINT, copies: ['b'] }],
      breaks: [{ point: POINT, copies: ['c'] }],
      combine: [['b', 'c']],
    })
    expect(await json(s, 'head')).toEqual(before)
  })

  test('R25: forget, coverage, the repair as it is printed, and coverage again', async () => {
    const forgotten = await json(s, 'backup', 'forget', 'b', '--reason', 'tape 7 broke')
    expect(forgotten).toMatchObject({
      id: 'b',
      copy: 'forgotten',
      changed: true,
      breaks: [{ copies: ['c'] }],
    })
    const broken = await json<Report>(s, 'coverage', 'vda')
    expect(broken.covered).toBe(false)
    expect(broken.points.map(({ state }) => state)).toEqual(['whole', 'whole', 'gone', 'broken'])
    expect(broken.points[3]?.since?.backup).toBe('b')
    expect(broken.gaps).toMatchObject([{ open: true, recreate: [{ of: 'b' }] }])
    expect(broken.next[0]?.continues).toBe(false)
    const [smallest] = broken.repairs
    expect(smallest).toMatchObject({ kind: 'increment', bytes: 131_072, 'lies-on': POINT })
    // As it is printed, from the word after `slicelog` on.
    const words = smallest!.command.split(' ').slice(1)
    const io = captured()
    const begun = await slicelog([...words, '--id', 'repair', '--json'], io)
    expect([begun.code, begun.json().bytes]).toEqual([0, 131_072])
    await done(s, 'backup', 'succeed', 'repair')
    const whole = await json<Report>(s, 'coverage', 'vda')
    expect(whole).toMatchObject({ covered: true, repairs: [], gaps: [{ open: false }] })
    expect(whole.points.at(-1)?.chain).toEqual(['full', 'a', 'repair'])
  })

  test('R13: forgetting twice changes nothing, and a command id gives the first answer', async () => {
    expect(await json(s, 'backup', 'forget', 'b')).toMatchObject({ changed: false })
    expect((await done(s, 'backup', 'forget', 'b')).out).toContain('was forgotten before')
    const first = await json(s, 'backup', 'forget', 'c', '--command-id', 'x')
    expect(await json(s, 'backup', 'forget', 'c', '--command-id', 'x')).toMatchObject({
      id: first.id,
      changed: true,
    })
  })

  test('R26: replay and verify are content with what was forgotten', async () => {
    expect(await json(s, 'replay', '--all')).toMatchObject({ equal: true })
    expect(await json(s, 'verify')).toMatchObject({ findings: [] })
  })

  test('R19: backup ls shows which copies are kept', async () => {
    const { backups } = await json<{ backups: { id: string; copy: string; forgotten: unknown }[] }>(
      s,
      'backup',
      'ls',
    )
    expect(backups.map(({ id, copy }) => `${id} ${copy}`)).toContain('b forgotten')
    expect(backups.find(({ id }) => id === 'b')?.forgotten).toMatchObject({
      at: POINT,
      reason: 'tape 7 broke',
    })
    expect((await done(s, 'backup', 'ls')).out).toMatch(/^b .*forgotten +tape 7 broke$/m)
  })
})

describe('copies that were combined', () => {
  const s = 'combined'
  beforeAll(() => chain(s))

  test('R25: backup combined makes a backup of its own', async () => {
    const made = await json(s, 'backup', 'combined', 'ab', 'a', 'b')
    expect(made).toMatchObject({ id: 'ab', state: 'succeeded', copy: 'kept', of: ['a', 'b'], digest: null })
    expect((await done(s, 'backup', 'ls')).out).toContain('incremental, combined')
    await done(s, 'backup', 'forget', 'a')
    await done(s, 'backup', 'forget', 'b')
    const { points } = await json<Report>(s, 'coverage', 'vda')
    expect(points.map(({ state }) => state)).toEqual(['whole', 'gone', 'whole', 'whole'])
    expect(points[3]?.chain).toEqual(['full', 'ab', 'c'])
  })

  test('R22: it is a point like any other', async () => {
    expect(await json(s, 'changed', 'vda', '--since', 'backup:ab')).toMatchObject({ bytes: 65_536 })
  })

  test('R26: its plan is derived, which replay says, and verify is content', async () => {
    const { backups, equal } = await json<{
      backups: { id: string; equal: boolean | null }[]
      equal: boolean
    }>(s, 'replay', '--all')
    expect([backups.find(({ id }) => id === 'ab')?.equal, equal]).toEqual([null, true])
    expect((await done(s, 'replay', 'ab')).out).toContain('derived')
    expect(await json(s, 'verify')).toMatchObject({ findings: [] })
  })
})

describe('for people', () => {
  const s = 'people'
  beforeAll(() => chain(s))

  test.each([
    ['utf-8', { LANG: 'C.UTF-8' }, '●'],
    ['plain', { LANG: 'C' }, 'o'],
  ])(
    'a timeline, a line a point, and nothing wider than 80 columns but commands (%s)',
    async (_, env, mark) => {
      await done(s, 'backup', 'forget', 'b')
      const io = captured(env)
      const ran = await slicelog(['--store', path(s), 'coverage', 'vda'], {
        ...io,
        text: io.text,
        stdout: { ...io.stdout, columns: 80, isTTY: true },
      })
      expect(ran.code).toBe(0)
      const plain = stripVTControlCharacters(ran.out)
      expect(plain).toContain('vda: 2 of 4 points can be restored.')
      expect(plain).toContain(mark)
      expect(plain).toMatch(/^Gap after @\d+, and open: 1 broken, 1 gone$/m)
      expect(plain).toMatch(/^ {2}smallest {2}128 KiB, from slices 1, 2 and the active part, laid on @\d+$/m)
      const table = plain.split('\n').filter((line) => /^(@\d|point|[●oxX✗○.─-]{9})/.test(line))
      expect(table.length).toBeGreaterThan(5)
      for (const line of table) expect([line, Array.from(line).length <= 80]).toEqual([line, true])
    },
  )

  test('a name cannot steer the terminal', async () => {
    await done(s, 'disk', 'add', 'x\u001b[2J', '--size', '1M')
    const ran = await done(s, 'coverage', 'x\u001b[2J')
    expect(ran.out).not.toContain('\u001b')
    expect(ran.out).toContain('nothing can be restored')
  })
})

describe('refusals', () => {
  const s = 'refused'
  beforeAll(() => chain(s))

  test.each([
    ['BACKUP_NOT_FOUND', ['backup', 'forget', 'nobody']],
    ['BACKUP_NOT_FOUND', ['backup', 'forget', 'nobody', '--dry-run']],
    ['BACKUP_NOT_FOUND', ['backup', 'combined', 'x', 'a', 'nobody']],
    ['BACKUP_CHAIN', ['backup', 'combined', 'x', 'b', 'a']],
    ['BACKUP_CHAIN', ['backup', 'combined', 'x', 'a']],
    ['BACKUP_CHAIN', ['backup', 'combined', 'x', 'a', 'c']],
    ['BACKUP_EXISTS', ['backup', 'combined', 'c', 'a', 'b']],
    ['DISK_NOT_FOUND', ['coverage', 'vdb']],
    ['BITMAP_NOT_FOUND', ['coverage', 'vda', '--bitmap', 'hourly']],
  ])('R21: %s for %j, exit 1, nothing recorded', async (code, words) => {
    const head = await json(s, 'head')
    const ran = await cli(s, ...words, '--json')
    expect([ran.code, ran.error().code]).toEqual([1, code])
    expect(await json(s, 'head')).toEqual(head)
  })

  test('R21: BACKUP_STATE for a backup that is still running', async () => {
    await done(s, 'backup', 'begin', 'vda', 'daily', '--mode', 'copy', '--id', 'running')
    const ran = await cli(s, 'backup', 'forget', 'running', '--json')
    expect([ran.code, ran.error().code]).toEqual([1, 'BACKUP_STATE'])
  })

  test.each([
    [['coverage']],
    [['backup', 'forget']],
    [['backup', 'combined', 'x']],
    [['coverage', 'vda', 'daily']],
  ])('bad usage: %j, exit 2', async (words) => {
    expect((await cli(s, ...words)).code).toBe(2)
  })
})
