/** Runs the command line in this process, on a folder that goes away with the test file. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import type { Io } from '../../src/cli/io.ts'
import { run } from '../../src/cli/run.ts'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
  /** The one JSON object on stdout. */
  json<T = Record<string, unknown>>(): T
  /** `error` of the one JSON object on stderr. */
  error(): { code: string; message: string; facts: Record<string, unknown> }
}

export interface Captured extends Io {
  readonly text: { out: string; err: string }
  interrupt(): void
}

export function captured(env: Record<string, string> = {}): Captured {
  const text = { out: '', err: '' }
  const stops: ((why: 'interrupt' | 'closed-pipe') => void)[] = []
  const output = (to: 'out' | 'err') => ({
    write(words: string) {
      text[to] += words
      return true
    },
    once: () => undefined,
    off: () => undefined,
  })
  return {
    text,
    stdout: output('out'),
    stderr: output('err'),
    env,
    onInterrupt(stop) {
      stops.push(stop)
      return () => undefined
    },
    interrupt: () => stops.forEach((stop) => void stop('interrupt')),
  }
}

export async function slicelog(argv: readonly string[], io: Captured = captured()): Promise<Ran> {
  const code = await run(argv, io)
  const { out, err } = io.text
  return {
    code,
    out,
    err,
    json: <T>() => JSON.parse(out) as T,
    error: () => JSON.parse(err).error,
  }
}

/** A folder of stores; `cli('name', …words)` runs on the store of that name. */
export function storeFolder() {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'slicelog-cli-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))
  const path = (name: string): string => join(folder, name)
  const cli = (name: string, ...words: string[]): Promise<Ran> => slicelog(['--store', path(name), ...words])
  /** Runs and expects success. */
  const done = async (name: string, ...words: string[]): Promise<Ran> => {
    const ran = await cli(name, ...words)
    if (ran.code !== 0) throw new Error(`slicelog ${words.join(' ')} gave ${ran.code}: ${ran.err}`)
    return ran
  }
  /** Runs with --json and gives the object. */
  const json = async <T = Record<string, unknown>>(name: string, ...words: string[]): Promise<T> =>
    (await done(name, ...words, '--json')).json<T>()
  return { path, cli, done, json }
}
