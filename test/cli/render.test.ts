/** What people see: sizes in and out, colours only where they are wanted, pictures that do not lie. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Output } from '../../src/cli/io.ts'
import { parseRange, parseSize } from '../../src/cli/parse.ts'
import { columnsOf, cut, folded } from '../../src/cli/render/fit.ts'
import { paintFor } from '../../src/cli/render/paint.ts'
import { stripPicture } from '../../src/cli/render/strip.ts'
import { facts, table } from '../../src/cli/render/table.ts'
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

describe('on a narrow terminal', () => {
  const HEADS = ['backup', 'disk', '>to copy', 'reason']
  const paint = (columns: number) =>
    paintFor({ ...output(true), columns }, { LANG: 'C.UTF-8', TERM: 'xterm', NO_COLOR: '1' })
  const widest = (words: string) => Math.max(...words.split('\n').map((line) => [...line].length))
  const word = fc.string({ unit: 'grapheme-ascii', maxLength: 90 })

  test.each([40, 50, 60, 72, 80])(
    'no table is wider than its %i columns, and the narrow cells stay whole',
    (columns) => {
      const long = 'the target volume was unmounted in the middle of it'
      const words = table(paint(columns), HEADS, [
        ['nightly-3', 'vm/a', '64 KiB', long],
        ['nightly-4', 'vm/b', '5 B', 'ok'],
      ])
      expect(widest(words)).toBeLessThanOrEqual(columns)
      for (const whole of ['nightly-3', 'vm/b', '64 KiB', 'ok']) expect(words).toContain(whole)
      expect(words).toContain(columns === 80 ? 'the target volume was unmounted in the' : 'the target')
      expect(words.includes('…')).toBe(columns < 80)
    },
  )

  test('where a table would leave nothing to read, each row is lines of its own and nothing is cut', () => {
    const heads = [
      'backup',
      'disk',
      'bitmap',
      'mode',
      'base',
      'begun',
      '>to copy',
      'state',
      'copy',
      'outcome',
    ]
    const row = (n: number) => heads.map((head) => `${head.slice(0, 4)} ${n}, which is a longer word`)
    const words = table(paint(40), heads, [row(1), row(2)])
    expect(widest(words)).toBeLessThanOrEqual(40)
    expect(words).not.toContain('…')
    expect(words.replaceAll(/\s+/g, ' ')).toContain(
      'backup back 1, which is a longer word disk disk 1, which',
    )
    expect(words.split('\n\n')).toHaveLength(2)
  })

  test('whatever the words: never wider than the terminal, and whole where there is none', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 40, max: 80 }),
        fc.array(fc.array(word, { minLength: 4, maxLength: 4 }), { minLength: 1, maxLength: 4 }),
        (columns, rows) => {
          expect(widest(table(paint(columns), HEADS, rows))).toBeLessThanOrEqual(columns)
          const facing = rows.map((cells) => [cells[0]!.slice(0, 20), cells[1]!] as const)
          expect(widest(facts(paint(columns), facing))).toBeLessThanOrEqual(columns)
          const full = table(PIPE, HEADS, rows)
          for (const cell of rows.flat()) expect(full).toContain(cell.trimEnd())
        },
      ),
      proof('tables on narrow terminals', 300, 10_000),
    )
  })

  test('a digest among facts goes on below itself and is never cut', () => {
    const digest = 'af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc'
    const words = facts(paint(40), [['digest', digest]])
    expect(widest(words)).toBeLessThanOrEqual(40)
    expect(words.replaceAll(/\s+/g, '')).toBe(`digest${digest}`)
    expect(facts(PIPE, [['digest', digest]])).toBe(`digest  ${digest}`)
  })

  test('characters of two columns count as two', () => {
    expect([columnsOf('磁盘'), columnsOf('e\u0301'), columnsOf('ab')]).toEqual([4, 1, 2])
    expect(cut('磁盘磁盘', 5)).toBe('磁盘…')
    expect(folded('磁盘磁盘 x', 4)).toEqual(['磁盘', '磁盘', 'x'])
  })
})
