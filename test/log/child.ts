/**
 * A process that appends until it is killed. Arguments: store folder, records before it says "ready" (then it waits, or goes
 * on with `forever`), repackEvery. Prints the next position after each acknowledged append.
 */
import { ContractChain } from '../../src/log/contract.ts'
import { openIn } from './open.ts'

const [root, count, mode, repackEvery] = process.argv.slice(2)
const { log } = await openIn(root!, { repackEvery: Number(repackEvery ?? Number.POSITIVE_INFINITY) })
const chain = new ContractChain()
for (let i = 0; i < Number(count) || mode === 'forever'; i++) {
  const record = i % 7 === 3 ? chain.event(`c${i}`) : chain.writes(mode === 'forever' ? 1 : 1 + (i % 40))
  const head = await log.append([record], { expected: record.first, sync: mode !== 'forever' && i === 5 })
  if (i >= Number(count)) process.stdout.write(`${head.next}\n`)
}
// Whoever reads waits until LevelDB has all of it.
for await (const _ of log.read()) break
process.stdout.write(`ready ${log.head.next}\n`)
setInterval(() => undefined, 1000)
