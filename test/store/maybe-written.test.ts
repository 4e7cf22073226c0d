/**
 * What a power cut may have taken the records of (R30) counts as written everywhere: every answer is that of a window with the same
 * ranges and of nobody knows how many writes, but for what it is called. And a mark (R35) changes no answer at all.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { encodeEvents } from '../../events/record.ts'
import type { DiskMark, DomainEvent } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import { blame } from '../../src/audit/blame.ts'
import { importDisk } from '../../src/audit/disk-import.ts'
import { explainBackup } from '../../src/audit/explain.ts'
import { history } from '../../src/audit/history.ts'
import { objectionTo } from '../../src/audit/legal.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { decideMaybeWritten } from '../../src/commands/marks.ts'
import { openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { exportDisk } from '../../src/store/disk-export.ts'
import { coreOf } from '../../src/store/store.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { playIncident } from '../../src/testing/player.ts'
import { recordIncident } from '../../src/testing/recorder.ts'
import { DISKS, randomHistory } from '../audit/random-history.ts'
import { appendTo } from '../audit/support.ts'
import { retold } from '../support/maybe-written.ts'
import { announce, prng, runs, seed } from '../support/property.ts'

const KiB = 1024
const MARK: DiskMark = {
  kind: 'file',
  device: '8:1',
  inode: '42',
  size: 1024 * KiB,
  modified: '1700000000000000001',
  changed: '1700000000000000002',
  boot: 'ab'.repeat(16),
  sectorsWritten: null,
}

async function both(store: Store): Promise<{ readonly window: Store; readonly maybe: Store }> {
  const open = async (type: 'window' | 'maybe-written') => {
    const opened = await openMemoryStore({
      log: await retold(store, type),
      clock: manualClock(store.head.time ?? 0),
      stillRunning: true,
      snapshotEvery: 24,
    })
    onTestFinished(() => opened.close())
    return opened
  }
  return { window: await open('window'), maybe: await open('maybe-written') }
}

/** Everything that can be asked, with the one word that may differ made the same. */
async function answers(store: Store, random: () => number): Promise<unknown> {
  const below = (n: number) => Math.floor(random() * n)
  const point = () => ({ position: below(store.head.position + 1) })
  const all: unknown[] = []
  const ask = async (question: () => Promise<unknown> | unknown) => {
    try {
      all.push(await question())
    } catch (error) {
      all.push((error as Error).message)
    }
  }
  for (const disk of DISKS) {
    for (let i = 0; i < 6; i++) {
      const since = point()
      const until = point()
      await ask(() => store.changed(disk, { since, until }))
      await ask(() => store.changed(disk, { since, granularity: 512 }))
      await ask(() => store.plan({ disk, bitmap: 'm', mode: 'differential', since }))
      const range = { offset: below(300 * KiB), length: 1 + below(40 * KiB) }
      await ask(async () => {
        const { touches, ...rest } = await blame(store, disk, range, { limit: 50 })
        return {
          ...rest,
          touches: touches.map(({ kind, position, backups }) => ({ kind, position, backups })),
        }
      })
      const found: unknown[] = []
      for await (const event of store.log({ disk, range })) found.push([event.position, event.type])
      all.push(found)
    }
    await ask(() => store.disk(disk).bitmaps())
  }
  for (const { id } of store.backups()) {
    await ask(() => store.backup(id).loadPlan())
    await ask(async () => {
      const { span, written, timeline, findings } = await explainBackup(store, id)
      return {
        span: { ...span, windows: { ...span.windows, maybe: 0 } },
        written,
        timeline,
        codes: findings.map(({ code }) => code),
      }
    })
  }
  await ask(() => store.stats())
  all.push(store.backups())
  return JSON.parse(
    JSON.stringify(all, (_, value: unknown) => (value instanceof Float64Array ? [...value] : value))
      .replaceAll('maybe-written', 'window')
      .replaceAll('writes that a power cut took the records of', 'a window told afterwards'),
  )
}

test('R30, R35: every answer is that of a window with the same ranges', async () => {
  const rounds = runs(6, 120)
  const used = seed()
  announce('what may have been written counts as a window', rounds, used)
  let told = 0
  for (let round = 0; round < rounds; round++) {
    const made = await randomHistory(used + round, 160)
    const { window, maybe } = await both(made)
    for await (const _ of maybe.log({ types: ['maybe-written'] })) told++
    expect(await answers(maybe, prng(used + round)), `round ${round}`).toEqual(
      await answers(window, prng(used + round)),
    )
    const incident = await recordIncident(maybe)
    const played = await playIncident(incident.bytes)
    expect(await played.verify(), `round ${round}`).toEqual([])
    await played.close()
    await made.close()
  }
  expect(told, 'the histories held some').toBeGreaterThan(rounds)
})

