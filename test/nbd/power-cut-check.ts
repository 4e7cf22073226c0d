/**
 * Whether a store that is found after a power cut still tells the truth about the disk that is found beside it (R30, R31, R32).
 *
 * Asked since every point that was taken, the beginning, and moments that nobody marked: each granule whose bytes are others than
 * they were then must be in the answer, also those whose bytes were written before and taken back by the cut. Two things are no
 * fault and are counted apart: a request that was in flight at an unmarked moment (its record may be older than that moment, and
 * its bytes younger); an answer that covers the whole disk and says why. Cost: an open and a verify.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { verifyStore } from '../../src/audit/verify.ts'
import { openContext } from '../../src/nbd/contexts.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import type { Machine, PointInput } from '../../src/store/types.ts'
import { linesBefore } from '../support/file-history.ts'
import { contentAt, foundAfter, type Kept, lay } from '../support/power-cut.ts'
import { dirtyGranules } from './disk-support.ts'
import { GRANULE, SIZE } from './power-cut-load.ts'
import type { Recording } from './power-cut-recording.ts'

/** What each model leaves of the store's folder and of the disk's file. */
export const MODELS = {
  'nothing unsynced': ['synced', 'synced'],
  'some pages of both': ['some', 'some'],
  'all of the disk, no unsynced log': ['synced', 'all'],
  'all of the log, no unsynced disk': ['all', 'synced'],
  'all of the disk, some of the log': ['some', 'all'],
} as const satisfies Record<string, readonly [store: Kept, disk: Kept]>
export type Model = keyof typeof MODELS

export interface Cut {
  readonly line: number
  readonly model: Model
}

/** Sums over cuts. */
export interface Tally {
  cuts: number
  answers: number
  wholeDisk: number
  /** Granules that differed, and that answers had. */
  differing: number
  told: number
  inFlight: number
  recovered: number
}

export const newTally = (): Tally => ({
  cuts: 0,
  answers: 0,
  wholeDisk: 0,
  differing: 0,
  told: 0,
  inFlight: 0,
  recovered: 0,
})

const NEXT_BOOT: Machine = { bootId: () => 'the machine, started again' }

interface Base {
  readonly name: string
  readonly since: PointInput
  /** Maps that must tell the same, for a point that bitmaps know. */
  readonly maps: readonly string[]
  readonly line: number
  /** Granules of requests that were in flight then. */
  readonly open: ReadonlySet<number>
}

