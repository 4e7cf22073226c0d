/**
 * Works on a store until it is killed. Waits for one line on stdin (started ahead, it must not open before its turn), then says
 * what it tries before it tries it and what was acknowledged once it was: one JSON value a line, written synchronously.
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { KiB } from '../../src/limits.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { command, DISKS, pick, prepare, type Random, whole } from '../audit/drive.ts'
import { prng } from '../support/property.ts'
import { LEDGER, LEDGER_BITMAP, LEDGER_GRANULARITY, LEDGER_SIZE, rowsOf } from './rows.ts'

interface Order {
  readonly folder: string
  readonly seed: number
  readonly round: number
  /** Banks that were tried and not acknowledged: sent again under their ids (R13). */
  readonly again: readonly string[]
}

const say = (line: unknown) => writeSync(1, `${JSON.stringify(line)}\n`)

async function main(order: Order): Promise<void> {
  const { folder, round } = order
  const random = prng(order.seed)
  const store = await openStore(folder, {
    durability: random() < 0.2 ? 'power' : 'process',
    snapshotEvery: 20_000,
  })
  say({
    opened: store.head.position,
    running: store
      .backups()
      .filter(({ state }) => state === 'running')
      .map(({ id }) => id),
    interrupted: store
      .backups()
      .filter(({ state }) => state === 'interrupted')
      .map(({ id }) => id),
  })
  const ledger = await store.ensureDisk(LEDGER, { size: LEDGER_SIZE, quiet: true })
  await ledger.ensureBitmap(LEDGER_BITMAP, { granularity: LEDGER_GRANULARITY })
  const banks = await ledger.ensureBitmap('banks', { granularity: 64 * KiB, retention: 60_000 })
  await prepare(store)
  for (const id of order.again) say({ banked: id, slice: (await banks.bank({ commandId: id })).slice })
  for (let i = 0; ; i++) {
    const id = `${round}-${i}`
    const kind = random()
    if (kind < 0.7)
      await Promise.all(Array.from({ length: 1 + whole(random, 8) }, () => write(store, random)))
    else if (kind < 0.8) {
      say({ bank: id })
      say({ banked: id, slice: (await banks.bank({ commandId: id })).slice })
    } else await run(store, random, id)
    if (random() < 0.02) await store.snapshot()
    if (random() < 0.02) await store.repack()
  }
}

async function write(store: Store, random: Random): Promise<void> {
  const disk = random() < 0.5 ? LEDGER : pick(random, DISKS)
  const number = whole(random, 2 ** 31)
  say({ write: number, disk })
  const { first, count } = await store.disk(disk).recordWrites(rowsOf(number))
  say({ wrote: number, disk, first, count })
}

/** Whatever it does, the backups that run afterwards are what the next open must find. */
async function run(store: Store, random: Random, id: string): Promise<void> {
  say({ command: id })
  const accepted = await command(store, random, id)
  say({
    done: id,
    accepted,
    running: store
      .backups()
      .filter(({ state }) => state === 'running')
      .map((backup) => backup.id),
    head: store.head.position,
  })
}

createInterface({ input: process.stdin }).once('line', (line) => void main(JSON.parse(line) as Order))
