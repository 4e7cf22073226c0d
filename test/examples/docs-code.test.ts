/** The TypeScript on the pages about testing and streams runs as it stands there. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'slicelog-docs-code-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const HOMES: Readonly<Record<string, string>> = {
  slicelog: resolve('src/index.ts'),
  'slicelog/testing': resolve('src/testing/index.ts'),
}

/** Blocks of a page, with the line that each begins at. */
function blocksOf(page: string): { line: number; code: string }[] {
  const text = readFileSync(page, 'utf8')
  return [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => ({
    line: text.slice(0, match.index).split('\n').length,
    code: match[1]!,
  }))
}

describe.each(['docs/testing.md', 'docs/streams.md'])('%s', (page) => {
  const blocks = blocksOf(page)

  test('has code', () => expect(blocks.length).toBeGreaterThan(2))

  test.each(blocks)('the code from line $line on runs', async ({ line, code }) => {
    const file = join(folder, `${page.replace(/\W/g, '-')}-${line}.ts`)
    const own = code.replace(/from '(slicelog(?:\/testing)?)'/g, (_, name: string) => `from '${HOMES[name]}'`)
    expect(own, 'it imports what a user would').not.toBe(code)
    writeFileSync(file, own)
    await import(file)
  })
})
