/**
 * The formats that people have: real samples of the programs that write them (made here: fio, nbdkit, blkparse), what is
 * taken of them and what is not, and everything that must be refused.
 */
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MiB, openMemoryStore } from '../../src/index.ts'
import { importTrace } from '../../src/traces/import.ts'
import type { TraceOptions } from '../../src/traces/reader.ts'
import { proof } from '../support/property.ts'
import { gzipped, readAll, traceFolder } from './support.ts'

const folder = traceFolder()
const sample = (name: string): string => fileURLToPath(new URL(`../fixtures/traces/${name}`, import.meta.url))
const ranges = (rows: readonly { offset: number; length: number; op: number }[]): number[][] =>
  rows.map((row) => [row.offset, row.length, row.op])

/** One bad line behind good ones: refused by number with its reason, and counted when bad lines are skipped. */
async function badLine(
  head: readonly string[],
  line: string,
  why: string,
  options: TraceOptions = {},
): Promise<void> {
  const path = await folder.file('bad.txt', [...head, line, ''].join('\n'))
  const facts = { line: head.length + 1, text: line, why }
  await expect(readAll(path, options)).rejects.toMatchObject({ code: 'TRACE_LINE_INVALID', facts })
  const { trace } = await readAll(path, { ...options, skipBad: true })
  expect(trace.counts.bad).toBe(1)
  expect(trace.badLines).toEqual([facts])
}

const Q = '  8,0    3        1     0.000000000   697  Q  WS 223490 + 8 [kjournald]'

