/** R13 at the command line: a command id that comes back is answered as it was the first time, whatever happened since. */
import { cp } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()

beforeAll(() => made('base'))

/** A store with a disk, two bitmaps and a few writes. */
async function made(s: string): Promise<void> {
  await done(s, 'init')
  await done(s, 'disk', 'add', 'd', '--size', '1M')
  for (const bitmap of ['b', 'c'])
    await done(s, 'bitmap', 'add', 'd', bitmap, '--granularity', '4K', '--retention', '3')
  await done(s, 'write', 'd', '0+4K', '64K+512')
}

const COMMANDS: [what: string, words: string[]][] = [
  ['disk add', ['disk', 'add', 'e', '--size', '64K']],
  ['disk resize', ['disk', 'resize', 'd', '2M']],
  ['disk detach', ['disk', 'detach', 'd']],
  ['disk lost', ['disk', 'lost', 'd', '--reason', 'the cable']],
  ['bitmap add', ['bitmap', 'add', 'd', 'n', '--disabled']],
  ['bitmap retention', ['bitmap', 'retention', 'd', 'b', '5']],
  ['bitmap clear', ['bitmap', 'clear', 'd', 'b']],
  ['bitmap disable', ['bitmap', 'disable', 'd', 'b']],
  ['bitmap merge', ['bitmap', 'merge', 'd', 'b', 'c']],
  ['bitmap remove', ['bitmap', 'remove', 'd', 'b']],
  ['slice bank', ['slice', 'bank', 'd', 'b']],
  ['checkpoint create', ['checkpoint', 'create', 'k', 'd:b']],
  ['backup begin', ['backup', 'begin', 'd', 'b', '--mode', 'full', '--id', 'x']],
  ['disk remove', ['disk', 'remove', 'd']],
]

describe.each(['people', 'programs'] as const)('R13: for %s', (reader) => {
  const s = `all-${reader}`
  const told = (words: readonly string[]) => (reader === 'people' ? [...words] : [...words, '--json'])

  test.each(COMMANDS)(
    'R13: %s answers a second time as the first, when all it was about is gone',
    async (what, words) => {
      const own = `${s}-${what.replaceAll(' ', '-')}`
      await cp(path('base'), path(own), { recursive: true })
      const command = [...told(words), '--command-id', 'once']
      const first = await done(own, ...command)
      if (what === 'backup begin') await done(own, 'backup', 'cancel', 'x')
      if (what === 'checkpoint create') await done(own, 'checkpoint', 'delete', 'k')
      if (what !== 'disk remove') await done(own, 'disk', 'remove', 'd')
      if (what === 'disk add') await done(own, 'disk', 'remove', 'e')
      const { position } = await json<{ position: number }>(own, 'head')
      const again = await done(own, ...command)
      expect(again.out).toBe(first.out)
      expect(await json(own, 'head'), 'nothing was recorded').toMatchObject({ position })
    },
  )
})

describe('R13: what else an id must not do', () => {
  const s = 'else'
  beforeAll(() => cp(path('base'), path(s), { recursive: true }))

  test('R13: with other arguments it is refused as such, though the disk is not there in the state of its first use', async () => {
    await done(s, 'disk', 'add', 'f', '--size', '64K', '--command-id', 'id-f')
    for (const words of [
      ['disk', 'resize', 'f', '128K'],
      ['disk', 'lost', 'f', '--reason', 'x'],
      ['bitmap', 'add', 'f', 'n'],
      ['disk', 'add', 'f', '--size', '128K'],
      ['checkpoint', 'create', 'k', 'f:n'],
      ['backup', 'forget', 'nobody'],
    ]) {
      const ran = await cli(s, ...words, '--command-id', 'id-f', '--json')
      expect([ran.code, ran.error().code], words.join(' ')).toEqual([1, 'COMMAND_ID_REUSED'])
    }
  })

  test('R13: a begin, a forget and a combined that come back say what they said, after the copies went', async () => {
    const backup = async (id: string, mode: string) => {
      await done(s, 'backup', 'begin', 'd', 'b', '--mode', mode, '--id', id, '--command-id', `begin-${id}`)
      await done(s, 'write', 'd', '128K+4K')
      return done(s, 'backup', 'succeed', id, '--command-id', `end-${id}`)
    }
    await backup('one', 'full')
    await backup('two', 'incremental')
    const begun = [
      'backup',
      'begin',
      'd',
      'b',
      '--mode',
      'full',
      '--id',
      'one',
      '--command-id',
      'begin-one',
      '--json',
    ]
    expect((await done(s, ...begun)).json()).toMatchObject({ state: 'running' })
    const combine = ['backup', 'combined', 'both', 'one', 'two', '--command-id', 'combine', '--json']
    const combined = await done(s, ...combine)
    const forget = ['backup', 'forget', 'one', '--command-id', 'forget', '--json']
    const forgot = await done(s, ...forget)
    expect(forgot.json<{ loses: unknown[] }>().loses).toHaveLength(1)
    await done(s, 'backup', 'forget', 'both')
    expect((await done(s, ...combine)).out).toBe(combined.out)
    expect((await done(s, ...forget)).out).toBe(forgot.out)
  })

  test('R13: so does a command that changed nothing', async () => {
    const words = ['bitmap', 'enable', 'd', 'c', '--command-id', 'nothing', '--json']
    const first = await done(s, ...words)
    await done(s, 'bitmap', 'remove', 'd', 'c')
    expect((await done(s, ...words)).out).toBe(first.out)
    expect((await cli(s, 'bitmap', 'enable', 'd', 'c', '--json')).error().code).toBe('BITMAP_NOT_FOUND')
  })
})
