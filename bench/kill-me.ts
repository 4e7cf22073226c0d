/**
 * Opens a store, appends to it and waits to be killed: `node kill-me.js FOLDER EVENTS`. Says how long the open took, in
 * milliseconds, when all is acknowledged.
 */
import { appendAll, openOurs } from './ours.ts'
import { randomWrites } from './workload.ts'

const PIECE = 1_000_000
const [folder, count] = process.argv.slice(2)
const events = Number(count)
const start = performance.now()
const { disk } = await openOurs(folder!)
const openMs = performance.now() - start
for (let done = 0; done < events; done += PIECE)
  await appendAll(disk, randomWrites(Math.min(PIECE, events - done), done + 7))
process.stdout.write(`${openMs}\n`)
setInterval(() => undefined, 1000)