describe('blkparse text', () => {
  test('R1, R31: of the real program, the queued writes and discards; other steps, reads and flushes are only counted', async () => {
    const { trace, rows } = await readAll(sample('blkparse.txt'), { device: '8,0' })
    expect(trace.format).toBe('blkparse text')
    expect(ranges(rows)).toEqual([
      [223490 * 512, 4096, 0],
      [8 * 512, 4096, 0],
      [4096 * 512, MiB, 2],
      [4096 * 512, MiB, 2],
    ])
    expect(rows.map((row) => row.timeUs)).toEqual([0, 1487, 1488, 1488])
    expect(trace.counts).toMatchObject({ writes: 4, reads: 2, flushes: 2, bad: 0, clamped: 0 })
  })

  test('the times that -t adds and the statistics of -s are passed over', async () => {
    const plain = await readAll(sample('blkparse.txt'), { device: '8,0' })
    const long = await readAll(sample('blkparse-per-program.txt'), { device: '8,0' })
    expect(ranges(long.rows)).toEqual(ranges(plain.rows))
  })

  test.each(['Q', 'D', 'C'] as const)('action %s takes the lines of that step alone', async (action) => {
    const { rows } = await readAll(sample('blkparse.txt'), { device: '8,0', action })
    expect(ranges(rows)[0]).toEqual([223490 * 512, 4096, 0])
    expect(rows.length).toBe(action === 'Q' ? 4 : 1)
  })

  test('several devices: one must be named, and the refusal names them with their writes', async () => {
    await expect(readAll(sample('blkparse.txt'))).rejects.toMatchObject({
      code: 'TRACE_CHOICE_INVALID',
      facts: {
        kind: 'device',
        there: [
          { name: '8,0', writes: 4 },
          { name: '8,16', writes: 1 },
        ],
      },
      message: expect.stringContaining('--device') as string,
    })
    expect(ranges((await readAll(sample('blkparse.txt'), { device: '8,16' })).rows)).toEqual([
      [64 * 512, 512, 0],
    ])
    await expect(readAll(sample('blkparse.txt'), { device: '8,1' })).rejects.toMatchObject({
      code: 'TRACE_CHOICE_INVALID',
    })
  })

  test('a device that only reads is no second disk', async () => {
    const read = '  8,16   3        2     0.000000100   697  Q   R 0 + 8 [cat]'
    const { rows, trace } = await readAll(await folder.file('r.txt', `${read}\n${Q}\n${read}\n`))
    expect(rows.length).toBe(1)
    expect(trace.part).toBe('8,0')
  })

  test('a trace without the step that is taken is no empty trace: it is refused, naming the steps it has', async () => {
    const path = await folder.file('c.txt', `${Q.replace('  Q  ', '  C  ')}\n`)
    await expect(readAll(path)).rejects.toMatchObject({
      code: 'TRACE_CHOICE_INVALID',
      message: expect.stringContaining('lines of C') as string,
    })
    expect((await readAll(path, { action: 'C' })).rows.length).toBe(1)
  })

  test('two outputs in one file: statistics between them end with the next event', async () => {
    const text = await readFile(sample('blkparse-per-program.txt'), 'utf8')
    const once = await readAll(sample('blkparse-per-program.txt'), { device: '8,0' })
    const twice = await readAll(await folder.file('twice.txt', text + text), { device: '8,0' })
    expect(twice.rows.length).toBe(2 * once.rows.length)
  })

  const head = [Q]
  test.each([
    ['  8,0 3 2 0.1 697 Q W 0 + 8 [a]', 'time "0.1" is not seconds.nanoseconds'],
    ['  8,0 3 2 x.000000001 697 Q W 0 + 8 [a]', 'time "x.000000001" is not seconds.nanoseconds'],
    ['  8,0 3 2', 'time is missing'],
    ['  8,0 3 2 0.000000001 697', 'action is missing'],
    ['  8,0 3 2 0.000000001 697 Q W -1 + 8 [a]', 'sector -1 is negative'],
    ['  8,0 3 2 0.000000001 697 Q W 0x10 + 8 [a]', 'sector "0x10" is not a whole number'],
    ['  8,0 3 2 0.000000001 697 Q W 10 + [a]', 'number of sectors "[a]" is not a whole number'],
    ['  8,0 3 2 0.000000001 697 Q W 10 +', 'number of sectors is missing'],
    [
      '  8,0 3 2 0.000000001 697 Q W 9007199254740991 + 8 [a]',
      'sector 9007199254740991 is beyond 2^53 bytes',
    ],
    ['  8,0 3 2 0.000000001 697 Q W 99999999999999999999 + 8', 'sector 99999999999999999999 is beyond 2^53'],
    ['  8.0 3 2 0.000000001 697 Q W 0 + 8 [a]', '"8.0" is no device like 8,0'],
    ['  8,x 3 2 0.000000001 697 Q W 0 + 8 [a]', '"8,x" is no device like 8,0'],
    ['nonsense', '"nonsense" is no device like 8,0'],
  ])('R1: "%s" is bad: %s', (line, why) => badLine(head, line, why))

  test('R1: a write outside the disk is bad, one of another device is nobody’s business', async () => {
    const other = Q.replace('8,0 ', '8,16')
    const path = await folder.file('o.txt', `${Q}\n${other}\n`)
    await expect(readAll(path, { size: MiB, device: '8,0' })).rejects.toMatchObject({
      code: 'TRACE_LINE_INVALID',
    })
    const small = await folder.file('s.txt', `${Q.replace('223490', '8')}\n${other}\n`)
    expect((await readAll(small, { size: MiB, device: '8,0' })).rows.length).toBe(1)
  })
})

