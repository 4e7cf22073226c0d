/**
 * The block of JSON shapes in docs/operating.md against what the commands print: every top-level key that stands there is in the
 * answer, and every key of the answer stands there. A shape is read up to the depth that a reader's eye needs: its outermost braces.
 */
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { captured, slicelog, storeFolder } from './support.ts'

const { path, json } = storeFolder()
const s = 'main'

interface Keys {
  readonly must: string[]
  readonly may: string[]
}

/** The names between the outermost braces of a shape; a `?` behind one says that it may be missing. */
function keysOf(shape: string): Keys {
  const must: string[] = []
  const may: string[] = []
  let depth = 0
  let name = true
  for (let i = shape.indexOf('{'); i < shape.length; i++) {
    const sign = shape[i]!
    if (sign === '{' || sign === '[') depth++
    else if (sign === '}' || sign === ']') {
      depth--
      if (depth === 0) break
    } else if (depth !== 1) continue
    else if (sign === ':') name = false
    else if (sign === ',') name = true
    else if (name && sign === '"') {
      const end = shape.indexOf('"', i + 1)
      const into = shape[end + 1] === '?' ? may : must
      into.push(shape.slice(i + 1, end))
      i = end
    }
    if (depth === 1 && sign === '{') name = true
  }
  return { must, may }
}

