/**
 * The whole store against the naive model: random sequences of everything a caller can do, with closes, kills and damage
 * of what is derived in between, and questions about random moments of the past.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { Level } from 'level'
import { expect, test } from 'vitest'
import {
  openMemoryStore,
  openStore,
  type SinceInput,
  type Store,
  type StoreCommand,
} from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { proof, runs } from '../support/property.ts'
import type { NaiveBitmap } from './naive.ts'
import { noCounts, World } from './world.ts'

const DISKS = ['vda', 'vdb'] as const
const NAMES = ['daily', 'weekly', 'x'] as const
const GRANULARITIES = [512, 4096, 65536] as const
const SIZES = [200_000, 262_144, 131_584, 262_144, 60_000] as const
const MODES = ['incremental', 'differential', 'incremental', 'full', 'copy'] as const
const POINTS = ['c0', 'c1', 'c2'] as const

/** One step as numbers, so that it shrinks well: what it is, and choices whose meaning depends on the moment. */
type Step = readonly [kind: number, a: number, b: number, c: number, d: number]
const step: fc.Arbitrary<Step> = fc.tuple(
  fc.nat({ max: 111 }),
  fc.nat({ max: 255 }),
  fc.nat({ max: 255 }),
  fc.nat({ max: 255 }),
  fc.nat({ max: 255 }),
)

const pick = <T>(list: readonly T[], choice: number): T => list[choice % list.length]!

function bitmapOf(
  world: World,
  disk: string,
  choice: number,
): { name: string; naive: NaiveBitmap | undefined } {
  const held = [...world.state.disks.get(disk)!.bitmaps.keys()]
  const name = choice % 16 === 15 || held.length === 0 ? pick(NAMES, choice >> 3) : pick(held, choice >> 3)
  return { name, naive: world.state.disks.get(disk)!.bitmaps.get(name) }
}

function sinceOf(
  world: World,
  naive: NaiveBitmap | undefined,
  kind: number,
  choice: number,
): SinceInput | undefined {
  const { ends, times } = world.log
  switch (kind % 12) {
    case 0:
    case 1:
    case 2:
      return undefined
    case 3:
      return 'active'
    case 4:
      return pick(['start', 'now'] as const, choice)
    case 5:
      return { position: choice % (ends.length + 1) }
    case 6:
      return { time: pick(times, choice) + (choice % 3) - 1 }
    case 7:
    case 8:
      return {
        slice:
          naive === undefined
            ? 0
            : pick([...naive.slices.map(({ number }) => number), choice % 6], choice >> 2),
      }
    case 9:
      return {
        slice: choice % 4,
        generation: pick([naive?.generation ?? 0, ...(naive?.pastGenerations ?? [])], choice >> 2),
      }
    case 10:
      return { backup: pick([...world.state.backups.keys(), 'nobody'], choice) }
    default:
      return { checkpoint: pick(POINTS, choice) }
  }
}

function beginOf(world: World, [, a, b, c, d]: Step): StoreCommand {
  const disk = pick(DISKS, a)
  const { name, naive } = bitmapOf(world, disk, b)
  return {
    type: 'begin-backup',
    backup: d % 16 === 15 ? pick([...world.state.backups.keys(), 'b'], c) : `b${world.counts.steps}`,
    disk,
    bitmap: name,
    mode: pick(MODES, c),
    since: sinceOf(world, naive, d >> 1, c >> 2),
    forceCycle: d % 2 === 1,
    copiedBy: a % 8 === 7 ? 'store' : 'caller',
  }
}