describe('fio iolog', () => {
  test('R1, R3: version 3 of the real program: every write at its microsecond', async () => {
    const text = await readFile(sample('fio-v3.iolog'), 'utf8')
    const expected = [...text.matchAll(/^(\d+) \S+ write (\d+) (\d+)$/gm)].map((m) => m.slice(1).map(Number))
    const { trace, rows } = await readAll(sample('fio-v3.iolog'))
    expect(trace.format).toBe('fio iolog version 3')
    expect(expected.length).toBeGreaterThan(10)
    expect(rows.map((row) => [row.timeUs, row.offset, row.length])).toEqual(expected)
    expect(trace.counts.flushes).toBe([...text.matchAll(/ sync /g)].length)
    expect(trace.counts).toMatchObject({ others: 3, bad: 0 })
  })

  test('version 2 has no times: only a wait lets time pass', async () => {
    const { trace, rows } = await readAll(sample('fio-v2.iolog'))
    expect(trace.format).toBe('fio iolog version 2')
    expect(rows.map((row) => [row.timeUs, row.offset, row.length, row.op])).toEqual([
      [0, 0, 4096, 0],
      [1500, 65536, 8192, 0],
      [4000, 131072, 65536, 2],
      [4000, 4096, 512, 0],
    ])
    expect(trace.counts).toMatchObject({ flushes: 2, others: 5, reads: 1 })
  })

  test('several files: one must be named', async () => {
    await expect(readAll(sample('fio-v3-two-files.iolog'))).rejects.toMatchObject({
      code: 'TRACE_CHOICE_INVALID',
      facts: { kind: 'file' },
      message: expect.stringContaining('--file') as string,
    })
    const one = await readAll(sample('fio-v3-two-files.iolog'), { file: '/tmp/trace/two.0.1' })
    expect(one.rows.length).toBe(8)
    expect(one.trace.part).toBe('/tmp/trace/two.0.1')
  })

  const head3 = ['fio version 3 iolog', '0 /d add']
  test.each([
    ['x /d write 0 512', 'time "x" is not a whole number (fio version 3 iolog)'],
    ['/d write 0 512', 'time "/d" is not a whole number (fio version 3 iolog)'],
    ['5 /d', 'action is missing'],
    [
      '5 /d wrote 0 512',
      'action "wrote" is none of write, read, trim, wait, sync, datasync, syncfs, sync_file_range, open, close, add',
    ],
    ['5 /d write', 'offset is missing'],
    ['5 /d write 0', 'length is missing'],
    ['5 /d trim -512 512', 'offset -512 is negative'],
    ['5 /d write 0 1e3', 'length "1e3" is not a whole number'],
    ['5 /d write 0 512 0', 'has more than 5 words'],
    ['5 /d wait 100 0', 'wait does not exist in version 3'],
  ])('R1: version 3, "%s" is bad: %s', (line, why) => badLine(head3, line, why))

  test.each([
    ['/d write 0', 'length is missing'],
    ['/d wait', 'microseconds to wait is missing'],
    ['/d', 'action is missing'],
    [
      '5 /d write 0 512',
      'action "/d" is none of write, read, trim, wait, sync, datasync, syncfs, sync_file_range, open, close, add',
    ],
  ])('R1: version 2, "%s" is bad: %s', (line, why) => badLine(['fio version 2 iolog'], line, why))

  test.each(['fio version 1 iolog', 'fio version 4 iolog', '0, 0, 4096'])(
    '"%s" is not known',
    async (first) => {
      const path = await folder.file('f.log', `${first}\n/d add\n/d open\n/d write 0 512\n`)
      await expect(readAll(path)).rejects.toMatchObject({ code: 'TRACE_UNKNOWN_FORMAT' })
    },
  )
})

