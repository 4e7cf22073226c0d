/** What README.md and docs/nbd.md tell a newcomer to paste, run as it stands there, in two terminals. */
import { execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { endChildren, tracked } from '../support/children.ts'
import { describeWithPeers } from '../support/peers.ts'
import { script } from '../support/script.ts'

const PAGES = [
  ['README.md', '## In front of a real disk'],
  ['docs/nbd.md', '## By copy and paste'],
] as const
/** In granules of 64 KiB, what the second write of each page makes dirty, since the moment before it; and the first, of 64 KiB. */
const SECOND = /^ +0 +5242880 +0 +clean\n +5242880 +65536 +1 +dirty\n +5308416 +1068433408 +0 +clean$/m
const FIRST = /^ +1048576 +65536 +1 +dirty$/m

let folder = ''
let path = ''

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'slicelog-walk-'))
  // `npx slicelog` is this checkout's own.
  await mkdir(join(folder, 'bin'))
  const program = script('src/cli/main.ts').join('" "')
  const npx = `#!/bin/sh\nshift\nexec "${process.execPath}" "${program}" "$@"\n`
  await writeFile(join(folder, 'bin/npx'), npx, { mode: 0o755 })
  path = `${join(folder, 'bin')}:${process.env.PATH}`
})
afterAll(async () => {
  endChildren()
  await rm(folder, { recursive: true, force: true })
})

function blocksOf(page: string, heading: string): [string, string] {
  const text = readFileSync(page, 'utf8')
  const section = text.slice(text.indexOf(heading))
  const [first, second] = [...section.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block!)
  return [first!, second!]
}

describeWithPeers(['qemu-io', 'nbdinfo'], 'a newcomer', () => {
  test.each(PAGES)(
    'serves a raw disk by %s, writes, and reads the dirty map since a moment',
    async (page, heading) => {
      const [one, two] = blocksOf(page, heading)
      const cwd = join(folder, page.replace(/\W/g, '-'))
      await mkdir(cwd)
      const env = { ...process.env, PATH: path }
      // The last command of the first terminal goes on until Ctrl-C: it takes the shell's place, so that it gets the signal.
      const server = one.replace(/^(npx slicelog .* serve )/m, 'exec $1')
      const serving = tracked(spawn('bash', ['-ec', server], { cwd, env }))
      let said = ''
      serving.stdout.on('data', (chunk) => (said += String(chunk)))
      serving.stderr.on('data', (chunk) => (said += String(chunk)))
      const ended = new Promise((done) => serving.once('close', done))
      while (!said.includes('Served at')) {
        expect(serving.exitCode, said).toBe(null)
        await sleep(20)
      }
      expect(existsSync(join(cwd, 'state/nbd.sock'))).toBe(true)
      const { stdout } = await promisify(execFile)('bash', ['-ec', two], { cwd, env })
      expect(stdout).toMatch(FIRST)
      expect(stdout).toMatch(SECOND)
      serving.kill('SIGINT')
      expect(await ended, said).toBe(0)
    },
  )
})

test('docs/nbd.md shows the map that its second write makes', () => {
  expect(readFileSync('docs/nbd.md', 'utf8')).toMatch(SECOND)
})
