/** The owner answers as a closed store would: same words, same exit code, for every command, reading or writing. */
import { writeFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openStore, type Store } from '../../src/index.ts'
import { captured, type Ran, slicelog } from '../cli/support.ts'
import { proof } from '../support/property.ts'
import { folders, makeStore } from './support.ts'

const { path, copy } = folders()
const base = () => path('base')
let live: Store
let closed: string

beforeAll(async () => {
  await makeStore(base())
  live = await openStore(await copy(base()), { socket: true, actor: 'agent' })
  closed = await copy(base())
  await writeFile(path('trace.csv'), 'offset,length,t_us,op\n0,4096,0,w\n65536,512,10,w\n0,0,1000000,f\n')
  await writeFile(path('CURSOR'), (await run(closed, ['head', '--json'])).out)
  expect((await run(closed, ['incident', 'export', path('INCIDENT')])).code).toBe(0)
  expect((await run(closed, ['disk', 'export', 'vda', path('EXPORTED')])).code).toBe(0)
  await writeFile(path('bad.csv'), 'offset,length,t_us,op\n0,4096,0,w\nx,512,10,w\n')
})
afterAll(() => live.close())

const run = (folder: string, words: readonly string[]): Promise<Ran> =>
  slicelog(['--store', folder, ...words], captured({ LANG: 'C.UTF-8' }))

/** What two stores cannot have in common: where they lie, when it was, and names made up. */
function common(text: string, folder: string): string {
  return text
    .replaceAll(folder, 'STORE')
    .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{3}Z/g, 'TIME')
    .replace(/\b1[5-9]\d{11}\b/g, 'TIME')
    .replace(/-[0-9a-f]{8}-[0-9a-f]{4}\b/g, '-MADE-UP')
}

/** Files that commands read, made beforehand; OUT is a new one each time. */
const FILES = ['CURSOR', 'INCIDENT', 'EXPORTED']

/** What has to do with the moment of asking. */
const AGES = /\b[\d.]+ (ms|s|min) ago\b|"age":\d+/g
/** What the log's files take: those of an open store hold what is not written out yet. */
const FILES_NOW = /"log":\{"before":\d+,"after":\d+\}/g

/** Reads compare as they are: both stores are copies of one. */
function exact({ code, out, err }: Ran, folder: string) {
  const words = (text: string) =>
    text.replaceAll(folder, 'STORE').replace(AGES, 'AGE').replace(FILES_NOW, 'LOG')
  return { code, out: words(out), err: words(err) }
}

const position = fc.integer({ min: -2, max: 140 }).map((n) => `@${n}`)
const point = fc.oneof(
  position,
  fc.constantFrom('start', 'now', 'checkpoint:upgrade', 'checkpoint:none', 'backup:inc-1', 'backup:no'),
  fc.constantFrom(
    'slice:0',
    'slice:1',
    'slice:7',
    'slice:99.0',
    '2001-01-01T00:00:00Z',
    '2001-01-01T00:00',
    'x',
  ),
)
const disk = fc.constantFrom('vda', 'vda', 'vda', 'vdb', 'none')
const bitmap = fc.constantFrom('daily', 'daily', 'fine', 'none')
const mode = fc.constantFrom('full', 'incremental', 'differential', 'copy', 'odd')
const words = (...parts: (string | fc.Arbitrary<string>)[]) =>
  fc.tuple(...parts.map((part) => (typeof part === 'string' ? fc.constant(part) : part)))