describe('MSR Cambridge CSV', () => {
  test('R3: filetimes beyond 2^53 keep their microseconds; writes are taken, reads counted', async () => {
    const { trace, rows } = await readAll(sample('msr.csv'))
    expect(trace.format).toBe('MSR Cambridge CSV')
    expect(trace.part).toBe('web_1')
    expect(rows.map((row) => [row.timeUs - rows[0]!.timeUs, row.offset, row.length])).toEqual([
      [0, 310002688, 16384],
      [1_000_008, 310002688, 4096],
      [6_099_999, 4096, 512],
    ])
    // 132000000000000000 in 100 ns since 1601 is 2019-04-17T18:40:00Z.
    expect(new Date(trace.counts.firstUs! / 1000).toISOString()).toBe('2019-04-17T18:40:00.000Z')
    expect(trace.counts).toMatchObject({ reads: 2, bad: 0 })
  })

  test('a header, spaces and lower case are no matter; several disks need a choice', async () => {
    const head = 'Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime'
    const lines = `${head}\n132000000000000000,a,0,write,0,512,1\n132000000000000010, b , 0 , WRITE , 512 , 512 , 1\n`
    const path = await folder.file('m.csv', lines)
    await expect(readAll(path)).rejects.toMatchObject({
      facts: { kind: 'device', there: [{ name: 'a_0' }, { name: 'b_0' }] },
    })
    expect((await readAll(path, { device: 'b_0' })).rows.map((row) => row.offset)).toEqual([512])
  })

  const good = '132000000000000000,web,1,Write,0,512,1'
  test.each([
    ['0,web,1,Write,0,512,1', 'Timestamp "0" is no Windows filetime of 1970 or later'],
    [
      '11644473600000000,web,1,Write,0,512,1',
      'Timestamp "11644473600000000" is no Windows filetime of 1970 or later',
    ],
    [',web,1,Write,0,512,1', 'Timestamp is missing'],
    ['132000000000000000,web,x,Write,0,512,1', 'DiskNumber "x" is not a whole number'],
    ['132000000000000000,web,1,Wrote,0,512,1', 'Type "wrote" is neither Read nor Write'],
    ['132000000000000000,web,1,Trim,0,512,1', 'Type "Trim" is neither Read nor Write'],
    ['132000000000000000,web,1,,0,512,1', 'Type is missing'],
    ['132000000000000000,web,1,Write,-5,512,1', 'Offset -5 is negative'],
    ['132000000000000000,web,1,Write,0,5.5,1', 'Size "5.5" is not a whole number'],
    ['132000000000000000,web,1,Write,0,512', 'ResponseTime is missing'],
    ['132000000000000000,web,1,Write,0,512,1,2', 'has more than 7 fields'],
    ['132000000000000000', 'DiskNumber is missing'],
  ])('R1: "%s" is bad: %s', (line, why) => badLine([good, good], line, why))
})

const WRITE = '2026-11-23 07:58:00.907731 connection=1 Write id=1 offset=0x0 count=0x10000 fua=1 ...'

describe('nbdkit log filter', () => {
  test('R1, R31: of the real program, writes, zeroes and trims when they came in; answers are passed over', async () => {
    const { trace, rows } = await readAll(sample('nbdkit.log'))
    expect(trace.format).toBe('nbdkit log filter')
    expect(ranges(rows)).toEqual([
      [0, 65536, 0],
      [512, 1024, 0],
      [131072, 4096, 0],
      [262144, 8192, 0],
      [MiB, 65536, 1],
      [2 * MiB, 65536, 1],
      [4 * MiB, MiB, 2],
    ])
    expect(trace.counts).toMatchObject({ reads: 1, bad: 0 })
    expect(trace.counts.flushes).toBeGreaterThan(0)
    expect(rows.every((row, i) => i === 0 || row.timeUs >= rows[i - 1]!.timeUs)).toBe(true)
  })

  test('a write that failed is taken: part of its range may have changed', async () => {
    const path = await folder.file(
      'n.log',
      `${WRITE}\n${WRITE.slice(0, 40)}...Write id=1 return=-1 error=ENOSPC\n`,
    )
    expect((await readAll(path)).rows.length).toBe(1)
  })

  test('several exports: connections are sorted by the export they asked for', async () => {
    const connect = (n: number, name: string): string =>
      `2026-11-23 07:58:00.906555 connection=${n} Connect export="${name}" tls=0 size=0x4000000 write=1`
    const write = (n: number, offset: number): string =>
      `2026-11-23 07:58:00.907731 connection=${n} Write id=1 offset=0x${offset.toString(16)} count=0x200 fua=0 ...`
    const path = await folder.file(
      'e.log',
      [connect(1, 'a b'), connect(2, 'a c'), write(1, 0), write(2, 512), write(1, 1024), ''].join('\n'),
    )
    await expect(readAll(path)).rejects.toMatchObject({
      facts: {
        kind: 'export',
        there: [
          { name: 'a b', writes: 2 },
          { name: 'a c', writes: 1 },
        ],
      },
    })
    expect((await readAll(path, { export: 'a c' })).rows.map((row) => row.offset)).toEqual([512])
  })

  test.each([
    [
      '2026-13-23 07:58:00.907731 connection=1 Write id=1 offset=0x0 count=0x1 ...',
      '"2026-13-23 07:58:00.907731" is no date and time',
    ],
    [
      '2026-02-30 07:58:00.907731 connection=1 Write id=1 offset=0x0 count=0x1 ...',
      '"2026-02-30 07:58:00.907731" is no date and time',
    ],
    [
      '2026-11-23 24:58:00.907731 connection=1 Write id=1 offset=0x0 count=0x1 ...',
      '"2026-11-23 24:58:00.907731" is no date and time',
    ],
    [
      '2026-11-23 07:58:00 connection=1 Write id=1 offset=0x0 count=0x1 ...',
      '"2026-11-23 07:58:00" is no date and time',
    ],
    ['07:58:00 Write', '"07:58:00 Write" is no date and time'],
    [
      '2026-11-23 07:58:00.907731 connection=1 Wipe id=1 offset=0x0 count=0x1 ...',
      'action "Wipe" is none that nbdkit\'s log filter writes',
    ],
    ['2026-11-23 07:58:00.907731 connection=1', 'action "" is none that nbdkit\'s log filter writes'],
    ['2026-11-23 07:58:00.907731 connection=1 Write id=1 count=0x1 ...', 'offset is missing'],
    ['2026-11-23 07:58:00.907731 connection=1 Write id=1 offset=0x0 ...', 'count is missing'],
    [
      '2026-11-23 07:58:00.907731 connection=1 Trim id=1 offset=-1 count=0x1 ...',
      'offset "-1" is not a number',
    ],
    [
      '2026-11-23 07:58:00.907731 connection=1 Zero id=1 offset=0x0 count=0xg ...',
      'count "0xg" is not a number',
    ],
    [
      '2026-11-23 07:58:00.907731 connection=1 Write id=1 offset=0xffffffffffffffff count=0x1 ...',
      'offset 0xffffffffffffffff is beyond 2^53',
    ],
  ])('R1: "%s" is bad: %s', (line, why) => badLine([WRITE, WRITE], line, why))
})

