/** Space of replaced values is given back whatever readers there are meanwhile, once they are gone (R29). */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { eventKey, FAR, FARTHER } from '../../src/log/keys.ts'
import { type Database, database, LevelSource } from '../../src/log/level-source.ts'
import { Reclaimer } from '../../src/log/reclaim.ts'

const REPLACED = 4000
const KEPT = 3000
const VALUE = 1024

let folder = ''
let db: Database

async function filled(): Promise<Reclaimer> {
  folder = mkdtempSync(join(tmpdir(), 'slicelog-reclaim-'))
  db = database(folder)
  await db.open()
  const random = (position: number) =>
    Uint8Array.from({ length: VALUE }, (_, i) => ((position * 31 + i * 17) * 2654435761) >>> 24)
  const puts = Array.from({ length: REPLACED + KEPT }, (_, position) => ({
    type: 'put' as const,
    key: eventKey(position),
    value: random(position),
  }))
  await db.batch(puts)
  await db.compactRange(FAR, FARTHER)
  return new Reclaimer(db)
}

afterEach(async () => {
  await db.close()
  rmSync(folder, { recursive: true, force: true })
})

function view(reclaimer: Reclaimer): LevelSource {
  const source = new LevelSource(db, () => reclaimer.viewReleased())
  reclaimer.viewOpened()
  return source
}

async function replaceAll(): Promise<void> {
  await db.batch(Array.from({ length: REPLACED }, (_, i) => ({ type: 'del' as const, key: eventKey(i) })))
}

function tables(): string[] {
  return readdirSync(folder).filter((name) => name.endsWith('.ldb'))
}

const bytesNow = () => tables().reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)

test('R29: without readers, replaced values are gone at once', async () => {
  const reclaimer = await filled()
  const before = bytesNow()
  await replaceAll()
  await reclaimer.reclaim(0, REPLACED)
  expect(bytesNow()).toBeLessThan(before * 0.6)
})

test('R29: a reader with a view from before stands in the way until it is gone', async () => {
  const reclaimer = await filled()
  const before = bytesNow()
  const reader = view(reclaimer)
  await replaceAll()
  await reclaimer.reclaim(0, REPLACED)
  expect(bytesNow()).toBeGreaterThan(before * 0.9)
  expect(await reader.get(eventKey(0))).toHaveLength(VALUE)
  await reader.release()
  await reclaimer.end(false)
  expect(bytesNow()).toBeLessThan(before * 0.6)
})

test('R29: a reader that comes while tables are merged keeps their files no longer than it reads', async () => {
  const reclaimer = await filled()
  const before = bytesNow()
  const first = view(reclaimer)
  await replaceAll()
  await reclaimer.reclaim(0, REPLACED)
  await first.release()
  // The merge has begun by now, and this one reads the tables of before it.
  const second = view(reclaimer)
  const values = second.raw()
  await values.next()
  await reclaimer.end(false)
  expect(bytesNow(), 'both the old tables and the new').toBeGreaterThan(before)
  await values.return()
  await second.release()
  await reclaimer.end(false)
  expect(bytesNow()).toBeLessThan(before * 0.6)
})
