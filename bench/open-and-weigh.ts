/** Opens a store, collects garbage and prints what the process weighs: `node --expose-gc open-and-weigh.js FOLDER`. */
import { setTimeout as sleep } from 'node:timers/promises'
import { openStore } from '../src/index.ts'
import type { Weight } from './cases/memory.ts'
import { BITMAP, DISK } from './workload.ts'

const store = await openStore(process.argv[2]!, { create: false })
for (let i = 0; i < 3; i++) {
  globalThis.gc?.()
  await sleep(50)
}
const { rss, heapUsed, arrayBuffers } = process.memoryUsage()
const weight: Weight = { slices: store.bitmap(DISK, BITMAP).slices, rss, heap: heapUsed + arrayBuffers }
process.stdout.write(JSON.stringify(weight))
await store.close()
