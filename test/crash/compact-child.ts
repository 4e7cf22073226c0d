/** Compacts a store until it is killed. Waits for one line on stdin, says when it begins, and after each step what it did. */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { openStore } from '../../src/store/open.ts'
import { manualClock } from '../../src/testing/clock.ts'

interface Order {
  readonly folder: string
  readonly time: number
  readonly policies: readonly string[]
}

const say = (line: unknown) => writeSync(1, `${JSON.stringify(line)}\n`)

async function main({ folder, time, policies }: Order): Promise<void> {
  const store = await openStore(folder, { clock: manualClock(time), snapshotEvery: 3000 })
  say({ begun: true })
  for (const policy of policies)
    await store.compact({ policy, stepBytes: 2048, onProgress: (position) => say({ position }) })
  say({ done: true })
  // What the runs left of packs is joined again, until the end.
  for (;;) await store.repack()
}

createInterface({ input: process.stdin }).once('line', (line) => void main(JSON.parse(line) as Order))
