/** Appends that go wrong: the outcome is unknown, nothing more is accepted, and reopening tells. */
import { expect, test } from 'vitest'
import { encodeWrites } from '../../events/record.ts'
import { ContractChain, readAll } from '../../src/log/contract.ts'
import { type Fault, FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { openIn } from './open.ts'
import { refusal, temporaryFolder } from './support.ts'

const faults: readonly (readonly [string, Fault, number])[] = [
  ['wrote nothing', { kind: 'fail', at: 3 }, 2],
  ['wrote everything', { kind: 'fail-after', at: 3 }, 4],
  ['wrote half', { kind: 'truncate', at: 3, keep: 1 }, 3],
]

test.each(faults)(
  'R33: after an append that failed and %s, every later one is STORE_FAILED with the first cause',
  async (_, fault, left) => {
    const inner = new MemoryEventLog()
    const log = new FaultLog(inner, fault)
    const chain = new ContractChain()
    for (let i = 0; i < 2; i++) await log.append([chain.writes(1)], { expected: i, sync: false })
    const failed = await refusal(log.append([chain.writes(1), chain.writes(1)], { expected: 2, sync: false }))
    expect(failed.code).toBe('IO_FAILED')
    const later = await refusal(log.append([chain.writes(1)], { expected: 2, sync: false }))
    expect(later.code).toBe('STORE_FAILED')
    expect(later.cause).toBe(failed.cause)
    await inner.close()
    expect((await readAll(new MemoryEventLog(inner.storage))).length).toBe(left)
  },
)

test('R28: a bit that is stored flipped is LOG_DAMAGED when it is read, whichever bit it is', async () => {
  const bits = new ContractChain().writes(1).bytes.length * 8
  for (let bit = 0; bit < bits; bit++) {
    const log = new FaultLog(new MemoryEventLog(), { kind: 'flip', at: 1, bit })
    const chain = new ContractChain()
    await log.append([chain.writes(1)], { expected: 0, sync: false })
    expect((await refusal(readAll(log))).code, `bit ${bit}`).toBe('LOG_DAMAGED')
  }
})

test('R33: LevelDB failing is IO_FAILED, then STORE_FAILED with the same cause; closing still works, and the log reopens', async () => {
  const root = await temporaryFolder()
  const hooks = {
    synced: () => {
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
    },
  }
  const { log } = await openIn(root, { hooks })
  const chain = new ContractChain()
  await log.append([chain.writes(1)], { expected: 0, sync: false })
  const failed = await refusal(log.append([chain.writes(1)], { expected: 1, sync: true }))
  expect(failed).toMatchObject({ code: 'IO_FAILED', facts: { from: 1, to: 1, reason: 'ENOSPC' } })
  const later = await refusal(log.append([chain.writes(1)], { expected: 1, sync: false }))
  expect(later).toMatchObject({ code: 'STORE_FAILED', cause: failed.cause })
  await log.close()
  const again = await openIn(root, { createIfMissing: false })
  expect(again.log.head.next).toBe(1)
  expect(again.end.clean).toBe(false)
  await again.log.close()
})

test('R34: a record of a newer version is refused with FORMAT_TOO_NEW when it is read', async () => {
  const { crc32 } = await import('node:zlib')
  const chain = new ContractChain()
  const columns = { offsets: Float64Array.of(0), lengths: Float64Array.of(1) }
  const record = encodeWrites(0, chain.time, [{ disk: 0, columns }], chain.hash)
  record.bytes[37] = 2
  new DataView(record.bytes.buffer).setUint32(0, crc32(record.bytes.subarray(4)), true)
  const log = new MemoryEventLog()
  await log.append([record], { expected: 0, sync: false })
  expect(await refusal(readAll(log))).toMatchObject({
    code: 'FORMAT_TOO_NEW',
    facts: { position: 0, version: 2, newest: 1 },
  })
})
