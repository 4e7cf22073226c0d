/** Projections: a fold of a user's, live beside the store, stored with its place, and never the store's problem (issue part 7). */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import {
  CheckpointError,
  type EventProjection,
  openMemoryStore,
  openStore,
  type ProjectionDefinition,
  type ProjectionProgress,
  type Store,
} from '../../src/index.ts'
import { Derived } from '../../src/store/derived.ts'
import { pathsOf } from '../../src/store/folder.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { command, drive, write } from '../audit/drive.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { script } from '../support/script.ts'
import { EMPTY, type Sums, sums, type Tally, tally } from './projection-fold.ts'
import { small, T0, turns } from './support.ts'

const root = mkdtempSync(join(tmpdir(), 'slicelog-projection-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
let folders = 0
const folder = () => join(root, String(folders++))

/** The fold from the first event on, made beside the kit. */
async function fresh(store: Store): Promise<Tally> {
  const { apply } = tally('fresh')
  let state = EMPTY
  for await (const event of store.log()) state = apply(state, event)
  return state
}

async function freshSums(store: Store): Promise<Sums> {
  const all: Sums = { rows: 0, bytes: 0, others: 0 }
  for await (const { type, data } of store.log()) {
    if (type !== 'write') all.others++
    else {
      all.rows++
      all.bytes += Number(data.length)
    }
  }
  return all
}

/** A store in a folder with some history, closed. */
async function withHistory(steps = 60): Promise<string> {
  const path = folder()
  const store = await openStore(path, { clock: manualClock(T0) })
  await drive(store, prng(steps), steps, 'history')
  await store.close()
  return path
}

/** What is stored under a projection's name, put there by `edit` from what was. */
async function edited(
  path: string,
  name: string,
  edit: (bytes: Uint8Array) => Uint8Array | null,
): Promise<void> {
  const derived = await Derived.open(pathsOf(path).derived)
  const bytes = await derived.named('p', name)
  if (!(bytes instanceof Uint8Array)) throw new Error(`nothing is stored for ${name}`)
  const changed = edit(bytes)
  if (changed === null) await derived.dropNamed('p', name)
  else await derived.putNamed('p', name, changed)
  await derived.close()
}

describe('live', () => {
  test('a projection is a fold over every event once, per event and per record, from the log and then as they come', async () => {
    const store = await openMemoryStore({ clock: manualClock(T0) })
    const random = prng(5)
    await drive(store, random, 40, 'before')
    const counted = await store.project(tally('counted'))
    const summed = await store.project(sums('summed'))
    expect(counted.origin).toEqual({ kind: 'new' })
    await Promise.all([counted.caughtUp(), summed.caughtUp()])
    expect([counted.state, summed.state]).toEqual([await fresh(store), await freshSums(store)])
    for (let i = 0; i < 40; i++) {
      if (i % 3 === 0) await command(store, random, `live-${i}`)
      else await write(store, random)
    }
    await Promise.all([counted.caughtUp(), summed.caughtUp()])
    expect([counted.state, summed.state]).toEqual([await fresh(store), await freshSums(store)])
    expect(counted.cursor).toBe(store.head.position)
    expect(counted.status).toEqual({ kind: 'live' })
    await store.close()
    expect(counted.status).toEqual({ kind: 'stopped' })
    expect(counted.saved.position).toBe(counted.cursor)
  })

  test('tells its progress while it catches up, then its states; both end with it', async () => {
    const store = await openMemoryStore({ clock: manualClock(T0) })
    await drive(store, prng(6), 40, 'before')
    const told: ProjectionProgress[] = []
    const states: number[] = []
    const ends: string[] = []
    const projection = await store.project(tally('told'), { onProgress: (progress) => told.push(progress) })
    projection.state$.subscribe({
      next: ({ events }) => states.push(events),
      complete: () => ends.push('state'),
    })
    projection.progress$.subscribe({ complete: () => ends.push('progress') })
    await projection.caughtUp()
    await turns()
    expect(states[0]).toBe(0)
    expect(states.at(-1)).toBe(store.head.position + 1)
    expect(told.at(-1)).toEqual({ position: store.head.position, head: store.head.position, caughtUp: true })
    expect(told.slice(0, -1).every(({ caughtUp }) => !caughtUp)).toBe(true)
    await projection.stop()
    await projection.stop()
    expect(ends.sort()).toEqual(['progress', 'state'])
    await write(store, prng(1))
    await expect(projection.caughtUp()).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    await store.close()
  })

  test('a slow fold takes turns: the store answers while it catches up', async () => {
    const { store, disk } = await small()
    const rows = 40_000
    const lengths = new Float64Array(rows).fill(512)
    await disk.recordWrites({ offsets: new Float64Array(rows), lengths })
    let turnsTaken = 0
    const ticking = setInterval(() => turnsTaken++, 0)
    const slow: EventProjection<number> = {
      name: 'slow',
      version: 1,
      seed: () => 0,
      apply: (sum) => {
        for (let i = 0; i < 300; i++) Math.sqrt(sum + i)
        return sum + 1
      },
    }
    const projection = await store.project(slow)
    await projection.caughtUp()
    clearInterval(ticking)
    expect(projection.state).toBe(store.head.position + 1)
    expect(turnsTaken).toBeGreaterThan(0)
    await store.close()
  })
})

describe('stored', () => {
  test('goes on where it was at the next open, and folds nothing twice', async () => {
    const path = await withHistory()
    const first = await openStore(path)
    const projection = await first.project(tally('kept'))
    await projection.caughtUp()
    await first.close()
    const second = await openStore(path)
    const again = await second.project(tally('kept'))
    expect(again.origin.kind).toBe('resumed')
    expect(again.cursor).toBeGreaterThan(0)
    expect(again.state.events).toBe(again.cursor + 1)
    await again.caughtUp()
    expect(again.state).toEqual(await fresh(second))
    await second.close()
  })

  test('state and cursor are one value: a kill at any moment leaves both of the same moment', async () => {
    const rounds = runs(4, 60)
    const base = seed()
    announce('projections killed', rounds, base)
    const path = folder()
    const origins: string[] = []
    const child = fileURLToPath(new URL('./projection-child.ts', import.meta.url))
    for (let round = 0; round < rounds; round++) {
      const killed = spawn(process.execPath, [...script(child), path, String(base + round)], {
        cwd: dirname(dirname(dirname(child))),
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let saves = 0
      let acknowledged = -1
      const wanted = 2 + ((base + round * 7) % 20)
      for await (const line of createInterface({ input: killed.stdout })) {
        const said = JSON.parse(line) as { began?: { kind: string }; head?: number; saved?: number[] }
        if (said.began !== undefined) origins.push(said.began.kind)
        acknowledged = Math.max(acknowledged, said.head ?? -1)
        if ((said.saved?.[0] ?? -1) > saves) saves++
        if (saves < wanted) continue
        await delay(((base + round) % 5) * 3)
        killed.kill('SIGKILL')
      }
      const store = await openStore(path)
      expect(store.head.position).toBeGreaterThanOrEqual(acknowledged)
      const counted = await store.project(tally('counted'))
      const summed = await store.project(sums('summed'))
      expect(counted.origin.kind).toBe('resumed')
      expect(counted.state.events, 'state and cursor are of one moment').toBe(counted.cursor + 1)
      expect(summed.state.rows + summed.state.others).toBe(summed.cursor + 1)
      await Promise.all([counted.caughtUp(), summed.caughtUp()])
      expect(counted.state).toEqual(await fresh(store))
      expect(summed.state).toEqual(await freshSums(store))
      await store.close()
    }
    expect(origins).toEqual(['new', ...Array.from({ length: rounds - 1 }, () => 'resumed')])
  })

  const damages: readonly (readonly [
    string,
    (path: string) => Promise<void>,
    ProjectionDefinition<Tally>,
    object,
  ])[] = [
    ['another version', async () => undefined, tally('kept', 2), { kind: 'rebuilt', because: 'version' }],
    [
      'a value that fails its check',
      async (path) => await flippedValue(path, 'kept'),
      tally('kept'),
      { kind: 'rebuilt', because: 'damaged' },
    ],
    [
      'a state that load refuses',
      async () => undefined,
      {
        ...tally('kept'),
        load: () => {
          throw new Error('not mine')
        },
      },
      { kind: 'rebuilt', because: 'unreadable' },
    ],
    [
      'a value that is gone',
      async (path) => await edited(path, 'kept', () => null),
      tally('kept'),
      { kind: 'new' },
    ],
    [
      'a derived folder that is gone',
      async (path) => rmSync(pathsOf(path).derived, { recursive: true }),
      tally('kept'),
      { kind: 'new' },
    ],
  ]
  test.each(damages)(
    'R28: %s is told, never used, and everything is folded anew',
    async (_, harm, definition, origin) => {
      const path = await withHistory()
      const first = await openStore(path)
      await (await first.project(tally('kept'))).caughtUp()
      await first.close()
      await harm(path)
      const second = await openStore(path)
      const again = await second.project(definition)
      expect(again.origin).toEqual(origin)
      await again.caughtUp()
      expect(again.state).toEqual(await fresh(second))
      await second.close()
    },
  )

  test('R28: a state of another history of the log is not used', async () => {
    const one = await withHistory(50)
    const two = await withHistory(70)
    const first = await openStore(one)
    await (await first.project(tally('kept'))).caughtUp()
    await first.close()
    let stolen = new Uint8Array()
    await edited(one, 'kept', (bytes) => (stolen = new Uint8Array(bytes)))
    const derived = await Derived.open(pathsOf(two).derived)
    await derived.putNamed('p', 'kept', stolen)
    await derived.close()
    const second = await openStore(two)
    const again = await second.project(tally('kept'))
    expect(again.origin).toEqual({ kind: 'rebuilt', because: 'history' })
    await again.caughtUp()
    expect(again.state).toEqual(await fresh(second))
    await second.close()
  })

  test('`stored: false` leaves nothing behind, `forget` takes back what was', async () => {
    const path = await withHistory()
    const first = await openStore(path)
    await (await first.project(tally('unstored'), { stored: false })).caughtUp()
    const forgotten = await first.project(tally('forgotten'), { saveEvery: 1 })
    await forgotten.caughtUp()
    await forgotten.save()
    expect(forgotten.saved.position).toBe(first.head.position)
    await forgotten.forget()
    await first.close()
    const second = await openStore(path)
    for (const name of ['unstored', 'forgotten'])
      expect((await second.project(tally(name), { stored: false })).origin).toEqual({ kind: 'new' })
    await second.close()
  })
})

/** Flips a bit of the stored value where no checksum is made anew. */
async function flippedValue(path: string, name: string): Promise<void> {
  const { Level } = await import('level')
  const db = new Level<string, Uint8Array>(pathsOf(path).derived, { valueEncoding: 'view' })
  const key = `p${name}`
  const value = Uint8Array.from((await db.get(key))!)
  value[value.length >> 1]! ^= 4
  await db.put(key, value)
  await db.close()
}

describe('a fold that throws', () => {
  const failing = (at: number): EventProjection<number> => ({
    name: 'failing',
    version: 1,
    seed: () => 0,
    apply: (sum, { position }) => {
      if (position === at) throw new Error('cannot count this')
      return sum + 1
    },
  })

  test('stops alone, with its position; the store and the others go on', async () => {
    const { store, disk } = await small()
    const { first } = await disk.recordWrites([{ offset: 0, length: 1 }])
    const bad = await store.project(failing(first + 2))
    const good = await store.project(tally('good'))
    await Promise.all([bad.caughtUp(), good.caughtUp()])
    const errors: unknown[] = []
    bad.state$.subscribe({ error: (error) => errors.push(error) })
    await disk.recordWrites(Array.from({ length: 5 }, () => ({ offset: 0, length: 1 })))
    await expect(bad.caughtUp()).rejects.toMatchObject({
      code: 'PROJECTION_FAILED',
      facts: { projection: 'failing', position: first + 2 },
    })
    expect(bad.status).toMatchObject({ kind: 'failed', error: { cause: { message: 'cannot count this' } } })
    expect(errors).toHaveLength(1)
    expect(errors[0]).toBeInstanceOf(CheckpointError)
    await disk.recordWrites([{ offset: 0, length: 1 }])
    await good.caughtUp()
    expect(good.state).toEqual(await fresh(store))
    await store.close()
  })

  test('meets the same event again at the next open, until its version is raised', async () => {
    const path = await withHistory(10)
    for (let round = 0; round < 2; round++) {
      const store = await openStore(path)
      const bad = await store.project(failing(12), { saveEvery: 1 })
      await expect(bad.caughtUp()).rejects.toMatchObject({ facts: { position: 12 } })
      expect(bad.cursor).toBeLessThan(12)
      await store.close()
    }
    const store = await openStore(path)
    const right = await store.project({ ...failing(-1), version: 2 })
    await right.caughtUp()
    expect(right.state).toBe(store.head.position + 1)
    await store.close()
  })
})

describe('refused', () => {
  test('wrong definitions and options, a name that runs already, one of the product, a closed store', async () => {
    const { store } = await small()
    const wrong = (change: object) =>
      store.project({ ...tally('x'), ...change } as ProjectionDefinition<Tally>)
    await expect(wrong({ name: '' })).rejects.toMatchObject({ code: 'NAME_EMPTY' })
    await expect(wrong({ version: 1.5 })).rejects.toThrow(TypeError)
    await expect(wrong({ per: 'batch' })).rejects.toThrow(TypeError)
    await expect(wrong({ apply: undefined })).rejects.toThrow(TypeError)
    await expect(wrong({ seed: undefined })).rejects.toThrow(TypeError)
    await expect(wrong({ name: 'slicelog/stats' })).rejects.toThrow(RangeError)
    await expect(store.project(tally('x'), { saveEvery: 0 })).rejects.toThrow(TypeError)
    await expect(store.project(tally('x'), { saveSeconds: -1 })).rejects.toThrow(TypeError)
    const running = await store.project(tally('x'))
    await expect(store.project(tally('x'))).rejects.toThrow('running already')
    await running.stop()
    await (await store.project(tally('x'))).caughtUp()
    await store.close()
    await expect(store.project(tally('y'))).rejects.toMatchObject({ code: 'STORE_CLOSED' })
  })
})
