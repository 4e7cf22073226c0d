/** `copy`, `repair`, `disk export`, `disk import` at the command line: answers, exit codes, words. */
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { slicelog, storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()

async function sample(name: string): Promise<void> {
  await done(name, 'init')
  await done(name, 'disk', 'add', 'vda', '--size', '1M')
  await done(name, 'bitmap', 'add', 'vda', 'daily', '--granularity', '4K', '--retention', '2')
  await done(name, 'write', 'vda', '0+4K', '64K+512')
  await done(name, 'slice', 'bank', 'vda', 'daily')
  await done(name, 'write', 'vda', '128K+512')
}

describe('copy', () => {
  test('R28: answers with the head that the copy has, and the copy verifies against it', async () => {
    await sample('one')
    const head = await json('one', 'head')
    const copied = await json<{ folder: string; head: object; events: number }>(
      'one',
      'copy',
      path('one-copy'),
    )
    expect(copied).toMatchObject({
      folder: path('one-copy'),
      head: { position: head.position, hash: head.hash },
    })
    writeFileSync(path('head.json'), JSON.stringify(head))
    expect((await cli('one-copy', 'verify', '--against', path('head.json'))).code).toBe(0)
    expect((await done('one', 'copy', path('one-again'))).out).toMatch(/events/)
  })

  test('R34: refuses a place that is taken, and the store itself; no store is 10', async () => {
    await sample('two')
    const taken = await cli('two', 'copy', path('two'), '--json')
    expect([taken.code, taken.error().code]).toEqual([1, 'TARGET_INVALID'])
    await sample('three')
    expect((await cli('two', 'copy', path('three'), '--json')).error().code).toBe('TARGET_EXISTS')
    expect((await cli('nothing', 'copy', path('four'))).code).toBe(10)
    expect((await cli('two', 'copy')).code).toBe(2)
  })
})

describe('repair', () => {
  test('R28: a sound store is 0 and nothing to do', async () => {
    await sample('sound')
    const ran = await done('sound', 'repair')
    expect(ran.out).toMatch(/sound.*nothing to repair/)
    expect(await json('sound', 'repair', '--dry-run')).toMatchObject({ state: 'sound', kept: null })
  })

  test('R28: what a dry run says is what a repair does; afterwards verify is 0', async () => {
    await sample('bad')
    rmSync(join(path('bad'), 'head'))
    expect((await cli('bad', 'verify')).code).toBe(12)
    const dry = await done('bad', 'repair', '--dry-run')
    expect(dry.out).toMatch(/found: HEAD_MISSING/)
    expect(dry.out).toMatch(/nothing was changed/)
    expect((await cli('bad', 'verify')).code).toBe(12)
    const ran = await done('bad', 'repair')
    expect(ran.out).toMatch(/repaired/)
    expect(ran.out).toMatch(/kept aside: /)
    expect((await cli('bad', 'verify')).code).toBe(0)
    const log = await done('bad', 'log', '--type', 'log-repaired')
    expect(log.out).toMatch(/log-repaired/)
  })

  test('R28: what cannot be repaired is 12, no store 10, a word too many 2', async () => {
    await sample('gone')
    for (const name of readdirSync(join(path('gone'), 'log'))) rmSync(join(path('gone'), 'log', name))
    const ran = await cli('gone', 'repair', '--json')
    expect([ran.code, ran.error().code]).toEqual([12, 'REPAIR_IMPOSSIBLE'])
    expect((await cli('nowhere', 'repair')).code).toBe(10)
    expect((await cli('gone', 'repair', 'vda')).code).toBe(2)
  })
})

describe('disk export and disk import', () => {
  test('R26: a disk goes to another store, and its bits are the same there', async () => {
    await sample('from')
    const file = path('vda.slicelog')
    const exported = await json<{ digest: string; records: number }>('from', 'disk', 'export', 'vda', file)
    expect(exported.digest).toMatch(/^[0-9a-f]{64}$/)
    expect(await json('from', 'disk', 'export', 'vda', file, '--verify')).toMatchObject({
      kind: 'proved',
      records: exported.records,
    })
    await done('to', 'init')
    const imported = await json<{ positions: number[][] }>('to', 'disk', 'import', file)
    expect(imported).toMatchObject({ disk: 'vda', first: 0, timesCollapsed: false })
    expect(imported.positions[0]).toEqual([0, expect.any(Number), 1])
    const bits = async (name: string) => (await json(name, 'bitmap', 'show', 'vda', 'daily')).digest
    expect(await bits('to')).toBe(await bits('from'))
    expect((await cli('to', 'verify')).code).toBe(0)
    expect((await done('to', 'disk', 'import', file, '--as', 'vdb', '--collapse-times')).out).toMatch(
      /Where its events stand now/,
    )
  })

  test('R34: refusals leave nothing: a name that is taken, later events, a changed file, a file of another store', async () => {
    await sample('source')
    const file = path('source.slicelog')
    await done('source', 'disk', 'export', 'vda', file)
    expect((await cli('source', 'disk', 'export', 'vda', file, '--json')).error().code).toBe('TARGET_EXISTS')
    expect((await cli('source', 'disk', 'export', 'vdz', path('z'), '--json')).error().code).toBe(
      'DISK_NOT_FOUND',
    )
    expect((await cli('source', 'disk', 'import', file, '--json')).error().code).toBe('DISK_EXISTS')
    const late = await cli('source', 'disk', 'import', file, '--as', 'other', '--json')
    expect([late.code, late.error().code]).toEqual([1, 'TIME_INVALID'])
    expect((await cli('source', '--command-id', 'x', 'disk', 'import', file, '--as', 'other')).code).toBe(2)
    await sample('stranger')
    const proof = await cli('stranger', 'disk', 'export', 'vda', file, '--verify', '--json')
    expect([proof.code, proof.json().kind]).toEqual([12, 'differs'])
    truncateSync(file, readFileSync(file).length - 3)
    await done('empty', 'init')
    expect((await cli('empty', 'disk', 'import', file, '--json')).error().code).toBe('DISK_FILE_INVALID')
    expect((await json<{ position: number }>('empty', 'head')).position).toBe(-1)
  })

  test('R34: help has examples for each', async () => {
    for (const words of [['copy'], ['repair'], ['disk', 'export'], ['disk', 'import']])
      expect((await slicelog([...words, '--help'])).out).toMatch(/slicelog --store/)
  })
})