describe('choices', () => {
  const cases: [string, string, TraceOptions][] = [
    ['a fio log has no device', 'fio-v3.iolog', { device: '8,0' }],
    ['a fio log has no action', 'fio-v3.iolog', { action: 'D' }],
    ['a blkparse trace has no file', 'blkparse.txt', { file: '/dev/sda' }],
    ['an MSR trace has no export', 'msr.csv', { export: '' }],
    ['an nbdkit log has no device', 'nbdkit.log', { device: '8,0' }],
    ['a step that there is not', 'blkparse.txt', { device: '8,0', action: 'Z' as 'Q' }],
  ]
  test.each(cases)('R21: %s: TRACE_CHOICE_INVALID before a line is read', async (_, name, options) => {
    await expect(readAll(sample(name), options)).rejects.toMatchObject({ code: 'TRACE_CHOICE_INVALID' })
  })

  test('R21: an import that lacks a choice records nothing; with it, the import says what it took', async () => {
    const store = await openMemoryStore()
    try {
      await store.ensureDisk('d', { size: 1024 * MiB })
      const before = store.head
      const path = sample('blkparse.txt')
      await expect(importTrace(store, 'd', path)).rejects.toMatchObject({ code: 'TRACE_CHOICE_INVALID' })
      expect(store.head).toEqual(before)
      expect(await importTrace(store, 'd', path, { device: '8,0' })).toMatchObject({ part: '8,0', writes: 4 })
    } finally {
      await store.close()
    }
  })

  test('R21: a first line of no format is refused, naming every format that there is', async () => {
    const path = await folder.file('foreign.txt', 'what is this\n')
    const refused = await readAll(path).catch((error: unknown) => error as Error)
    expect(refused).toMatchObject({ code: 'TRACE_UNKNOWN_FORMAT' })
    for (const name of [
      'slicelog CSV',
      'CloudPhysics',
      'blkparse',
      'iolog version 2',
      'iolog version 3',
      'MSR',
      'nbdkit',
    ]) {
      expect((refused as Error).message).toContain(name)
    }
  })
})

interface Write {
  readonly offset: number
  readonly length: number
  readonly op: number
  readonly us: number
}

