/** What stands in the place of records is believed only where an event vouches for it (R28, R29). */
import { cpSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { expect, test } from 'vitest'
import {
  decodeStored,
  encodeEvents,
  encodeGap,
  encodeWindows,
  encodeWrites,
  ownHash,
  readHeader,
} from '../../events/record.ts'
import type { CompactedRun, DomainEvent, LogRecord, LogWindow } from '../../events/types.ts'
import { type VerifyReport, verifyStore } from '../../src/audit/verify.ts'
import type { CheckpointError } from '../../src/errors.ts'
import { KiB, MiB } from '../../src/limits.ts'
import { EMPTY_HEAD } from '../../src/log/base-log.ts'
import { HeadFile, readHeadFile } from '../../src/log/head-file.ts'
import { pathsOf } from '../../src/store/folder.ts'
import { openStore } from '../../src/store/open.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { temporary } from '../store/compact-support.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { type Entry, entriesIn, put } from './support.ts'

const DISK = 'vm/vda'

/** Two compactions: minutes first, then half-hours over some of them; four runs are left. */
async function compacted(): Promise<string> {
  const folder = temporary()
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const store = await openStore(folder, { clock })
  const disk = await store.ensureDisk(DISK, { size: 64 * MiB })
  await disk.addBitmap('daily', { retention: 9 })
  const writes = async (minutes: number) => {
    for (let i = 0; i < minutes * 6; i++) {
      clock.advance(10_000)
      await disk.recordWrites(
        Array.from({ length: 40 }, (_, row) => ({
          offset: ((row * 7 + i) % 512) * 4 * KiB,
          length: 4 * KiB,
        })),
      )
    }
  }
  for (let i = 0; i < 4; i++) {
    await writes(20)
    await disk.bitmap('daily').bank()
  }
  await store.compact({ policy: '0s:1m' })
  await writes(5)
  await store.compact({ policy: '40m:30m' })
  await writes(1)
  await store.close()
  return folder
}

const sound = compacted

async function edited(folder: string, ...edits: { position: number; value: Uint8Array | null }[]) {
  const copy = temporary()
  cpSync(folder, copy, { recursive: true })
  await put(copy, ...edits)
  return await verifyStore(copy)
}

/** Snapshots of another history come with every edit, and are another matter. */
const codes = ({ findings }: VerifyReport) => [
  ...new Set(findings.map(({ code }) => code).filter((code) => code !== 'DERIVED_DAMAGED')),
]
const runsIn = (entries: readonly Entry[]) =>
  entries.filter(({ value }) => readHeader(value).layout === 'run')

function windowsOf(value: Uint8Array): readonly LogWindow[] {
  const [record] = decodeStored(value)
  if (record?.kind !== 'windows') throw new Error('no windows')
  return record.windows
}

test('R29: a store that was compacted twice is sound, and every run is vouched for', async () => {
  const folder = await sound()
  const report = await verifyStore(folder)
  expect(report.findings).toEqual([])
  expect(runsIn(await entriesIn(folder)).length).toBeGreaterThanOrEqual(4)
})

test('R28, R29: windows edited under a right checksum differ from those that the compaction told', async () => {
  const folder = await sound()
  for (const run of runsIn(await entriesIn(folder))) {
    const windows = windowsOf(run.value)
    const { first, count, hash } = readHeader(run.value)
    const span = { from: first, to: first + count - 1 }
    const columns = { offsets: Float64Array.of(32 * MiB), lengths: Float64Array.of(4 * KiB) }
    const other = windows.map((window, i) =>
      i === 0 ? { ...window, sections: window.sections.map((section) => ({ ...section, columns })) } : window,
    )
    const report = await edited(folder, { position: first, value: encodeWindows(first, other, hash) })
    expect(codes(report)).toContain('RUN_DIFFERS')
    const finding = report.findings.find(({ code }) => code === 'RUN_DIFFERS')!
    expect(finding.position).toBe(span.from)
    expect(finding.doubt.length).toBeGreaterThan(0)
    // Another hash behind it breaks the chain, or does not fit what the event says.
    const forged = encodeWindows(first, windows, new Uint8Array(32).fill(1))
    const chain = await edited(folder, { position: first, value: forged })
    expect(codes(chain)).toContain('RUN_DIFFERS')
  }
})

test('R28, R29: a run exchanged for another, cut in two, or put where records were is found and named', async () => {
  const folder = await sound()
  const entries = await entriesIn(folder)
  const [one, other] = runsIn(entries) as [Entry, Entry]
  const cases: [string, string[], Parameters<typeof edited>[1][]][] = []
  cases.push(['exchanged', ['RECORD_MISPLACED'], [{ position: one.position, value: other.value }]])
  const big = runsIn(entries).find(({ value }) => windowsOf(value).length > 1)!
  const windows = windowsOf(big.value)
  const { hash } = readHeader(big.value)
  const half = windows.slice(0, 1)
  const rest = windows.slice(1)
  cases.push([
    'cut in two',
    ['RUN_UNVOUCHED', 'RUN_MISSING'],
    [
      { position: big.position, value: encodeWindows(big.position, half, hash) },
      { position: rest[0]!.first, value: encodeWindows(rest[0]!.first, rest, hash) },
    ],
  ])
  const record = entries.find(({ value }) => decodeStored(value)[0]!.kind === 'writes')!
  const { first, count, time, lastTime, hash: after } = readHeader(record.value)
  const window = { first, count, time, lastTime, sections: [] }
  cases.push([
    'never compacted',
    ['RUN_UNVOUCHED'],
    [{ position: first, value: encodeWindows(first, [window], after) }],
  ])
  cases.push([
    'a gap nobody told of',
    ['GAP_UNVOUCHED'],
    [{ position: first, value: encodeGap(first, count, time, lastTime, after) }],
  ])
  cases.push([
    'a gap for a run',
    ['GAP_UNVOUCHED'],
    [
      {
        position: big.position,
        value: encodeGap(
          big.position,
          readHeader(big.value).count,
          readHeader(big.value).time,
          readHeader(big.value).lastTime,
          hash,
        ),
      },
    ],
  ])
  cases.push(['taken out', ['RECORDS_MISSING'], [{ position: one.position, value: null }]])
  for (const [why, wanted, edits] of cases) {
    const found = codes(await edited(folder, ...edits))
    for (const code of wanted) expect(found, why).toContain(code)
  }
})

/** Rewrites everything from the compaction's record on, so that the chain holds, with other events in it. */
async function retold(
  folder: string,
  tell: (runs: readonly CompactedRun[], last: boolean) => DomainEvent,
): Promise<VerifyReport> {
  const copy = temporary()
  cpSync(folder, copy, { recursive: true })
  const entries = await entriesIn(copy)
  const edits: { position: number; value: Uint8Array | null }[] = []
  let hash = EMPTY_HEAD.hash
  let head = EMPTY_HEAD
  const vouching = entries
    .flatMap(({ value }) => decodeStored(value))
    .filter(
      (record) => record.kind === 'events' && record.events.some(({ type }) => type === 'log-compacted'),
    )
  const lastFirst = vouching.at(-1)!.first
  for (const { position, value } of entries) {
    const header = readHeader(value)
    const records = decodeStored(value)
    if (header.layout === 'run') hash = header.hash
    else {
      edits.push({ position, value: null })
      for (const record of records) {
        const encoded = again(record, hash, (runs) => tell(runs, record.first === lastFirst))
        edits.push({ position: record.first, value: encoded.bytes })
        hash = encoded.hash
      }
    }
    head = { next: header.first + header.count, time: header.lastTime, hash }
  }
  const last = new Map(edits.map((edit) => [edit.position, edit]))
  await put(copy, ...last.values())
  const file = pathsOf(copy).head
  const held = readHeadFile(file)
  if (held.kind !== 'good') throw new Error('no head file')
  const writer = new HeadFile(file, held.slot.bootId, held)
  writer.write(head, head, 'closed')
  writer.close()
  return await verifyStore(copy)
}

function again(record: LogRecord, hash: Uint8Array, tell: (runs: readonly CompactedRun[]) => DomainEvent) {
  if (record.kind === 'writes') return encodeWrites(record.first, record.time, record.sections, hash)
  if (record.kind !== 'events') throw new Error('runs stay')
  const events = record.events.map((event) => (event.type === 'log-compacted' ? tell(event.runs) : event))
  return encodeEvents(record.first, record.time, record.meta, events, hash)
}

test('R29: an event that is told otherwise, under a chain that holds, does not vouch', async () => {
  const folder = await sound()
  const as = (runs: readonly CompactedRun[]): DomainEvent => ({ type: 'log-compacted', runs })
  const cut = (hash: string) => `${'0'.repeat(8)}${hash.slice(8)}`
  expect(codes(await retold(folder, as))).toEqual([])
  // Dropped: something else stands in its place.
  const dropped = await retold(folder, () => ({ type: 'nothing-changed' }))
  expect(codes(dropped)).toEqual(['RUN_UNVOUCHED'])
  const fewer = await retold(folder, (runs, last) => as(last ? runs : runs.slice(0, -1)))
  expect(codes(fewer), 'one run left out').toEqual(['RUN_UNVOUCHED'])
  for (const field of ['own', 'before', 'after'] as const) {
    const wrong = (runs: readonly CompactedRun[]) =>
      as(runs.map((run, i) => (i === runs.length - 1 ? { ...run, [field]: cut(run[field]) } : run)))
    expect(codes(await retold(folder, (runs, last) => (last ? wrong(runs) : as(runs)))), field).toContain(
      'RUN_DIFFERS',
    )
    // What an older compaction told of a place that a later one took up is held against it.
    if (field !== 'own') {
      const older = (runs: readonly CompactedRun[]) =>
        as(runs.map((run) => ({ ...run, [field]: cut(run[field]) })))
      const found = codes(await retold(folder, (runs, last) => (last ? as(runs) : older(runs))))
      expect(
        found.some((code) => code === 'RUNS_DISAGREE' || code === 'RUN_DIFFERS' || code === 'EVENT_ILLEGAL'),
        field,
      ).toBe(true)
    }
  }
  // One that is not there.
  const record = (await entriesIn(folder)).find(({ value }) => decodeStored(value)[0]!.kind === 'writes')
  expect(record).toBeDefined()
  const more = (runs: readonly CompactedRun[]) => {
    const run = runs[0]!
    return as([{ ...run, last: run.first }, ...runs.slice(1)])
  }
  const named = await retold(folder, (runs, last) => (last ? more(runs) : as(runs)))
  expect(codes(named)).toContain('RUN_MISSING')
  expect(codes(named)).toContain('RUN_UNVOUCHED')
  // What cannot be, whatever is there.
  for (const bad of [
    (runs: readonly CompactedRun[]) => [...runs].reverse().concat(runs[0]!),
    () => [],
    (runs: readonly CompactedRun[]) => [{ ...runs[0]!, last: 2 ** 40 }],
    (runs: readonly CompactedRun[]) => [{ ...runs[0]!, own: '' }],
  ])
    expect(codes(await retold(folder, (runs, last) => (last ? as(bad(runs)) : as(runs))))).toContain(
      'EVENT_ILLEGAL',
    )
})

test('R28, R29: a head that was exported before its place was folded can be compared no more, and that is said', async () => {
  const folder = await sound()
  const run = runsIn(await entriesIn(folder))[0]!
  const report = await verifyStore(folder, { against: { position: run.position, hash: '1'.repeat(64) } })
  expect(codes(report)).toEqual(['ANCHOR_FOLDED'])
  const { first, count, hash } = readHeader(run.value)
  const edge = { position: first + count - 1, hash: Buffer.from(hash).toString('hex') }
  expect((await verifyStore(folder, { against: edge })).findings).toEqual([])
  expect(codes(await verifyStore(folder, { against: { ...edge, hash: '1'.repeat(64) } }))).toEqual([
    'ANCHOR_DIFFERS',
  ])
})

test('R28: random edits of runs are each found', async () => {
  const rounds = runs(12, 400)
  const used = seed()
  announce('edits of runs', rounds, used)
  const random = prng(used)
  const folder = await sound()
  const copy = temporary()
  cpSync(folder, copy, { recursive: true })
  const all = runsIn(await entriesIn(folder))
  for (let round = 0; round < rounds; round++) {
    const run = all[Math.floor(random() * all.length)]!
    const value = Uint8Array.from(run.value) // Not slice: of a Buffer it would alias.
    const at = 5 + Math.floor(random() * (value.length - 5))
    value[at]! ^= 1 << Math.floor(random() * 8)
    if (random() < 0.8) {
      new DataView(value.buffer).setUint32(0, crc32(value.subarray(4)), true)
    }
    await put(copy, { position: run.position, value })
    // A version above ours, under a checksum that fits, is not damage: it is refused as what it says it is (R34).
    const found = await verifyStore(copy).then(
      ({ findings }) => findings.length,
      (error: unknown) => Number((error as CheckpointError).code === 'FORMAT_TOO_NEW'),
    )
    expect(found, `byte ${at} of the run at ${run.position}`).toBeGreaterThan(0)
    await put(copy, { position: run.position, value: run.value })
  }
  expect((await verifyStore(copy)).findings).toEqual([])
  expect(ownHash(all[0]!.value).length).toBe(32)
})
