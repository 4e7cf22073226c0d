/**
 * All kinds of upkeep mixed at random on one store: compaction, repacking, copies, disks moved, kills, damage and repair. What one
 * leaves behind is what the next one finds, so each must read the others' marks right.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { importDisk } from '../../src/audit/disk-import.ts'
import type { Anchor } from '../../src/audit/head.ts'
import { repairStore } from '../../src/audit/repair.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { CheckpointError } from '../../src/errors.ts'
import { exportDisk } from '../../src/store/disk-export.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { command, DISKS, pick, prepare, type Random, whole, write } from './drive.ts'
import { compacted, textOf } from './repair-support.ts'

const POLICIES = ['0s:10s', '0s:1m', '0s:1h', '2m:1m,10m:5m', '5m:30s']
const STEPS = 5

interface Write {
  readonly disk: string
  readonly position: number
  readonly offset: number
  readonly length: number
}

class World {
  readonly root = mkdtempSync(join(tmpdir(), 'slicelog-upkeep-'))
  readonly clock: ManualClock = manualClock(Date.UTC(2026, 0, 1))
  folder = join(this.root, 'store-0')
  store: Store | undefined
  made = 0
  /** Digests compared, repairs that changed something. */
  compared = 0
  repairs = 0
  /** Every content that a record had, by its first position. */
  readonly contents = new Map<number, Set<string>>()
  /** Every write, one by one, as it was recorded. */
  readonly writes: Write[] = []
  #written = 0
  readonly #numbers = new Map<number, string>()
  /** Digests of all bitmaps after an event that is no write. */
  readonly digests = new Map<number, string>()
  /** What an earlier verify ended at. */
  cursor: Anchor | undefined
  readonly random: Random

  constructor(random: Random) {
    this.random = random
    onTestFinished(() => rmSync(this.root, { recursive: true, force: true }))
  }

  fresh(name: string): string {
    return join(this.root, `${name}-${++this.made}`)
  }

  async open(): Promise<Store> {
    this.store ??= await openStore(this.folder, { clock: this.clock, snapshotEvery: 2000 })
    return this.store
  }

  async close(): Promise<void> {
    await this.store?.close()
    this.store = undefined
  }

  async drive(steps: number): Promise<void> {
    const store = await this.open()
    await prepare(store)
    const name = `m${++this.made}`
    for (let i = 0; i < steps; i++) {
      this.clock.advance(whole(this.random, 20) * 1000)
      if (this.random() < 0.7) await write(store, this.random)
      else await command(store, this.random, `${name}-${i}`)
    }
    await this.learn()
  }

  /** Reads everything and remembers it. Returns the gaps. `repaired`: what is left of what was read before must be as it was. */
  async learn(kind: 'upkeep' | 'repaired' = 'upkeep'): Promise<readonly { first: number; last: number }[]> {
    const store = await this.open()
    const gaps: { first: number; last: number }[] = []
    const points: number[] = []
    for await (const told of store.follow({ from: { position: 0 } })) {
      if (told.kind === 'caughtUp') break
      if (told.kind !== 'records') continue
      for (const record of told.records) {
        const { first, count } = record
        if (record.kind === 'gap') {
          gaps.push({ first, last: first + count - 1 })
          continue
        }
        const seen = this.contents.get(first) ?? new Set()
        if (kind === 'repaired' && first < this.#written)
          expect(seen, `the record at ${first}`).toContain(textOf(record))
        this.contents.set(first, seen.add(textOf(record)))
        if (record.kind === 'events') {
          points.push(first + count - 1)
          for (const [i, event] of record.events.entries())
            if (event.type === 'disk-added') this.#numbers.set(first + i, event.disk)
        }
        if (record.kind !== 'writes' || first < this.#written) continue
        let position = first
        for (const { disk, columns } of record.sections)
          for (const [i, offset] of columns.offsets.entries())
            this.writes.push({
              disk: this.#numbers.get(disk)!,
              position: position++,
              offset,
              length: columns.lengths[i]!,
            })
      }
    }
    this.#written = Math.max(this.#written, store.head.position + 1)
    await this.#compare(store, points, gaps[0]?.first ?? Number.POSITIVE_INFINITY)
    return gaps
  }

  /** Digests at some of the points, against what they were before, up to the first gap. */
  async #compare(store: Store, points: readonly number[], gap: number): Promise<void> {
    for (const position of points.filter((at) => at < gap && (this.digests.has(at) || this.random() < 0.1))) {
      const text = await digestsAt(store, position)
      if (this.digests.has(position)) {
        expect(text, `digests after position ${position}`).toBe(this.digests.get(position))
        this.compared++
      } else if (this.digests.size < 5) this.digests.set(position, text)
    }
  }

  /** R35: what was written since any point is in the answer, gaps or not. */
  async covered(): Promise<number> {
    let looked = 0
    const store = await this.open()
    for (let i = 0; i < 3; i++) {
      const position = whole(this.random, store.head.position + 1)
      const { disk, size } = pick(this.random, store.disks())
      const { extents } = await store.changed(disk, { since: { position }, granularity: 512 })
      for (const written of this.writes) {
        if (written.disk !== disk || written.position <= position) continue
        const end = Math.min(size, written.offset + written.length)
        if (written.offset >= end) continue
        const found = extents.find(({ offset, length }) => offset <= written.offset && end <= offset + length)
        expect(found, `the write at ${written.position}, since ${position}`).toBeDefined()
        looked++
      }
    }
    return looked
  }

  async sound(what: string): Promise<void> {
    await this.close()
    const { findings, head } = await verifyStore(this.folder)
    expect(damage(findings), what).toEqual([])
    if (this.cursor !== undefined) {
      const rest = await verifyStore(this.folder, { since: this.cursor })
      expect(damage(rest.findings), `since the cursor, ${what}`).toEqual([])
      expect(rest.head).toEqual(head)
      expect(rest.since ?? -1).toBeLessThanOrEqual(this.cursor.position)
      if (rest.since === null) expect(rest.note).not.toBeNull()
    }
    if (this.cursor === undefined || this.random() < 0.4) this.cursor = head
  }
}

