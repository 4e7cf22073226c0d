/** A disk that fills up under a store (R33): a small tmpfs of its own, so nothing else feels it. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { CheckpointError } from '../../src/errors.ts'
import { MiB } from '../../src/limits.ts'
import { openStore } from '../../src/store/open.ts'
import { prng } from '../support/property.ts'

/** A mounted file system of a few MiB, or null where this process may not mount. */
function smallDisk(): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'slicelog-full-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder], { stdio: 'ignore' })
  } catch {
    return null
  }
  onTestFinished(() => void execFileSync('umount', ['-l', folder]))
  return folder
}

test('R33: on a full disk the store refuses every later command with the first cause, and reopening after freeing space loses nothing acknowledged', async ({
  skip,
}) => {
  const root = smallDisk()
  if (root === null) return skip('mounting a tmpfs is not permitted here')
  const folder = join(root, 'store')
  const random = prng(33)
  writeFileSync(join(root, 'ballast'), new Uint8Array(3 * MiB))
  const store = await openStore(folder)
  const disk = await store.ensureDisk('vda', { size: 64 * MiB })
  await disk.addBitmap('daily', { retention: 3 })
  await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'running' })
  let acknowledged = store.head
  let failure: unknown
  for (let i = 0; i < 2000 && failure === undefined; i++) {
    const offsets = Float64Array.from({ length: 4096 }, () => Math.floor(random() * 100_000) * 512)
    const lengths = new Float64Array(4096).fill(512)
    try {
      await disk.recordWrites({ offsets, lengths })
      acknowledged = store.head
    } catch (error) {
      failure = error
    }
  }
  expect(failure).toBeInstanceOf(CheckpointError)
  expect((failure as CheckpointError).code).toBe('OUTCOME_UNKNOWN')
  const refused = await disk
    .bitmap('daily')
    .clear()
    .catch((error: unknown) => error)
  expect(refused).toMatchObject({ code: 'STORE_FAILED' })
  const again = await disk.recordWrites([{ offset: 0, length: 512 }]).catch((error: unknown) => error)
  expect(again).toMatchObject({ code: 'STORE_FAILED' })
  expect((again as CheckpointError).cause).toBe((refused as CheckpointError).cause)
  await store.close().catch(() => undefined)

  rmSync(join(root, 'ballast'))
  const reopened = await openStore(folder, { create: false })
  expect(reopened.head.position).toBeGreaterThanOrEqual(acknowledged.position)
  expect(reopened.backup('running').info.state).toBe('running')
  const same = await reopened.ensureDisk('vda', { size: 64 * MiB, quiet: true })
  await same.recordWrites([{ offset: 0, length: 512 }])
  await reopened.close()
  const report = await verifyStore(folder, { against: acknowledged })
  expect(report.findings).toEqual([])
})