const reads = fc.oneof(
  words('at', point),
  words('at', point, '--disk', disk, '--bitmap', bitmap),
  words('backup', 'ls'),
  words('backup', 'ls', '--state', fc.constantFrom('running', 'failed', 'odd')),
  words('backup', 'plan', disk, bitmap, '--mode', mode),
  words('backup', 'plan', disk, bitmap, '--mode', mode, '--since', point),
  words('bitmap', 'ls'),
  words('bitmap', 'show', disk, bitmap),
  words('bitmap', 'show', disk, bitmap, '--at', point),
  words('bitmap', 'show', disk, bitmap, '--slice', fc.constantFrom('0', '1', '9', 'x')),
  words('changed', disk, '--since', point),
  words(
    'changed',
    disk,
    '--since',
    point,
    '--until',
    point,
    '--granularity',
    fc.constantFrom('512', '4K', '1M', '3'),
  ),
  words('checkpoint', 'ls'),
  words('disk', 'ls'),
  words('head'),
  words('init'),
  words('log'),
  words('log', '--from', point, '--limit', fc.constantFrom('1', '20', '0')),
  words('log', '--reverse', '--disk', disk),
  words('log', '--range', fc.constantFrom('0+64K', '1M+4K', '5'), '--to', point),
  words('log', '--follow', '--from', fc.constantFrom('start', '@3', '@90'), '--limit', '5'),
  words('replay', '--all'),
  words('replay', fc.constantFrom('full-1', 'inc-1', 'none')),
  words('slice', 'ls', disk, bitmap),
  words('verify'),
  words('verify', '--against', fc.constantFrom('/nowhere/head.json', 'package.json')),
  words('verify', '--since', fc.constantFrom('/nowhere/head.json', 'package.json', 'CURSOR')),
  words('coverage', disk),
  words('coverage', disk, '--bitmap', bitmap),
  words('explain', fc.constantFrom('full-1', 'inc-1', 'inc-1', 'open-1', 'none')),
  words('blame', disk, fc.constantFrom('0', '64K', '1G', 'x'), fc.constantFrom('4K', '1M', '0')),
  words('blame', disk, '0', '1M', '--since', point, '--limit', fc.constantFrom('1', '100')),
  words('history', 'disk', disk),
  words('history', 'bitmap', disk, bitmap),
  words('history', 'slice', disk, bitmap, fc.constantFrom('0', '1', '9', 'x')),
  words('history', 'backup', fc.constantFrom('full-1', 'open-1', 'none')),
  words('history', 'checkpoint', fc.constantFrom('upgrade', 'none')),
  words('compact', '--dry-run', '--policy', fc.constantFrom('7d:1m,90d:1h', '1h:1m', 'x')),
  words('backup', 'forget', fc.constantFrom('full-1', 'inc-1', 'open-1', 'none'), '--dry-run'),
  words('incident', 'info', fc.constantFrom('/nowhere/incident', 'package.json', 'INCIDENT')),
  words('disk', 'export', disk, fc.constantFrom('OUT', 'OUT', 'CURSOR')),
  words('disk', 'export', disk, 'EXPORTED', '--verify'),
  words('copy', fc.constantFrom('OUT', 'CURSOR')),
  words('no-such-command'),
)

test('R34: whatever is read, the owner answers with the words and the exit code of a closed store', async () => {
  const asked = fc
    .tuple(reads, fc.boolean())
    .map(([command, json]) => (json ? [...command, '--json'] : command))
  let outs = 0
  await fc.assert(
    fc.asyncProperty(asked, async (command) => {
      const answered = async (folder: string) => {
        const out = path(`out-${++outs}`)
        const file = (word: string) => (word === 'OUT' ? out : FILES.includes(word) ? path(word) : word)
        const ran = exact(await run(folder, command.map(file)), folder)
        return { ...ran, out: ran.out.replaceAll(out, 'OUT'), err: ran.err.replaceAll(out, 'OUT') }
      }
      expect([command, await answered(live.folder!)]).toEqual([command, await answered(closed)])
    }),
    proof('owner answers as a closed store', 100, 3000),
  )
})

const ID = ['--command-id', 'twice']
const WRITES: readonly (readonly (readonly string[])[])[] = [
  [
    ['disk', 'add', 'new', '--size', '1G'],
    ['disk', 'resize', 'new', '2G'],
    ['disk', 'remove', 'new'],
  ],
  [['disk', 'add', 'vda', '--size', '1G']],
  [
    ['disk', 'add', 'new', '--size', '1G', ...ID],
    ['disk', 'add', 'new', '--size', '1G', ...ID],
    ['disk', 'add', 'other', '--size', '1G', ...ID],
  ],
  [
    ['disk', 'lost', 'vda', '--reason', 'no agent'],
    ['changed', 'vda', '--since', 'start'],
  ],
  [['disk', 'lost', 'vda', '--reason', 'no agent', '--since', '@5', '--actor', 'me']],
  [['disk', 'resize', 'vda', '128M']],
  [
    ['bitmap', 'add', 'vdb', 'b', '--retention', '2', '--granularity', '4K'],
    ['bitmap', 'disable', 'vdb', 'b'],
    ['bitmap', 'enable', 'vdb', 'b'],
    ['bitmap', 'clear', 'vdb', 'b'],
    ['bitmap', 'remove', 'vdb', 'b'],
  ],
  [['bitmap', 'clear', 'vda', 'fine']],
  [
    ['bitmap', 'retention', 'vda', 'daily', '1'],
    ['bitmap', 'retention', 'vda', 'daily', '1', '--force-cycle'],
  ],
  [['bitmap', 'merge', 'vda', 'daily', 'daily']],
  [['write', 'vda', '4K+512', '1M+64K']],
  [['write', 'vda', '1G+1M']],
  [['write', 'vda', '0+0']],
  [['write', 'none', '0+1']],
  [['write', 'vda', '4K+512', ...ID]],
  [
    ['backup', 'begin', 'vda', 'daily', '--mode', 'incremental'],
    ['backup', 'succeed', 'nothing'],
  ],
  [
    ['backup', 'begin', 'vda', 'daily', '--mode', 'differential', '--since', 'slice:0', '--id', 'd'],
    ['backup', 'succeed', 'd'],
  ],
  [['backup', 'begin', 'vda', 'fine', '--mode', 'full', '--id', 'busy']],
  [['backup', 'begin', 'vda', 'daily', '--mode', 'incremental', '--since', 'backup:inc-1', '--id', 'full-1']],
  [
    ['backup', 'fail', 'open-1', '--reason', 'broken'],
    ['backup', 'fail', 'open-1'],
  ],
  [
    ['backup', 'cancel', 'open-1'],
    ['backup', 'cancel', 'full-1'],
  ],
  [
    ['backup', 'succeed', 'open-1', ...ID],
    ['backup', 'succeed', 'open-1', ...ID],
  ],
  [
    ['slice', 'bank', 'vda', 'daily'],
    ['slice', 'bank', 'vda', 'daily', '--force-cycle'],
    ['slice', 'delete', 'vda', 'daily', '1'],
  ],
  [['slice', 'delete', 'vda', 'daily', '77']],
  [
    ['checkpoint', 'create', 'c', 'vda:daily'],
    ['checkpoint', 'delete', 'c'],
    ['checkpoint', 'delete', 'upgrade'],
  ],
  [['checkpoint', 'create', 'upgrade']],
  [['import', 'vdb', 'TRACE']],
  [['import', 'vdb', 'TRACE', '--at', '2001-01-01T00:00:00Z']],
  [
    ['import', 'vda', 'BAD'],
    ['import', 'vda', 'BAD', '--skip-bad'],
  ],
  [['import', 'vda', '/nowhere/trace.csv']],
  [['copy', 'TO']],
]