/** How each format writes down a write, and which kinds it knows. */
const WRITERS: readonly { name: string; head: string; ops: number[]; line(write: Write): string }[] = [
  {
    name: 'blkparse text',
    head: '',
    ops: [0, 2],
    line: ({ offset, length, op, us }) =>
      `  8,0    3        1 ${String(Math.floor(us / 1e6)).padStart(5)}.${String((us % 1e6) * 1000 + 999).padStart(9, '0')}   697  Q ${op === 2 ? '  D' : ' WS'} ${offset / 512} + ${length / 512} [x y]`,
  },
  {
    name: 'fio iolog version 3',
    head: 'fio version 3 iolog\n0 /d add\n',
    ops: [0, 2],
    line: ({ offset, length, op, us }) => `${us} /d ${op === 2 ? 'trim' : 'write'} ${offset} ${length}`,
  },
  {
    name: 'MSR Cambridge CSV',
    head: '',
    ops: [0],
    line: ({ offset, length, us }) =>
      `${132_000_000_000_000_000n + BigInt(us) * 10n},web,1,Write,${offset},${length},9`,
  },
  {
    name: 'nbdkit log filter',
    head: '',
    ops: [0, 1, 2],
    line: ({ offset, length, op, us }) => {
      const date = new Date(Date.UTC(2026, 0, 1) + Math.floor(us / 1000)).toISOString()
      const time = `${date.slice(0, 10)} ${date.slice(11, 23)}${String(us % 1000).padStart(3, '0')}`
      return `${time} connection=1 ${['Write', 'Zero', 'Trim'][op]} id=1 offset=0x${offset.toString(16)} count=0x${length.toString(16)} fua=0 ...`
    },
  },
]

test('R1, R3: what was written down in a format is read back the same, ranges, kinds and distances', async () => {
  const write = fc.record({
    offset: fc.nat(2 ** 31 - 1).map((n) => n * 512),
    length: fc.integer({ min: 1, max: 4096 }).map((n) => n * 512),
    op: fc.nat(2),
    us: fc.nat(2 ** 31 - 1),
  })
  const written = fc.array(write, { minLength: 1, maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...WRITERS), written, fc.boolean(), async (format, writes, gzip) => {
      const known = writes.filter(({ op }) => format.ops.includes(op)).sort((a, b) => a.us - b.us)
      fc.pre(known.length > 0)
      const text = `${format.head}${known.map(format.line).join('\n')}\n`
      const { trace, rows } = await readAll(await folder.file('any.trace', gzip ? gzipped(text) : text))
      expect(trace.format).toBe(format.name)
      expect(ranges(rows)).toEqual(ranges(known))
      expect(rows.map((row) => row.timeUs - rows[0]!.timeUs)).toEqual(
        known.map(({ us }) => us - known[0]!.us),
      )
    }),
    proof('trace formats round trip', 200, 5000),
  )
})

test('no line of a foreign or damaged file makes a format throw anything but its refusals', async () => {
  const heads = [
    'fio version 2 iolog\n',
    'fio version 3 iolog\n',
    `${Q}\n${Q}\n${Q}\n`,
    `${WRITE}\n${WRITE}\n${WRITE}\n`,
  ]
  const word = fc.oneof(
    fc.constantFrom(
      '8,0',
      '0',
      'Q',
      'W',
      'D',
      '+',
      '1.000000000',
      'write',
      'connection=1',
      'offset=',
      'Connect',
      ',',
    ),
    fc.string({ maxLength: 8 }),
  )
  const line = fc.array(word, { maxLength: 20 }).map((words) => words.join(' '))
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...heads), fc.array(line, { maxLength: 20 }), async (head, lines) => {
      const path = await folder.file('garbage.txt', head + lines.join('\n'))
      const outcome = await readAll(path, { skipBad: true }).catch((error: unknown) => error)
      if (outcome instanceof Error)
        expect(outcome).toMatchObject({ code: expect.stringMatching(/^TRACE_/) as string })
    }),
    proof('trace formats take garbage', 200, 5000),
  )
})
