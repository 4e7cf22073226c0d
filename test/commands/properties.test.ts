import fc from 'fast-check'
import { decode, encode } from 'msgpackr'
import { expect, test } from 'vitest'
import type { DomainEvent } from '../../events/types.ts'
import { Catalog } from '../../projections/catalog.ts'
import type { BitmapState, DiskState } from '../../projections/state.ts'
import { type Answer, answersOf } from '../../src/commands/answer.ts'
import { decideTransaction } from '../../src/commands/transaction.ts'
import type { Command } from '../../src/commands/types.ts'
import { CheckpointError } from '../../src/errors.ts'
import { CALM, given, recordOf, timeAt } from '../../src/testing/given.ts'
import { proof } from '../support/property.ts'
import { bitmapAdded, diskAdded } from './kit.ts'
import { REFS, type Step, steps } from './random-commands.ts'

const start = () => {
  const disks = ['a', 'b'].map((disk) => diskAdded(disk, 1_000_000))
  const bitmaps = REFS.map((ref) => bitmapAdded(ref, { retention: 3 }))
  return given(...disks, ...bitmaps).catalog
}

interface Done {
  readonly commands: readonly Command[]
  readonly events: readonly DomainEvent[]
  readonly answers: readonly Answer[]
}

/** Runs a step on the catalog; null when it was refused. */
function run(catalog: Catalog, step: Step, unclean: ReadonlySet<string> = CALM.unclean): Done | null {
  if (step.kind === 'writes') {
    if (catalog.disk(step.disk) !== undefined)
      catalog.apply(recordOf(catalog, { type: 'writes', disk: step.disk, count: step.count }))
    return null
  }
  const commands = step.commands.map((draft) => draft(catalog))
  try {
    const end = timeAt(catalog.last.position + 1)
    const { events, answers } = decideTransaction(catalog, commands, { ...CALM, unclean, time: end })
    if (events.length > 0) catalog.apply(recordOf(catalog, events))
    return { commands, events, answers }
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
    return null
  }
}

function checkBitmap(disk: DiskState, bitmap: BitmapState): void {
  const { slices, active, successor } = bitmap
  const parts = [...slices, active, ...(successor === null ? [] : [successor])]
  parts.slice(1).forEach((part, index) => {
    const before = slices[index]
    if (before !== undefined) expect(part.from, 'R16: slices and α are contiguous in time').toEqual(before.to)
    expect(part.from.position).toBeGreaterThanOrEqual(parts[index]!.from.position)
  })
  const numbers = [...slices, active].map(({ number }) => number)
  expect(numbers, 'R18: numbers rise').toEqual([...new Set(numbers)].sort((a, b) => a - b))
  expect(bitmap.highestNumber, 'R18').toBeGreaterThanOrEqual(active.number)
  for (const { slice } of bitmap.tombstones)
    expect(numbers, 'R18: a number is used once').not.toContain(slice)
  expect(slices.length, 'R15: the retention is kept').toBeLessThanOrEqual(bitmap.retention)
  expect(successor === null, 'R6: busy means that a successor collects').toBe(bitmap.holder === null)
  expect(active.from.position).toBeGreaterThanOrEqual(bitmap.createdAt.position)
  expect(disk.last.position).toBeGreaterThanOrEqual(active.from.position)
  checkGaps(bitmap)
}

function checkGaps(bitmap: BitmapState): void {
  const ends = [
    ...bitmap.slices.map((slice) => ({ ...slice, to: slice.to })),
    { ...(bitmap.successor ?? bitmap.active), to: null },
  ]
  for (const part of ends) {
    let from = part.from.position
    part.gaps.forEach((gap, index) => {
      expect(gap.from.position, 'R11: gaps lie inside their part, in order').toBeGreaterThanOrEqual(from)
      if (gap.to === null) {
        expect([part.to, index], 'only the last gap of what collects is open').toEqual([
          null,
          part.gaps.length - 1,
        ])
      } else {
        expect(gap.to.position).toBeGreaterThan(gap.from.position)
        if (part.to !== null) expect(gap.to.position).toBeLessThanOrEqual(part.to.position)
        from = gap.to.position
      }
    })
  }
  expect(ends.at(-1)?.gaps.at(-1)?.to === null, 'an open gap is what not recording means').toBe(
    !bitmap.recording,
  )
}

