/**
 * Repairs damaged copies of a store, one after the other, and judges each by what the log held before: run as a process of its
 * own, so that a crash of LevelDB is seen. stdin: one case a line, `{"folder","originals","count"}`; stdout: a verdict for each.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { type RepairReport, repairStore } from '../../src/audit/repair.ts'
import { CheckpointError } from '../../src/errors.ts'
import { openStore } from '../../src/store/open.ts'
import { recordsIn } from '../audit/repair-support.ts'

interface Case {
  readonly folder: string
  /** JSON file: pairs of first position and record. */
  readonly originals: string
  /** Events in the log before it was damaged. */
  readonly count: number
}

/** What is wrong after the repair, or how it went. */
async function judged({ folder, originals, count }: Case): Promise<{ verdict: string; wrong?: string }> {
  let report: RepairReport
  try {
    report = await repairStore(folder)
  } catch (error) {
    if (error instanceof CheckpointError) return { verdict: `refused ${error.code}` }
    return { verdict: 'wrong', wrong: `no code: ${error instanceof Error ? error.stack : String(error)}` }
  }
  const wrong: string[] = report.remaining.map(({ code, position }) => `still ${code} at ${String(position)}`)
  const store = await openStore(folder, { create: false })
  try {
    const before = new Map(JSON.parse(readFileSync(originals, 'utf8')) as [number, string][])
    const after = await recordsIn(store)
    for (const [at, text] of after) {
      if (at < count && before.get(at) !== text)
        wrong.push(`the record at ${at} is not the one that was there`)
    }
    for (const at of before.keys()) {
      if (after.has(at) || report.lost.some(({ first, last }) => first <= at && at <= last)) continue
      wrong.push(`the record at ${at} is gone and nothing tells it`)
    }
    for (const disk of store.disks()) {
      const lost = report.lost.find(({ first }) => first > disk.added.position)
      if (lost === undefined) continue
      const { complete, bytes } = await store.changed(disk.disk, { since: { position: lost.first - 1 } })
      if (complete || bytes !== disk.size)
        wrong.push(`changed since ${lost.first - 1} does not cover ${disk.disk}`)
    }
  } catch (error) {
    wrong.push(`reading: ${error instanceof Error ? error.message : String(error)}`)
  } finally {
    await store.close()
  }
  if (wrong.length > 0) return { verdict: 'wrong', wrong: wrong.slice(0, 3).join('; ') }
  if (report.state === 'sound') return { verdict: 'sound' }
  return { verdict: report.lost.length > 0 ? 'repaired with loss' : 'repaired without loss' }
}

for await (const line of createInterface({ input: process.stdin })) {
  const one = JSON.parse(line) as Case
  const answer = await judged(one).catch((error: unknown) => ({
    verdict: 'wrong',
    wrong: error instanceof Error ? `${error.message} ${error.stack}` : String(error),
  }))
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
