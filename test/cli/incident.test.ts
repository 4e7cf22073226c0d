/** `incident export` and `incident info`: what scripts rely on, and what is refused with nothing written. */
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { beforeAll, expect, test } from 'vitest'
import { playIncident } from '../../src/testing/player.ts'
import { slicelog, storeFolder } from './support.ts'

const { path, cli, done, json } = storeFolder()
const s = 'main'
beforeAll(async () => {
  await done(s, 'init')
  await done(s, 'disk', 'add', 'vm/secret', '--size', '1M')
  await done(s, 'disk', 'add', 'vm/other', '--size', '1M')
  await done(s, 'bitmap', 'add', 'vm/secret', 'daily', '--granularity', '64K', '--retention', '2')
  await done(s, 'write', 'vm/secret', '4K+512', '128K+64K')
  await done(s, 'checkpoint', 'create', 'middle')
  await done(s, 'write', 'vm/other', '0+64K')
  await done(s, 'backup', 'begin', 'vm/secret', 'daily', '--mode', 'incremental', '--id', 'one')
})

test('export says what it wrote, info says the same of the file, and a test can play it', async () => {
  const file = path('whole.slicelog-incident')
  const { bytes, ...exported } = await json(s, 'incident', 'export', file)
  expect(exported).toMatchObject({
    file,
    from: { position: -1, time: null },
    disks: ['vm/secret', 'vm/other'],
    backups: ['one'],
    checkpoints: ['middle'],
    anonymised: false,
    shifted: false,
  })
  expect((await readFile(file)).length).toBe(bytes)
  expect((await slicelog(['incident', 'info', file, '--json'])).json()).toEqual(exported)
  const player = await playIncident(file)
  const shown = await json(s, 'bitmap', 'show', 'vm/secret', 'daily')
  expect((await player.store.bits('vm/secret', 'daily')).digest).toBe(shown.digest)
  expect((await player.store.replayPlan('one')).digest).toBe(player.store.backup('one').info.digest)
  await player.close()
})

test('cut, thinned, renamed and moved', async () => {
  const file = path('part.slicelog-incident')
  const words = ['--from', 'checkpoint:middle', '--disk', 'vm/secret', '--anonymise', '--epoch', '2000-01-01']
  const exported = await json(s, 'incident', 'export', file, ...words)
  expect(exported).toMatchObject({
    disks: ['disk-1'],
    backups: ['backup-1'],
    checkpoints: ['checkpoint-1'],
    anonymised: true,
    shifted: true,
  })
  const player = await playIncident(file)
  let first: { readonly time: number } | undefined
  for await (const event of player.store.log({ limit: 1 })) first = event
  expect(first?.time).toBe(Date.UTC(2000, 0, 1))
  expect((await player.store.bits('disk-1', 'bitmap-1')).count).toBe(131_072)
  await player.close()
  const { out } = await slicelog(['incident', 'info', file])
  expect(out).toMatch(/names +made up\n/)
  expect(out).not.toContain('secret')
})

test('refused, and no file is left behind', async () => {
  const file = path('refused.slicelog-incident')
  const code = async (...words: string[]) =>
    (await cli(s, 'incident', 'export', file, ...words, '--json')).error().code
  expect(await code('--from', 'now', '--to', 'start')).toBe('POINT_ORDER')
  expect(await code('--disk', 'vm/none')).toBe('DISK_NOT_FOUND')
  expect(await code('--from', 'checkpoint:none')).toBe('CHECKPOINT_NOT_FOUND')
  expect(await code('--from', 'yesterday')).toBe('POINT_INVALID')
  expect(await code('--epoch', 'start')).toBe('USAGE')
  expect(existsSync(file)).toBe(false)
  await writeFile(file, 'mine')
  expect(await code()).toBe('TARGET_EXISTS')
  expect(await readFile(file, 'utf8')).toBe('mine')
  expect((await slicelog(['incident', 'info', file, '--json'])).error().code).toBe('INCIDENT_INVALID')
  expect((await slicelog(['incident', 'info', path('absent'), '--json'])).error().code).toBe('IO_FAILED')
  expect((await slicelog(['incident', 'export', path('x')])).code, 'which store?').toBe(2)
  const newer = path('newer')
  await writeFile(newer, 'slicelog-incident 2\nwhatever comes')
  expect((await slicelog(['incident', 'info', newer])).code).toBe(13)
})

test('help has examples', async () => {
  const help = await slicelog(['incident', 'export', '--help'])
  expect(help.out).toContain('$ slicelog --store ./state incident export')
})
