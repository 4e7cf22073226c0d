// Writes into docs/rules.md, under each rule, the test files whose titles name it. `--check` only compares.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Rule number → test files, from the titles of `test`, `it`, `describe` and their `.each` forms. */
export function testsByRule(root) {
  const files = readdirSync(join(root, 'test'), { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .sort()
  const found = new Map()
  for (const name of files) {
    const text = readFileSync(join(root, 'test', name), 'utf8')
    for (const [, title] of text.matchAll(
      /\b(?:test|it|describe)(?:\.\w+(?:\([^)]*\))?)*\(\s*[`'"]([^\n]*)/g,
    )) {
      for (const [, number] of title
        .split(/[`'"],\s*(?:async\s*)?(?:\(|function|\{)/)[0]
        .matchAll(/\bR(\d+)\b/g)) {
        const rule = Number(number)
        if (!found.has(rule)) found.set(rule, new Set())
        found.get(rule).add(`test/${name}`)
      }
    }
  }
  return found
}

/** The text of docs/rules.md with every `> Tested:` line brought up to date. */
export function withIndex(text, found) {
  let rule = 0
  return text
    .split('\n')
    .map((line) => {
      const head = /^\*\*R(\d+)\.\*\*/.exec(line)
      if (head) rule = Number(head[1])
      if (!line.startsWith('> Tested:')) return line
      const files = [...(found.get(rule) ?? [])]
      return `> Tested: ${files.length === 0 ? 'none yet' : files.join(', ')}.`
    })
    .join('\n')
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const path = 'docs/rules.md'
  const before = readFileSync(path, 'utf8')
  const after = withIndex(before, testsByRule('.'))
  if (process.argv.includes('--check')) process.exit(before === after ? 0 : 1)
  writeFileSync(path, after)
}
