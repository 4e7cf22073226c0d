/**
 * A replay-driven test: a night on which the increment was eight times as large as usual, as it really happened. First the
 * facts, then the cause, then what should have been done; and that a new version still decides the same.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MiB } from '../../src/index.ts'
import { type IncidentPlayer, playIncident } from '../../src/testing/index.ts'

/** Names were replaced when it was exported: no more than this is known of the machine. */
const DISK = 'disk-1'
const BITMAP = 'bitmap-1'
const USUAL = 'backup-8'
const LARGE = 'backup-9'

let night: IncidentPlayer
beforeAll(async () => {
  night = await playIncident(new URL('./eightfold.slicelog-incident', import.meta.url))
})
afterAll(() => night.close())

describe('the night of the large increment', () => {
  test('the increment was eight times the usual one, and its plan was right: the log alone gives it again', async () => {
    const usual = night.store.backup(USUAL).info
    const large = await night.store.replayPlan(LARGE)
    expect(Math.round(large.bytes / usual.bytes)).toBe(8)
    expect(large.digest).toBe(night.store.backup(LARGE).info.digest)
    expect(await night.verify()).toEqual([])
  })

  test('not the writes made it so large: a trim of the file system did, in a burst of discards', async () => {
    const bytes = { write: 0, discard: 0 }
    let firstDiscard = -1
    for await (const { position, data } of night.store.log({ from: { backup: USUAL }, types: ['write'] })) {
      const op = data.op as keyof typeof bytes
      if (op === 'discard' && firstDiscard < 0) firstDiscard = position
      bytes[op] += Number(data.length)
    }
    expect(bytes.discard).toBeGreaterThan(10 * bytes.write)

    const before = await night.to({ position: firstDiscard - 1 })
    const plan = await before.plan({ disk: DISK, bitmap: BITMAP, mode: 'incremental', forceCycle: true })
    expect(plan.bytes).toBeLessThan(32 * MiB)
  })

  test('a backup right before the trim would have been small', async () => {
    const before = await night.to({ position: 36_923 })
    const backup = await before
      .disk(DISK)
      .beginBackup({ bitmap: BITMAP, mode: 'incremental', forceCycle: true })
    expect(backup.plan.bytes).toBeLessThan(32 * MiB)
    await backup.succeed()
    expect((await before.bits(DISK, BITMAP)).count).toBe(0)
  })

  test('every command of that night would be decided the same today', () => {
    const verdicts = night.redecide().map(({ name, verdict }) => [name, verdict.kind])
    expect(verdicts.filter(([, kind]) => kind !== 'same')).toEqual([])
    expect(verdicts.length).toBeGreaterThan(15)
  })
})