/** What an open put aside stays until somebody looks at it. */
function damage(findings: readonly { readonly code: string }[]) {
  return findings.filter(({ code }) => code !== 'ASIDE_KEPT')
}

async function digestsAt(store: Store, position: number): Promise<string> {
  const then = await store.at({ position })
  const found: unknown[] = []
  for (const { disk, bitmaps } of then.disks())
    for (const name of bitmaps) {
      const { digest, count, successorCount } = await then.bits(disk, name)
      const { slices } = await then.slices(disk, name)
      found.push([disk, name, digest, count, successorCount, slices.map((slice) => slice.digest)])
    }
  return JSON.stringify(found)
}

const UPKEEP: Record<string, (world: World) => Promise<void>> = {
  compact: async (world) => {
    const store = await world.open()
    const stepBytes = pick(world.random, [2000, 20_000, 2_000_000])
    await store.compact({ policy: pick(world.random, POLICIES), stepBytes })
  },
  repack: async (world) => {
    await (await world.open()).repack()
  },
  copy: async (world) => {
    const to = world.fresh('copy')
    await (await world.open()).copyTo(to)
    await world.close()
    expect(damage((await verifyStore(to)).findings)).toEqual([])
    if (world.random() < 0.5) world.folder = to
  },
  move: async (world) => {
    const store = await world.open()
    const file = world.fresh('disk')
    try {
      await exportDisk(store, pick(world.random, DISKS), file)
    } catch (error) {
      if (error instanceof CheckpointError && error.code === 'DISK_ENTANGLED') return
      throw error
    }
    const to = world.fresh('moved')
    const other = await openStore(to, { clock: world.clock })
    await importDisk(other, file)
    if (world.random() < 0.5) await other.compact({ policy: pick(world.random, POLICIES) })
    await other.close()
    expect(damage((await verifyStore(to)).findings)).toEqual([])
    rmSync(to, { recursive: true })
  },
  kill: async (world) => {
    const store = await world.open()
    if (world.random() < 0.5) await write(store, world.random)
    const killed = world.fresh('killed')
    cpSync(world.folder, killed, { recursive: true })
    await world.close()
    world.folder = killed
    await world.open()
  },
}

/** Flips, zeroes or cuts in one file of the log. Half of the time LevelDB holds no older versions of anything. */
async function spoilt(world: World): Promise<string> {
  await world.close()
  if (world.random() < 0.5) await compacted(world.folder)
  const files = readdirSync(join(world.folder, 'log')).filter((name) => /\.(ldb|log)$/.test(name))
  const name = pick(world.random, files)
  const path = join(world.folder, 'log', name)
  const bytes = readFileSync(path)
  if (bytes.length === 0) return 'nothing'
  const at = whole(world.random, bytes.length)
  const kind = whole(world.random, 4)
  if (kind === 3) truncateSync(path, at)
  else {
    const length = kind === 0 ? 1 : 1 + whole(world.random, 3000)
    for (let i = at; i < Math.min(bytes.length, at + length); i++)
      bytes[i] = kind === 2 ? 0 : bytes[i]! ^ (1 << whole(world.random, 8))
    writeFileSync(path, bytes)
  }
  return `${name}, kind ${kind} at ${at}`
}

/** Damages a copy and repairs it; goes on with it unless nothing could be repaired. */
async function damagedAndRepaired(world: World, what: string): Promise<void> {
  await world.close()
  const before = world.folder
  world.folder = world.fresh('damaged')
  cpSync(before, world.folder, { recursive: true })
  const damage = await spoilt(world)
  try {
    const { state } = await repairStore(world.folder, { clock: world.clock })
    if (state === 'repaired') world.repairs++
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'REPAIR_IMPOSSIBLE') throw error
    world.folder = before
    return
  }
  await world.sound(`${what}, repaired after ${damage}`)
  const [gap] = await world.learn('repaired')
  for (const at of [...world.digests.keys()])
    if (gap !== undefined && at >= gap.first) world.digests.delete(at)
  await world.covered()
}

test('R26, R28, R29, R35: whatever upkeep, damage and repair follow on each other, the store is sound and answers as before', async () => {
  const rounds = runs(12, 200)
  const used = seed()
  announce('upkeep mixed', rounds, used)
  const looked = { covered: 0, compared: 0, repairs: 0 }
  for (let round = 0; round < rounds; round++) {
    const world = new World(prng(used + round))
    const done: string[] = []
    await world.drive(30)
    for (let step = 0; step < STEPS; step++) {
      const name = pick(world.random, [...Object.keys(UPKEEP), 'compact', 'damage', 'damage'])
      done.push(name)
      const what = `seed ${used + round}: ${done.join(', ')}`
      try {
        if (name === 'damage') await damagedAndRepaired(world, what)
        else {
          await UPKEEP[name]!(world)
          await world.learn()
        }
        await world.sound(what)
        if (world.random() < 0.6) await world.drive(10)
      } catch (error) {
        throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error,
        })
      }
    }
    looked.covered += await world.covered()
    looked.compared += world.compared
    looked.repairs += world.repairs
    await world.close()
    rmSync(world.root, { recursive: true, force: true })
  }
  // A proof that looked at nothing is none.
  for (const count of Object.values(looked)) expect(count).toBeGreaterThan(0)
})