/** Without what closing a store adds: its disks are detached then, and an owner's stay attached. */
const events = async (folder: string) =>
  (await run(folder, ['log', '--json'])).out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { type: string; data: unknown; disk: string | null; cause: object })
    .map(({ type, data, disk, cause }) => common(JSON.stringify({ type, data, disk, cause }), folder))
    .filter((line) => !/"command":"close"/.test(line))

describe('what is written through the owner', () => {
  test.each(WRITES.map((commands) => [commands.map((one) => one.join(' ')).join('; '), commands] as const))(
    'R34: is answered and recorded as on a closed store: %s',
    async (_, commands) => {
      const here = await copy(base())
      const there = await copy(base())
      const store = await openStore(here, { socket: true, actor: 'agent' })
      try {
        for (const json of [false, true]) {
          for (const given of commands) {
            const command = given.map((word) => namedFile(word)).concat(json ? ['--json'] : [])
            const asked = await run(
              here,
              command.map((word) => (word === 'TO' ? path('copied-here') + json : word)),
            )
            const opened = await run(
              there,
              command.map((word) => (word === 'TO' ? path('copied-there') + json : word)),
            )
            const words = ({ code, out, err }: Ran, folder: string) =>
              common(`${code}\n${out}\n${err}`, folder).replaceAll(/copied-(here|there)/g, 'COPY')
            if (!/^(write|import)/.test(command[0]!) || json === false)
              expect([command, words(asked, here)]).toEqual([command, words(opened, there)])
            else expect([command, asked.code]).toEqual([command, opened.code])
          }
        }
        const recorded = await events(here)
        expect(recorded.filter(isNoAttach)).toEqual((await events(there)).filter(isNoAttach))
      } finally {
        await store.close()
      }
    },
  )

  function namedFile(word: string): string {
    return word === 'TRACE' ? path('trace.csv') : word === 'BAD' ? path('bad.csv') : word
  }

  /** A disk is attached once by an owner, and by every command that opens the store itself. */
  function isNoAttach(line: string): boolean {
    return !/^\{"type":"disk-(attached|detached)"/.test(line)
  }
})

test('R34: status says who answered, and a closed store says that nobody else did', async () => {
  const asked = (await run(live.folder!, ['status', '--json'])).json<{ owner: unknown; events: number }>()
  const opened = (await run(closed, ['status', '--json'])).json<{ owner: unknown; events: number }>()
  expect(asked.owner).toEqual({ pid: process.pid })
  expect(opened.owner).toBeNull()
  expect(asked.events).toBe(opened.events)
  expect((await run(live.folder!, ['status'])).out).toContain(`process ${process.pid}, which owns it`)
})

test('R22, R34: an import into the past of an open store happens then, as it does on a closed one', async () => {
  const time = Date.parse('2010-01-01T00:00:00Z')
  const old = path()
  const then = await openStore(old, { clock: { now: () => time, monotonic: () => 0 } })
  await then.addDisk('vda', { size: 2 ** 20 })
  await then.close()
  const there = await copy(old)
  const store = await openStore(old, { socket: true, actor: 'agent' })
  const words = ['import', 'vda', path('trace.csv'), '--at', '2010-01-02T00:00:00Z', '--json']
  const asked = await run(old, words)
  expect([asked.code, asked.out]).toEqual([0, (await run(there, words)).out])
  expect(asked.json()).toMatchObject({ writes: 2, from: time + 86_400_000 })
  const logged = async (folder: string) =>
    (await run(folder, ['log', '--json', '--to', '@3'])).out.replaceAll(folder, 'STORE')
  expect(await logged(old)).toBe(await logged(there))
  expect(store.head.time).toBeLessThan(Date.parse('2010-01-03'))
  await store.close()
})
