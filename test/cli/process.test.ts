/** The executable as a process: exit codes, signals and pipes, which a run in this process cannot show. */
import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { script } from '../support/script.ts'
import { storeFolder } from './support.ts'

const { path, done, json } = storeFolder()

beforeAll(async () => {
  await done('s', 'init')
  await done('s', 'disk', 'add', 'd', '--size', '2G')
  await done('s', 'import', 'd', 'examples/data/guest-ext4.csv.gz')
})

function start(...words: string[]) {
  const child = spawn(process.execPath, [...script('src/cli/main.ts'), ...words], {
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

test('130: Ctrl-C with --json is one object on stderr, and stdout holds whole lines only', async () => {
  const big = path('big.csv')
  await writeFile(
    big,
    `offset,length,t_us,op\n${Array.from({ length: 400_000 }, (_, i) => `${(i % 1000) * 4096},512,${i},w`).join('\n')}\n`,
  )
  await done('i', 'init')
  await done('i', 'disk', 'add', 'd', '--size', '2G')
  const { child, ended } = start('--store', path('i'), 'import', 'd', big, '--json')
  let out = ''
  child.stdout.on('data', (chunk) => (out += String(chunk)))
  // Once the store is its own, it has begun; nothing is printed before the end.
  const owner = join(path('i'), 'owner.json')
  while (!existsSync(owner) && child.exitCode === null)
    await new Promise((resolve) => setTimeout(resolve, 10))
  child.kill('SIGINT')
  const { code, err } = await ended
  expect([code, out]).toEqual([130, ''])
  expect(err.trim().split('\n')).toHaveLength(1)
  expect(JSON.parse(err)).toMatchObject({
    error: { code: 'ABORTED', message: expect.any(String), facts: expect.any(Object) },
  })
  expect(await json('i', 'status')).toMatchObject({ opened: { clean: true } })
})

test.skipIf(!existsSync('/dev/full'))(
  '1: an answer that cannot be written says that what the command did is done',
  async () => {
    const full = openSync('/dev/full', 'w')
    try {
      const words = ['--store', path('s'), 'disk', 'add', 'full', '--size', '64K']
      for (const json of [false, true]) {
        const child = spawn(
          process.execPath,
          [...script('src/cli/main.ts'), ...words.with(4, `full-${json}`), ...(json ? ['--json'] : [])],
          { stdio: ['ignore', full, 'pipe'] },
        )
        let err = ''
        child.stderr!.on('data', (chunk) => (err += String(chunk)))
        expect(await new Promise((resolve) => child.on('close', resolve)), err).toBe(1)
        expect(err).toContain('What the command did is done')
        if (json) expect(JSON.parse(err)).toMatchObject({ error: { code: 'FAILED' } })
      }
    } finally {
      closeSync(full)
    }
    const { disks } = await json<{ disks: { disk: string }[] }>('s', 'disk', 'ls')
    expect(disks.map(({ disk }) => disk)).toEqual(expect.arrayContaining(['full-false', 'full-true']))
  },
)
