/**
 * `slicelog serve` as a process of its own, under load, with every change to its files recorded (strace). It ends by SIGKILL or by
 * SIGTERM, at random. Cost: seconds, and for a while a trace of four times what was written.
 */
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openStore } from '../../src/store/open.ts'
import type { Durability } from '../../src/store/types.ts'
import { endChildren, tracked } from '../support/children.ts'
import { FileHistory, type FileNode, type Node, stored } from '../support/file-history.ts'
import { firstDifference } from '../support/power-cut.ts'
import { prng } from '../support/property.ts'
import { script, TSX } from '../support/script.ts'
import { readTrace, traced } from '../support/strace.ts'
import { type Change, GRANULE, Load, type LoadOptions, type Marked, SIZE } from './power-cut-load.ts'

const PROJECT = resolve(import.meta.dirname, '../..')
const HANG_MS = 60_000

export interface Recording {
  readonly durability: Durability
  readonly store: Node
  readonly disk: FileNode
  readonly times: Float64Array
  readonly changes: readonly Change[]
  readonly marks: readonly Marked[]
  /** Between these times the disk was attached for certain. */
  readonly served: { readonly from: number; readonly to: number }
  /** Lines at which a sync of ours began or was done, and at which the disk's file was written. */
  readonly borders: readonly number[]
  /** Write-ahead files that LevelDB began for the log. */
  readonly walFiles: number
  readonly ending: 'SIGKILL' | 'SIGTERM'
}

export interface RecordingOptions extends LoadOptions {
  readonly seed: number
  readonly durability: Durability
  /** A module that the server loads first: how a wrong server is made. */
  readonly preload?: string
}

const folders = new Set<string>()

/** For the end of a test file. */
export function removeRecordings(): void {
  endChildren()
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
}

/** The trace and the files say different things. */
class Untold extends Error {}

const ATTEMPTS = 3

export async function record(options: RecordingOptions): Promise<Recording> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await recordOnce(options)
    } catch (error) {
      // A kill can end a call that strace has not told yet: what it did is in the files and not in the trace.
      if (!(error instanceof Untold) || attempt === ATTEMPTS) throw error
    }
  }
}

async function recordOnce(options: RecordingOptions): Promise<Recording> {
  const random = prng(options.seed)
  const root = mkdtempSync(join(tmpdir(), 'slicelog-power-'))
  folders.add(root)
  const [path, file, trace] = ['store', 'vda.raw', 'trace'].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ]
  const content = Buffer.alloc(SIZE)
  for (let at = 0; at + 4 <= SIZE; at += 4) content.writeUInt32LE(random() * 2 ** 32, at)
  writeFileSync(file, content)
  await makeStore(path)
  const before = new Map([
    [path, stored(path)],
    [file, stored(file)],
  ])
  const words = [
    '--store',
    path,
    'serve',
    '--disk',
    `vda=${file}`,
    '--durability',
    options.durability,
    '--json',
  ]
  // What is preloaded changes modules of the sources.
  const program =
    options.preload === undefined
      ? script('src/cli/main.ts')
      : ['--import', TSX, '--import', options.preload, join(PROJECT, 'src/cli/main.ts')]
  const server = tracked(traced(trace, process.execPath, [...program, ...words]))
  const ended = new Promise<void>((done) => server.once('close', () => done()))
  try {
    await readiness(server)
    const ready = Date.now() + 1
    const load = new Load(path, root, options, random)
    await load.run()
    const served = { from: ready, to: Date.now() }
    const ending = random() < 0.5 ? 'SIGKILL' : 'SIGTERM'
    const { pid } = JSON.parse(readFileSync(join(path, 'owner.json'), 'utf8')) as { pid: number }
    process.kill(pid, ending)
    await ended
    const { calls, times } = readTrace(trace, [path, file])
    const history = new FileHistory(before, calls)
    const disk = history.root(file)
    if (disk.kind !== 'file') throw new Error('the disk is no file')
    const borders = [
      ...bordersOf(history.root(path)),
      ...bordersOf(disk),
      ...disk.ops.map(({ began }) => began),
    ]
    for (const one of [path, file]) {
      const differs = firstDifference(history.root(one), stored(one))
      if (differs !== null)
        throw new Untold(`the recording of ${one} does not tell all: ${differs} is another`)
    }
    return {
      durability: options.durability,
      served,
      store: history.root(path),
      disk,
      times,
      changes: load.changes,
      marks: load.marks,
      borders: borders.filter(Number.isFinite).sort((a, b) => a - b),
      walFiles: walFilesOf(history.root(path)),
      ending,
    }
  } finally {
    server.kill('SIGKILL')
    folders.delete(root)
    await ended
    rmSync(root, { recursive: true, force: true })
  }
}

async function makeStore(path: string): Promise<void> {
  const store = await openStore(path)
  const disk = await store.addDisk('vda', { size: SIZE })
  await disk.addBitmap('all', { granularity: GRANULE })
  await disk.addBitmap('daily', { granularity: GRANULE, retention: 100 })
  await store.addDisk('other', { size: 2 ** 36 })
  await store.createCheckpoint('before')
  await store.close()
}

async function readiness(server: ChildProcess): Promise<void> {
  const text = { out: '', err: '' }
  server.stdout!.on('data', (chunk) => (text.out += String(chunk)))
  server.stderr!.on('data', (chunk) => (text.err += String(chunk)))
  const until = Date.now() + HANG_MS
  while (!text.out.includes('\n')) {
    if (server.exitCode !== null || Date.now() > until)
      throw new Error(`it does not serve: ${text.err.slice(0, 2000)}`)
    await sleep(10)
  }
}

function walFilesOf(store: Node): number {
  const log = store.kind === 'folder' ? store.names.get('log') : undefined
  if (log?.kind !== 'folder') throw new Error('the store has no log')
  return log.ops.filter(({ kind, name }) => kind === 'put' && name.endsWith('.log')).length
}

function bordersOf(node: Node): number[] {
  const own = node.syncs.flatMap(({ began, done }) => [began, done])
  if (node.kind === 'file') return own
  const below = [...node.before.values(), ...node.ops.flatMap((op) => (op.kind === 'put' ? [op.node] : []))]
  return [...own, ...[...new Set(below)].flatMap(bordersOf)]
}
