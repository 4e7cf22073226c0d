/** A folder of derived values whose keys LevelDB cannot read any more: as if nothing were stored, and verify says so (R28). */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import { runs } from '../support/property.ts'

test('R28: whatever bit of its table is flipped, verify and every question have an answer, and none is another one', async () => {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-unlisted-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const store = await openStore(join(root, 'store'))
  const disk = await store.addDisk('vda', { size: 1024 * 1024 })
  await disk.addBitmap('daily', { retention: 2 })
  await disk.recordWrites([{ offset: 65536, length: 512 }])
  await disk.bitmap('daily').bank()
  await store.snapshot()
  await store.close()
  // LevelDB writes its table as it opens again.
  await (await openStore(join(root, 'store'))).close()
  const table = readdirSync(join(root, 'store/derived')).find((name) => name.endsWith('.ldb'))!
  const bytes = readFileSync(join(root, 'store/derived', table))
  let unlisted = 0
  // Behind a key LevelDB says what the entry is, in a byte; then bits here and there.
  const kind = bytes.indexOf('s0000000000') + 's0000000000000000'.length
  const flips = [kind, ...Array.from({ length: runs(30, bytes.length) }, (_, i) => i)]
  for (const at of flips) {
    const copy = join(root, 'copy')
    cpSync(join(root, 'store'), copy, { recursive: true })
    const flipped = Buffer.from(bytes)
    flipped[at]! ^= at === kind ? 0x40 : 1 << (at % 8)
    writeFileSync(join(copy, 'derived', table), flipped)
    const report = await verifyStore(copy)
    if (report.findings.some(({ todo }) => todo.includes('cannot be listed'))) unlisted++
    const open = await openStore(copy)
    const { extents } = await open.changed('vda', { since: { position: 1 } })
    expect(extents).toEqual([{ offset: 65536, length: 65536 }])
    await open.close()
    rmSync(copy, { recursive: true })
  }
  process.stderr.write(
    `proof: flips in derived values: ${flips.length} rounds, ${unlisted} could not be listed\n`,
  )
  expect(unlisted).toBeGreaterThan(0)
})
