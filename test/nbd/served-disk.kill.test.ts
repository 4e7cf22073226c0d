/**
 * SIGKILL to a process that serves a disk under load, over and over on one store and one file: whatever the file shows to have
 * changed is in the map since then, and nothing is declared lost (R31, R32).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openContext } from '../../src/nbd/contexts.ts'
import { openStore } from '../../src/store/open.ts'
import { endChildren, tracked } from '../support/children.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { script } from '../support/script.ts'
import { dirtyGranules, folder, KiB } from './disk-support.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'kill-child.ts')
const SIZE = 8 * 1024 * KiB - 777
const GRANULE = 4 * KiB
const HANG_MS = 60_000
const place = folder()
afterAll(() => {
  endChildren()
  place.remove()
})

const start = (store: string, file: string, used: number): ChildProcess =>
  tracked(spawn(process.execPath, [...script(CHILD), store, file, String(used)]))

/** Killed `life` ms after it began to write. */
async function live(child: ChildProcess, life: number): Promise<void> {
  let errors = ''
  child.stderr!.on('data', (chunk) => {
    errors += String(chunk)
  })
  const closed = new Promise<'closed'>((resolve) => child.on('close', () => resolve('closed')))
  const ready = new Promise<'ready'>((resolve) => child.stdout!.once('data', () => resolve('ready')))
  const first = await Promise.race([ready, closed, delay(HANG_MS, 'hangs' as const, { ref: false })])
  if (first !== 'ready') throw new Error(`the child did not begin (${first}): ${errors.slice(0, 1000)}`)
  const ended = await Promise.race([delay(life, 'alive' as const), closed])
  child.kill('SIGKILL')
  await closed
  if (ended !== 'alive') throw new Error(`the child ended by itself: ${errors.slice(0, 1000)}`)
}

function changedGranules(before: Buffer, now: Buffer): number[] {
  const changed: number[] = []
  for (let granule = 0; granule * GRANULE < SIZE; granule++) {
    const [from, to] = [granule * GRANULE, Math.min(SIZE, (granule + 1) * GRANULE)]
    if (!before.subarray(from, to).equals(now.subarray(from, to))) changed.push(granule)
  }
  return changed
}

test('R31, R32: after SIGKILL under load each granule that differs from an earlier copy of the disk is in the map since then', {
  timeout: 3_600_000,
}, async () => {
  const rounds = runs(8, 200)
  const used = seed()
  const random = prng(used)
  announce('kills of a serving process', rounds, used)
  const file = place.path('vda.raw')
  writeFileSync(file, '')
  truncateSync(file, SIZE)
  const path = place.path('store')
  const making = await openStore(path)
  await (await making.addDisk('vda', { size: SIZE })).addBitmap('daily', {
    granularity: GRANULE,
    retention: 1,
  })
  await making.createCheckpoint('round-0')
  await making.close()
  let copy = readFileSync(file)
  let differing = 0
  let writes = 0
  for (let round = 0; round < rounds; round++) {
    await live(start(path, file, Math.floor(random() * 2 ** 31)), random() * 300)
    const now = readFileSync(file)
    const store = await openStore(path, { create: false })
    expect(store.diskInfo('vda').lost, 'only we wrote, and the machine went on').toEqual([])
    writes = store.head.position
    const map = async (name: string) =>
      new Set(
        await dirtyGranules(
          await openContext(store, 'vda', SIZE, `qemu:dirty-bitmap:${name}`),
          SIZE,
          GRANULE,
        ),
      )
    const changed = changedGranules(copy, now)
    differing += changed.length
    for (const name of [`daily@checkpoint=round-${round}`, 'daily']) {
      const dirty = await map(name)
      expect([round, name, changed.filter((granule) => !dirty.has(granule))]).toEqual([round, name, []])
    }
    await store.createCheckpoint(`round-${round + 1}`)
    await store.close()
    copy = now
  }
  expect(differing).toBeGreaterThan(rounds)
  expect((await verifyStore(path)).findings).toEqual([])
  process.stderr.write(
    `proof: kills of a serving process: ${differing} granules differed, ${writes} events\n`,
  )
})
