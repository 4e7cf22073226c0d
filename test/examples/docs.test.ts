/**
 * Every worked example of the documentation, run as it stands there on the store that the README's first command leaves behind
 * (a fresh copy for each page). `SLICELOG_UPDATE_DOCS=1` writes what is printed now into the pages instead of comparing.
 */
import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { captured, slicelog } from '../cli/support.ts'
import { type Example, examplesIn, trimmed, withOutput } from '../support/console.ts'
import { script } from '../support/script.ts'

const update = process.env.SLICELOG_UPDATE_DOCS === '1'
const root = resolve('.')
const pages = ['README.md', ...readdirSync('docs').map((name) => join('docs', name))].filter(
  (page) => page.endsWith('.md') && examplesIn(readFileSync(page, 'utf8')).length > 0,
)
let folder = ''

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'slicelog-docs-'))
  const demo = [...script('examples/main-job.ts'), join(folder, 'demo-store')]
  await promisify(execFile)(process.execPath, demo)
})
afterEach(() => process.chdir(root))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function outputOf({ words, exit, into, line }: Example, page: string): Promise<string> {
  const [program, ...argv] = words[0] === 'npx' ? words.slice(1) : words
  if (program === 'cat') return trimmed(readFileSync(argv[0]!, 'utf8'))
  if (program === 'rm') {
    for (const path of argv) rmSync(path, { recursive: true, force: true })
    return ''
  }
  expect(program, `${page}:${line}`).toBe('slicelog')
  // As in most terminals: block characters, no colours.
  const ran = await slicelog(argv, captured({ LC_ALL: 'C.UTF-8' }))
  expect(`exit ${ran.code}`, `${page}:${line}: ${ran.err}`).toBe(`exit ${exit}`)
  if (into === null) return trimmed(ran.out + ran.err)
  writeFileSync(into, ran.out)
  return trimmed(ran.err)
}

describe.each(pages)('%s', (page) => {
  test('its examples print what it says they print', async () => {
    let text = readFileSync(page, 'utf8')
    const path = resolve(page)
    const here = mkdtempSync(join(folder, 'page-'))
    cpSync(join(folder, 'demo-store'), join(here, 'demo-store'), { recursive: true })
    process.chdir(here)
    const count = examplesIn(text).length
    for (let i = 0; i < count; i++) {
      const example = examplesIn(text)[i]!
      const output = await outputOf(example, page)
      if (update) text = withOutput(text, example, output)
      else if (!example.varies) expect(output, `${page}:${example.line}`).toBe(trimmed(example.output))
      else if (trimmed(example.output) !== '') expect(output).not.toBe('')
    }
    if (update) writeFileSync(path, text)
  })
})

test('there are worked examples', () => expect(pages.length).toBeGreaterThan(2))