function commandOf(world: World, [kind, a, b, c, d]: Step): StoreCommand {
  const disk = pick(DISKS, a)
  const { name: bitmap, naive } = bitmapOf(world, disk, b)
  const forceCycle = d % 2 === 1
  const k = kind % 53
  if (k < 7) {
    return {
      type: 'add-bitmap',
      disk,
      bitmap: pick(NAMES, b),
      granularity: pick(GRANULARITIES, c),
      retention: d % 5,
      persistent: a % 5 !== 0,
      disabled: a % 7 === 6,
    }
  }
  if (k < 8) return { type: 'remove-bitmap', disk, bitmap }
  if (k < 10) return { type: 'clear-bitmap', disk, bitmap }
  if (k < 12) return { type: 'disable-bitmap', disk, bitmap }
  if (k < 15) return { type: 'enable-bitmap', disk, bitmap }
  if (k < 17) {
    const other = pick(DISKS, c)
    return {
      type: 'merge-bitmaps',
      disk,
      bitmap,
      sources: [
        { disk: other, bitmap: bitmapOf(world, other, d).name },
        { disk, bitmap: bitmapOf(world, disk, c).name },
      ].slice(0, c % 3),
    }
  }
  if (k < 19) return { type: 'set-retention', disk, bitmap, retention: c % 5, forceCycle }
  if (k < 25) return { type: 'bank', disk, bitmap, forceCycle }
  if (k < 30) {
    const generation = d % 4 === 3 ? naive?.generation : undefined
    return {
      type: 'delete-slice',
      disk,
      bitmap,
      slice:
        naive === undefined
          ? c % 3
          : pick(
              [
                ...naive.slices.map(({ number }) => number),
                ...naive.slices.map(({ number }) => number),
                c % 5,
              ],
              c >> 2,
            ),
      generation,
    }
  }
  if (k < 38) {
    const backup = pick(
      [
        ...[...world.state.backups.values()]
          .filter(({ state }) => ['running', 'pending', 'interrupted'].includes(state))
          .map(({ id }) => id),
        'nobody',
        'b1',
      ],
      c % 16 === 15 ? c : 0,
    )
    if (k < 34) return { type: 'succeed-backup', backup }
    if (k < 35) return { type: 'resume-backup', backup }
    return { type: k % 2 === 0 ? 'fail-backup' : 'cancel-backup', backup, reason: 'so' }
  }
  if (k < 42) {
    const refs = DISKS.flatMap((one) =>
      [...world.state.disks.get(one)!.bitmaps.values()]
        .filter(({ retention }) => retention > 0)
        .map(({ name }) => ({ disk: one, bitmap: name })),
    )
    return {
      type: 'create-checkpoint',
      checkpoint: pick(POINTS, a),
      bitmaps: refs.slice(0, b % 4),
      forceCycle: d % 4 !== 0,
    }
  }
  if (k < 45) return { type: 'delete-checkpoint', checkpoint: pick(POINTS, a) }
  if (k < 47) return { type: 'resize-disk', disk, size: pick(SIZES, c) }
  if (k < 48)
    return {
      type: 'declare-lost',
      disk,
      reason: 'told',
      from: c % 2 === 0 ? null : { position: c % world.log.ends.length, time: null },
    }
  if (k < 50) return beginOf(world, [kind, a, b, c, d])
  const begun = [...world.state.backups.values()]
  const ended = begun.filter(({ state }) => state === 'succeeded').map(({ id }) => id)
  const oneOf = (choice: number) =>
    pick(
      [...ended, ...ended, ...(choice % 8 === 7 ? ['nobody', ...begun.map(({ id }) => id)] : [])],
      choice >> 3,
    )
  if (k < 51 || ended.length < 2)
    return {
      type: 'forget-backup',
      backup: (ended.length === 0 ? begun[0]?.id : oneOf(c)) ?? 'nobody',
      reason: 'gone',
    }
  const from = (b >> 2) % ended.length
  return {
    type: 'record-combined',
    backup: d % 16 === 15 ? oneOf(c) : `m${world.counts.steps}`,
    of: c % 3 === 0 ? [oneOf(a), oneOf(b)].slice(0, d % 3) : ended.slice(from, from + 2 + (c % 2)),
  }
}

/** Ages and windows in ms, of the size of what the clock goes on by in a sequence. */
function policyOf([, a, b, c]: Step): { olderThan: number; window: number }[] {
  const olderThan = pick([0, 0, 50, 400], a)
  const window = pick([1, 20, 100, 700], b)
  const more = { olderThan: olderThan + 100, window: window * 5 }
  return c % 3 === 0 ? [{ olderThan, window }, more] : [{ olderThan, window }]
}

/** What a sequence needs of the place that its store lives in. */
interface Place {
  readonly reopen: (choice: number) => Promise<void>
  /** Where a store can be copied. */
  readonly copy?: () => Promise<void>
}