/** Throws (as `expect` does) for the first thing that is wrong. */
export async function checkCut(
  recording: Recording,
  cut: Cut,
  random: () => number,
  tally: Tally,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'slicelog-power-'))
  try {
    const [ofStore, ofDisk] = MODELS[cut.model]
    lay(foundAfter(recording.store, cut.line, ofStore, random), join(folder, 'store'))
    const disk = foundAfter(recording.disk, cut.line, ofDisk, random) as Buffer
    expect(disk.length, 'the disk keeps its size').toBe(SIZE)
    keepsWhatWasPromised(recording, cut, disk)
    const store = await openStore(join(folder, 'store'), { create: false, machine: NEXT_BOOT })
    try {
      keepsCommands(recording, cut, store)
      tellsWhatIsLost(recording, cut, store)
      for (const base of basesOf(recording, cut, store, random))
        await checkBase(recording, cut, disk, store, base, tally)
    } finally {
      await store.close()
    }
    const { findings } = await verifyStore(join(folder, 'store'), { machine: NEXT_BOOT })
    const cutOff = findings.filter(({ code }) => code === 'ASIDE_KEPT')
    if (cutOff.length > 0) tally.recovered++
    expect(findings.filter((finding) => !cutOff.includes(finding))).toEqual([])
    tally.cuts++
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** R30: what was flushed, or written with FUA, is there, wherever nothing else was written that was not. */
function keepsWhatWasPromised({ times, changes, disk: file }: Recording, { line }: Cut, disk: Buffer): void {
  const at = times[line]!
  const open = granulesOf(changes.filter(({ sent, durable }) => sent <= at && durable >= at))
  const seen = contentAt(file, line)
  expect(
    differing(seen, disk).filter((granule) => !open.has(granule)),
    'R30: flushed and gone',
  ).toEqual([])
}

/** R30: a command that was answered is there. */
function keepsCommands({ times, marks }: Recording, { line }: Cut, store: Store): void {
  const answered = marks.filter(({ acked }) => acked < times[line]!)
  expect(
    answered.filter((mark) => !isThere(store, mark)).map(({ name }) => name),
    'R30: answered and gone',
  ).toEqual([])
}

/** R32: at level process the time since the last synced record is lost while the disk is attached; at level power nothing is. */
function tellsWhatIsLost({ durability, times, served }: Recording, { line }: Cut, store: Store): void {
  const { lost } = store.diskInfo('vda')
  const attached = times[line]! > served.from && times[line]! < served.to
  if (durability === 'power') expect(lost, 'R32: nothing is lost at level power').toEqual([])
  else if (attached)
    expect(lost.map(({ reason }) => reason)).toEqual([expect.stringMatching(/^the machine restarted/)])
}

function isThere(store: Store, { kind, name }: Recording['marks'][number]): boolean {
  return kind === 'checkpoint'
    ? store.checkpoints().some((one) => one.name === name)
    : store.backups().some(({ id }) => id === name)
}

function basesOf(recording: Recording, { line }: Cut, store: Store, random: () => number): Base[] {
  const { times, marks, changes } = recording
  const none = new Set<number>()
  const start: Base = {
    name: 'the start',
    since: { checkpoint: 'before' },
    maps: ['all', 'all@checkpoint=before'],
    line: -1,
    open: none,
  }
  const marked = marks
    .map(
      (mark): Base => ({
        name: mark.name,
        since: mark.since,
        maps: [`daily@${mark.kind}=${mark.name}`, `all@${mark.kind}=${mark.name}`],
        line: linesBefore(times, mark.acked) - 1,
        open: none,
      }),
    )
    .filter((base, index) => base.line <= line && isThere(store, marks[index]!))
  const [first, last] = [changes[0]!.sent, times[line]!]
  const moments = Array.from({ length: last > first ? 2 : 0 }, (): Base => {
    const time = Math.floor(first + random() * (last - first))
    return {
      name: `unmarked ${time}`,
      since: { time },
      maps: [],
      line: linesBefore(times, time) - 1,
      open: granulesOf(changes.filter(({ sent, acked }) => sent < time && acked > time)),
    }
  })
  // All of them would cost more than they add: the last ones, where the most is under way, and any other.
  const chosen =
    marked.length > 3 ? [marked[Math.floor(random() * marked.length)]!, ...marked.slice(-2)] : marked
  return [start, ...chosen, ...moments]
}

async function checkBase(
  recording: Recording,
  cut: Cut,
  disk: Buffer,
  store: Store,
  base: Base,
  tally: Tally,
): Promise<void> {
  const differs = differing(contentAt(recording.disk, base.line), disk)
  const changed = await store.changed('vda', { since: base.since, granularity: GRANULE })
  const answers = [changed.complete ? granulesOf(changed.extents) : null]
  for (const name of base.maps) {
    const context = await openContext(store, 'vda', SIZE, `qemu:dirty-bitmap:${name}`)
    answers.push(new Set(await dirtyGranules(context, SIZE, GRANULE)))
  }
  for (const [index, told] of answers.entries()) {
    tally.answers++
    tally.differing += differs.length
    tally.told += told?.size ?? Math.ceil(SIZE / GRANULE)
    if (told === null) tally.wholeDisk++
    const missing = told === null ? [] : differs.filter((granule) => !told.has(granule))
    const unexplained = missing.filter((granule) => {
      if (!base.open.has(granule)) return true
      tally.inFlight++
      return false
    })
    const where = index === 0 ? 'changed' : base.maps[index - 1]
    const what = `R31: untold by ${where} since ${base.name}, at line ${cut.line} with ${cut.model}`
    expect(unexplained, what).toEqual([])
  }
}

export function granulesOf(
  ranges: readonly { readonly offset: number; readonly length: number }[],
): Set<number> {
  const granules = new Set<number>()
  for (const { offset, length } of ranges)
    for (let granule = Math.floor(offset / GRANULE); granule * GRANULE < offset + length; granule++)
      granules.add(granule)
  return granules
}

function differing(before: Buffer, now: Buffer): number[] {
  const granules: number[] = []
  for (let granule = 0; granule * GRANULE < SIZE; granule++) {
    const [from, to] = [granule * GRANULE, Math.min(SIZE, (granule + 1) * GRANULE)]
    if (before.compare(now, from, to, from, to) !== 0) granules.push(granule)
  }
  return granules
}