/** A closed store, with these events at its end as a recovery would record them. */
async function folderWith(...events: readonly DomainEvent[]) {
  const folder = await mkdtemp(join(tmpdir(), 'slicelog-maybe-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const store = await openStore(folder)
  const disk = await store.ensureDisk('vda', { size: 1024 * KiB })
  await disk.addBitmap('daily', { granularity: 4 * KiB, retention: 2 })
  await disk.recordWrites([{ offset: 0, length: 4 * KiB }])
  await store.close()
  const at = await appendTo(folder, ({ next, time, hash }) => [
    encodeEvents(next, time ?? 0, { command: 'recover' }, events, hash),
  ])
  return { folder, at }
}

const told: DomainEvent = {
  type: 'maybe-written',
  disk: 'vda',
  from: { position: 2, time: null },
  extents: [[512 * KiB, 8 * KiB]],
}

describe('in a folder', () => {
  test('R30: it sets bits, is in changed since any point of its span, and answers stay complete', async () => {
    const { folder, at } = await folderWith(told)
    expect((await verifyStore(folder)).findings).toEqual([])
    const store = await openStore(folder)
    onTestFinished(() => store.close())
    const disk = store.disk('vda')
    expect((await disk.bitmap('daily').bits()).count).toBe(12 * KiB)
    for (const since of [2, 3, at - 1])
      expect(
        await disk.changed({ since: { position: since }, granularity: 4 * KiB }),
        `since ${since}`,
      ).toMatchObject({
        complete: true,
        lost: [],
        extents: expect.arrayContaining([{ offset: 512 * KiB, length: 8 * KiB }]),
      })
    expect((await disk.changed({ since: { position: at } })).bytes).toBe(0)
    expect(
      await disk.changed({ since: { position: 2 }, until: { position: 3 }, granularity: 4 * KiB }),
    ).toMatchObject({
      resolution: 'window',
      extents: expect.arrayContaining([{ offset: 512 * KiB, length: 8 * KiB }]),
    })
    const blamed = await blame(store, 'vda', { offset: 512 * KiB, length: 1 })
    expect(blamed).toMatchObject({
      resolution: 'window',
      touches: [
        { kind: 'maybe-written', position: at, from: { position: 2 }, extents: [[512 * KiB, 8 * KiB]] },
      ],
      covered: { kind: 'not-covered' },
    })
    const begun = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'b' })
    await begun.succeed()
    expect((await blame(store, 'vda', { offset: 512 * KiB, length: 1 })).covered).toMatchObject({
      backup: 'b',
    })
    const { findings, span } = await explainBackup(store, 'b')
    expect(span.windows).toMatchObject({ count: 1, maybe: 1 })
    expect(findings.find(({ code }) => code === 'WINDOWS')?.says).toMatch(/power cut \(R30\)/)
    const { transitions } = await history(store, { kind: 'disk', disk: 'vda' })
    expect(transitions.find(({ position }) => position === at)?.says).toMatch(
      /power cut took: counted as written/,
    )
  })

  test('R30: it moves with its disk to another store, its span with it', async () => {
    const { folder } = await folderWith(told, { type: 'disk-marked', disk: 'vda', mark: MARK })
    const store = await openStore(folder)
    onTestFinished(() => store.close())
    const file = join(folder, 'vda.slicelog')
    await exportDisk(store, 'vda', file)
    const other = await mkdtemp(join(tmpdir(), 'slicelog-maybe-'))
    onTestFinished(() => rm(other, { recursive: true, force: true }))
    const target = await openStore(other, { clock: manualClock(1) })
    await target.ensureDisk('first', { size: 512 })
    const { positions } = await importDisk(target, file)
    expect(positions).toBeDefined()
    const seen = []
    for await (const event of target.log({ types: ['maybe-written', 'disk-marked'] })) seen.push(event)
    expect(seen).toMatchObject([
      { type: 'maybe-written', disk: 'vda', data: { extents: [[512 * KiB, 8 * KiB]] } },
      { type: 'disk-marked', disk: 'vda', data: { mark: MARK } },
    ])
    const { from } = seen[0]!.data as { readonly from: { readonly position: number } }
    expect(
      (await target.disk('vda').changed({ since: { position: from.position }, granularity: 4 * KiB }))
        .extents,
    ).toContainEqual({ offset: 512 * KiB, length: 8 * KiB })
    await target.close()
    expect((await verifyStore(other)).findings).toEqual([])
  })

  test('R35: a mark changes no bit and no answer, and is kept by a snapshot', async () => {
    const { folder, at } = await folderWith({ type: 'disk-marked', disk: 'vda', mark: MARK })
    for (let open = 0; open < 2; open++) {
      const store = await openStore(folder)
      const disk = store.disk('vda')
      expect((await disk.bitmap('daily').bits()).count).toBe(4 * KiB)
      expect((await disk.changed({ since: { position: at - 1 } })).bytes).toBe(0)
      const { mark, wrote } = coreOf(store).catalog.disk('vda')!
      expect(mark).toMatchObject({ at: { position: at }, mark: MARK })
      expect(wrote).toMatchObject({ position: at - 2 })
      await store.snapshot()
      await store.close()
    }
    expect((await verifyStore(folder)).findings).toEqual([])
  })
})

