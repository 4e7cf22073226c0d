/** A small store to try rules on: one disk, one bitmap, a clock that stands still until told. */
import { expect } from 'vitest'
import type { EncodedRecord } from '../../events/record.ts'
import {
  type Bitmap,
  CheckpointError,
  type Disk,
  type ErrorCode,
  type OpenOptions,
  openMemoryStore,
  type Store,
} from '../../src/index.ts'
import type { AppendOptions, EventLog, LogHead } from '../../src/log/event-log.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog, type MemoryStorage } from '../../src/log/memory-log.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'
import { fingerprint } from './world.ts'

export const KiB = 1024
export const SIZE = 1024 * KiB
export const T0 = Date.UTC(2026, 0, 1)

export interface Small {
  readonly store: Store
  readonly disk: Disk
  readonly bitmap: Bitmap
  readonly clock: ManualClock
  readonly log: EventLog
}

/** `vda`, 1 MiB, with bitmap `daily` of 4 KiB granules and room for three slices. */
export async function small(options: OpenOptions & { readonly log?: EventLog } = {}): Promise<Small> {
  const clock = manualClock(T0)
  const log = options.log ?? new MemoryEventLog()
  const store = await openMemoryStore({ clock, ...options, log })
  const disk = await store.ensureDisk('vda', { size: SIZE })
  const bitmap = await disk.ensureBitmap('daily', { granularity: 4 * KiB, retention: 3 })
  return { store, disk, bitmap, clock, log }
}

/** Opens again on what a store in memory appended: as after a kill, unless it was closed. */
export async function again(log: EventLog, options: OpenOptions = {}): Promise<Store> {
  const storage: MemoryStorage = (log as MemoryEventLog).storage
  return await openMemoryStore({ clock: manualClock(T0), ...options, log: new MemoryEventLog(storage) })
}

/** Undefined where nothing was. */
async function thrownBy(act: () => unknown): Promise<unknown> {
  try {
    await act()
    return undefined
  } catch (error) {
    return error
  }
}

/** R21 with every refusal: the code is told, and nothing whatever has changed. */
export async function refused(store: Store, code: ErrorCode, act: () => unknown): Promise<CheckpointError> {
  const before = await fingerprint(store)
  const caught = await thrownBy(act)
  if (!(caught instanceof CheckpointError))
    throw caught instanceof Error ? caught : new Error(`nothing was refused; ${code} was due`)
  expect(caught.code, caught.message).toBe(code)
  expect(caught.message, 'an error says what to do').toMatch(/\S.{20,}/)
  expect(await fingerprint(store), `R21: ${code}`).toBe(before)
  return caught
}

/** The same for wrong types, which are no CheckpointError (spec section 3). */
export async function wrongType(store: Store, act: () => unknown): Promise<void> {
  const before = await fingerprint(store)
  const caught = await thrownBy(act)
  expect(
    caught instanceof TypeError || caught instanceof RangeError,
    `a TypeError or RangeError, not ${String(caught)}`,
  ).toBe(true)
  expect(await fingerprint(store), 'R21').toBe(before)
}

/** A log that notes how it was appended to (R30), and that can be made to wait or to fail. */
export class SpyLog extends FaultLog {
  readonly syncs: { first: number; count: number; sync: boolean }[] = []
  /** Appends wait for it. */
  gate: Promise<unknown> = Promise.resolve()

  override async append(records: readonly EncodedRecord[], options: AppendOptions): Promise<LogHead> {
    this.syncs.push({
      first: records[0]!.first,
      count: records.reduce((sum, record) => sum + record.count, 0),
      sync: options.sync,
    })
    await this.gate
    return await super.append(records, options)
  }
}

export interface Gate {
  readonly promise: Promise<void>
  readonly open: () => void
}

export function gate(): Gate {
  let open = () => {}
  const promise = new Promise<void>((resolve) => {
    open = resolve
  })
  return { promise, open }
}

/** Lets everything that is ready run. */
export async function turns(n = 20): Promise<void> {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve))
}

export async function typesOf(store: Store, from = 0): Promise<string[]> {
  const types: string[] = []
  for await (const event of store.log({ from: { position: from } })) types.push(event.type)
  return types
}
