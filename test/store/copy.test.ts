/** `copyTo`: the store as it is at one moment, while it goes on; whole or not there. */
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { MiB } from '../../src/limits.ts'
import { openMemoryStore, openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { drive } from '../audit/drive.ts'
import { recordsOf } from '../audit/repair-support.ts'
import { prng, seed } from '../support/property.ts'
import { script } from '../support/script.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'copy-child.ts')
const DISK = 'vm/vda'

async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'slicelog-copy-'))
  onTestFinished(() => rm(made, { recursive: true, force: true }))
  return made
}

async function sample(root: string): Promise<Store> {
  const store = await openStore(join(root, 'store'), { snapshotEvery: 300 })
  onTestFinished(() => store.close())
  const disk = await store.ensureDisk(DISK, { size: 64 * MiB })
  await disk.addBitmap('daily', { retention: 3 })
  for (let i = 0; i < 20; i++) {
    await disk.recordWrites(
      Array.from({ length: 50 }, (_, j) => ({ offset: (i * 50 + j) * 512, length: 512 })),
    )
    if (i % 5 === 4) await disk.bitmap('daily').bank({ forceCycle: true, commandId: `bank-${i}` })
  }
  return store
}

test('R28: a copy of an open store has its id and its head, is sound, and opens without a word of damage', async () => {
  const root = await folder()
  const store = await sample(root)
  await store.snapshot()
  const to = join(root, 'new', 'copy')
  const seen: number[] = []
  const { head } = store
  const copied = await store.copyTo(to, { onProgress: (position) => seen.push(position) })
  expect(copied).toMatchObject({ folder: to, events: head.position + 1, head })
  expect(seen.at(-1)).toBe(head.position)
  expect(await verifyStore(to, { against: head })).toMatchObject({ head, findings: [] })
  expect(JSON.parse(await readFile(join(to, 'store.json'), 'utf8')).id).toBe(copied.store)
  const copy = await openStore(to, { create: false })
  const { opened } = await copy.status()
  expect(opened).toMatchObject({ clean: true, rebuilt: [] })
  expect(opened.replayed).toBeLessThan(head.position)
  expect((await copy.disk(DISK).bitmap('daily').bits()).digest).toBe(
    (await store.disk(DISK).bitmap('daily').bits()).digest,
  )
  await copy.disk(DISK).bitmap('daily').bank({ forceCycle: true, commandId: 'bank-19' })
  expect(copy.head).toEqual(head)
  await copy.close()
  await store.close()
  const [mine, theirs] = [await recordsOf(join(root, 'store')), await recordsOf(to)]
  for (const [at, text] of theirs) if (at <= head.position) expect(text).toBe(mine.get(at))
})

test('R28: writers go on meanwhile, and the copy is of one moment between two records', async () => {
  const root = await folder()
  const used = seed()
  process.stderr.write(`proof: copies while writing: seed ${used}\n`)
  const random = prng(used)
  const store = await openStore(join(root, 'store'), { snapshotEvery: 500 })
  await drive(store, random, 60, 'before')
  let writing = true
  const writer = (async () => {
    for (let i = 0; writing; i++) await drive(store, random, 5, `during-${i}`)
  })()
  const heads = []
  for (let i = 0; i < 4; i++) heads.push((await store.copyTo(join(root, `copy-${i}`))).head)
  writing = false
  await writer
  await store.close()
  const all = await recordsOf(join(root, 'store'))
  for (const [i, head] of heads.entries()) {
    const at = join(root, `copy-${i}`)
    expect(await verifyStore(at)).toMatchObject({ head, findings: [] })
    for (const [position, text] of await recordsOf(at))
      if (position <= head.position) expect(text).toBe(all.get(position))
  }
  expect(heads.at(-1)!.position).toBeGreaterThan(heads[0]!.position)
})

