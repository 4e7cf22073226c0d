/** A served disk whose file, or whose store, lies on a file system that fills up (R33): a small tmpfs of its own. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { MiB } from '../../src/limits.ts'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { openStore } from '../../src/store/open.ts'
import { cli } from '../owner/support.ts'
import { endChildren } from '../support/children.ts'
import { prng } from '../support/property.ts'
import { dirtyGranules, failsWith, KiB } from './disk-support.ts'
import { Client, CMD } from './support.ts'

const SIZE = 64 * MiB
const GRANULE = 64 * KiB

/** A mounted file system of a few MiB beside a folder on a roomy one; null where this process may not mount. */
function places(): { readonly small: string; readonly roomy: string } | null {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-nbd-full-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const small = mkdtempSync(join(root, 'small-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', small], { stdio: 'ignore' })
  } catch {
    return null
  }
  onTestFinished(() => void execFileSync('umount', ['-l', small]))
  return { small, roomy: root }
}

/** Fills a file system but for some bytes; returns what to remove to make room again. */
function leave(folder: string, bytes: number): string {
  const { bavail, bsize } = statfsSync(folder)
  const path = join(folder, 'ballast')
  writeFileSync(path, new Uint8Array(bavail * bsize - bytes))
  return path
}

function raw(folder: string): string {
  const path = join(folder, 'vda.raw')
  writeFileSync(path, '')
  truncateSync(path, SIZE)
  return path
}

test('R31, R33: a full disk under the file is ENOSPC to the client, the granules stay in the map, and room made goes on at once', async ({
  skip,
}) => {
  const at = places()
  if (at === null) return skip('mounting a tmpfs is not permitted here')
  const ballast = join(at.small, 'ballast')
  writeFileSync(ballast, new Uint8Array(4 * MiB))
  const store = await openStore(join(at.roomy, 'store'))
  onTestFinished(() => store.close())
  const disk = await ServedDisk.open(store, { disk: 'vda', file: raw(at.small) })
  await store.disk('vda').addBitmap('daily', { granularity: GRANULE })
  let full = -1
  for (let i = 0; i < 200 && full < 0; i++) {
    await disk.write(i * GRANULE, Buffer.alloc(GRANULE, 7), false).catch((error) => {
      expect(error.errno).toBe('ENOSPC')
      full = i
    })
  }
  expect(full).toBeGreaterThan(10)
  await failsWith('ENOSPC', () => disk.writeZeroes(300 * GRANULE, 100, { fua: true, noHole: true }))
  await disk.writeZeroes(400 * GRANULE, 100, { fua: false, noHole: false }) // Zeroes already: no room is needed.
  const map = async () => await dirtyGranules(await disk.context('qemu:dirty-bitmap:daily'), SIZE, GRANULE)
  expect(await map()).toEqual([...Array.from({ length: full + 1 }, (_, i) => i), 300, 400])
  rmSync(ballast)
  await disk.write(full * GRANULE, Buffer.alloc(GRANULE, 8), true)
  expect(Buffer.from(await disk.read(full * GRANULE, GRANULE)).every((byte) => byte === 8)).toBe(true)
  await disk.close()
})

test('R33: a full disk under the log is ENOSPC to the client and ends writing; nothing reaches the file that is in no map after room was made', async ({
  skip,
}) => {
  const at = places()
  if (at === null) return skip('mounting a tmpfs is not permitted here')
  const folder = join(at.small, 'store')
  const file = raw(at.roomy)
  const random = prng(33)
  const store = await openStore(folder)
  const disk = await ServedDisk.open(store, { disk: 'vda', file })
  await store.disk('vda').addBitmap('daily', { granularity: GRANULE })
  const ballast = leave(at.small, 300 * KiB)
  const written = new Set<number>()
  const failed: string[] = []
  for (let round = 0; round < 4000 && failed.length === 0; round++) {
    const burst = Array.from({ length: 64 }, async () => {
      const granule = Math.floor(random() * 1024)
      try {
        await disk.write(granule * GRANULE + Math.floor(random() * 60_000), Buffer.alloc(16, 9), false)
        written.add(granule)
      } catch (error) {
        failed.push((error as { errno: string }).errno)
      }
    })
    await Promise.all(burst)
  }
  expect(new Set(failed)).toEqual(new Set(['ENOSPC']))
  await failsWith('ENOSPC', () => disk.trim(0, 1, false))
  await failsWith('ENOSPC', () => disk.flush())
  await disk.read(0, 4096)
  await disk.close()
  await store.close().catch(() => undefined)

  rmSync(ballast)
  const reopened = await openStore(folder, { create: false })
  const again = await ServedDisk.open(reopened, { disk: 'vda', file })
  expect(reopened.diskInfo('vda').lost, 'only we wrote it').toEqual([])
  const map = new Set(await dirtyGranules(await again.context('qemu:dirty-bitmap:daily'), SIZE, GRANULE))
  for (let granule = 0; granule < 1024; granule++) {
    const bytes = await again.read(granule * GRANULE, GRANULE)
    const touched = written.has(granule) || bytes.some((byte) => byte !== 0)
    if (touched) expect([granule, map.has(granule)]).toEqual([granule, true])
  }
  await again.write(0, Buffer.alloc(1), true)
  await again.close()
  await reopened.close()
  expect((await verifyStore(folder)).findings).toEqual([])
})

