/** Style and structure as tests: what must hold in every file, each with the reason why. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
// @ts-expect-error: a plain script without types, shared with `node scripts/rules-index.mjs`.
import { testsByRule, withIndex } from '../scripts/rules-index.mjs'
import { ERROR_CODES } from '../src/errors.ts'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')

function sources(folder: string): string[] {
  const path = join(root, folder)
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .filter((name) => statSync(join(root, name)).isFile())
}

const read = (name: string) => readFileSync(join(root, name), 'utf8')
const withoutComments = (text: string) => text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
const product = [...sources('src'), ...sources('events'), ...sources('projections')]

/** Higher may import lower or the same; never the other way. The reason: one way in, and folds that anyone can trust. */
const LAYERS: readonly (readonly [prefix: string, level: number])[] = [
  ['src/errors.ts', 0],
  ['src/limits.ts', 0],
  ['events/', 0],
  ['projections/', 1],
  ['src/log/', 2],
  ['src/commands/', 2],
  ['src/store/', 3],
  ['src/audit/', 4],
  ['src/traces/', 5],
  ['src/cli/', 6],
  ['src/owner/', 6],
  ['src/nbd/', 6],
  ['src/testing/', 6],
  ['src/index.ts', 7],
]

function levelOf(name: string): number {
  const layer = LAYERS.find(([prefix]) => name.startsWith(prefix))
  if (layer === undefined)
    throw new Error(`${name} belongs to no layer: add it to LAYERS in ${import.meta.filename}`)
  return layer[1]
}

function importsOf(name: string): string[] {
  return [...read(name).matchAll(/from '(\.[^']+)'/g)].map(([, target]) =>
    relative(root, resolve(root, dirname(name), target!)),
  )
}

describe('layers', () => {
  test.each(product)('%s imports only from its own layer or below', (name) => {
    for (const target of importsOf(name))
      expect([target, levelOf(target) <= levelOf(name)]).toEqual([target, true])
  })

  test('events import nothing of ours, and projections only events: whoever replays a log needs no more', () => {
    for (const name of sources('events'))
      for (const target of importsOf(name)) expect(target).toMatch(/^events\//)
    for (const name of sources('projections'))
      for (const target of importsOf(name)) expect(target).toMatch(/^(events|projections)\//)
  })

  test('commands and log know nothing of each other: deciding needs no storage', () => {
    for (const name of sources('src/commands'))
      for (const target of importsOf(name)) expect(target).not.toMatch(/^src\/log\//)
    for (const name of sources('src/log'))
      for (const target of importsOf(name)) expect(target).not.toMatch(/^src\/commands\//)
  })

  test('projections and commands are pure: no I/O, no clock, no promise', () => {
    for (const name of [...sources('projections'), ...sources('src/commands')]) {
      const text = read(name)
      expect([
        name,
        /from 'node:(fs|net|child_process|timers|os)|Date\.now|performance\.now|Math\.random|\basync\b|\bawait\b/.test(
          text,
        ),
      ]).toEqual([name, false])
    }
  })
})

describe('source', () => {
  test('the first lines of every file say why it exists', () => {
    for (const name of product) expect([name, /^(#!.*\n)?\/\*\*/.test(read(name))]).toEqual([name, true])
  })

  test('only the CLI speaks to a terminal: a library that prints is a nuisance in its host', () => {
    for (const name of product)
      if (!name.startsWith('src/cli/')) expect([name, /\bconsole\./.test(read(name))]).toEqual([name, false])
  })

  test('nothing exported is `any`', () => {
    for (const name of product)
      expect([name, /(:\s*any\b|<any>|as any\b)/.test(withoutComments(read(name)))]).toEqual([name, false])
  })

  test('no test is narrowed to itself', () => {
    for (const name of sources('test'))
      if (name !== 'test/tidy.test.ts')
        expect([name, /\b(test|it|describe)\.only\b/.test(read(name))]).toEqual([name, false])
  })
})

describe('errors', () => {
  const documented = () =>
    new Set([...read('docs/errors.md').matchAll(/^### ([A-Z_]+)$/gm)].map(([, code]) => code))

  test('each code has a heading in docs/errors.md, and no heading is without a code', () => {
    expect([...documented()].sort()).toEqual([...ERROR_CODES].sort())
  })

  test('each code is thrown somewhere', () => {
    const thrown = product
      .filter((name) => name !== 'src/errors.ts')
      .map(read)
      .join('\n')
    for (const code of ERROR_CODES) expect([code, thrown.includes(`'${code}'`)]).toEqual([code, true])
  })
})

describe('docs', () => {
  test('docs/rules.md has every rule from R1 to R35, and says which tests prove it', () => {
    const text = read('docs/rules.md')
    expect([...text.matchAll(/^\*\*R(\d+)\.\*\*/gm)].map(([, number]) => Number(number))).toEqual(
      Array.from({ length: 35 }, (_, i) => i + 1),
    )
    expect(withIndex(text, testsByRule(root)) === text, 'run node scripts/rules-index.mjs').toBe(true)
  })

  test('each rule that is built has a test that names it', () => {
    const later = new Set<number>([])
    const found: Map<number, Set<string>> = testsByRule(root)
    for (let rule = 1; rule <= 35; rule++)
      if (!later.has(rule)) expect([rule, found.has(rule)]).toEqual([rule, true])
  })

  test('README begins with one sentence and one block of two commands, and CI runs the second', () => {
    const block = /^# slicelog\n\n[^\n]+\n\n```sh\n([^\n]+)\n([^\n]+)\n```\n/.exec(read('README.md'))
    expect(block).not.toBeNull()
    const ci = read('.ci/run')
    for (const step of block![2]!.split(' && ')) expect(ci).toContain(step)
  })

  test('every file that README links to is there', () => {
    for (const [, target] of read('README.md').matchAll(/\]\((?!https?:)([^)#]+)/g))
      expect(() => statSync(join(root, target!))).not.toThrow()
  })
})

describe('package-lock.json', () => {
  const lock = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string>; resolved?: string }>
  }

  test('has an entry for every optional package it names, other platforms too: npm 11 refuses to install from it otherwise', () => {
    for (const [parent, { optionalDependencies = {} }] of Object.entries(lock.packages)) {
      for (const name of Object.keys(optionalDependencies)) {
        const held = [`${parent}/node_modules/${name}`, `node_modules/${name}`].some(
          (path) => path in lock.packages,
        )
        expect([name, held]).toEqual([name, true])
      }
    }
  })

  test('names no host to download from: whoever installs has their own registry', () => {
    for (const { resolved } of Object.values(lock.packages)) expect(resolved).toBeUndefined()
  })
})
