/** Making a store while others do (R34), and a clock that went back while nobody looked (R22). */
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { openMemoryStore, openStore } from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { claimHere, isOpenHere } from '../../src/log/open-here.ts'
import { isVacant, makeStoreFile, pathsOf } from '../../src/store/folder.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { again, T0, typesOf } from './support.ts'

const folders: string[] = []
async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'slicelog-made-'))
  folders.push(made)
  return made
}
afterEach(async () => {
  for (const made of folders.splice(0)) await rm(made, { recursive: true, force: true })
})

test('R34: of many that make a store at once one makes it, all others find that one, and nothing is left over', async () => {
  for (let round = 0; round < 5; round++) {
    const paths = pathsOf(join(await folder(), 'deep', 'store'))
    const made = await Promise.all(
      Array.from({ length: 16 }, async () => {
        expect(await isVacant(paths).catch(() => true)).toBeDefined()
        return await makeStoreFile(paths)
      }),
    )
    expect(new Set(made.map(({ id }) => id)).size).toBe(1)
    expect(await readdir(paths.root)).toEqual(['store.json'])
  }
})

test('R34: what a maker that died left is removed, what a living one has begun is not', async () => {
  const root = await folder()
  await writeFile(join(root, '.store.json.999999999'), '{')
  await writeFile(join(root, `.store.json.${process.pid}-x`), '{')
  expect(await isVacant(pathsOf(root))).toBe(true)
  expect(await readdir(root)).toEqual([`.store.json.${process.pid}-x`])
})

test('R34: opens at once in one process end as the store or as STORE_IN_USE, never as anything else', async () => {
  const root = join(await folder(), 'store')
  const opened = await Promise.allSettled(Array.from({ length: 8 }, () => openStore(root)))
  const stores = opened.flatMap((ended) => (ended.status === 'fulfilled' ? [ended.value] : []))
  const codes = opened.flatMap((ended) =>
    ended.status === 'rejected' ? [(ended.reason as { code: string }).code] : [],
  )
  expect(stores.length).toBe(1)
  expect(new Set(codes)).toEqual(new Set(['STORE_IN_USE']))
  await stores[0]!.close()
})

test('R34: a path that goes through a file is no store, and a folder with something else in it is left alone', async () => {
  const root = await folder()
  await writeFile(join(root, 'file'), 'mine')
  for (const path of [join(root, 'file'), join(root, 'file', 'store'), root]) {
    await expect(openStore(path)).rejects.toMatchObject({ code: 'NOT_A_STORE' })
  }
  expect(await readdir(root)).toEqual(['file'])
})

test('R34: a folder whose lock file is a link to that of an open one is open here as well', async () => {
  const root = await folder()
  await mkdir(join(root, 'log'))
  await mkdir(join(root, 'shadow'))
  await writeFile(join(root, 'log', 'LOCK'), '')
  await symlink(join(root, 'log', 'LOCK'), join(root, 'shadow', 'LOCK'))
  const release = claimHere(join(root, 'log'))!
  expect(isOpenHere(join(root, 'shadow'))).toBe(true)
  expect(claimHere(join(root, 'shadow'))).toBeUndefined()
  release()
  const other = claimHere(join(root, 'shadow'))
  expect(other).toBeDefined()
  expect(isOpenHere(join(root, 'log'))).toBe(true)
  other?.()
})

test('R22: a clock that went back between two sessions is an event ahead of the first one of the next, once', async () => {
  const log = new MemoryEventLog()
  const hour = 3_600_000
  const first = await openMemoryStore({ log, clock: manualClock(T0 + hour) })
  await first.addDisk('d', { size: 1024 })
  const { position } = first.head
  await first.close()
  const later = await again(log, { clock: manualClock(T0) })
  expect(later.head.position).toBe(position)
  await later.addDisk('e', { size: 1024 })
  expect(await typesOf(later, position + 1)).toEqual(['clock-stepped', 'disk-added'])
  const changed = await later.changed('d', { since: { position } })
  expect(changed.clockSteps).toMatchObject([{ from: T0 + hour, to: T0 }])
  await later.close()
  // Still behind: the times repeat, and nothing new is to be told.
  const last = await again(log, { clock: manualClock(T0 + 1000) })
  await last.addDisk('f', { size: 1024 })
  expect(await typesOf(last, position + 3)).toEqual(['disk-added'])
  await last.close()
})

test('R22: a clock a few seconds behind at the next open, or any time ahead, is no step', async () => {
  for (const drift of [-59_000, 0, 1, 365 * 86_400_000]) {
    const log = new MemoryEventLog()
    const first = await openMemoryStore({ log, clock: manualClock(T0) })
    await first.addDisk('d', { size: 1024 })
    await first.close()
    const later = await again(log, { clock: manualClock(T0 + drift) })
    await later.addDisk('e', { size: 1024 })
    expect(await typesOf(later, first.head.position + 1)).toEqual(['disk-added'])
    await later.close()
  }
})
