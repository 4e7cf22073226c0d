/** Owners of stores, in this process and in others, and command lines as processes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll } from 'vitest'
import { openStore } from '../../src/store/open.ts'
import { endChildren, tracked } from '../support/children.ts'
import { script } from '../support/script.ts'

const project = resolve(import.meta.dirname, '../..')

function node(path: string, words: readonly string[], options: { cwd?: string; uid?: number } = {}) {
  return tracked(spawn(process.execPath, [...script(path), ...words], { cwd: project, ...options }))
}

export interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** The real command line, as a process. */
export function cli(words: readonly string[], options: { cwd?: string; uid?: number } = {}) {
  const child = node('src/cli/main.ts', words, options)
  child.stdin.end()
  const text = { out: '', err: '' }
  child.stdout.on('data', (chunk) => (text.out += String(chunk)))
  child.stderr.on('data', (chunk) => (text.err += String(chunk)))
  const ended = new Promise<Ended>((done) => child.on('close', (code) => done({ code, ...text })))
  return { child, text, ended }
}

export interface OwnerProcess {
  readonly pid: number
  look(): Promise<{ position: number; memory: number }>
  close(): Promise<void>
  kill(): Promise<void>
}

/** A process that owns the store in `folder` and serves it. */
export async function owner(folder: string, mode: 'idle' | 'writing'): Promise<OwnerProcess> {
  const child = node('test/owner/child.ts', [folder, mode])
  let err = ''
  child.stderr.on('data', (chunk) => (err += String(chunk)))
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const ended = once(child, 'close')
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next()
    if (done === true) throw new Error(`the owner ended: ${err}`)
    return value
  }
  if ((await line()) !== 'ready') throw new Error(`the owner did not begin: ${err}`)
  return {
    pid: child.pid!,
    async look() {
      child.stdin.write('look\n')
      return JSON.parse(await line()) as { position: number; memory: number }
    },
    async close() {
      child.stdin.write('close\n')
      await ended
    },
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** Folders that go away with the test file, and every process with them. */
export function folders() {
  let root = ''
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'slicelog-owner-'))
  })
  afterAll(async () => {
    endChildren()
    await rm(root, { recursive: true, force: true })
  })
  let made = 0
  return {
    path: (name = `s${++made}`) => join(root, name),
    /** A copy of a closed store. */
    copy: async (from: string) => {
      const to = join(root, `s${++made}`)
      await cp(from, to, { recursive: true })
      return to
    },
  }
}

/** A store with something of everything: two disks, slices, backups in every state, checkpoints, a command id. */
export async function makeStore(folder: string): Promise<void> {
  const store = await openStore(folder, { actor: 'maker' })
  const vda = await store.ensureDisk('vda', { size: 64 * 2 ** 20 })
  await store.ensureDisk('vdb', { size: 2 ** 20 })
  const daily = await vda.ensureBitmap('daily', { retention: 4 })
  await vda.ensureBitmap('fine', { granularity: 4096, retention: 2 })
  const write = async (n: number) => {
    const writes = Array.from({ length: n }, (_, i) => ({
      offset: ((i * 37 + n) % 1000) * 65536,
      length: 512,
    }))
    await vda.recordWrites(writes)
  }
  await write(30)
  await (await vda.beginBackup({ bitmap: 'daily', mode: 'full', id: 'full-1' })).succeed()
  await write(7)
  await (await vda.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'inc-1' })).succeed()
  await write(50)
  await daily.bank({ commandId: 'bank-it' })
  await store.createCheckpoint('upgrade', { bitmaps: [{ disk: 'vda', bitmap: 'fine' }] })
  await write(3)
  await (await vda.beginBackup({ bitmap: 'fine', mode: 'copy', id: 'copy-1' })).fail('no space')
  await vda.beginBackup({ bitmap: 'fine', mode: 'full', id: 'open-1' })
  await write(11)
  await store.close()
}
