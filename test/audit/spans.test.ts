/** `verify` against a span index that is whole by its checksums and says what the log does not (R28). */
import { join } from 'node:path'
import { Level } from 'level'
import { describe, expect, test } from 'vitest'
import { decodeBits, encodeBits } from '../../projections/bits-codec.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { openStore } from '../../src/store/open.ts'
import { seal, unseal } from '../../src/store/span-store.ts'
import { DISK, soundStore } from './support.ts'

const KiB = 1024

/** Enough spans for a block of eight. */
async function longStore(): Promise<string> {
  const folder = await soundStore()
  const store = await openStore(folder, { snapshotEvery: 50 })
  const disk = await store.ensureDisk(DISK, { size: 64 * KiB * KiB, quiet: true })
  for (let i = 0; i < 40; i++)
    await disk.recordWrites(
      Array.from({ length: 20 }, (_, k) => ({
        offset: ((i * 37 + k * 11) % 900) * 64 * KiB,
        length: 4 * KiB,
      })),
    )
  await store.close()
  return folder
}

async function edit(
  folder: string,
  key: RegExp,
  change: (value: Uint8Array) => Uint8Array | null,
): Promise<string> {
  const db = new Level<string, Uint8Array>(join(folder, 'derived'), { valueEncoding: 'view' })
  await db.open()
  const keys = (await db.keys().all()).filter((one) => key.test(one))
  const found = keys[keys.length >> 1]
  if (found === undefined) throw new Error(`no key like ${key}`)
  const value = change((await db.get(found))!)
  if (value === null) await db.del(found)
  else await db.put(found, value)
  await db.close()
  return found
}

const oneMore = (value: Uint8Array): Uint8Array => {
  const bits = decodeBits(value)
  const granule = bits.nextClean(0)
  bits.setGranules(granule, granule)
  return encodeBits(bits)
}
const oneLess = (value: Uint8Array): Uint8Array => {
  const bits = decodeBits(value)
  const kept = bits.extentList().slice(1)
  bits.clear()
  for (const [offset, length] of kept) bits.setRange(offset, length)
  return encodeBits(bits)
}

const edits: [string, RegExp, (value: Uint8Array) => Uint8Array | null, RegExp][] = [
  ['a granule too many in a span', /^iw0/, oneMore, /other granules of disk number/],
  ['a granule too few in a span', /^iw0/, oneLess, /other granules of disk number/],
  ['a granule too few in a block', /^iw1/, oneLess, /block \d+ of level 1 .* other granules/],
  [
    'bits that are not there',
    /^iw0/,
    () => null,
    /the bits of disk number \d+ of span \d+ .* cannot be read/,
  ],
  ['a list that is not there', /^ih0/, () => null, /the list of disks of span \d+ .* cannot be read/],
  ['a disk left out of a list', /^ih0/, () => seal([]), /disk number \d+ was written/],
  [
    'a disk that was not written',
    /^ih0/,
    (value) => seal([...(unseal(value) as unknown[]), [7, 65536, 1, 512]]),
    /cannot be read/,
  ],
  [
    'other sums',
    /^ih0/,
    (value) => seal((unseal(value) as number[][]).map(([a, b, c, d]) => [a, b, c! + 1, d])),
    /had \d+ writes of \d+ bytes in all/,
  ],
  ['an end that is cut', /^ie/, (value) => value.slice(0, 9), /where span \d+ of the span index ends/],
  [
    'a page that is changed',
    /^c/,
    (value) => value.map((byte, i) => (i === 9 ? byte ^ 1 : byte)),
    /the page .* digest/,
  ],
  ['a page that is not there', /^c/, () => null, /the snapshot at position \d+ is not what the log gives/],
]

describe('verify and the span index', () => {
  test('R28: one that follows from the log gives no finding', async () => {
    expect((await verifyStore(await longStore())).findings).toEqual([])
  })

  test.each(edits)('R28: %s is found and named', async (_, key, change, told) => {
    const folder = await longStore()
    await edit(folder, key, change)
    const { findings } = await verifyStore(folder)
    expect(findings.length).toBeGreaterThan(0)
    expect(new Set(findings.map(({ code }) => code))).toEqual(new Set(['DERIVED_DAMAGED']))
    expect(JSON.stringify(findings)).toMatch(told)
    // It is derived: an open does without it.
    const store = await openStore(folder, { snapshotEvery: 50 })
    expect((await store.changed(DISK, { since: 'start' })).complete).toBe(false)
    await store.close()
  })
})
