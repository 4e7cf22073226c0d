/** The executable as a process: exit codes, signals and pipes, which a run in this process cannot show. */
import { spawn } from 'node:child_process'
import { beforeAll, expect, test } from 'vitest'
import { storeFolder } from './support.ts'

const { path, done, json } = storeFolder()

beforeAll(async () => {
  await done('s', 'init')
  await done('s', 'disk', 'add', 'd', '--size', '2G')
  await done('s', 'import', 'd', 'examples/data/guest-ext4.csv.gz')
})

function start(...words: string[]) {
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let err = ''
  child.stderr.on('data', (chunk) => (err += String(chunk)))
  const ended = new Promise<{ code: number | null; err: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, err }))
  })
  return { child, ended }
}

test('exit code 10 and a sentence on stderr when there is no store', async () => {
  const { ended } = start('--store', path('nowhere'), 'status')
  expect(await ended).toMatchObject({ code: 10, err: expect.stringContaining('code STORE_NOT_FOUND') })
})

test('a reader that goes away ends the command in silence, and the store is closed', async () => {
  const { child, ended } = start('--store', path('s'), 'log', '--json')
  child.stdout.once('data', () => child.stdout.destroy())
  expect(await ended).toEqual({ code: 0, err: '' })
  expect(await json('s', 'status')).toMatchObject({ opened: { clean: true } })
})

test('130: Ctrl-C ends what would go on for ever, and the store is closed', async () => {
  const { child, ended } = start('--store', path('s'), 'log', '--follow', '--json', '--type', 'disk-added')
  child.stdout.once('data', () => setTimeout(() => child.kill('SIGINT'), 100))
  expect((await ended).code).toBe(130)
  expect(await json('s', 'status')).toMatchObject({ opened: { clean: true } })
})
