/**
 * A process that owns a store and serves it, as an agent would: `child.ts FOLDER MODE`. It says `ready`, then does as the lines on
 * its stdin say: `look` prints the head and the memory in use, `close` closes the store and ends.
 */
import { createInterface } from 'node:readline'
import { openStore } from '../../src/index.ts'

const [folder, mode] = process.argv.slice(2) as [string, 'idle' | 'writing']
const store = await openStore(folder, { socket: true, actor: 'agent' })
let writing: NodeJS.Timeout | undefined
if (mode === 'writing') {
  const disk = await store.ensureDisk('busy', { size: 2 ** 30 })
  await disk.ensureBitmap('b', { retention: 100 })
  let n = 0
  writing = setInterval(() => void disk.recordWrites([{ offset: (n++ % 1000) * 65536, length: 4096 }]), 5)
}
process.stdout.write('ready\n')
for await (const line of createInterface(process.stdin)) {
  if (line === 'look') {
    const { heapUsed, external, arrayBuffers } = process.memoryUsage()
    const memory = heapUsed + external + arrayBuffers
    process.stdout.write(`${JSON.stringify({ position: store.head.position, memory })}\n`)
  } else if (line === 'close') break
}
clearInterval(writing)
await store.close()
// Nothing else may keep an owner alive.
process.stdin.destroy()