const page = readFileSync('docs/operating.md', 'utf8')
const block = /## JSON[\s\S]*?```\n([\s\S]*?)```/.exec(page)![1]!
const LINES = block
  .trimEnd()
  .split('\n')
  .map((line) => {
    const [, command = '', shape = ''] = /^(\S.*?)(?:\s{2,}| (?=\{|as ))(.*)$/.exec(line) ?? []
    return { command, shape }
  })
const shapeOf = (command: string): string => {
  const line = LINES.find((one) => one.command === command)
  if (line === undefined) throw new Error(`docs/operating.md has no line "${command}"`)
  return line.shape
}

const RUN = 'running'
/** In this order, on one store: a line of the page, and words that it stands for. */
const COMMANDS: readonly (readonly [line: string, ...words: string[]])[] = [
  ['init', 'init'],
  ['disk add|resize|detach|lost', 'disk', 'add', 'vda', '--size', '1M'],
  ['disk add|resize|detach|lost', 'disk', 'resize', 'vda', '2M'],
  ['bitmap add|clear|enable|disable', 'bitmap', 'add', 'vda', 'daily', '--retention', '1'],
  ['bitmap add|clear|enable|disable', 'bitmap', 'disable', 'vda', 'daily'],
  ['bitmap add|clear|enable|disable', 'bitmap', 'enable', 'vda', 'daily'],
  ['bitmap add|clear|enable|disable', 'bitmap', 'clear', 'vda', 'daily'],
  ['write DISK RANGES', 'write', 'vda', '0+4K', '128K+4K'],
  ['import DISK TRACE', 'import', 'vda', 'TRACE'],
  ['backup plan|begin', 'backup', 'plan', 'vda', 'daily', '--mode', 'full'],
  ['backup plan|begin', 'backup', 'begin', 'vda', 'daily', '--mode', 'full', '--id', 'full'],
  ['backup succeed|fail|cancel ID', 'backup', 'succeed', 'full'],
  ['backup plan|begin', 'backup', 'begin', 'vda', 'daily', '--mode', 'incremental', '--id', RUN],
  ['bitmap show DISK BITMAP', 'bitmap', 'show', 'vda', 'daily'],
  ['backup succeed|fail|cancel ID', 'backup', 'fail', RUN],
  ['backup plan|begin', 'backup', 'begin', 'vda', 'daily', '--mode', 'incremental', '--id', 'given-up'],
  ['backup succeed|fail|cancel ID', 'backup', 'cancel', 'given-up'],
  ['backup plan|begin', 'backup', 'begin', 'vda', 'daily', '--mode', 'incremental', '--id', 'incr'],
  ['backup succeed|fail|cancel ID', 'backup', 'succeed', 'incr'],
  ['bitmap show DISK BITMAP', 'bitmap', 'show', 'vda', 'daily', '--slice', '0'],
  ['slice ls DISK BITMAP', 'slice', 'ls', 'vda', 'daily'],
  ['slice bank DISK BITMAP', 'slice', 'bank', 'vda', 'daily', '--force-cycle'],
  ['slice delete', 'slice', 'delete', 'vda', 'daily', '1'],
  ['bitmap retention', 'bitmap', 'retention', 'vda', 'daily', '2'],
  ['checkpoint create NAME', 'checkpoint', 'create', 'here', 'vda:daily'],
  ['checkpoint ls', 'checkpoint', 'ls'],
  ['changed DISK', 'changed', 'vda', '--since', 'backup:full'],
  ['at POINT', 'at', 'checkpoint:here'],
  ['bitmap ls [DISK]', 'bitmap', 'ls'],
  ['disk ls', 'disk', 'ls'],
  ['backup ls', 'backup', 'ls'],
  ['replay', 'replay', '--all'],
  ['explain BACKUP', 'explain', 'incr'],
  ['blame DISK OFFSET LENGTH', 'blame', 'vda', '0', '64K'],
  ['history …', 'history', 'backup', 'incr'],
  ['log', 'log', '--limit', '1'],
  ['coverage DISK', 'coverage', 'vda'],
  ['backup forget ID', 'backup', 'forget', 'incr', '--dry-run'],
  ['backup combined NEW-ID ID…', 'backup', 'combined', 'both', 'full', 'incr'],
  ['backup forget ID', 'backup', 'forget', 'incr'],
  ['checkpoint delete NAME', 'checkpoint', 'delete', 'here'],
  ['incident export FILE', 'incident', 'export', 'INCIDENT'],
  ['incident info FILE', 'incident', 'info', 'INCIDENT'],
  ['disk export DISK FILE', 'disk', 'export', 'vda', 'EXPORT'],
  ['disk import FILE', 'disk', 'import', 'EXPORT', '--as', 'vdb', '--prefix', 'b-', '--collapse-times'],
  ['copy TO', 'copy', 'COPY'],
  ['head', 'head'],
  ['status', 'status'],
  ['verify', 'verify'],
  ['repair [--dry-run]', 'repair', '--dry-run'],
  ['compact', 'compact', '--policy', '0s:1m'],
  ['bitmap remove DISK BITMAP', 'bitmap', 'remove', 'vda', 'daily'],
  ['disk add|resize|detach|lost', 'disk', 'lost', 'vda', '--reason', 'power', '--since', '@3'],
  ['disk add|resize|detach|lost', 'disk', 'detach', 'vda'],
  ['disk remove DISK', 'disk', 'remove', 'vda'],
]
/** Which lines they are, in the order in which `serve` prints them. */
const SERVE = ['serve, once it listens', 'serve, every so often', 'serve, at its end']
const FILES = ['TRACE', 'INCIDENT', 'EXPORT', 'COPY']

/** Shapes that point at another one, as the page says it. */
function documented(line: string): Keys {
  const shape = shapeOf(line)
  if (line === 'incident info FILE') {
    const { must, may } = keysOf(shapeOf('incident export FILE'))
    return { must: must.filter((key) => key !== 'bytes'), may }
  }
  if (shape.startsWith('as an entry of backup ls')) {
    const list = shapeOf('backup ls')
    return keysOf(list.slice(list.indexOf('[')))
  }
  return keysOf(shape)
}

beforeAll(() => writeFile(path('TRACE'), 'offset,length,t_us,op\n0,512,0,w\n512,512,10,t\n'))

test('spec 5: every command that docs/operating.md lists is asked here, and no other', () => {
  expect([...new Set(COMMANDS.map(([line]) => line)), ...SERVE].sort()).toEqual(
    LINES.map(({ command }) => command).sort(),
  )
})

test.each(COMMANDS.map(([line, ...words]) => ({ line, words })))(
  'spec 5: $words has the top-level keys of the line "$line"',
  async ({ line, words }) =>
    checkKeys(line, await json(s, ...words.map((word) => (FILES.includes(word) ? path(word) : word)))),
)

test('spec 5: the lines of serve have the top-level keys that stand there', async () => {
  await writeFile(path('RAW'), Buffer.alloc(4096))
  const io = captured()
  const words = ['serve', '--disk', `served=${path('RAW')}`, '--every', '1', '--json']
  const running = slicelog(['--store', path(s), ...words], io)
  while (io.text.out.split('\n').length < 3) await sleep(20)
  io.interrupt()
  const { code, out, err } = await running
  expect([code, err]).toEqual([0, ''])
  const lines = out.trimEnd().split('\n')
  for (const [i, line] of [lines[0]!, lines[1]!, lines.at(-1)!].entries())
    checkKeys(SERVE[i]!, JSON.parse(line) as object)
})

function checkKeys(line: string, answer: object): void {
  const { must, may } = documented(line)
  expect(must.length, `docs/operating.md, "${line}"`).toBeGreaterThan(0)
  const keys = Object.keys(answer)
  expect(
    keys.filter((key) => !must.includes(key) && !may.includes(key)),
    'not documented',
  ).toEqual([])
  expect(
    must.filter((key) => !keys.includes(key)),
    'documented, and not there',
  ).toEqual([])
}
