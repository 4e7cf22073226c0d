/** Folders that are removed afterwards, children that are killed, and the damage that the tests look for. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { CheckpointError } from '../../src/errors.ts'
import { journalPath } from '../../src/log/journal.ts'
import { script } from '../support/script.ts'

export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'slicelog-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** A copy to damage, so that one prepared folder serves many rounds. */
export async function copyOf(root: string): Promise<string> {
  const copy = await temporaryFolder()
  cpSync(root, copy, { recursive: true })
  return copy
}

export async function refusal(promise: Promise<unknown>): Promise<CheckpointError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof CheckpointError) return error
  throw new Error(`expected a CheckpointError, got ${String(error)}`)
}

/** The biggest write-ahead file of the log in `root`. */
export function writeAheadFile(root: string): string {
  const folder = join(root, 'log')
  const files = readdirSync(folder).filter((name) => name.endsWith('.log'))
  const bySize = files.sort(
    (a, b) => readFileSync(join(folder, b)).length - readFileSync(join(folder, a)).length,
  )
  return join(folder, bySize[0]!)
}

export function edit(path: string, change: (bytes: Buffer) => Uint8Array): void {
  writeFileSync(path, change(readFileSync(path)))
}

export function flipBit(path: string, bit: number): void {
  edit(path, (bytes) => {
    bytes[bit >> 3] = bytes[bit >> 3]! ^ (1 << (bit & 7))
    return bytes
  })
}

/** Runs child.ts; `lines` grows. */
export function startChild(...args: readonly string[]): {
  child: ChildProcess
  lines: string[]
  until: (pattern: RegExp) => Promise<string>
} {
  const child = spawn(process.execPath, [...script('test/log/child.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines: string[] = []
  let rest = ''
  child.stdout!.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split('\n')
    rest = parts.pop()!
    lines.push(...parts)
  })
  const until = async (pattern: RegExp) => {
    for (;;) {
      const found = lines.find((line) => pattern.test(line))
      if (found !== undefined) return found
      if (child.exitCode !== null) throw new Error(`the child ended with ${child.exitCode}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  return { child, lines, until }
}

export async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

/**
 * A folder whose log was appended to by a process that was then killed. Returns the position it had reached. LevelDB has all of
 * it in a write-ahead file, and there is no journal.
 */
export async function killedFolder(records = 60): Promise<{ root: string; next: number }> {
  const root = await temporaryFolder()
  const { child, until } = startChild(root, String(records), 'wait')
  const ready = await until(/^ready/)
  await kill(child)
  // Which would make up for what LevelDB's files lose (journal.test.ts).
  rmSync(journalPath(join(root, 'log')))
  return { root, next: Number(ready.split(' ')[1]) }
}
