/**
 * Asks a store one kind of question a few times and prints the median time and the most memory that the process ever had:
 * `node ask-child.js FOLDER QUESTION DISK EVENTS`. A process of its own, so that nothing else is weighed.
 */
import { readFileSync } from 'node:fs'
import { blame, explainBackup, openStore, type Store, verifyStore } from '../src/index.ts'
import type { Asked, Question } from './cases/scale.ts'
import { medianOf } from './harness.ts'
import { GRANULARITY, randomBelow, randomBits } from './workload.ts'

/** The first time warms up; an explain reads all of its span, so once says enough. */
const TIMES: Readonly<Record<Question, number>> = { at: 5, changed: 5, blame: 5, explain: 1, verify: 1 }
const MiB = 2 ** 20
const [folder, question, disk, count] = process.argv.slice(2) as [string, Question, string, string]
const events = Number(count)
const bits = randomBits(11)
const anywhere = () => 100 + randomBelow(bits, events - 100)

const ask: Readonly<Record<Exclude<Question, 'verify'>, (store: Store) => Promise<unknown>>> = {
  at: (store) => store.at({ position: anywhere() }),
  changed: (store) => {
    const [since, until] = [anywhere(), anywhere()].sort((a, b) => a - b) as [number, number]
    const span = { since: { position: since }, until: { position: until } }
    return store.changed(disk, { ...span, granularity: GRANULARITY })
  },
  blame: async (store) => blame(store, disk, await lastWrite(store), { limit: 20 }),
  explain: (store) => explainBackup(store, 'asked'),
}

async function lastWrite(store: Store): Promise<{ offset: number; length: number }> {
  for await (const { data } of store.log({ disk, types: ['write'], reverse: true, limit: 1 }))
    return data as { offset: number; length: number }
  throw new Error('the log has no write')
}

const times: number[] = []
if (question === 'verify') {
  const start = performance.now()
  const { findings } = await verifyStore(folder)
  times.push(performance.now() - start)
  if (findings.length > 0) throw new Error('verify found something')
} else {
  const store = await openStore(folder, { create: false })
  for (let i = 0; i < TIMES[question]; i++) {
    const start = performance.now()
    await ask[question](store)
    times.push(performance.now() - start)
  }
  await store.close()
}
/** Of this process alone: `resourceUsage` begins with what its parent weighed when it forked. Linux. */
function peakMiB(): number {
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return (Number(peak![1]) * 1024) / MiB
}

const asked: Asked = { ms: medianOf(times), MiB: peakMiB() }
process.stdout.write(JSON.stringify(asked))
