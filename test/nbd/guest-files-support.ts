/** A guest's disk looked at from outside, when it is off: what its file system is worth, what its files hold, what changed. */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { run } from './programs-support.ts'

/** The file system of `raw` is sound, and these files hold what they should; `only`: there are no others. Uses the folder `out`. */
export async function expectFiles(
  raw: string,
  out: string,
  files: ReadonlyMap<string, Buffer>,
  only: boolean,
): Promise<void> {
  await run('e2fsck', '-fn', raw)
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out)
  await run('debugfs', '-R', `rdump / ${out}`, raw)
  const names = readdirSync(out).filter((name) => name !== 'lost+found')
  if (only) expect(names.sort()).toEqual([...files.keys()].sort())
  for (const [name, content] of files)
    expect([name, readFileSync(join(out, name)).equals(content)]).toEqual([name, true])
}

/** Granules whose bytes are others in two files of one size. */
export function differing(one: string, other: string, granularity: number): number[] {
  const [a, b] = [openSync(one, 'r'), openSync(other, 'r')]
  const [left, right] = [Buffer.alloc(granularity), Buffer.alloc(granularity)]
  const found: number[] = []
  const { size } = statSync(one)
  for (let at = 0; at < size; at += granularity) {
    const length = readSync(a, left, 0, granularity, at)
    readSync(b, right, 0, granularity, at)
    if (!left.subarray(0, length).equals(right.subarray(0, length))) found.push(at / granularity)
  }
  closeSync(a)
  closeSync(b)
  return found
}