test('R29, R35: no window of a compaction reaches across a mark, nor across what may have been written', async () => {
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const store = await openMemoryStore({ clock })
  onTestFinished(() => store.close())
  const disk = await store.ensureDisk('vda', { size: 1024 * KiB })
  const some = async () => {
    for (let i = 0; i < 200; i++) await disk.recordWrites([{ offset: (i % 8) * 4 * KiB, length: 4 * KiB }])
  }
  await some()
  await coreOf(store).run([{ type: 'mark-disk', disk: 'vda', mark: MARK }])
  const marked = store.head.position
  await some()
  const later = decideMaybeWritten(coreOf(store).catalog, {
    disk: 'vda',
    from: { position: marked, time: null },
    extents: [[512 * KiB, 8 * KiB]],
  })
  await coreOf(store).committer.execute({
    meta: { command: 'recover' },
    decide: async () => ({ events: later, quiet: [], answer: () => undefined }),
    recall: async () => undefined,
  })
  const told = store.head.position
  await some()
  const points = [marked, marked + 1, told - 1, told]
  const changed = async () =>
    await Promise.all(
      points.map(async (position) => await disk.changed({ since: { position }, granularity: 512 })),
    )
  const before = await changed()
  clock.advance(7_200_000)
  const { events } = await store.compact({ policy: '1s:1h' })
  expect(events).toBe(600)
  const windows: [number, number][] = []
  for await (const { type, position, data } of store.log({ types: ['window'] }))
    if (type === 'window') windows.push([(data as { from: { position: number } }).from.position, position])
  for (const border of [marked, told])
    expect(windows.filter(([from, to]) => from < border && border < to)).toEqual([])
  expect(windows.length).toBeGreaterThanOrEqual(3)
  expect((await changed()).map(({ digest }) => digest)[0]).toBe(before[0]!.digest)
  expect((await changed()).map(({ digest }) => digest)[3]).toBe(before[3]!.digest)
})

describe('verify', () => {
  const catalog = new Catalog()
  catalog.apply({
    kind: 'events',
    first: 0,
    count: 1,
    time: 1,
    lastTime: 1,
    meta: {},
    events: [{ type: 'disk-added', disk: 'vda', size: 1024 * KiB }],
  })

  test('R28, R30, R35: what recovery and doors record is legal', () => {
    const fits = { ...told, from: { position: 0, time: null } }
    expect(objectionTo(fits as DomainEvent, catalog, 0)).toBeNull()
    expect(objectionTo({ type: 'disk-marked', disk: 'vda', mark: MARK }, catalog, 0)).toBeNull()
  })

  test('R28, R30, R35: what nobody can have recorded is named', () => {
    const wrong: [DomainEvent, RegExp][] = [
      [{ ...told, disk: 'vdb' } as DomainEvent, /"vdb" does not exist/],
      [told, /cannot begin at 2/],
      [
        { type: 'maybe-written', disk: 'vda', from: { position: 0, time: null }, extents: [[1024 * KiB, 1]] },
        /outside/,
      ],
      [{ type: 'disk-marked', disk: 'vdb', mark: MARK }, /"vdb" does not exist/],
      [{ type: 'disk-marked', disk: 'vda', mark: { ...MARK, size: 512 } }, /512 bytes/],
      [
        { type: 'disk-marked', disk: 'vda', mark: { ...MARK, kind: 'block', sectorsWritten: -1 } },
        /-1 sectors/,
      ],
    ]
    for (const [event, why] of wrong) expect(objectionTo(event, catalog, 0)).toMatch(why)
  })
})
