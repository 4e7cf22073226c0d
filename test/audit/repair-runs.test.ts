/** Where compaction and repair meet: what each leaves in the log, the other must read right (R28, R29). */
import { expect, test } from 'vitest'
import { decodeStored, encodeWindows, readHeader } from '../../events/record.ts'
import type { DomainEvent, LogWindow } from '../../events/types.ts'
import { repairStore } from '../../src/audit/repair.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { KiB, MiB } from '../../src/limits.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { type ManualClock, manualClock } from '../../src/testing/clock.ts'
import { temporary } from '../store/compact-support.ts'
import { repaired, spoil } from './repair-support.ts'
import { DISK, type Entry, entriesIn, put } from './support.ts'

interface Made {
  readonly folder: string
  readonly clock: ManualClock
}

/** A record every ten seconds. Every twentieth is large enough to be stored by itself; the others are joined to packs. */
async function writes(store: Store, clock: ManualClock, minutes: number, rows = 40): Promise<void> {
  for (let i = 0; i < minutes * 6; i++) {
    clock.advance(10_000)
    const ranges = Array.from({ length: i % 20 === 0 ? 100 : rows }, (_, row) => ({
      offset: row * 28 * KiB,
      length: 4 * KiB,
    }))
    await store.disk(DISK).recordWrites(ranges)
  }
}

/** 40 minutes of writes with a bank after each 10, and no compaction yet. */
async function made(rows?: number): Promise<Made> {
  const folder = temporary()
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const store = await openStore(folder, { clock })
  const disk = await store.ensureDisk(DISK, { size: 64 * MiB })
  await disk.addBitmap('daily', { retention: 9 })
  for (let i = 0; i < 4; i++) {
    await writes(store, clock, 10, rows)
    await disk.bitmap('daily').bank()
  }
  await store.close()
  return { folder, clock }
}

async function on<T>({ folder, clock }: Made, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore(folder, { clock })
  try {
    return await work(store)
  } finally {
    await store.close()
  }
}

const compact = (made: Made, policy: string) =>
  on(made, (store) => store.compact({ policy, stepBytes: 20_000 }))
const kindOf = ({ value }: Entry) => decodeStored(value)[0]!.kind
const runsIn = async (folder: string) =>
  (await entriesIn(folder)).filter((entry) => kindOf(entry) === 'windows')
const findings = async (folder: string) => (await verifyStore(folder)).findings

function flipped(value: Uint8Array, at: number): Uint8Array {
  const copy = Uint8Array.from(value)
  copy[at] = copy[at]! ^ 4
  return copy
}

async function told(folder: string, type: DomainEvent['type']): Promise<DomainEvent[]> {
  return (await entriesIn(folder))
    .flatMap(({ value }) => decodeStored(value))
    .flatMap((record) => (record.kind === 'events' ? record.events : []))
    .filter((event) => event.type === type)
}

test.each([
  ['whose hash the damaged value still carried', 60],
  ['whose hash is not known', 10],
])(
  'R28, R29: behind a gap, %s, nothing is folded: however often what follows is compacted and repacked, the repair vouches for it',
  async (_, at) => {
    const one = await made()
    const { folder } = one
    const entries = await entriesIn(folder)
    const { position: lost, value } = entries.filter(({ plain }) => plain)[1]!
    expect(readHeader(entries.find((entry) => entry.position > lost)!.value).layout).toBe('pack')
    await spoil(folder, { position: lost, value: flipped(value, at) })
    const report = await repairStore(folder, { clock: one.clock })
    expect(report).toMatchObject({ lost: [{ first: lost }], remaining: [] })
    const behind = async () => {
      const entries = await entriesIn(folder)
      return entries[entries.findIndex((entry) => kindOf(entry) === 'gap') + 1]!
    }
    const { position } = await behind()
    // The first begins a stretch inside the pack that follows the gap.
    for (const policy of ['25m:1m,37m:2m', '0s:1m', '0s:1h', '13m:2m']) {
      await on(one, async (store) => {
        await writes(store, one.clock, 1)
        await store.repack()
        await store.compact({ policy, stepBytes: 20_000 })
        await store.repack()
      })
      expect(await findings(folder), policy).toEqual([])
      expect((await behind()).position, policy).toBe(position)
      expect(kindOf(await behind()), policy).not.toBe('windows')
    }
    expect((await runsIn(folder)).length).toBeGreaterThan(0)
  },
)

/** Runs over records that each were a value of their own, and those records as they were. */
async function folded(): Promise<Made & { readonly before: readonly Entry[]; readonly run: Entry }> {
  const one = await made(100)
  const before = await entriesIn(one.folder)
  await compact(one, '5m:5m')
  return { ...one, before, run: (await runsIn(one.folder))[1]! }
}

/** What a run took the place of. */
function under(run: Entry, before: readonly Entry[]): Entry[] {
  const { first, count } = readHeader(run.value)
  return before.filter(({ position }) => first <= position && position < first + count)
}

test('R28, R29: a damaged run whose place older records still fit is those records again, and can be folded again', async () => {
  const one = await folded()
  const { folder, run, before } = one
  const records = under(run, before)
  expect(records.length).toBeGreaterThan(5)
  await put(folder, ...records)
  await put(folder, ...records.map(({ position }) => ({ position, value: null })))
  await put(folder, { position: run.position, value: flipped(run.value, 70) })
  const report = await repaired(folder)
  expect(report).toMatchObject({ lost: [], disks: [], restored: records.length })
  const now = await entriesIn(folder)
  for (const { position, value } of records)
    expect(Buffer.compare(now.find((entry) => entry.position === position)!.value, value)).toBe(0)
  await compact(one, '0s:5m')
  expect(await findings(folder)).toEqual([])
})

