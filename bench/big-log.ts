/**
 * A big log in the shape of a real guest: its writes (examples/data), again and again, each lap in another 2 GiB of one of
 * several disks of 1 TiB. Through the public API, as columns; 100 M writes take a minute or two.
 *
 *   npx tsx bench/big-log.ts FOLDER [MILLIONS] [DISKS]
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { type Disk, type OpenOptions, openStore, type Store } from '../src/index.ts'
import {
  BITMAP,
  CALL_ROWS,
  type Columns,
  DISK_BYTES,
  GRANULARITY,
  randomBelow,
  randomBits,
} from './workload.ts'

/** From the project's root, where npm runs scripts. */
const TRACE = 'examples/data/guest-ext4.csv.gz'
const TRACE_BYTES = 2 ** 31
const OPS = new Map([
  ['w', 0],
  ['z', 1],
  ['t', 2],
])
/** Calls that are not answered yet. */
const AHEAD = 16

interface Lap extends Columns {
  readonly ops: Uint8Array
}

export function guestTrace(): Lap {
  const rows = gunzipSync(readFileSync(TRACE))
    .toString()
    .split('\n')
    .slice(1)
    .map((line) => line.split(','))
    .filter((cells) => OPS.has(cells[3] ?? ''))
  return {
    offsets: Float64Array.from(rows, (cells) => Number(cells[0])),
    lengths: Float64Array.from(rows, (cells) => Number(cells[1])),
    ops: Uint8Array.from(rows, (cells) => OPS.get(cells[3]!)!),
  }
}

export interface BigLog {
  readonly events: number
  readonly disks?: number
  readonly options?: OpenOptions
  readonly say?: (text: string) => void
}

/** A store with that many writes, left open. */
export async function makeBigLog(
  folder: string,
  { events, disks = 8, options, say }: BigLog,
): Promise<Store> {
  const store = await openStore(folder, options)
  const held: Disk[] = []
  for (let i = 0; i < disks; i++) {
    const disk = await store.ensureDisk(`vm/vd${i}`, { size: DISK_BYTES, quiet: true })
    await disk.ensureBitmap(BITMAP, { granularity: GRANULARITY, retention: 2 })
    held.push(disk)
  }
  const trace = guestTrace()
  const bits = randomBits(7)
  const rows = trace.offsets.length
  const waiting: Promise<unknown>[] = []
  let done = 0
  for (let lap = 0; done < events; lap++) {
    const bases = held.map(() => randomBelow(bits, DISK_BYTES / TRACE_BYTES) * TRACE_BYTES)
    for (let from = 0; from < rows && done < events; from += CALL_ROWS) {
      for (const [i, disk] of held.entries()) {
        const to = Math.min(rows, from + CALL_ROWS, from + events - done)
        if (to <= from) break
        if (waiting.length >= AHEAD) await waiting.shift()
        waiting.push(
          disk.recordWrites({
            offsets: trace.offsets.subarray(from, to).map((offset) => offset + bases[i]!),
            lengths: trace.lengths.subarray(from, to),
            ops: trace.ops.subarray(from, to),
          }),
        )
        done += to - from
      }
    }
    if (lap % 10 === 0) say?.(`${(done / 1e6).toFixed(1)} M of ${events / 1e6} M writes`)
  }
  await Promise.all(waiting)
  return store
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder, millions = '100', disks = '8'] = process.argv.slice(2)
  if (folder === undefined) throw new Error('usage: npx tsx bench/big-log.ts FOLDER [MILLIONS] [DISKS]')
  const start = performance.now()
  const store = await makeBigLog(folder, {
    events: Number(millions) * 1e6,
    disks: Number(disks),
    say: (text) => process.stderr.write(`\r${text} `),
  })
  await store.close()
  const seconds = (performance.now() - start) / 1000
  process.stderr.write(
    `\r${millions} M writes in ${seconds.toFixed(1)} s; ${process.memoryUsage.rss() >> 20} MiB in memory\n`,
  )
}
