/** Bits set once for all bitmaps of a disk and for whoever takes them, against a fold that sets every bitmap by itself. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { DiskNumber, LogRecord } from '../../events/types.ts'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { BitsFold, type WritesTaker } from '../../projections/bits.ts'
import { given, recordOf } from '../../src/testing/given.ts'
import { bitmapAdded, diskAdded } from '../commands/kit.ts'
import { REFS, recordOfStep, steps } from '../commands/random-commands.ts'
import { prng, proof } from '../support/property.ts'

const SIZE = 1_000_000
const FINE = 4096

/** Keeps what it is given, and spoils the bits then: whoever else still looked at them would be wrong. */
class Keeper implements WritesTaker {
  readonly taken = new Map<DiskNumber, Set<number>>()

  granularity(): number {
    return FINE
  }

  take(disk: DiskNumber, bits: DirtyBitmap): void {
    const all = this.taken.get(disk) ?? new Set()
    for (let at = bits.nextDirty(0); at < bits.granules; at = bits.nextDirty(at + 1)) all.add(at)
    this.taken.set(disk, all)
    bits.setAll()
  }
}

function digests(fold: BitsFold): unknown {
  return [...fold.disks].map(([id, { size, bitmaps }]) => [
    id,
    size,
    [...bitmaps].map(([name, bits]) => [
      name,
      bits.recording,
      bits.active.digest(),
      bits.successor?.digest() ?? null,
      [...bits.slices].map(([number, slice]) => [number, slice.own?.digest() ?? null]),
    ]),
  ])
}

function writesOf(record: LogRecord, random: () => number, size: number): LogRecord {
  if (record.kind !== 'writes') return record
  const sections = record.sections.map(({ disk, columns }) => {
    const offsets = columns.offsets.map(() => Math.floor((random() * size) / 512) * 512)
    const lengths = columns.lengths.map((_, i) =>
      Math.min(size - offsets[i]!, Math.floor(random() ** 4 * 200_000)),
    )
    return { disk, columns: { offsets, lengths } }
  })
  return { ...record, sections }
}

test('R2: bits set once for all bitmaps of a disk are the bits that each would set, at any moment, whatever comes between', () => {
  let compared = 0
  fc.assert(
    fc.property(steps, fc.noBias(fc.nat()), (list, seed) => {
      const random = prng(seed)
      const { catalog } = given()
      const plain = new BitsFold()
      const shared = new BitsFold()
      const keeper = new Keeper()
      shared.giveTo(keeper)
      const written = new Map<DiskNumber, Set<number>>()
      const fold = (record: LogRecord) => {
        catalog.apply(record)
        plain.apply(record)
        shared.apply(record)
        if (record.kind !== 'writes') return
        for (const { disk, columns } of record.sections) {
          const bits = new DirtyBitmap(SIZE * 16, FINE)
          bits.setColumns(columns)
          const all = written.get(disk) ?? new Set()
          for (let at = bits.nextDirty(0); at < bits.granules; at = bits.nextDirty(at + 1)) all.add(at)
          written.set(disk, all)
        }
      }
      fold(recordOf(catalog, [diskAdded('a', SIZE), diskAdded('b', SIZE)]))
      // Coarser than what is taken, as coarse, and finer.
      const granularities = [65_536, FINE, 512]
      const bitmaps = REFS.map((ref, i) =>
        bitmapAdded(ref, { granularity: granularities[i % 3]!, retention: 3 }),
      )
      fold(recordOf(catalog, bitmaps))
      for (const step of list) {
        const record = recordOfStep(catalog, step)
        if (record !== null)
          fold(step.kind === 'writes' ? writesOf(record, random, catalog.disk(step.disk)!.size) : record)
        const look = random()
        if (look < 0.3) {
          expect(digests(shared)).toEqual(digests(plain))
          compared++
        }
        if (look > 0.9) shared.settle() // The taker's span ends here.
      }
      expect(digests(shared.forkOf(['a', 'b']))).toEqual(digests(plain.forkOf(['a', 'b'])))
      expect(digests(shared)).toEqual(digests(plain))
      shared.settle()
      expect(keeper.taken).toEqual(written)
    }),
    proof('shared bits', 200, 5000),
  )
  expect(compared).toBeGreaterThan(100)
})

test('R2: looking at a bitmap between writes does not change what it collects, and a taker that leaves is given nothing more', () => {
  const { catalog } = given()
  const fold = new BitsFold()
  const keeper = new Keeper()
  const bitmap = { disk: 'a', bitmap: 'x' }
  const write = (offset: number) => {
    const record = writesOf(recordOf(catalog, { type: 'writes', disk: 'a', count: 1 }), () => 0, SIZE)
    if (record.kind !== 'writes') throw new Error('a record of writes')
    const { disk } = record.sections[0]!
    const columns = { offsets: Float64Array.of(offset), lengths: Float64Array.of(512) }
    catalog.apply(record)
    fold.apply({ ...record, sections: [{ disk, columns }] })
    return disk
  }
  const tell = (
    ...events: Parameters<typeof recordOf>[1] extends infer E
      ? E extends readonly (infer D)[]
        ? D[]
        : never
      : never
  ) => {
    const record = recordOf(catalog, events)
    catalog.apply(record)
    fold.apply(record)
  }
  tell(diskAdded('a', SIZE))
  tell(bitmapAdded(bitmap, { granularity: FINE }))
  fold.giveTo(keeper)
  const number = write(0)
  expect(fold.bitmap('a', 'x')!.active.dirtyGranules).toBe(1)
  write(FINE)
  expect(fold.bitmap('a', 'x')!.active.dirtyGranules).toBe(2)
  tell({ type: 'bitmap-cleared', ...bitmap })
  expect(keeper.taken.get(number)).toEqual(new Set([0, 1]))
  write(5 * FINE)
  expect([...fold.bitmap('a', 'x')!.active.extents()]).toEqual([[5 * FINE, FINE]])
  tell({ type: 'bitmap-disabled', ...bitmap })
  write(9 * FINE)
  tell({ type: 'bitmap-enabled', ...bitmap })
  expect([...fold.bitmap('a', 'x')!.active.extents()]).toEqual([[5 * FINE, FINE]])
  write(7 * FINE)
  fold.giveTo(null)
  expect(keeper.taken.get(number)).toEqual(new Set([0, 1, 5, 9]))
  expect(fold.bitmap('a', 'x')!.active.dirtyGranules).toBe(2)
})
