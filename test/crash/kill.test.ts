/**
 * SIGKILL at random moments, over and over on one store: what was acknowledged is there, what was begun is found, the bits hold
 * at least what was written, and verify has nothing to say.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import { endChildren, tracked } from '../support/children.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { script } from '../support/script.ts'
import { LEDGER, LEDGER_BITMAP, LEDGER_GRANULARITY, rowsOf } from './rows.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'child.ts')
const HANG_MS = 60_000

/** What a child says, each line with some of these. */
interface Said {
  readonly opened?: number
  readonly running?: readonly string[]
  readonly write?: number
  readonly wrote?: number
  readonly disk?: string
  readonly first?: number
  readonly count?: number
  readonly bank?: string
  readonly banked?: string
  readonly slice?: number
  readonly command?: string
  readonly done?: string
  readonly accepted?: boolean
  readonly head?: number
}

/** Everything that was said so far, which is all that a caller of the store can know. */
class Ledger {
  readonly wrote: { disk: string; number: number; first: number }[] = []
  /** Tried and never acknowledged, on the ledger's own disk. */
  readonly open = new Set<number>()
  readonly banks = new Map<string, number>()
  readonly openBanks = new Set<string>()
  readonly commands: string[] = []
  running: readonly string[] | null = []
  highest = -1
  complaints: string[] = []

  hear(said: Said): void {
    if (said.opened !== undefined) {
      if (said.opened < this.highest)
        this.complaints.push(`opened at ${said.opened}, after ${this.highest} was acknowledged`)
      // A command that was being carried out may have begun or ended one.
      if (this.running !== null && said.running?.join() !== this.running.join())
        this.complaints.push(`found running ${said.running?.join()}, begun were ${this.running.join()}`)
      this.running = said.running ?? []
    }
    if (said.write !== undefined && said.disk === LEDGER) this.open.add(said.write)
    if (said.wrote !== undefined) {
      this.open.delete(said.wrote)
      this.wrote.push({ disk: said.disk!, number: said.wrote, first: said.first! })
      this.highest = Math.max(this.highest, said.first! + said.count! - 1)
    }
    if (said.bank !== undefined) this.openBanks.add(said.bank)
    if (said.banked !== undefined) {
      const before = this.banks.get(said.banked)
      if (before !== undefined && before !== said.slice)
        this.complaints.push(`${said.banked} was slice ${before}, then ${said.slice}`)
      this.banks.set(said.banked, said.slice!)
      this.openBanks.delete(said.banked)
    }
    if (said.command !== undefined) this.running = null
    if (said.done !== undefined) {
      if (said.accepted === true) this.commands.push(said.done)
      this.running = said.running ?? []
      this.highest = Math.max(this.highest, said.head!)
    }
  }
}

const folder = mkdtempSync(join(tmpdir(), 'slicelog-crash-'))
afterAll(() => {
  endChildren()
  rmSync(folder, { recursive: true, force: true })
})

const start = (): ChildProcess => tracked(spawn(process.execPath, script(CHILD)))

/** One life of a child: goes to work, is killed after `life` ms (from its open, or from its start), and is heard to its end. */
async function live(
  child: ChildProcess,
  order: object,
  life: number,
  fromOpen: boolean,
  ledger: Ledger,
): Promise<string> {
  let errors = ''
  child.stderr!.on('data', (chunk) => {
    errors += String(chunk)
  })
  let opened = () => {}
  const open = new Promise<void>((resolve) => {
    opened = resolve
  })
  const lines = createInterface({ input: child.stdout! }).on('line', (line) => {
    const said = JSON.parse(line) as Said
    ledger.hear(said)
    if (said.opened !== undefined) opened()
  })
  const heard = new Promise<void>((resolve) => lines.on('close', resolve))
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()))
  child.stdin!.write(`${JSON.stringify(order)}\n`)
  if (fromOpen) await Promise.race([open, closed, delay(HANG_MS)])
  await Promise.race([closed, delay(life)])
  const alive = child.exitCode === null
  child.kill('SIGKILL')
  await Promise.all([closed, heard])
  return alive ? '' : `the child ended by itself: ${errors.slice(0, 1000)}`
}