test('R28, R29: a damaged run that nothing is left of becomes a gap, and the others stay vouched for', async () => {
  const { folder, run } = await folded()
  const others = (await runsIn(folder)).length - 1
  await spoil(folder, { position: run.position, value: flipped(run.value, 70) })
  const { first, count } = readHeader(run.value)
  expect((await repaired(folder)).lost).toMatchObject([{ first, last: first + count - 1 }])
  expect((await runsIn(folder)).length).toBe(others)
})

test('R28, R29: when damage takes the event of a compaction, the repair vouches for its runs', async () => {
  const one = await folded()
  const { folder } = one
  const event = (await entriesIn(folder)).find(({ value }) =>
    decodeStored(value).some(
      (record) => record.kind === 'events' && record.events.some(({ type }) => type === 'log-compacted'),
    ),
  )!
  await spoil(folder, { position: event.position, value: flipped(event.value, 60) })
  expect((await repaired(folder)).lost).toMatchObject([{ first: event.position }])
  const events = await told(folder, 'log-compacted')
  const runs = await runsIn(folder)
  expect(events.at(-1)).toMatchObject({ runs: runs.map(({ position }) => ({ first: position })) })
  await on(one, (store) => writes(store, one.clock, 2))
  await compact(one, '0s:1h')
  expect(await findings(folder)).toEqual([])
})

test('R28: a repair does not vouch for windows that somebody edited, nor for some that no compaction left', async () => {
  const edited = await folded()
  const { run } = edited
  const [record] = decodeStored(run.value)
  const windows = record?.kind === 'windows' ? record.windows : []
  const columns = { offsets: Float64Array.of(32 * MiB), lengths: Float64Array.of(4 * KiB) }
  const other = windows.map((window) => ({
    ...window,
    sections: window.sections.map((section) => ({ ...section, columns })),
  }))
  const { first, count, hash } = readHeader(run.value)
  await spoil(edited.folder, { position: first, value: encodeWindows(first, other, hash) })
  const report = await repaired(edited.folder)
  expect(report.lost).toMatchObject([{ first, last: first + count - 1 }])
  expect(report.lost[0]!.why.join()).toMatch(/not the run of windows/)

  const added = await made(100)
  const { value } = (await entriesIn(added.folder)).filter(({ plain }) => plain)[5]!
  const head = readHeader(value)
  const window: LogWindow = { ...head, sections: [] }
  await spoil(added.folder, { position: head.first, value: encodeWindows(head.first, [window], head.hash) })
  const found = await repaired(added.folder)
  expect(found.lost).toMatchObject([{ first: head.first, last: head.first + head.count - 1 }])
  expect(found.lost[0]!.why.join()).toMatch(/no compaction left/)
})

test('R28, R29: a cursor whose place was folded, or lost, since: the verify begins before it, says why, and finds nothing', async () => {
  const one = await made(100)
  const { folder } = one
  const at = (entry: Entry) => {
    const { first, count, hash } = readHeader(entry.value)
    return { position: first + count - 1, hash: Buffer.from(hash).toString('hex') }
  }
  const plain = (await entriesIn(folder)).filter((entry) => entry.plain)
  await compact(one, '5m:5m')
  const runs = await runsIn(folder)
  const run = runs[1]!
  const inside = plain.filter(({ position }) => position > run.position)[2]!
  const folding = await verifyStore(folder, { since: at(inside) })
  expect(folding).toMatchObject({ since: run.position - 1, findings: [] })
  expect(folding.note).toMatch(/a compaction folded position/)
  expect(folding.head).toEqual((await verifyStore(folder)).head)
  const edge = await verifyStore(folder, { since: at(run) })
  expect(edge).toMatchObject({ since: at(run).position, note: null, findings: [] })
  const [first] = runs
  const both = await verifyStore(folder, { since: at(run), against: at(plain[1]!) })
  expect(at(plain[1]!).position).toBeGreaterThan(first!.position)
  expect(both.findings.map(({ code }) => code)).toEqual(['ANCHOR_FOLDED'])
  // What is edited behind the place where it begins is found.
  const changed = resealedRun(run)
  await put(folder, changed)
  expect((await verifyStore(folder, { since: at(inside) })).findings.map(({ code }) => code)).toContain(
    'RUN_DIFFERS',
  )
  await spoil(folder, { position: run.position, value: flipped(run.value, 10) })
  await repaired(folder)
  const lost = await verifyStore(folder, { since: at(inside) })
  expect(lost).toMatchObject({ since: run.position - 1, findings: [] })
  expect(lost.note).toMatch(/a repair found position/)
  await expect(verifyStore(folder, { since: { position: 3, hash: '0'.repeat(64) } })).resolves.toMatchObject({
    note: expect.stringMatching(/folded/),
  })
})

/** With one range more in its first window. */
function resealedRun({ position, value }: Entry) {
  const [record] = decodeStored(value)
  const windows = record?.kind === 'windows' ? record.windows : []
  const columns = { offsets: Float64Array.of(48 * MiB), lengths: Float64Array.of(4 * KiB) }
  const [head, ...rest] = windows
  const sections = head!.sections.map((section) => ({ ...section, columns }))
  return {
    position,
    value: encodeWindows(position, [{ ...head!, sections }, ...rest], readHeader(value).hash),
  }
}
