/** Appends enough to make LevelDB begin new write-ahead files, with a synced append now and then. Run under strace. */
import { encodeWrites } from '../../events/record.ts'
import { ContractChain } from '../../src/log/contract.ts'
import { openIn } from './open.ts'

const { log } = await openIn(process.argv[2]!)
const chain = new ContractChain()
const lengths = new Float64Array(4096).fill(512)
for (let i = 0; i < 600; i++) {
  const offsets = Float64Array.from(lengths, (_, row) => (((row + i) * 2_654_435_761) % 2 ** 40) * 512)
  const { next, time, hash } = log.head
  const record = encodeWrites(next, time ?? chain.time, [{ disk: 0, columns: { offsets, lengths } }], hash)
  const sync = i % 100 === 99
  await log.append([record], { expected: next, sync })
  if (sync) process.stdout.write('acknowledged\n')
}
await log.close()
