/** Appends to a store and waits to be killed: `node kill-me.js FOLDER EVENTS`. Says `ready` when all is acknowledged. */
import { appendAll, openOurs } from './ours.ts'
import { randomWrites } from './workload.ts'

const PIECE = 1_000_000
const [folder, count] = process.argv.slice(2)
const events = Number(count)
const { disk } = await openOurs(folder!)
for (let done = 0; done < events; done += PIECE)
  await appendAll(disk, randomWrites(Math.min(PIECE, events - done), done + 7))
process.stdout.write('ready\n')
setInterval(() => undefined, 1000)
