/** Packs: many records in one value, each of them still provable. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  chainOf,
  decodeStored,
  EMPTY_HASH,
  type EncodedRecord,
  encodeEvents,
  encodeWrites,
  hashesOf,
  packStored,
  RecordDamage,
  readHeader,
} from '../../events/record.ts'
import { proof } from '../support/property.ts'
import { EVERY_EVENT } from './every-event.ts'
import { oneWrite, START, sections } from './support.ts'

/** Records one after the other: sections, or null for a record of domain events. */
function chainFrom(given: readonly (Parameters<typeof encodeWrites>[2] | null)[]): EncodedRecord[] {
  const records: EncodedRecord[] = []
  let hash: Uint8Array = EMPTY_HASH
  let next = 3
  for (const one of given) {
    // The generator's times count from START, so later records would go back; a pack asks for rising times only.
    const base = records.at(-1)?.lastTime ?? START
    const shifted = one?.map(({ disk, columns }) => {
      const times = columns.times?.map((time) => time - START + base)
      return { disk, columns: times === undefined ? columns : { ...columns, times } }
    })
    const record =
      shifted === undefined
        ? encodeEvents(next, base, { commandId: `c${next}` }, EVERY_EVENT.slice(0, 2), hash)
        : encodeWrites(next, base, shifted, hash)
    records.push(record)
    next += record.count
    hash = record.hash
  }
  return records
}

const valuesOf = (records: readonly EncodedRecord[]) => records.map((record) => record.bytes)

test('R3, R28: a pack holds the very records that went in, and the chain runs through it', () => {
  const given = fc.array(fc.option(sections, { freq: 5 }), { minLength: 2, maxLength: 20 })
  fc.assert(
    fc.property(given, (list) => {
      const records = chainFrom(list)
      const pack = packStored(valuesOf(records), EMPTY_HASH)
      if (pack === undefined) return
      expect(decodeStored(pack)).toEqual(records.flatMap((record) => decodeStored(record.bytes)))
      expect(chainOf(pack, EMPTY_HASH)).toEqual(records.at(-1)!.hash)
      expect(hashesOf(pack, EMPTY_HASH).map((step) => step.hash)).toEqual(
        records.map((record) => record.hash),
      )
      expect(readHeader(pack)).toMatchObject({
        layout: 'pack',
        first: 3,
        records: records.length,
        time: START,
        lastTime: records.at(-1)!.lastTime,
      })
    }),
    proof('pack round trip', 150, 5000),
  )
})

function singles(count: number, from = 0): EncodedRecord[] {
  const list = Array.from({ length: count }, (_, i) => [
    { disk: 7, columns: oneWrite(((from + i) * 7919 * 4096) % 2 ** 30) },
  ])
  return chainFrom(list)
}

test('records of one write cost 6 bytes each in a pack', () => {
  const pack = packStored(valuesOf(singles(1000)), EMPTY_HASH)!
  expect(pack.length / 1000).toBeLessThan(6)
})

test('packs and records are packed again into one', () => {
  const records = singles(60)
  const values = valuesOf(records)
  const front = packStored(values.slice(0, 20), EMPTY_HASH)!
  const back = packStored(values.slice(20, 40), records[19]!.hash)!
  const all = packStored([front, back, ...values.slice(40)], EMPTY_HASH)!
  expect(decodeStored(all)).toEqual(values.flatMap((value) => decodeStored(value)))
  expect(chainOf(all, EMPTY_HASH)).toEqual(records.at(-1)!.hash)
})

test('no pack is made of values that do not follow each other, of an edited chain, or where it saves nothing', () => {
  const values = valuesOf(singles(10))
  expect(packStored([values[0]!, values[2]!], EMPTY_HASH)).toBeUndefined()
  expect(packStored(values, new Uint8Array(32).fill(1))).toBeUndefined()
  expect(packStored(values.slice(0, 1), EMPTY_HASH)).toBeUndefined()
})

test('a pack is not made of a damaged value: it is refused', () => {
  const values = valuesOf(singles(10))
  values[4]![40] = values[4]![40]! ^ 1
  expect(() => packStored(values, EMPTY_HASH)).toThrow(RecordDamage)
})

test('R28: every single flipped bit and every truncation of a pack is refused', () => {
  const pack = packStored(
    valuesOf(chainFrom([...Array.from({ length: 5 }, () => [{ disk: 1, columns: oneWrite(4096) }]), null])),
    EMPTY_HASH,
  )!
  for (let bit = 0; bit < pack.length * 8; bit++) {
    const flipped = Uint8Array.from(pack)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    expect(() => decodeStored(flipped), `bit ${bit}`).toThrow(RecordDamage)
  }
  for (let length = 0; length < pack.length; length++)
    expect(() => decodeStored(pack.subarray(0, length))).toThrow(RecordDamage)
})
