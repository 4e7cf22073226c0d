import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { drive } from './drive.ts'

test('R26, R28: stores driven at random, closed and opened, have no findings, and every past plan comes out equal', async () => {
  const rounds = runs(8, 100)
  const used = seed()
  announce('random stores verified', rounds, used)
  const random = prng(used)
  for (let round = 0; round < rounds; round++) {
    const folder = mkdtempSync(join(tmpdir(), 'slicelog-random-'))
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    let anchor: { position: number; hash: string } | undefined
    for (let session = 0; session < 2; session++) {
      const store = await openStore(folder, { snapshotEvery: 1500 })
      await drive(store, random, 80, `s${session}`)
      await store.close()
      const report = await verifyStore(folder, anchor === undefined ? {} : { against: anchor })
      expect(report.findings).toEqual([])
      anchor = report.head
    }
  }
})
