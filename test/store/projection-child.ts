/** Writes and projects until it is killed; says after each step how far both have come. */
import { writeSync } from 'node:fs'
import { openStore } from '../../src/store/open.ts'
import { command, prepare, write } from '../audit/drive.ts'
import { prng } from '../support/property.ts'
import { sums, tally } from './projection-fold.ts'

const [folder, seed] = process.argv.slice(2)
const random = prng(Number(seed))
const store = await openStore(folder!)
await prepare(store)
const options = { saveEvery: 40 }
const counted = await store.project(tally('counted'), options)
const summed = await store.project(sums('summed'), options)
writeSync(1, `${JSON.stringify({ began: counted.origin, position: counted.cursor })}\n`)
for (let i = 0; ; i++) {
  if (random() < 0.8) await write(store, random)
  else await command(store, random, `${seed}-${i}`)
  const head = store.head.position
  writeSync(1, `${JSON.stringify({ head, saved: [counted.saved.position, summed.saved.position] })}\n`)
}
