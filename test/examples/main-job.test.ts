/** The demo is the README's first command, so it runs here as it is: as a process, in a folder of its own. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { clearFolder } from '../../examples/main-job/folder.ts'
import { openStore } from '../../src/index.ts'
import { slicelog } from '../cli/support.ts'
import { script } from '../support/script.ts'

const run = promisify(execFile)
let folder = ''
let report = ''

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'slicelog-demo-'))
  const demo = [...script('examples/main-job.ts'), join(folder, 'store')]
  report = (await run(process.execPath, demo)).stdout
})
afterAll(() => rm(folder, { recursive: true, force: true }))

test('the report shows every step that was promised', () => {
  for (const words of [
    'merged back, as if it had not begun',
    'refused (RETENTION_FULL): nothing changed',
    'slice 4; dropped slice 0',
    'differential since slice 1',
    'its bits went into slice 1',
    'checkpoint before-upgrade',
    'a moment that nobody marked',
    'sound',
  ]) {
    expect(report).toContain(words)
  }
  expect(report.match(/ equal$/gm)).toHaveLength(9)
  expect(report).not.toContain('DIFFERENT')
})

test('the commands that it names work', async () => {
  const commands = [...report.matchAll(/npx slicelog (.*)$/gm)].map((match) => match[1]!.split(' '))
  expect(commands.length).toBeGreaterThan(5)
  for (const words of commands) expect((await slicelog(words)).code, words.join(' ')).toBe(0)
})

test('it clears its own store, and refuses a folder that holds anything else', async () => {
  await mkdir(join(folder, 'mine'))
  await writeFile(join(folder, 'mine', 'precious.txt'), 'x')
  await expect(clearFolder(join(folder, 'mine'))).rejects.toThrow('did not make')
  const store = await openStore(join(folder, 'other'), { actor: 'somebody' })
  await store.ensureDisk('d', { size: 512 })
  await store.close()
  await expect(clearFolder(join(folder, 'other'))).rejects.toThrow('did not make')
  expect(await readdir(join(folder, 'mine'))).toEqual(['precious.txt'])
  await clearFolder(join(folder, 'store'))
  expect((await readdir(folder)).sort()).toEqual(['mine', 'other'])
})
