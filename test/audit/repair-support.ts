/** What a log says, record by record, to compare before and after a repair; damage that has no older version; a whole repair. */
import { readdirSync } from 'node:fs'
import { expect } from 'vitest'
import type { LogRecord } from '../../events/types.ts'
import { type RepairReport, repairStore } from '../../src/audit/repair.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { put, withLog } from './support.ts'

/** First position of each record → its content as text. Gaps are left out. */
export async function recordsOf(folder: string): Promise<Map<number, string>> {
  const store = await openStore(folder, { create: false })
  try {
    return await recordsIn(store)
  } finally {
    await store.close()
  }
}

export async function recordsIn(store: Store): Promise<Map<number, string>> {
  const stop = new AbortController()
  const found = new Map<number, string>()
  for await (const told of store.follow({ from: { position: 0 }, signal: stop.signal })) {
    if (told.kind === 'caughtUp') break
    if (told.kind !== 'records') continue
    for (const record of told.records) if (record.kind !== 'gap') found.set(record.first, textOf(record))
  }
  stop.abort()
  return found
}

export function textOf(record: LogRecord): string {
  return JSON.stringify(record, (_, value: unknown) =>
    ArrayBuffer.isView(value) ? Array.from(value as Float64Array) : value,
  )
}

export function treeOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()
}

/** Puts values in place of what is there, and makes sure that LevelDB's files hold no older version of anything. */
export async function spoil(folder: string, ...entries: Parameters<typeof put>[1][]): Promise<void> {
  await put(folder, ...entries)
  await compacted(folder)
}

export async function compacted(folder: string): Promise<void> {
  await withLog(folder, (db) => db.compactRange(Uint8Array.of(0), Uint8Array.of(0xff)))
}

/** Damage → dry run → repair, with everything that holds after any repair. */
export async function repaired(folder: string): Promise<RepairReport> {
  const before = treeOf(folder)
  const dry = await repairStore(folder, { dryRun: true })
  expect(dry.state).toBe('damaged')
  expect(treeOf(folder)).toEqual(before)
  const report = await repairStore(folder)
  expect(report.state).toBe('repaired')
  expect(report.lost).toEqual(dry.lost)
  expect(report.disks).toEqual(dry.disks)
  expect(report.remaining).toEqual([])
  const after = await verifyStore(folder)
  expect(after.findings).toEqual([])
  expect(after.head).toEqual(report.head)
  expect(await repairStore(folder)).toMatchObject({ state: 'sound' })
  return report
}