async function doStep(world: World, one: Step, { reopen, copy }: Place): Promise<void> {
  const [kind, a, b, c, d] = one
  const disk = pick(DISKS, a)
  if (d % 4 === 0) world.clock.advance(d)
  if (kind < 25) {
    const { size } = world.state.disks.get(disk)!
    const ranges = Array.from({ length: 1 + (b % 4) }, (_, i) => {
      const offset = Math.floor(((a * 251 + b * 31 + c * (i + 1) * 97) * 509) % size)
      const length = pick([1, 512, 4096, 0, 70_000, size - offset, size], c + i)
      return {
        offset,
        length: d === 255 ? length : Math.min(length, size - offset),
        op: pick(['write', 'zero', 'discard'] as const, d + i),
      }
    })
    return await world.write(disk, ranges)
  }
  if (kind < 60) return void (await world.run([commandOf(world, [kind * 7 + a, b, c, d, a])]))
  if (kind < 68) return void (await world.run([beginOf(world, one)]))
  if (kind < 70) return void (await world.run(groupOf(world, one)))
  if (kind < 75) {
    const steps: Step[] = [
      [a, b, c, d, kind],
      [b, c, d, kind, a],
      [c, d, kind, a, b],
    ]
    const commands = steps
      .slice(0, 1 + (d % 3))
      .map((inner) => commandOf(world, inner))
      .map((command, i) =>
        command.type === 'begin-backup' ? { ...command, backup: `${command.backup}-${i}` } : command,
      )
    if (a === 255) commands.push({ type: 'abort' })
    return void (await world.run(commands))
  }
  const span = world.log.ends.length
  if (kind < 80) return await world.past((a * 256 + b) % span)
  if (kind < 81) return await world.pastTime(pick(world.log.times, a * 256 + b) + (c % 3) - 1)
  if (kind < 86)
    return await world.changed(
      disk,
      ((b * 256 + c) % (span + 1)) - 1,
      d % 4 === 3 ? null : (c * 256 + d) % span,
      pick(GRANULARITIES, b),
    )
  if (kind < 94) {
    const { name, naive } = bitmapOf(world, disk, b)
    const since = sinceOf(world, naive, c, d)
    return await world.plan({
      disk,
      bitmap: name,
      mode: pick(MODES, c),
      ...(since === undefined ? {} : { since }),
      forceCycle: d % 2 === 1,
    })
  }
  if (kind < 95) return await world.detach(disk)
  if (kind < 96) return await world.attach(disk, b % 2 === 0)
  if (kind < 97) return void (await world.store.repack())
  if (kind < 98) return await world.store.snapshot()
  if (kind < 104) return await reopen(a)
  if (kind < 107) {
    for (let i = 0; i < 3 + (b % 9); i++) {
      if (c % 3 === 0) world.clock.advance(d % 16)
      const offset = ((a + i * 37) * 4096 + d) % 60_000
      await world.write(i % 5 === 4 ? pick(DISKS, a + 1) : disk, [{ offset, length: 1 + ((b * 97) % 9000) }])
    }
    return
  }
  if (kind < 110 || copy === undefined) {
    if (d % 2 === 0) world.clock.advance(d * 4)
    return await world.compact(policyOf(one))
  }
  await copy()
}

/** Few kinds of steps on one bitmap: deep in slices, gaps and merges, where the wide mix seldom comes. */
function narrowCommand(world: World, [kind, , b, c, d]: Step): StoreCommand {
  const ref = { disk: 'vda', bitmap: 'daily' } as const
  const numbers =
    world.state.disks
      .get('vda')!
      .bitmaps.get('daily')
      ?.slices.map(({ number }) => number) ?? []
  if (kind < 38) return { type: 'disable-bitmap', ...ref }
  if (kind < 50) return { type: 'enable-bitmap', ...ref }
  if (kind < 54) return { type: 'clear-bitmap', ...ref }
  if (kind < 68) return { type: 'bank', ...ref, forceCycle: d % 4 === 0 }
  if (kind < 80) return { type: 'delete-slice', ...ref, slice: pick([...numbers.slice(1), ...numbers, 1], b) }
  if (kind < 83)
    return { type: 'create-checkpoint', checkpoint: pick(POINTS, c), bitmaps: [ref], forceCycle: true }
  if (kind < 86) return { type: 'delete-checkpoint', checkpoint: pick(POINTS, c) }
  if (kind < 87) return { type: 'resize-disk', disk: 'vda', size: pick(SIZES, c) }
  const living = [...world.state.backups.values()].find(({ state }) => state === 'running')
  if (living !== undefined)
    return { type: pick(['succeed-backup', 'fail-backup'] as const, b), backup: living.id, reason: 'so' }
  return {
    type: 'begin-backup',
    backup: `b${world.counts.steps}`,
    ...ref,
    mode: pick(['incremental', 'differential'] as const, c),
    since: 'active',
    forceCycle: true,
  }
}

