/** Histories to compact: driven at random under a clock that goes on, with every write remembered one by one. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { type OpenOptions, openStore, type Store } from '../../src/index.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'
import { command, prepare, type Random, whole, write } from '../audit/drive.ts'
import { T0 } from './support.ts'

export const SECOND = 1000
export const MINUTE = 60 * SECOND

export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'slicelog-compact-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export interface Past {
  readonly folder: string
  readonly clock: ManualClock
  readonly store: Store
}

/** Steps of writes and commands, some seconds apart, mostly writes. */
export async function past(random: Random, steps: number, options: OpenOptions = {}): Promise<Past> {
  const folder = temporary()
  const clock = manualClock(T0)
  const store = await openStore(folder, { clock, snapshotEvery: 3000, ...options })
  await prepare(store)
  for (let i = 0; i < steps; i++) {
    clock.advance(whole(random, 20) * SECOND)
    if (random() < 0.8) await write(store, random)
    else await command(store, random, `past-${i}`)
    if (random() < 0.02) await store.repack()
  }
  return { folder, clock, store }
}

/** Everything that must be the same before and after: state at each command's record, plans of all backups (R26). */
export async function evidence(store: Store, points: readonly number[]): Promise<Map<string, unknown>> {
  const seen = new Map<string, unknown>()
  for (const position of points) {
    const then = await store.at({ position })
    for (const { disk, bitmaps, last } of then.disks()) {
      seen.set(`${position} ${disk} last`, last)
      for (const name of bitmaps) {
        const { digest, count, recording, successorCount } = await then.bits(disk, name)
        const { slices } = await then.slices(disk, name)
        seen.set(`${position} ${disk} ${name}`, { digest, count, recording, successorCount, slices })
      }
    }
  }
  for (const { id } of store.backups()) {
    const { digest, bytes, extents, complete, base, merges } = await store.replayPlan(id)
    seen.set(`plan ${id}`, { digest, bytes, extents, complete, base, merges })
  }
  return seen
}

/** Ends of the records that hold no writes. */
export async function commandPoints(store: Store): Promise<number[]> {
  const points: number[] = []
  for await (const records of store.records())
    for (const record of records) if (record.kind === 'events') points.push(record.first + record.count - 1)
  return points
}

export interface OneWrite {
  readonly position: number
  readonly time: number
  readonly disk: string | null
  readonly offset: number
  readonly length: number
}

export async function writesOf(store: Store): Promise<OneWrite[]> {
  const writes: OneWrite[] = []
  for await (const { position, time, disk, type, data } of store.log({ types: ['write'] })) {
    if (type !== 'write') continue
    writes.push({ position, time, disk, offset: Number(data.offset), length: Number(data.length) })
  }
  return writes
}

/** `a:b,c:d` with ages and windows from seconds to an hour, rising. */
export function somePolicy(random: Random): string {
  const ages = [whole(random, 60), 60 + whole(random, 600)]
  const windows = [1 + whole(random, 30), 31 + whole(random, 600)]
  return random() < 0.4
    ? `${ages[0]}s:${windows[0]}s`
    : `${ages[0]}s:${windows[0]}s,${ages[1]}s:${windows[1]}s`
}
