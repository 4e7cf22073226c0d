/** What upkeep must not break: proofs of files made before it, and what is stored while the store closes. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { exportDisk, openStore, proveExport, type Store, verifyStore } from '../../src/index.ts'
import { REPACK_KEY } from '../../src/log/keys.ts'
import type { LevelEventLog } from '../../src/log/level-log.ts'
import { coreOf } from '../../src/store/store.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'
import { KiB, SIZE, T0, turns } from './support.ts'

interface Open {
  readonly store: Store
  readonly folder: string
  readonly clock: ManualClock
}

async function open(): Promise<Open> {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-upkeep-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const folder = join(root, 'store')
  const clock = manualClock(T0)
  const store = await openStore(folder, { clock })
  const disk = await store.ensureDisk('vda', { size: SIZE })
  await disk.addBitmap('daily', { granularity: 4 * KiB, retention: 3 })
  return { store, folder, clock }
}

async function writes({ store, clock }: Open, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await store.disk('vda').recordWrites([{ offset: (i % 64) * 4 * KiB, length: 4 * KiB }])
    clock.advance(10)
  }
}

test('R28, R29: an export whose head was folded into a window since is anchored, not called another history', async () => {
  const made = await open()
  const { store, folder, clock } = made
  await writes(made, 50)
  const file = `${folder}.disk`
  const { head } = await exportDisk(store, 'vda', file)
  await writes(made, 50)
  await store.createCheckpoint('after')
  clock.advance(60_000)
  expect((await store.compact({ policy: '1s:1m' })).runs).toBeGreaterThan(0)
  const inside = await store.changed('vda', { since: { position: head.position } })
  expect(inside.resolution, 'its head lies inside a window now').toBe('window')
  expect(await proveExport(store, file)).toMatchObject({ kind: 'anchored' })
  await store.close()
})

test('R28: an export of a log that is longer than this one is of another history', async () => {
  const made = await open()
  const { store, folder, clock } = made
  await store.copyTo(`${folder}.copy`)
  await writes(made, 5)
  const file = `${folder}.disk`
  await exportDisk(store, 'vda', file)
  await store.close()
  const copy = await openStore(`${folder}.copy`, { clock })
  expect(await proveExport(copy, file)).toMatchObject({ kind: 'differs' })
  await copy.close()
})

test('R28: a snapshot that is asked for while the store closes is whole or not begun', async () => {
  const made = await open()
  const { store, folder, clock } = made
  for (let i = 0; i < 3; i++) {
    await writes(made, 20)
    await store.disk('vda').bitmap('daily').bank()
  }
  const before = store.snapshot()
  const closed = store.close()
  await expect(store.snapshot()).rejects.toMatchObject({ code: 'STORE_CLOSED' })
  await before
  await closed
  expect((await verifyStore(folder)).findings).toEqual([])
  const again = await openStore(folder, { clock })
  expect((await again.status()).opened.rebuilt).toEqual([])
  await again.close()
})

test('R29: a repack that begins while a run is being stored does not bring back what the run replaced', async () => {
  const made = await open()
  const { store, folder, clock } = made
  await writes(made, 120)
  await store.createCheckpoint('end')
  clock.advance(180_000)
  const { source } = await (coreOf(store).log as LevelEventLog).frozen()
  const { db } = source as unknown as { db: { get(key: Uint8Array): Promise<Uint8Array | undefined> } }
  await source.release()
  // The run is decided on, and not in the database yet: a repack begins just there.
  const get = db.get.bind(db)
  let begun = false
  let repacked: Promise<unknown> | undefined
  db.get = async (key) => {
    if (!begun && Buffer.compare(key, REPACK_KEY) === 0) {
      begun = true
      repacked = store.repack()
      await turns(5)
    }
    return await get(key)
  }
  expect((await store.compact({ policy: '1s:1m' })).runs).toBe(1)
  await repacked
  db.get = get
  await store.close()
  expect((await verifyStore(folder)).findings).toEqual([])
})

test('R28, R29: a copy taken while runs are stored holds every event that vouches for them', async () => {
  const made = await open()
  const { store, folder, clock } = made
  const copies: string[] = []
  for (let round = 0; round < 6; round++) {
    await writes(made, 60)
    clock.advance(5_000)
    let done = false
    const compacting = store.compact({ policy: `1s:${(round + 1) * 2}s`, stepBytes: 400 }).then(() => {
      done = true
    })
    for (let i = 0; !done && i < 4; i++) {
      const to = `${folder}.copy-${round}-${i}`
      await store.copyTo(to)
      copies.push(to)
    }
    await compacting
  }
  await store.close()
  for (const copy of copies) expect((await verifyStore(copy)).findings, copy).toEqual([])
})

test('R29: windows of a file that a later compaction made coarser leave it anchored', async () => {
  const made = await open()
  const { store, folder, clock } = made
  await writes(made, 600)
  await store.createCheckpoint('end')
  clock.advance(180_000)
  expect((await store.compact({ policy: '1s:100ms' })).runs).toBe(1)
  const file = `${folder}.disk`
  await exportDisk(store, 'vda', file)
  expect(await proveExport(store, file)).toMatchObject({ kind: 'proved' })
  expect((await store.compact({ policy: '1s:1m' })).runs, 'the same run, of fewer windows').toBe(1)
  expect(await proveExport(store, file)).toMatchObject({ kind: 'anchored' })
  await store.close()
})
