/** Programs that nobody here wrote, run to their end, and what they say of a dirty map. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** What it printed. Rejects where it fails, with what it said in the message. */
export async function run(program: string, ...args: string[]): Promise<string> {
  // Some of them live where only root's PATH looks, and nbdsh needs Debian's own python.
  const env = { ...process.env, PATH: `/usr/bin:${process.env.PATH ?? ''}:/usr/sbin:/sbin` }
  const options = { encoding: 'utf8', timeout: 600_000, maxBuffer: 2 ** 28, env } as const
  return (await execute(program, args, options)).stdout
}

/** Ranges that nbdinfo says are dirty in `qemu:dirty-bitmap:NAME`. */
export async function dirtyRanges(uri: string, name: string): Promise<[offset: number, length: number][]> {
  const runs = JSON.parse(await run('nbdinfo', `--map=qemu:dirty-bitmap:${name}`, '--json', uri))
  return (runs as { offset: number; length: number; type: number }[])
    .filter(({ type }) => type === 1)
    .map(({ offset, length }) => [offset, length])
}

/** The numbers of the granules that ranges touch. */
export function granulesOf(ranges: Iterable<readonly [number, number]>, granularity: number): Set<number> {
  const granules = new Set<number>()
  for (const [offset, length] of ranges)
    for (let granule = Math.floor(offset / granularity); granule * granularity < offset + length; granule++)
      granules.add(granule)
  return granules
}
