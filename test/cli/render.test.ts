/** What people see: sizes in and out, colours only where they are wanted, pictures that do not lie. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Output } from '../../src/cli/io.ts'
import { parseRange, parseSize } from '../../src/cli/parse.ts'
import { paintFor } from '../../src/cli/render/paint.ts'
import { stripPicture } from '../../src/cli/render/strip.ts'
import { table } from '../../src/cli/render/table.ts'
import { bytes, count } from '../../src/cli/render/text.ts'
import { DirtyBitmap, KiB, MiB } from '../../src/index.ts'
import { proof } from '../support/property.ts'

function output(isTTY: boolean): Output {
  return { write: () => true, once: () => undefined, off: () => undefined, isTTY, columns: 60 }
}

const TERMINAL = paintFor(output(true), { LANG: 'C.UTF-8', TERM: 'xterm' })
const PIPE = paintFor(output(false), { LANG: 'C.UTF-8' })
const PLAIN = paintFor(output(true), { LANG: 'C', TERM: 'xterm', NO_COLOR: '1' })
const ESCAPE = '\u001b['

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['512', 512],
    ['512B', 512],
    ['64K', 64 * KiB],
    ['64k', 64 * KiB],
    ['64KiB', 64 * KiB],
    ['1T', 2 ** 40],
    ['7P', 7 * 2 ** 50],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ])('%s is %i bytes', (words, value) => {
    expect(parseSize(words)).toBe(value)
  })

  test.each([
    '',
    ' 1',
    '-1',
    '1.5K',
    '1e3',
    'K',
    '64KB',
    '0x10',
    '9007199254740992',
    '1E9',
    '99999999999999999999999T',
    '１',
  ])('"%s" is none, and it is said what one looks like', (words) => {
    expect(() => parseSize(words)).toThrow(/no size|beyond 2\^53/)
  })

  test('every whole number of units is read back', () => {
    fc.assert(
      fc.property(fc.nat(8000), fc.nat(4), fc.boolean(), (number, power, iec) => {
        const suffix = power === 0 ? '' : `${'KMGT'[power - 1]}${iec ? 'iB' : ''}`
        expect(parseSize(`${number}${suffix}`)).toBe(number * 1024 ** power)
      }),
      proof('sizes are read back', 500, 20_000),
    )
  })

  test('ranges are OFFSET+LENGTH and nothing else', () => {
    expect(parseRange('4K+512')).toEqual({ offset: 4096, length: 512 })
    for (const words of ['4K', '1+2+3', '+5', '5+', '4K-512']) expect(() => parseRange(words)).toThrow()
  })

  test('numbers for people are short', () => {
    expect([bytes(0), bytes(1023), bytes(64 * KiB), bytes(1.5 * MiB), bytes(123.4 * MiB)]).toEqual([
      '0 B',
      '1023 B',
      '64 KiB',
      '1.50 MiB',
      '123 MiB',
    ])
    expect(count(1_234_567)).toBe('1 234 567')
  })
})

describe('the strip picture', () => {
  const bits = new DirtyBitmap(MiB, 4 * KiB)
  bits.setRange(0, 512 * KiB)
  bits.setRange(MiB - 1, 1)
  const rows = [{ label: 'slice 0', bits }]

  test('one cell with any dirt never looks clean, and only a full one looks full', () => {
    const [strip] = stripPicture(PIPE, rows).split('\n')
    expect(strip).toMatch(/^slice 0 {2}█+[▁-▇]?·+[▁-▇]$/)
  })

  test('without UTF-8 it is drawn in ASCII', () => {
    const picture = stripPicture(PLAIN, rows)
    expect(picture).toMatch(/^slice 0 {2}#+[^.#]?\.+[^.#]\n/)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none but ASCII is what is tested
    expect(picture).toMatch(/^[\x00-\x7f]*$/)
  })

  test('colours come only to a terminal, and not with NO_COLOR', () => {
    expect(stripPicture(TERMINAL, rows)).toContain(ESCAPE)
    for (const paint of [PIPE, PLAIN]) {
      expect(stripPicture(paint, rows) + table(paint, ['a', '>b'], [[1, 2]])).not.toContain(ESCAPE)
    }
  })

  test('no row is wider than the terminal', () => {
    for (const line of stripPicture(PLAIN, rows).split('\n')) expect(line.length).toBeLessThanOrEqual(60)
  })
})

test('tables have no borders and no trailing blanks', () => {
  expect(
    table(
      PIPE,
      ['name', '>size'],
      [
        ['a', 5],
        ['long', 12_345],
      ],
    ),
  ).toBe('name   size\na         5\nlong  12345')
})
