/**
 * What R29 allows of windows, written out against the naive log: they stand for writes only, whole and old enough, hold no
 * point that anything refers to, and say of each disk what its writes say one by one.
 */
import { expect } from 'vitest'
import type { LogWindow } from '../../events/types.ts'
import type { NaiveLog, NaiveState, NaiveWindow, NaiveWrite } from './naive.ts'

/** Every position that a backup, checkpoint, slice, lost stretch or disk refers to: each stays a point. */
export function pointsOf(state: NaiveState): Set<number> {
  const points = new Set<number>()
  for (const { base, point } of state.backups.values()) points.add(base).add(point)
  for (const { point } of state.checkpoints.values()) points.add(point)
  for (const disk of state.disks.values()) {
    for (const { from, to } of disk.lost) points.add(from).add(to)
    if (disk.unknown !== null) points.add(disk.unknown)
    for (const { active, successor, slices } of disk.bitmaps.values())
      for (const part of [active, ...(successor === null ? [] : [successor]), ...slices])
        points.add(part.start)
  }
  return points
}

export interface CompactedBy {
  readonly points: ReadonlySet<number>
  readonly policy: readonly { olderThan: number; window: number }[]
  readonly now: number
}

/** The windows as the model sees them from now on. A window of before may only have grown. */
export function checkWindows(log: NaiveLog, windows: readonly LogWindow[], by: CompactedBy): NaiveWindow[] {
  const writes = new Map(log.writes.map((write) => [write.position, write]))
  const longest = Math.max(...by.policy.map(({ window }) => window))
  const youngest = Math.min(...by.policy.map(({ olderThan }) => olderThan))
  const found = windows.map((window) => {
    const { first, count } = window
    const last = first + count - 1
    const own = Array.from({ length: count }, (_, i) => writes.get(first + i)!)
    expect(own, `R29: ${first} to ${last} are writes`).not.toContain(undefined)
    expect([window.time, window.lastTime]).toEqual([log.times[first], log.times[last]])
    checkSections(log, window, own)
    const known = log.windows.some((old) => old.first === first && old.last === last)
    if (!known) {
      expect(log.times[last], 'R29: older than the age').toBeLessThanOrEqual(by.now - youngest)
      expect(log.times[last]! - log.times[first]!, 'R29: no longer than a window').toBeLessThan(longest)
      const across = [...by.points].filter((point) => first <= point && point < last)
      expect(across, `R29: points inside ${first} to ${last}`).toEqual([])
    }
    return { first, last }
  })
  for (const old of log.windows)
    expect(
      found.some(({ first, last }) => first <= old.first && old.last <= last),
      `R29: the window of ${old.first} to ${old.last} is there, or a longer one`,
    ).toBe(true)
  return found
}

function checkSections(log: NaiveLog, { sections }: LogWindow, writes: readonly NaiveWrite[]): void {
  const told = sections.map((section) => ({
    writes: section.writes,
    bytes: section.bytes,
    last: section.last,
    ranges: Array.from(section.columns.offsets, (offset, i) => [offset, section.columns.lengths[i]!]),
  }))
  // Sections name disks by number, writes by id: both in the order in which they come up.
  const disks = [...new Set(writes.map(({ disk }) => disk))]
  const byDisk = disks.map((disk) => writes.filter((write) => write.disk === disk))
  const expected = byDisk.map((own) => ({
    writes: own.length,
    bytes: own.reduce((sum, { length }) => sum + length, 0),
    last: { position: own.at(-1)!.position, time: log.times[own.at(-1)!.position] },
    ranges: unionOf(own),
  }))
  const order = <T extends { last: { position: number } }>(list: T[]) =>
    list.sort((a, b) => a.last.position - b.last.position)
  expect(order(told)).toEqual(order(expected))
}

/** Ascending, joined. */
function unionOf(writes: readonly NaiveWrite[]): number[][] {
  const union: number[][] = []
  for (const { offset, length } of [...writes].sort((a, b) => a.offset - b.offset)) {
    const open = union.at(-1)
    if (open === undefined || open[0]! + open[1]! < offset) union.push([offset, length])
    else open[1] = Math.max(open[1]!, offset + length - open[0]!)
  }
  return union
}