test('R10, R30, R31, R32: after SIGKILL at random moments nothing acknowledged is lost, and every command id tells what became of it', {
  timeout: 3_600_000,
}, async () => {
  const rounds = runs(40, 400)
  const used = seed()
  const random = prng(used)
  announce('kills', rounds, used)
  const ledger = new Ledger()
  const store = join(folder, 'store')
  // Starting node costs more than a life: two wait for their turn.
  const waiting = [start(), start()]
  for (let round = 0; round < rounds; round++) {
    const child = waiting.shift()!
    if (round + waiting.length + 1 < rounds) waiting.push(start())
    const order = { folder: store, seed: Math.floor(random() * 2 ** 31), round, again: [...ledger.openBanks] }
    const ended = await live(child, order, random() * 250, random() < 0.85, ledger)
    if (ended !== '') ledger.complaints.push(`round ${round}: ${ended}`)
    if (round % 25 === 24) {
      const { findings } = await verifyStore(store)
      if (findings.length > 0)
        ledger.complaints.push(`round ${round}: ${JSON.stringify(findings.slice(0, 3))}`)
    }
    if (ledger.complaints.length > 0) break
  }
  expect(ledger.complaints).toEqual([])
  await checkEnd(store, ledger)
  const { findings, events } = await verifyStore(store)
  expect(findings).toEqual([])
  process.stderr.write(
    `proof: kills: ${ledger.wrote.length} writes, ${ledger.commands.length} commands and ${ledger.banks.size} banks acknowledged, ${events} events\n`,
  )
})

async function checkEnd(path: string, ledger: Ledger): Promise<void> {
  const store = await openStore(path, { create: false })
  try {
    const rows = new Map<number, string>()
    const ids = new Map<string, number>()
    for await (const event of store.log()) {
      if (event.type === 'write')
        rows.set(event.position, `${event.disk} ${String(event.data.offset)} ${String(event.data.length)}`)
      const id = event.cause.commandId
      if (id !== undefined && ids.get(id) === undefined) ids.set(id, event.position)
    }
    for (const { disk, number, first } of ledger.wrote) {
      const { offsets, lengths } = rowsOf(number)
      for (let i = 0; i < offsets.length; i++) {
        if (rows.get(first + i) !== `${disk} ${offsets[i]} ${lengths[i]}`)
          throw new Error(`row ${i} of write ${number} is not at ${first + i}`)
      }
    }
    for (const id of ledger.banks.keys()) expect(ids.has(id), `bank ${id}`).toBe(true)
    // A bank that was acknowledged is one slice, however often it was sent.
    const { slices } = await store.disk(LEDGER).bitmap('banks').slices()
    const numbers = slices.map(({ slice }) => slice)
    expect([...ledger.banks.values()].filter((slice) => !numbers.includes(slice))).toEqual([])
    expect(slices.length - ledger.banks.size).toBeLessThanOrEqual(ledger.openBanks.size)
    const { extents } = await store.disk(LEDGER).bitmap(LEDGER_BITMAP).bits()
    const dirty = granulesOf(extents.map(([offset, length]) => ({ offset, length })))
    const least = granulesOf(
      ledger.wrote.filter(({ disk }) => disk === LEDGER).flatMap(({ number }) => rangesOf(number)),
    )
    const most = granulesOf([...ledger.open].flatMap(rangesOf), new Set(least))
    expect([...least].filter((granule) => !dirty.has(granule))).toEqual([])
    expect([...dirty].filter((granule) => !most.has(granule))).toEqual([])
  } finally {
    await store.close()
  }
}

function rangesOf(number: number) {
  const { offsets, lengths } = rowsOf(number)
  return Array.from(offsets, (offset, i) => ({ offset, length: lengths[i]! }))
}

function granulesOf(
  ranges: readonly { offset: number; length: number }[],
  into = new Set<number>(),
): Set<number> {
  for (const { offset, length } of ranges) {
    for (let at = Math.floor(offset / LEDGER_GRANULARITY); at * LEDGER_GRANULARITY < offset + length; at++)
      into.add(at)
  }
  return into
}
