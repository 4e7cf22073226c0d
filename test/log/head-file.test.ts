/** The head file: torn or flipped slots, and what an open makes of them. */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ContractChain } from '../../src/log/contract.ts'
import { COPY_AT, HeadFile, readHeadFile, SLOT_BYTES, SLOT_SPACING } from '../../src/log/head-file.ts'
import { BOOT, openIn } from './open.ts'
import { copyOf, edit, flipBit, refusal, temporaryFolder } from './support.ts'

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

test('R28: the newer slot counts, whatever bit of it is flipped: it stands twice', async () => {
  const path = await twoSlots()
  const good = readFileSync(path)
  const newest = {
    kind: 'good',
    index: 0,
    slot: { sequence: 3, acknowledged: headAt(3), synced: headAt(2), bootId: BOOT },
  }
  expect(readHeadFile(path)).toMatchObject(newest)
  for (let bit = 0; bit < SLOT_BYTES * 8; bit++) {
    for (const at of [0, COPY_AT]) {
      flipBit(path, at * 8 + bit)
      expect(readHeadFile(path), `bit ${bit} at ${at}`).toMatchObject(newest)
      edit(path, () => good)
    }
  }
})

test('R28: with both copies of the newer slot damaged, the other slot counts', async () => {
  const path = await twoSlots()
  for (const at of [0, COPY_AT]) flipBit(path, at * 8 + 200)
  expect(readHeadFile(path)).toMatchObject({
    kind: 'good',
    index: 1,
    slot: { sequence: 2, acknowledged: headAt(2) },
  })
})

test('R28: after a kill, a damaged slot together with a log cut by just one append is damage', async () => {
  const root = await temporaryFolder()
  const chain = new ContractChain()
  const first = await openIn(root)
  await first.log.append([chain.writes(10)], { expected: 0, sync: true })
  await first.log.close()
  const cut = await copyOf(root)
  const second = await openIn(root)
  await second.log.append([chain.writes(10)], { expected: 10, sync: true })
  await second.log.close()
  // As a kill leaves it: still open, one slot before the last append and one after it.
  const path = join(cut, 'head')
  const killed = new HeadFile(path, BOOT, { kind: 'missing' })
  killed.write(first.log.head, first.log.head)
  killed.write(second.log.head, second.log.head)
  killed.close()
  flipBit(path, SLOT_SPACING * 8 + 200)
  const refused = await refusal(openIn(cut, { createIfMissing: false }))
  expect(refused).toMatchObject({
    code: 'LOG_DAMAGED',
    facts: { problem: 'shorter', expected: 20, found: 10 },
  })
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
  for (const at of [0, COPY_AT, SLOT_SPACING, SLOT_SPACING + COPY_AT]) flipBit(path, at * 8 + 200)
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
