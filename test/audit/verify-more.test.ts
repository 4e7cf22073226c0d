/** R28: findings that no edit of a record leads to: foreign keys, times that go back, files that an open kept. */
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { encodeEvents } from '../../events/record.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { commandKey, positionBytes, REPACK_KEY } from '../../src/log/keys.ts'
import { pathsOf } from '../../src/store/folder.ts'
import { openStore } from '../../src/store/open.ts'
import { appendTo, DISK, soundStore, withLog } from './support.ts'

const findingsOf = async (folder: string) => (await verifyStore(folder)).findings
const codesOf = async (folder: string) => (await findingsOf(folder)).map(({ code }) => code)

test.each([
  ['78', 'a key of another kind'],
  ['65', 'the kind of a record without a position'],
  ['6500000000', 'a position of other length'],
  ['ff', 'the last key of all'],
])('R28: KEY_UNKNOWN for %s: %s', async (hex) => {
  const folder = await soundStore()
  const key = Buffer.from(hex, 'hex')
  await withLog(folder, (db) => db.put(key, Uint8Array.of(1, 2, 3)))
  const [finding, ...more] = await findingsOf(folder)
  expect(more).toEqual([])
  expect(finding).toMatchObject({ code: 'KEY_UNKNOWN', position: null, record: null })
  expect(finding?.todo).toContain(`(${hex})`)
  await withLog(folder, (db) => db.del(key))
  expect(await findingsOf(folder)).toEqual([])
})

test('R28: keys that slicelog writes beside its records are none of them', async () => {
  const folder = await soundStore()
  const kinds = await withLog(folder, async (db) => {
    const first = new Set<number>()
    for await (const key of db.keys()) first.add(key[0]!)
    return first
  })
  expect(kinds).toContain(commandKey('begin-1')[0])
  await withLog(folder, (db) => db.put(REPACK_KEY, positionBytes(0)))
  expect(await findingsOf(folder)).toEqual([])
})

/** Appends an event that fits the chain, at this time after (below zero: before) the last one's. */
function append(folder: string, after: number): Promise<number> {
  const lost = {
    type: 'stretch-lost',
    disk: DISK,
    from: { position: 3, time: null },
    reason: 'forged',
  } as const
  return appendTo(folder, ({ next, time, hash }) => {
    const record = encodeEvents(next, time! + after, {}, [lost], hash)
    // The log itself refuses to go back, so it is told another time than the one that is written.
    return [{ ...record, time: time! + Math.max(0, after) }]
  })
}

test('R28, R22: TIME_BACKWARDS names the record whose time is before that of the one before it; equal times are none', async () => {
  const folder = await soundStore()
  await append(folder, 0)
  expect(await findingsOf(folder)).toEqual([])
  const position = await append(folder, -1)
  expect(await findingsOf(folder)).toMatchObject([
    { code: 'TIME_BACKWARDS', position, record: expect.any(Number) },
  ])
  const after = await append(folder, 0)
  expect((await findingsOf(folder)).map(({ code, position: at }) => [code, at])).toEqual([
    ['TIME_BACKWARDS', position],
  ])
  expect(after).toBe(position + 1)
})

test('R28: ASIDE_KEPT names each folder that an open kept, until it is deleted; what a killed open left is none', async () => {
  const folder = await soundStore()
  const { aside } = pathsOf(folder)
  await mkdir(join(aside, 'killed'), { recursive: true })
  await writeFile(join(aside, 'killed', '000003.log'), 'x')
  expect(await findingsOf(folder), 'nobody said that it is damage').toEqual([])

  const store = await openStore(folder)
  for (const offset of [0, 512]) await store.disk(DISK).recordWrites([{ offset, length: 512 }])
  const killed = `${folder}-killed`
  onTestFinished(() => rm(killed, { recursive: true, force: true }))
  await cp(folder, killed, { recursive: true })
  await store.close()
  for (const name of await readdir(join(killed, 'log'))) {
    if (!name.endsWith('.log')) continue
    const path = join(killed, 'log', name)
    const bytes = await readFile(path)
    if (bytes.length > 20) bytes[20]! ^= 1
    await writeFile(path, bytes)
  }
  await expect(openStore(killed)).rejects.toMatchObject({ code: 'LOG_DAMAGED' })
  const kept = (await findingsOf(killed)).filter(({ code }) => code === 'ASIDE_KEPT')
  expect(kept).toHaveLength(1)
  expect(kept[0]).toMatchObject({ position: null, record: null, doubt: [] })
  expect(kept[0]?.todo).toContain(join(killed, 'aside'))
  await rm(join(killed, 'aside'), { recursive: true })
  expect(await codesOf(killed)).not.toContain('ASIDE_KEPT')
})
