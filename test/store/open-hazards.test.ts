/** Opening twice, by another name, at once, and with wrong options (R34). */
import { cpSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openMemoryStore, openStore } from '../../src/index.ts'
import { refusal, temporaryFolder } from '../log/support.ts'

test('R34: a second open here is refused, also by a symlink, until the first is closed', async () => {
  const root = join(await temporaryFolder(), 'store')
  const store = await openStore(root)
  symlinkSync(root, `${root}-link`)
  for (const path of [root, `${root}-link`]) {
    const error = await refusal(openStore(path))
    expect(error.code).toBe('STORE_IN_USE')
    expect(error.message).toContain('this process')
  }
  await store.close()
  await (await openStore(`${root}-link`)).close()
})

test('R34: of concurrent opens exactly one wins', async () => {
  const root = join(await temporaryFolder(), 'store')
  await (await openStore(root)).close()
  const all = await Promise.allSettled([openStore(root), openStore(root), openStore(root)])
  const won = all.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  for (const one of all)
    if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'STORE_IN_USE' })
  expect(won).toHaveLength(1)
  await won[0]!.close()
})

test('wrong options are a TypeError', async () => {
  for (const wrong of [
    null,
    3,
    { durability: 'x' },
    { snapshotEvery: 0 },
    { clock: {} },
    { actor: 1 },
    { create: 1 },
  ])
    await expect(openMemoryStore(wrong as never)).rejects.toThrow(TypeError)
})

test('R28: a snapshot of another history of the same store is dropped and told, not used', async () => {
  const folder = await temporaryFolder()
  const [one, two] = [join(folder, 'one'), join(folder, 'two')]
  await (await openStore(one)).close()
  cpSync(one, two, { recursive: true })
  for (const root of [one, two]) {
    const store = await openStore(root)
    await store.ensureDisk(root === one ? 'mine' : 'theirs', { size: 65536 })
    await store.snapshot()
    await store.close()
  }
  rmSync(join(one, 'derived'), { recursive: true })
  cpSync(join(two, 'derived'), join(one, 'derived'), { recursive: true })
  const store = await openStore(one)
  const { opened } = await store.status()
  expect(opened.rebuilt.join()).toMatch(/snapshot at position \d+ could not be used/)
  expect(JSON.stringify(await store.disks())).toContain('"mine"')
  await store.close()
})