test('R28: a copy that went its own way is another history: what one derived, the other does not use', async () => {
  const root = await folder()
  const store = await sample(root)
  await store.copyTo(join(root, 'copy'))
  const copy = await openStore(join(root, 'copy'))
  await copy.ensureDisk(DISK, { size: 64 * MiB, quiet: true })
  await copy.disk(DISK).recordWrites([{ offset: 32 * MiB, length: 512 }])
  await store.disk(DISK).recordWrites([{ offset: 0, length: 512 }])
  const { head } = store
  await copy.close()
  const { findings } = await verifyStore(join(root, 'copy'), { against: head })
  expect(findings.map(({ code }) => code)).toEqual([expect.stringMatching(/^ANCHOR_/)])
})

test('R28: a new store, with nothing in it, is copied as well', async () => {
  const root = await folder()
  const store = await openStore(join(root, 'store'))
  await store.copyTo(join(root, 'copy'))
  await store.close()
  expect(await verifyStore(join(root, 'copy'))).toMatchObject({ events: 0, findings: [] })
})

describe('refusals: nothing is written', () => {
  test('R28: TARGET_EXISTS: a file, a folder with something in it, the store itself; an empty folder will do', async () => {
    const root = await folder()
    const store = await sample(root)
    await writeFile(join(root, 'file'), 'x')
    await mkdir(join(root, 'full'))
    await writeFile(join(root, 'full', 'x'), 'x')
    await mkdir(join(root, 'empty'))
    for (const name of ['file', 'full'])
      await expect(store.copyTo(join(root, name))).rejects.toMatchObject({ code: 'TARGET_EXISTS' })
    for (const name of ['.', 'log', 'deep/er'])
      await expect(store.copyTo(join(root, 'store', name))).rejects.toMatchObject({ code: 'TARGET_INVALID' })
    await store.copyTo(join(root, 'empty'))
    await expect(store.copyTo(join(root, 'empty'))).rejects.toMatchObject({ code: 'TARGET_EXISTS' })
    expect((await readdir(root)).sort()).toEqual(['empty', 'file', 'full', 'store'])
  })

  test('R28: wrong arguments, a store in memory, a closed store', async () => {
    const root = await folder()
    const store = await sample(root)
    await expect(store.copyTo('')).rejects.toThrow(TypeError)
    await expect(store.copyTo(7 as never)).rejects.toThrow(TypeError)
    const memory = await openMemoryStore()
    await expect(memory.copyTo(join(root, 'memory'))).rejects.toThrow(TypeError)
    await memory.close()
    await store.close()
    await expect(store.copyTo(join(root, 'late'))).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    expect(await readdir(root)).toEqual(['store'])
  })

  test('R21: a caller that gives up, before or in the middle, leaves nothing', async () => {
    const root = await folder()
    const store = await sample(root)
    await expect(store.copyTo(join(root, 'a'), { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ABORTED',
    })
    const stop = new AbortController()
    const aborted = store.copyTo(join(root, 'b'), { signal: stop.signal, onProgress: () => stop.abort() })
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' })
    expect(await readdir(root)).toEqual(['store'])
  })

  test('R28: of two copies to one place one is made, and the other is refused', async () => {
    const root = await folder()
    const store = await sample(root)
    const both = await Promise.allSettled([store.copyTo(join(root, 'to')), store.copyTo(join(root, 'to'))])
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({
      reason: { code: 'TARGET_EXISTS' },
    })
    expect((await verifyStore(join(root, 'to'))).findings).toEqual([])
    expect((await readdir(root)).sort()).toEqual(['store', 'to'])
  })
})

test('R28: a copy that is killed leaves a partial folder, which the next one takes away', {
  timeout: 60_000,
}, async () => {
  const root = await folder()
  const store = await sample(root)
  await store.close()
  const { signal } = spawnSync(process.execPath, [...script(CHILD), join(root, 'store'), join(root, 'to')])
  expect(signal).toBe('SIGKILL')
  const left = (await readdir(root)).filter((name) => name !== 'store')
  expect(left).toHaveLength(1)
  expect(left[0]).toMatch(/^to\.partial-/)
  const again = await openStore(join(root, 'store'), { create: false })
  await again.copyTo(join(root, 'to'))
  await again.close()
  expect((await readdir(root)).sort()).toEqual(['store', 'to'])
  expect((await verifyStore(join(root, 'to'))).findings).toEqual([])
})
