/** The recording layer below the proofs of power cuts: what it reads from a trace, what it refuses, and what each model leaves. */
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { FileHistory, type FileNode, type FolderNode, stored } from '../support/file-history.ts'
import { describeWithPeers } from '../support/peers.ts'
import { contentAt, type Found, firstDifference, foundAfter, lay } from '../support/power-cut.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { type FileCall, readTrace, traced } from '../support/strace.ts'

const root = mkdtempSync(join(tmpdir(), 'slicelog-layer-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
let made = 0
const fresh = (): string => join(root, String(++made))

/** Does what a log and a disk do to files, and more, at random, by every way of writing that Node has. */
const RESTLESS = `
const fs = require('node:fs'), [folder, seed] = process.argv.slice(1)
let state = Number(seed)
const below = (n) => ((state = (state * 1103515245 + 12345) % 2147483648), Math.floor(state / 65536) % n)
const name = () => folder + '/' + (below(3) === 0 ? 'sub/' : '') + 'f' + below(5)
const bytes = () => Buffer.alloc(1 + below(9000), 1 + below(255))
const acts = [
  () => fs.writeFileSync(name(), bytes()),
  () => fs.appendFileSync(name(), bytes()),
  () => { const fd = fs.openSync(name(), 'r+'); fs.writeSync(fd, bytes(), 0, null, below(20000)); fs.fsyncSync(fd); fs.closeSync(fd) },
  () => { const fd = fs.openSync(name(), 'r+'); fs.writeSync(fd, bytes()); fs.writeSync(fd, bytes()); fs.fdatasyncSync(fd); fs.closeSync(fd) },
  () => { const fd = fs.openSync(name(), 'r+'); fs.writevSync(fd, [bytes(), bytes()], below(3) === 0 ? null : below(9000)); fs.closeSync(fd) },
  () => fs.truncateSync(name(), below(15000)),
  () => { const n = name(); fs.renameSync(n, n + below(3)) },
  () => { const n = name(); fs.linkSync(n, n + 'l' + below(3)) },
  () => fs.rmSync(name()),
  () => fs.mkdirSync(folder + '/sub'),
  () => fs.rmdirSync(folder + '/sub'),
  () => { const fd = fs.openSync(folder, 'r'); fs.fsyncSync(fd); fs.closeSync(fd) },
]
for (let i = 0; i < 400; i++) try { acts[below(acts.length)]() } catch (error) { if (!error.code) throw error }
`

async function trace(script: string, ...words: string[]): Promise<string> {
  const recording = fresh()
  const child = traced(recording, process.execPath, ['-e', script, ...words])
  let err = ''
  child.stderr!.on('data', (chunk) => (err += String(chunk)))
  const [code] = (await once(child, 'close')) as [number]
  expect(code, err).toBe(0)
  return recording
}

describeWithPeers(['strace'], 'a recording', () => {
  test('tells every file as it is, whatever way it was written', async () => {
    const rounds = runs(3, 30)
    const used = seed()
    announce('recordings of a restless process', rounds, used)
    for (let round = 0; round < rounds; round++) {
      const folder = fresh()
      mkdirSync(folder)
      const before = new Map([[folder, stored(folder)]])
      const { calls, times } = readTrace(await trace(RESTLESS, folder, String((used + round) % 2 ** 31)), [
        folder,
      ])
      expect(calls.length).toBeGreaterThan(100)
      expect(firstDifference(new FileHistory(before, calls).root(folder), stored(folder))).toBe(null)
      expect([...times]).toEqual([...times].sort((a, b) => a - b))
    }
  })

  test('of a copy that the kernel makes is refused, since it does not show the bytes', async () => {
    const folder = fresh()
    mkdirSync(folder)
    writeFileSync(join(folder, 'a'), Buffer.alloc(100_000, 1))
    const recording = await trace(
      'require("node:fs").copyFileSync(process.argv[1], process.argv[1] + "2")',
      join(folder, 'a'),
    )
    expect(() => readTrace(recording, [folder])).toThrow(/not understood/)
    expect(readTrace(recording, [join(root, 'elsewhere')]).calls).toEqual([])
  })
})

const hex = (words: string): string =>
  [...Buffer.from(words)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
function reading(...lines: string[]): readonly FileCall[] {
  const path = fresh()
  writeFileSync(path, lines.map((line) => `${line}\n`).join(''))
  return readTrace(path, ['/d']).calls
}

describe('reading a trace', () => {
  const F = `3<${hex('/d/f')}>`
  test('a call that was interrupted by another thread began where it began and was done where it was resumed', () => {
    const calls = reading(
      `7 1.000001 pwrite64(${F}, "${hex('abc')}", 3, 5 <unfinished ...>`,
      `8 1.000002 fdatasync(${F})               = 0`,
      '7 1.000003 <... pwrite64 resumed>)       = 2',
      `9 1.000004 fsync(${F} <unfinished ...>`,
      '9 1.000005 +++ killed by SIGKILL +++',
    )
    expect(calls).toEqual([
      { kind: 'write', fd: 3, data: Buffer.from('ab'), offset: 5, began: 0, done: 2 },
      { kind: 'sync', fd: 3, began: 1, done: 1 },
      { kind: 'sync', fd: 3, began: 3, done: Number.POSITIVE_INFINITY },
    ])
  })

  test('what failed, and what lies elsewhere, is left out', () => {
    expect(
      reading(
        `7 1.0 pwrite64(${F}, "${hex('abc')}", 3, 5) = -1 ENOSPC (No space left on device)`,
        `7 1.0 write(4<${hex('/dd/f')}>, "${hex('abc')}", 3) = 3`,
        `7 1.0 write(5<${hex('socket:[1]')}>, "${hex('/d/f')}", 4) = 4`,
        `7 1.0 mmap(NULL, 4096, PROT_READ, MAP_SHARED, ${F}, 0) = 0x7f0000000000`,
        '7 1.0 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000',
      ),
    ).toEqual([])
  })

  test.each([
    [
      'a mapping that is written through',
      `7 1.0 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, ${F}, 0) = 0x7f0000000000`,
    ],
    [
      'an exchange of two names',
      `7 1.0 renameat2(AT_FDCWD<${hex('/')}>, "${hex('/d/a')}", AT_FDCWD<${hex('/')}>, "${hex('/d/b')}", RENAME_EXCHANGE) = 0`,
    ],
    ['a file that comes from elsewhere', `7 1.0 rename("${hex('/e/a')}", "${hex('/d/b')}") = 0`],
    ['a copy in the kernel', `7 1.0 sendfile(${F}, 4<${hex('/e/f')}>, NULL, 5) = 5`],
    ['space made in advance', `7 1.0 fallocate(${F}, 0, 0, 4096) = 0`],
    ['a second descriptor', `7 1.0 dup(${F}) = 9<${hex('/d/f')}>`],
    ['a truncation by name', `7 1.0 truncate("${hex('/d/f')}", 5) = 0`],
    ['what goes by io_uring', '7 1.0 io_uring_setup(256, {flags=0}) = 9'],
    ['what is no call', 'strace: Process 7 attached'],
    ['the end of a call that never began', '7 1.0 <... write resumed>) = 5'],
    ['a write whose end is missing', `7 1.0 pwrite64(${F}, "${hex('abc')}"`],
  ])('%s is refused', (_, line) => {
    expect(() => reading(line)).toThrow(/not understood|no call|never began/)
  })
})

/** One file, written in pages of 4096 bytes each of one value, with syncs in between. */
const write = (line: number, page: number, value: number, done = line) =>
  ({ kind: 'write', offset: page * 4096, data: Buffer.alloc(4096, value), began: line, done }) as const
const file = (ops: FileNode['ops'], syncs: FileNode['syncs'] = [], before = Buffer.alloc(0)): FileNode => ({
  kind: 'file',
  before,
  ops,
  syncs,
})
const pagesOf = (found: Found): number[] => {
  const bytes = found as Buffer
  return Array.from({ length: bytes.length / 4096 }, (_, page) => bytes[page * 4096]!)
}

describe('what a power cut leaves', () => {
  const zero = () => 0

  test('of a file with nothing synced but its first write: that one, all, or any state of each page', () => {
    const node = file(
      [write(1, 0, 1), write(3, 0, 2), write(4, 1, 3), write(5, 0, 4)],
      [{ began: 2, done: 2 }],
    )
    expect(pagesOf(foundAfter(node, 9, 'synced', zero))).toEqual([1])
    expect(pagesOf(foundAfter(node, 9, 'all', zero))).toEqual([4, 3])
    expect(pagesOf(contentAt(node, 3))).toEqual([2])
    const random = prng(1)
    const seen = new Set<string>()
    for (let i = 0; i < 2000; i++) seen.add(pagesOf(foundAfter(node, 9, 'some', random)).join())
    // The second page is there, zeroes (the size ran ahead), or beyond the end.
    const all = [1, 2, 4].flatMap((first) => ['', ',0', ',3'].map((second) => `${first}${second}`))
    expect([...seen].sort()).toEqual(all.sort())
  })

  test('a sync helps only what was done before it began, and only once it is done', () => {
    const node = file([write(1, 0, 1, 4), write(2, 1, 2), write(5, 2, 3)], [{ began: 3, done: 6 }])
    expect(pagesOf(foundAfter(node, 5, 'synced', zero))).toEqual([])
    expect(pagesOf(foundAfter(node, 6, 'synced', zero))).toEqual([0, 2])
  })

  test('a torn page has sectors of different states, never older than its last sync', () => {
    const node = file([write(1, 0, 1), write(3, 0, 2), write(4, 0, 3)], [{ began: 2, done: 2 }])
    const random = prng(2)
    let torn = 0
    for (let i = 0; i < 500; i++) {
      const bytes = foundAfter(node, 9, 'some', random) as Buffer
      expect(bytes.every((byte) => byte >= 1 && byte <= 3)).toBe(true)
      expect(bytes.every((byte, at) => byte === bytes[at - (at % 512)])).toBe(true)
      if (new Set(bytes).size > 1) torn++
    }
    expect(torn).toBeGreaterThan(10)
  })

  test('names come in their order, each or not until its folder is synced; a rename is done or not', () => {
    const node = file([write(1, 0, 1)], [{ began: 2, done: 2 }])
    const folder: FolderNode = {
      kind: 'folder',
      before: new Map([['CURRENT', file([], [], Buffer.from('old'))]]),
      ops: [
        { kind: 'put', name: 'new', node, began: 3, done: 3 },
        { kind: 'move', name: 'new', to: 'CURRENT', node, began: 4, done: 4 },
        { kind: 'put', name: 'late', node, began: 7, done: 7 },
        { kind: 'drop', name: 'CURRENT', began: 8, done: 8 },
      ],
      syncs: [{ began: 5, done: 6 }],
      names: new Map(),
    }
    const seen = (cut: number): string[] => {
      const random = prng(cut)
      const all = Array.from(
        { length: 200 },
        () => foundAfter(folder, cut, 'synced', random) as Map<string, Buffer>,
      )
      return [
        ...new Set(
          all.map((names) =>
            [...names]
              .map(([name, bytes]) => `${name}:${bytes.length}`)
              .sort()
              .join(),
          ),
        ),
      ].sort()
    }
    expect(seen(5)).toEqual(['CURRENT:3', 'CURRENT:3,new:4096', 'CURRENT:4096'].sort())
    expect(seen(6)).toEqual(['CURRENT:4096'])
    expect(seen(9)).toEqual(['CURRENT:4096', 'CURRENT:4096,late:4096', 'late:4096'].sort())
    const path = fresh()
    lay(foundAfter(folder, 6, 'synced', zero), path)
    expect(readFileSync(join(path, 'CURRENT')).length).toBe(4096)
  })
})