const shapeOf = (catalog: Catalog, id: string): BitmapState => {
  const backup = catalog.backup(id)!
  return catalog.disk(backup.disk)!.bitmaps.get(backup.bitmap)!
}

test('R10, R11, R15, R16, R18: whatever commands come, slices stay contiguous, numbers rise and the retention is kept', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const catalog = start()
      for (const step of list) {
        run(catalog, step)
        for (const disk of catalog.disks())
          for (const bitmap of disk.bitmaps.values()) checkBitmap(disk, bitmap)
      }
    }),
    proof('catalog invariants', 200, 5_000),
  )
})

test('R10: whatever came before, a backup that fails or is cancelled leaves its bitmap as it was', () => {
  fc.assert(
    fc.property(steps, fc.boolean(), (list, fails) => {
      const catalog = start()
      const before = new Map<string, BitmapState>()
      for (const step of list) {
        const done = run(catalog, step)
        for (const event of done?.events ?? [])
          if (event.type === 'backup-begun' && done?.events.length === 1)
            before.set(event.backup, shapeOf(catalog, event.backup))
      }
      for (const backup of [...catalog.backups()]) {
        const begun = before.get(backup.id)
        if (begun === undefined || !['running', 'pending', 'interrupted'].includes(backup.phase.kind))
          continue
        if (catalog.disk(backup.disk)!.lost.some(({ to }) => to.position > backup.point.position)) continue
        const command: Command = fails
          ? { type: 'fail-backup', backup: backup.id, reason: '' }
          : { type: 'cancel-backup', backup: backup.id, reason: '' }
        run(catalog, { kind: 'commands', commands: [() => command] })
        expect(shapeOf(catalog, backup.id)).toEqual({ ...begun, holder: null, successor: null })
      }
    }),
    proof('failed backups restore their bitmap', 200, 5_000),
  )
})

test('R20, R21: a transaction on a fork comes to the same state as its record, and a refused one to none', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const catalog = start()
      for (const step of list) {
        const before = JSON.stringify(catalog.toPlain())
        const last = catalog.last.position
        const done = run(catalog, step)
        if (step.kind === 'commands' && (done === null || done.events.length === 0))
          expect(JSON.stringify(catalog.toPlain())).toBe(before)
        else expect(catalog.last.position).toBeGreaterThanOrEqual(last)
      }
    }),
    proof('refusals change nothing', 100, 3_000),
  )
})

test('R13, R32: the answers of a record can be given again from its events alone, also behind what an unclean end left to be told', () => {
  fc.assert(
    fc.property(steps, fc.boolean(), (list, killed) => {
      const catalog = start()
      for (const step of list) {
        const before = Catalog.fromPlain(catalog.toPlain())
        const left = killed ? [...catalog.disks()].map(({ id }) => id) : []
        const done = run(catalog, step, new Set(left))
        if (done !== null) expect(answersOf(done.commands, done.events, before)).toEqual(done.answers)
      }
    }),
    proof('answers from the log', 100, 3_000),
  )
})

test('R22: a catalog survives its snapshot exactly, through JSON and through msgpack', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const catalog = start()
      for (const step of list) run(catalog, step)
      const plain = catalog.toPlain()
      for (const copy of [JSON.parse(JSON.stringify(plain)), decode(encode(plain))]) {
        const again = Catalog.fromPlain(copy)
        expect(again.toPlain()).toEqual(plain)
        expect([...again.disks()]).toEqual([...catalog.disks()])
        expect([...again.backups()]).toEqual([...catalog.backups()])
        expect([...again.checkpoints()]).toEqual([...catalog.checkpoints()])
        expect(again.last).toEqual(catalog.last)
      }
    }),
    proof('snapshots of the catalog', 100, 3_000),
  )
})