test('R33, R35: with continue a full disk under the log stops no client; killed with SIGKILL, the stretch is lost at the next open, and only for older bases', async ({
  skip,
}) => {
  const at = places()
  if (at === null) return skip('mounting a tmpfs is not permitted here')
  onTestFinished(endChildren)
  const [folder, file, socket] = [join(at.small, 'store'), raw(at.roomy), join(at.roomy, 'nbd.sock')]
  await (await openStore(folder)).close()
  const words = ['--disk', `vda=${file}`, '--bitmap', 'daily', '--nbd', `unix:${socket}`, '--json']
  const served = cli([
    '--store',
    folder,
    'serve',
    '--on-log-error',
    'continue',
    '--durability',
    'process',
    ...words,
  ])
  while (!served.text.out.includes('\n')) await sleep(10)
  const ask = (...asked: string[]) => cli(['--store', folder, ...asked, '--json']).ended
  expect((await ask('checkpoint', 'create', 'older')).code).toBe(0)
  const ballast = leave(at.small, 200 * KiB)
  const client = await new Client(socket).go()
  const random = prng(34)
  /** So many writes that are under way at once; each must be answered without an error. */
  const writes = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const data = Buffer.alloc(16, 9)
      client.ask({ type: CMD.write, cookie: i, offset: Math.floor(random() * (SIZE - 16)), data })
    }
    for (let i = 0; i < count; i++) expect((await client.reply())?.errno).toBe(0)
  }
  for (let round = 0; round < 4000 && !served.text.err.includes('WRITES_UNRECORDED'); round++)
    await writes(64)
  expect(served.text.err).toMatch(/WRITES_UNRECORDED.*vda/)
  await writes(64)
  expect(
    (await client.call({ type: CMD.write, offset: 777 * GRANULE, data: Buffer.alloc(512, 7), flags: 1 }))
      ?.errno,
  ).toBe(0)
  expect((await client.call({ type: CMD.flush }))?.errno).toBe(0)
  const refused = await ask('backup', 'begin', 'vda', 'daily', '--mode', 'full')
  expect([refused.code, JSON.parse(refused.err).error.code]).toEqual([1, 'STORE_FAILED'])
  served.child.kill('SIGKILL')
  await served.ended

  rmSync(ballast)
  const reopened = await openStore(folder, { create: false })
  onTestFinished(() => reopened.close())
  expect(reopened.diskInfo('vda').lost).toMatchObject([
    { reason: expect.stringContaining('log could not be written') },
  ])
  const again = await ServedDisk.open(reopened, { disk: 'vda', file })
  expect((await again.read(777 * GRANULE, 1))[0]).toBe(7)
  const older = await reopened.changed('vda', { since: { checkpoint: 'older' } })
  expect([older.complete, older.bytes]).toEqual([false, SIZE])
  await reopened.createCheckpoint('newer')
  await again.write(5 * GRANULE, Buffer.alloc(1), true)
  const newer = await reopened.changed('vda', { since: { checkpoint: 'newer' } })
  expect([newer.complete, newer.extents]).toEqual([true, [{ offset: 5 * GRANULE, length: GRANULE }]])
  await again.close()
  await reopened.close()
  expect((await verifyStore(folder)).findings).toEqual([])
})
