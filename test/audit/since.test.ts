import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import { slicelog } from '../cli/support.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { drive } from './drive.ts'
import { entriesIn, put, resealed } from './support.ts'

function freshFolder(): string {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-since-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  return join(root, 'store')
}

async function session(folder: string, random: () => number, name: string, steps = 40): Promise<void> {
  const store = await openStore(folder, { snapshotEvery: 1500 })
  await drive(store, random, steps, name)
  await store.close()
}

test('R28: night after night, a verify since the last one finds a sound store sound, and ends at the same head as a whole one', async () => {
  const rounds = runs(4, 60)
  const used = seed()
  announce('verify since a cursor', rounds, used)
  const random = prng(used)
  for (let round = 0; round < rounds; round++) {
    const folder = freshFolder()
    await session(folder, random, 'first')
    let cursor = (await verifyStore(folder)).head
    for (let night = 0; night < 3; night++) {
      await session(folder, random, `night-${night}`, 5 + Math.floor(random() * 60))
      const report = await verifyStore(folder, { since: cursor })
      expect(report.findings).toEqual([])
      expect(report.since).toBeLessThanOrEqual(cursor.position)
      const whole = await verifyStore(folder)
      expect(report.head).toEqual(whole.head)
      expect(report.records).toBeLessThan(whole.records)
      cursor = report.head
    }
  }
})

test('R28: an edit after the cursor is found and named; one before it is found by the whole verify', async () => {
  const folder = freshFolder()
  const random = prng(5)
  await session(folder, random, 'a')
  const cursor = (await verifyStore(folder)).head
  await session(folder, random, 'b')
  const entries = await entriesIn(folder)
  const after = entries.findIndex(({ position }) => position > cursor.position)
  for (const index of [after, entries.length - 1, 1]) {
    const copy = `${folder}-${index}`
    cpSync(folder, copy, { recursive: true })
    const { position, value } = entries[index]!
    const edited = Uint8Array.from(value)
    edited[edited.length - 1]! ^= 1
    await put(copy, { position, value: resealed(edited) })
    // What lies before the cursor may be found as well: where it reaches the state that the verify begins with.
    if (index !== 1) expect((await verifyStore(copy, { since: cursor })).findings).not.toEqual([])
    expect((await verifyStore(copy)).findings).not.toEqual([])
  }
})

test('R28: a log that no longer has the cursor is a finding, and then everything is walked', async () => {
  const folder = freshFolder()
  await session(folder, prng(6), 'a')
  const { head, records } = await verifyStore(folder)
  const rewritten = await verifyStore(folder, { since: { ...head, hash: '0'.repeat(64) } })
  expect(rewritten.findings.map(({ code }) => code)).toEqual(['ANCHOR_DIFFERS'])
  expect(rewritten).toMatchObject({ since: null, records })
  const cut = await verifyStore(folder, { since: { ...head, position: head.position + 1 } })
  expect(cut.findings.map(({ code }) => code)).toEqual(['ANCHOR_CUT'])
  expect(cut).toMatchObject({ since: null, records })
})

test('R28: a cursor inside a record is refused, one at the head has nothing left to walk', async () => {
  const folder = freshFolder()
  const store = await openStore(folder)
  const disk = await store.ensureDisk('d', { size: 1 << 20 })
  await disk.recordWrites([
    { offset: 0, length: 512 },
    { offset: 512, length: 512 },
  ])
  await store.close()
  const { position, hash } = (await verifyStore(folder)).head
  await expect(verifyStore(folder, { since: { position: 2, hash } })).rejects.toMatchObject({
    code: 'POINT_INVALID',
  })
  const rest = await verifyStore(folder, { since: { position, hash } })
  expect(rest).toMatchObject({ since: position, records: 0, findings: [] })
})

test('R28: the command line takes what an earlier verify printed as its cursor, and refuses anything else', async () => {
  const folder = freshFolder()
  await session(folder, prng(7), 'a')
  const cli = (...words: string[]) => slicelog(['--store', folder, ...words])
  const file = `${folder}.json`
  writeFileSync(file, (await cli('verify', '--json')).out)
  await session(folder, prng(8), 'b')
  const next = await cli('verify', '--since', file, '--json')
  expect(next.code).toBe(0)
  const { since, findings } = next.json<{ since: number; findings: unknown[] }>()
  expect(findings).toEqual([])
  expect(since).toBeGreaterThan(0)
  expect(since).toBeLessThanOrEqual(JSON.parse(readFileSync(file, 'utf8')).head.position)
  expect((await cli('verify', '--since', file)).out).toContain('after @')
  for (const words of ['', '{}', '{"head":{}}', '{"position":-2,"hash":"x"}', 'nonsense']) {
    writeFileSync(file, words)
    expect((await cli('verify', '--since', file)).code).toBe(2)
  }
  expect((await cli('verify', '--since', `${file}.gone`)).code).toBe(2)
})