async function narrowStep(world: World, one: Step): Promise<void> {
  const [kind, a, b, c, d] = one
  const { size } = world.state.disks.get('vda')!
  if (kind < 30) return await world.write('vda', [{ offset: ((a * 256 + b) * 8) % size, length: 1 }])
  if (kind >= 97) return await world.past((c * 256 + d) % world.log.ends.length)
  await world.run([narrowCommand(world, one)])
  for (const { number } of world.state.disks.get('vda')!.bitmaps.get('daily')?.slices ?? []) {
    await world.plan({ disk: 'vda', bitmap: 'daily', mode: 'differential', since: { slice: number } })
  }
}

/** Two bitmaps begun together; done, they wait for each other (R14). */
function groupOf(world: World, [, a, b, c]: Step): StoreCommand[] {
  const refs = DISKS.flatMap((disk) =>
    [...world.state.disks.get(disk)!.bitmaps.keys()].map((bitmap) => ({ disk, bitmap })),
  )
  if (refs.length < 2) return [{ type: 'abort' }]
  const group = `g${world.counts.steps}`
  return [0, 1].map((i) => ({
    type: 'begin-backup',
    backup: `${group}-${i}`,
    ...pick(refs, a + i),
    mode: pick(['differential', 'incremental'] as const, b + i),
    since: pick(['active', undefined] as const, c),
    forceCycle: true,
    group,
  }))
}

async function start(world: World): Promise<void> {
  await world.run([{ type: 'add-disk', disk: 'vda', size: 262_144 }])
  await world.run([{ type: 'add-disk', disk: 'vdb', size: 262_144 }])
  await world.run([{ type: 'add-bitmap', disk: 'vda', bitmap: 'daily', granularity: 4096, retention: 3 }])
  await world.run([{ type: 'add-bitmap', disk: 'vda', bitmap: 'weekly', granularity: 512, retention: 4 }])
  await world.run([{ type: 'add-bitmap', disk: 'vdb', bitmap: 'x', granularity: 65536, retention: 2 }])
  await world.attach('vda', false)
}

async function finish(world: World): Promise<void> {
  for (const disk of DISKS) {
    for (const { name, slices } of world.state.disks.get(disk)!.bitmaps.values()) {
      for (const { number } of slices)
        await world.plan({ disk, bitmap: name, mode: 'differential', since: { slice: number } })
      for (let i = 0; i < world.log.ends.length; i += 7)
        await world.plan({ disk, bitmap: name, mode: 'differential', since: { position: i } })
    }
  }
  for (let position = 0; position < world.log.ends.length; position += 11) await world.past(position)
  await world.replayAll()
}

const total = { sequences: 0, ...noCounts() }

const tallies = new Map<string, number>()

function tell(name: string): void {
  if (process.env.SLICELOG_TALLY !== undefined)
    process.stderr.write(
      `${[...tallies]
        .map(([key, n]) => `${key}: ${n}`)
        .sort()
        .join('\n')}\n`,
    )
  process.stderr.write(`proof: ${name}: ${JSON.stringify(total)}\n`)
  for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] = 0
}

function add(world: World): void {
  total.sequences++
  for (const [key, n] of world.tallies) tallies.set(key, (tallies.get(key) ?? 0) + n)
  for (const [key, value] of Object.entries(world.counts)) total[key as keyof typeof total] += value
}

test('R2, R4, R7, R9 to R26, R29, R32, R35: any sequence of commands, with closes, kills and compactions, is what the naive model says (in memory)', {
  timeout: 3_600_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 90, size: 'max' }), async (steps) => {
      const clock = manualClock()
      const log = new MemoryEventLog()
      let storage = log.storage
      const world = new World(await openMemoryStore({ log, clock, snapshotEvery: 16 }), clock)
      await start(world)
      const reopen = async (choice: number) => {
        const clean = choice % 2 === 0
        if (clean) await world.store.close()
        else await world.store.status() // A kill: whatever else that store does, it appends nothing more.
        const again = new MemoryEventLog(storage)
        storage = again.storage
        await world.reopened(await openMemoryStore({ log: again, clock, snapshotEvery: 16 }), clean)
      }
      for (const one of steps) await doStep(world, one, { reopen })
      await finish(world)
      add(world)
    }),
    proof('store model in memory', 100, 1500),
  )
  tell('store model in memory')
})

