/** What a kill and a restart of the machine cost, at both levels: a copy of an open store's folder is what a kill leaves. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { MiB } from '../../src/limits.ts'
import { bootIdBytes, openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import type { Durability, Machine } from '../../src/store/types.ts'
import { openIn } from '../log/open.ts'

const machine = (boot: string): Machine => ({ bootId: () => boot })
const ONE = [{ offset: 0, length: 512 }]

/** A store in which two disks are written after the last synced record, and what a kill then leaves. */
async function killed(durability: Durability): Promise<{ folder: string; synced: number; head: number }> {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-restart-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const store = await openStore(join(root, 'live'), { durability, machine: machine('before') })
  for (const recorder of ['caller', 'store'] as const) {
    const disk = await store.ensureDisk(recorder, { size: MiB, recorder })
    await disk.addBitmap('b', { retention: 2 })
    await disk.recordWrites(ONE)
    await disk.bitmap('b').bank()
  }
  await store
    .disk('caller')
    .beginBackup({ bitmap: 'b', mode: 'incremental', since: 'active', id: 'of-caller' })
  await store
    .disk('store')
    .beginBackup({ bitmap: 'b', mode: 'incremental', since: 'active', id: 'of-store', copiedBy: 'store' })
  const synced = store.head.position
  await store.disk('caller').recordWrites(ONE)
  await store.disk('store').recordWrites([{ offset: 65_536, length: 512 }])
  const head = store.head.position
  cpSync(join(root, 'live'), join(root, 'copy'), { recursive: true })
  await store.close()
  return { folder: join(root, 'copy'), synced, head }
}

const lostOf = (store: Store, disk: string) => store.disk(disk).info.lost.map(({ from }) => from.position)

test.each(['process', 'power'] as const)(
  'R10, R32: after a kill at level %s, a disk that our process writes loses nothing, and its backup is found interrupted',
  async (durability) => {
    const { folder, head } = await killed(durability)
    expect((await verifyStore(folder, { machine: machine('before') })).findings).toEqual([])
    const store = await openStore(folder, { machine: machine('before') })
    expect(store.head.position).toBeGreaterThanOrEqual(head)
    expect(store.backup('of-caller').info.state).toBe('running')
    expect(store.backup('of-store').info.state).toBe('interrupted')
    await store.ensureDisk('store', { size: MiB })
    expect(lostOf(store, 'store')).toEqual([])
    expect((await store.disk('store').bitmap('b').slices()).slices.map(({ slice }) => slice)).toEqual([0])
    await store.close()
    expect((await verifyStore(folder)).findings).toEqual([])
  },
)

test('R32: after a kill, a disk that a caller records has lost the time up to its next attach, unless the caller says that it was quiet', async () => {
  for (const quiet of [false, true]) {
    const { folder } = await killed('process')
    const store = await openStore(folder, { machine: machine('before') })
    const last = store.disk('caller').info.last.position
    await store.ensureDisk('caller', { size: MiB, quiet })
    expect(lostOf(store, 'caller')).toEqual(quiet ? [] : [last])
    await store.close()
    expect((await verifyStore(folder)).findings).toEqual([])
  }
})

test('R32: after a restart at level process, what our process wrote since the last synced record is a lost stretch from there on, and slices and counters stay', async () => {
  const { folder, synced } = await killed('process')
  const store = await openStore(folder, { machine: machine('after') })
  expect(lostOf(store, 'store')).toEqual([synced])
  expect((await store.disk('store').bitmap('b').slices()).slices.map(({ slice }) => slice)).toEqual([0])
  const plan = await store.plan({ disk: 'store', bitmap: 'b', mode: 'differential', since: { position: 0 } })
  expect(plan.bytes).toBe(MiB)
  await store.close()
  expect((await verifyStore(folder)).findings).toEqual([])
})

test('R30, R32: after a restart at level power nothing is lost', async () => {
  const { folder, head } = await killed('power')
  const store = await openStore(folder, { machine: machine('after') })
  expect(store.head.position).toBeGreaterThanOrEqual(head)
  expect(lostOf(store, 'store')).toEqual([])
  await store.close()
})

test('R32: a restart is not forgotten by a kill right after the log was opened, before what it cost was recorded', async () => {
  const { folder, synced } = await killed('process')
  const { log } = await openIn(folder, { bootId: bootIdBytes('after'), createIfMissing: false })
  const after = `${folder}-again`
  cpSync(folder, after, { recursive: true })
  await log.close()
  const store = await openStore(after, { machine: machine('after') })
  expect(lostOf(store, 'store')).toEqual([synced])
  await store.close()
})
