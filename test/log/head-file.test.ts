/** The head file: torn or flipped slots, and what an open makes of them. */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ContractChain } from '../../src/log/contract.ts'
import { HeadFile, readHeadFile, SLOT_BYTES, SLOT_SPACING } from '../../src/log/head-file.ts'
import { BOOT, openIn } from './open.ts'
import { edit, flipBit, refusal, temporaryFolder } from './support.ts'

const headAt = (next: number) => ({ next, time: next * 10, hash: new Uint8Array(32).fill(next) })

async function twoSlots(): Promise<string> {
  const path = join(await temporaryFolder(), 'head')
  const file = new HeadFile(path, BOOT, { kind: 'missing' })
  file.write(headAt(1), headAt(1))
  file.write(headAt(2), headAt(1))
  file.write(headAt(3), headAt(2))
  file.close()
  return path
}

test('R28: the newer whole slot counts, and the other one when any bit of it is flipped', async () => {
  const path = await twoSlots()
  const good = readFileSync(path)
  expect(readHeadFile(path)).toMatchObject({
    kind: 'good',
    index: 0,
    slot: { sequence: 3, acknowledged: headAt(3), synced: headAt(2), bootId: BOOT },
  })
  for (let bit = 0; bit < SLOT_BYTES * 8; bit++) {
    flipBit(path, bit)
    expect(readHeadFile(path), `bit ${bit}`).toMatchObject({
      kind: 'good',
      index: 1,
      slot: { sequence: 2, acknowledged: headAt(2) },
    })
    edit(path, () => good)
  }
})

test('R28: a head file cut anywhere gives the slot that is left, or none', async () => {
  const path = await twoSlots()
  const good = readFileSync(path)
  for (let length = 0; length <= good.length; length += 7) {
    edit(path, () => good.subarray(0, length))
    expect(readHeadFile(path).kind).toBe(length < SLOT_BYTES ? 'unreadable' : 'good')
  }
})

async function closedStore(): Promise<string> {
  const root = await temporaryFolder()
  const { log } = await openIn(root)
  const chain = new ContractChain()
  await log.append([chain.writes(10), chain.writes(10)], { expected: 0, sync: false })
  await log.close()
  return root
}

test('R28: with both slots damaged, or the head file missing, a log with records is LOG_DAMAGED', async () => {
  const root = await closedStore()
  const path = join(root, 'head')
  flipBit(path, 200)
  flipBit(path, SLOT_SPACING * 8 + 200)
  const unreadable = await refusal(openIn(root, { createIfMissing: false }))
  expect(unreadable.code).toBe('LOG_DAMAGED')
  expect(unreadable.facts).toMatchObject({ problem: 'head-file-unreadable', found: 20 })
  rmSync(path)
  const missing = await refusal(openIn(root, { createIfMissing: true }))
  expect(missing.facts).toMatchObject({ problem: 'head-file-missing' })
})

test('R34: a head file of a newer version is refused with FORMAT_TOO_NEW', async () => {
  const root = await closedStore()
  const { crc32 } = await import('node:zlib')
  edit(join(root, 'head'), (bytes) => {
    bytes[4] = 2
    bytes.writeUInt32LE(crc32(bytes.subarray(0, SLOT_BYTES - 4)), SLOT_BYTES - 4)
    return bytes
  })
  expect((await refusal(openIn(root))).code).toBe('FORMAT_TOO_NEW')
})