test('R11, R16, R18, R19: slices cut, merged, dropped and made active again, with gaps of every kind: any [k..α] is the replay', {
  timeout: 3_600_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60, size: 'max' }), async (steps) => {
      const clock = manualClock()
      const world = new World(await openMemoryStore({ clock, snapshotEvery: 16 }), clock)
      await start(world)
      await world.run([{ type: 'set-retention', disk: 'vda', bitmap: 'daily', retention: 6 }])
      for (const one of steps) await narrowStep(world, one)
      await finish(world)
      add(world)
    }),
    proof('slices in depth', 25, 500),
  )
  tell('slices in depth')
})

type Spoil = 'nothing' | 'kill' | 'delete' | 'damage' | 'some bits'

async function spoil(folder: string, how: Spoil, choice: number): Promise<string | null> {
  const derived = join(folder, 'derived')
  if (how === 'delete') {
    await rm(derived, { recursive: true })
    return 'missing'
  }
  if (how !== 'damage' && how !== 'some bits') return null
  const db = new Level<string, Uint8Array>(derived, { valueEncoding: 'view' })
  const touched: string[] = []
  for (const [key, value] of await db.iterator().all()) {
    if (how === 'some bits' && (!key.startsWith('b') || (touched.length + choice) % 2 === 0)) {
      choice++
      continue
    }
    touched.push(key)
    if (choice % 3 === 0) await db.del(key)
    else {
      const spoilt = Uint8Array.from(value)
      const at = choice % spoilt.length
      spoilt[at] = spoilt[at]! ^ (1 << (choice % 8))
      await db.put(key, spoilt)
    }
  }
  await db.close()
  return how === 'damage' && choice % 3 !== 0 && touched.some((key) => key.startsWith('s'))
    ? 'snapshot'
    : null
}

test('R28, R29, R32, R34: the same on real folders, killed, copied, and with derived values deleted or damaged between opens', {
  timeout: 3_600_000,
}, async () => {
  const root = await mkdtemp(join(tmpdir(), 'slicelog-model-'))
  let made = 0
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 15, maxLength: 60, size: 'max' }),
        fc.array(fc.nat({ max: 255 }), { minLength: 4, maxLength: 4 }),
        async (steps, spoils) => {
          const clock = manualClock()
          let folder = join(root, `store-${made++}`)
          const old: Store[] = []
          const world = new World(await openStore(folder, { clock, snapshotEvery: 16 }), clock)
          const reopen = async (choice: number) => {
            const how = pick(['nothing', 'kill', 'delete', 'damage', 'some bits'] as const, choice)
            const clean = how !== 'kill'
            if (clean) await world.store.close()
            else {
              // What a killed process leaves: its files as they are at that moment.
              await world.store.snapshot()
              const copy = join(root, `store-${made++}`)
              await cp(folder, copy, { recursive: true })
              old.push(world.store)
              folder = copy
            }
            const told = await spoil(folder, how, choice)
            const store = await openStore(folder, { clock, snapshotEvery: 16 })
            const { opened } = await store.status()
            expect(opened.clean).toBe(clean)
            if (told !== null) expect(opened.rebuilt.join('\n')).toContain(told)
            await world.reopened(store, clean)
          }
          const copy = async () => {
            const target = join(root, `copy-${made++}`)
            await world.copy(target, (where) => openStore(where, { clock, snapshotEvery: 16 }))
            await rm(target, { recursive: true })
          }
          try {
            await start(world)
            const every = Math.ceil(steps.length / spoils.length)
            for (const [i, one] of steps.entries()) {
              await doStep(world, one, { reopen, copy })
              if (i % every === every - 1) await reopen(spoils[Math.floor(i / every)]!)
            }
            await finish(world)
            add(world)
          } finally {
            for (const store of [...old, world.store]) await store.close()
            await rm(folder, { recursive: true, force: true })
          }
        },
      ),
      proof('store model on folders', 8, runs(8, 120)),
    )
    tell('store model on folders')
  } finally {
    await rm(root, { recursive: true, force: true })
  }
})
