import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DirtyBitmap } from '../../projections/bitmap.ts'
import { BitsDamage, decodeBits, encodeBits } from '../../projections/bits-codec.ts'
import { prng, proof } from '../support/property.ts'

const TiB = 2 ** 40

function random(size: number, granularity: number, bits: number, run = 1): DirtyBitmap {
  const bitmap = new DirtyBitmap(size, granularity)
  const next = prng(bits + run)
  for (let i = 0; i < bits; i++) {
    const first = Math.floor(next() * bitmap.granules)
    bitmap.setGranules(first, Math.min(bitmap.granules - 1, first + run - 1))
  }
  return bitmap
}

/** One bitmap for each way in which a chunk is kept. */
const samples: [string, DirtyBitmap][] = [
  ['empty', new DirtyBitmap(TiB, 65_536)],
  ['no bytes', new DirtyBitmap(0, 512)],
  ['sparse', random(TiB, 65_536, 40)],
  ['runs', random(TiB, 65_536, 20, 1000)],
  ['raw', random(100 * 512, 512, 90)],
  [
    'full',
    (() => {
      const bitmap = new DirtyBitmap(TiB + 1, 65_536)
      bitmap.setAll()
      return bitmap
    })(),
  ],
  [
    'mixed',
    (() => {
      const bitmap = new DirtyBitmap(2 ** 53 - 1, 2 ** 21)
      bitmap.setGranules(2 ** 20, 2 ** 21)
      bitmap.setGranules(2 ** 32 - 1, 2 ** 32 - 1)
      return bitmap
    })(),
  ],
]

test.each(samples)('R28: %s bits come back as they were', (_, bitmap) => {
  const decoded = decodeBits(encodeBits(bitmap))
  expect(decoded.equals(bitmap)).toBe(true)
  expect(decoded.dirtyGranules).toBe(bitmap.dirtyGranules)
  expect(
    decoded.digest === bitmap.digest || decoded.granules > 2 ** 26 || decoded.digest() === bitmap.digest(),
  ).toBe(true)
})

test.each(samples)('R28: every truncation and every flipped bit of %s bits is refused', (_, bitmap) => {
  const bytes = encodeBits(bitmap)
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeBits(bytes.subarray(0, length))).toThrow(BitsDamage)
  }
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const bad = bytes.slice()
    bad[bit >> 3]! ^= 1 << (bit & 7)
    expect(() => decodeBits(bad)).toThrow(BitsDamage)
  }
  expect(() => decodeBits(Uint8Array.of(...bytes, 0))).toThrow(BitsDamage)
})

test('R28: bytes made up with a right checksum are refused with BitsDamage, or are a bitmap that keeps its invariants', () => {
  const sealed = (body: Uint8Array): Uint8Array => {
    const out = new Uint8Array(body.length + 4)
    out.set(body)
    new DataView(out.buffer).setUint32(body.length, crc32(body), true)
    return out
  }
  const bases = samples.map(([, bitmap]) => encodeBits(bitmap))
  const change = fc.record({ at: fc.nat(), value: fc.integer({ min: 0, max: 255 }) })
  fc.assert(
    fc.property(
      fc.constantFrom(...bases),
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.nat(40),
      (base, changes, cut) => {
        const body = base.slice(0, Math.max(12, base.length - 4 - cut))
        for (const { at, value } of changes) body[at % Math.min(body.length, 64)] = value
        let bitmap: DirtyBitmap
        try {
          bitmap = decodeBits(sealed(body))
        } catch (error) {
          expect(error).toBeInstanceOf(BitsDamage)
          return
        }
        expect(bitmap.dirtyGranules).toBeLessThanOrEqual(bitmap.granules)
        expect(decodeBits(encodeBits(bitmap)).equals(bitmap)).toBe(true)
      },
    ),
    proof('sealed nonsense', 300, 20_000),
  )
})

describe('R28: how small bits are', () => {
  test('an empty or full TiB takes less than 32 bytes, 1000 granules less than 4 KiB', () => {
    expect(encodeBits(samples[0]![1]).length).toBeLessThan(32)
    const full = new DirtyBitmap(TiB, 65_536)
    full.setAll()
    expect(encodeBits(full).length).toBeLessThan(32)
    expect(encodeBits(random(TiB, 65_536, 1000)).length).toBeLessThan(4096)
  })

  test('random bits never take more than the bits themselves and some bytes a chunk', () => {
    expect(encodeBits(random(TiB, 65_536, 5_000_000)).length).toBeLessThan(2 ** 21 + 256 + 32)
  })
})

test('R28: a version that is not known is told apart from damage', () => {
  const bytes = encodeBits(samples[2]![1]).slice(0, -4)
  bytes[2] = 2
  const sealed = Uint8Array.of(...bytes, 0, 0, 0, 0)
  new DataView(sealed.buffer).setUint32(bytes.length, crc32(bytes), true)
  expect(() => decodeBits(sealed)).toThrow(expect.objectContaining({ problem: 'version' }))
})

test('R28: decoding works at any alignment and keeps nothing of the bytes', () => {
  const bitmap = random(TiB, 65_536, 3_000_000)
  const bytes = encodeBits(bitmap)
  const shifted = new Uint8Array(bytes.length + 1)
  shifted.set(bytes, 1)
  const decoded = decodeBits(shifted.subarray(1))
  shifted.fill(0)
  expect(decoded.equals(bitmap)).toBe(true)
})
