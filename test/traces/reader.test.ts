import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CheckpointError } from '../../src/errors.ts'
import { openTrace } from '../../src/traces/reader.ts'
import { proof } from '../support/property.ts'
import { gzipped, readAll, traceFolder } from './support.ts'

const folder = traceFolder()
const GUEST = fileURLToPath(new URL('../../examples/data/guest-ext4.csv.gz', import.meta.url))
const HEAD = 'offset,length,t_us,op'

describe('slicelog CSV', () => {
  test('R1: writes, zeroes and trims are recorded as what they are; flushes and empty ranges are only counted', async () => {
    const path = await folder.file(
      'own.csv',
      `${HEAD}\n0,4096,10,w\n4096,512,20,z\n8192,1024,30,t\n0,0,40,f\n0,0,50,w\n`,
    )
    const { trace, rows } = await readAll(path)
    expect(trace.format).toBe('slicelog CSV')
    expect(rows).toEqual([
      { offset: 0, length: 4096, op: 0, timeUs: 10, line: 2 },
      { offset: 4096, length: 512, op: 1, timeUs: 20, line: 3 },
      { offset: 8192, length: 1024, op: 2, timeUs: 30, line: 4 },
    ])
    expect(trace.counts).toMatchObject({
      lines: 6,
      writes: 3,
      empty: 1,
      flushes: 1,
      bad: 0,
      bytes: 5632,
      firstUs: 10,
      lastUs: 50,
    })
  })

  test('the trace of a real guest has the writes that its description names', async () => {
    const { trace, rows } = await readAll(GUEST)
    const byOp = [0, 1, 2].map((op) => rows.filter((row) => row.op === op).length)
    expect(byOp).toEqual([65_203, 21, 453])
    expect(trace.gzip).toBe(true)
    expect(trace.counts).toMatchObject({ lines: 76_730, flushes: 11_052, bad: 0, clamped: 1 })
  })

  test('a header is not needed, nor a last line end; CRLF, spaces, comments, blank lines and a byte order mark are no matter', async () => {
    const path = await folder.file(
      'odd.csv',
      '\ufeff# from host 3\r\n\r\n 1024 , 512,\t7,w'.replace('\t', ' ') + '\r\n2048,512,8, w',
    )
    const { trace, rows } = await readAll(path)
    expect(rows.map((row) => [row.offset, row.line])).toEqual([
      [1024, 3],
      [2048, 4],
    ])
    expect(trace.counts.bad).toBe(0)
  })

  test('a time that goes back is given the time above it, and counted', async () => {
    const path = await folder.file('back.csv', `${HEAD}\n0,1,100,w\n0,1,90,w\n0,1,95,w\n0,1,200,w\n`)
    const { trace, rows } = await readAll(path)
    expect(rows.map((row) => row.timeUs)).toEqual([100, 100, 100, 200])
    expect(trace.counts.clamped).toBe(2)
  })
})

describe('CloudPhysics CSV', () => {
  test('hexadecimal opcodes: writes, write same as zero, unmap as discard, reads counted; sectors become bytes', async () => {
    const lines = [
      'time_us,op,size,lbn',
      '100,2a,512,8',
      '101,28,4096,0',
      '102,8a,1024,16',
      '103,93,512,1',
      '104,42,512,2',
      '105,35,0,0',
      '106,0x0A,512,3',
    ]
    const { trace, rows } = await readAll(await folder.file('cp.csv', lines.join('\n')))
    expect(trace.format).toBe('CloudPhysics CSV')
    expect(rows.map((row) => [row.offset, row.length, row.op])).toEqual([
      [4096, 512, 0],
      [8192, 1024, 0],
      [512, 512, 1],
      [1024, 512, 2],
      [1536, 512, 0],
    ])
    expect(trace.counts).toMatchObject({ reads: 1, flushes: 1 })
  })

  test('decimal opcodes are told from hexadecimal ones by the file as a whole: 42 is a write there', async () => {
    const { trace, rows } = await readAll(
      await folder.file('cpd.csv', 'time_us,op,size,lbn\n1,42,512,0\n2,40,512,0\n3,42,512,1\n'),
    )
    expect(trace.format).toBe('CloudPhysics CSV, decimal opcodes')
    expect(rows.map((row) => row.op)).toEqual([0, 0])
    const mostlyTrims = `time_us,op,size,lbn\n${'1,42,512,0\n'.repeat(9)}2,2a,512,0\n`
    expect((await readAll(await folder.file('cpt.csv', mostlyTrims))).rows.map((row) => row.op)).toEqual([
      2, 2, 2, 2, 2, 2, 2, 2, 2, 0,
    ])
  })

  test('an opcode that nobody knows makes its line bad rather than passed over in silence', async () => {
    const path = await folder.file('cpx.csv', 'time_us,op,size,lbn\n1,2a,512,0\n2,ff,512,0\n')
    await expect(readAll(path)).rejects.toMatchObject({ code: 'TRACE_LINE_INVALID', facts: { line: 3 } })
  })
})

describe('bad lines', () => {
  const cases: [string, string][] = [
    ['-1,512,1,w', 'offset -1 is negative'],
    ['0.5,512,1,w', 'offset 0.5 is not a whole number'],
    ['NaN,512,1,w', 'offset "NaN" is not a number'],
    ['9007199254740993,512,1,w', 'offset 9007199254740993 is beyond 2^53'],
    ['0,1e3,1,w', 'length "1e3" is not a number'],
    ['0,512,,w', 't_us is missing'],
    ['0,512', 't_us is missing'],
    ['0,512,1', 'op is missing'],
    ['0,512,1,x', 'op "x" is none of w, z, t, f'],
    ['0,512,1,w,5', 'has more than 4 fields'],
    ['1048576,1,1,w', 'range 1048576+1 lies outside the disk of 1048576 bytes'],
    ['1048000,4096,1,t', 'range 1048000+4096 lies outside the disk of 1048576 bytes'],
  ]
  test.each(cases)('R1: "%s" is reported by its number: %s', async (line, why) => {
    const path = await folder.file('bad.csv', `${HEAD}\n0,512,1,w\n${line}\n0,512,2,w\n`)
    const refused = await readAll(path, { size: 1 << 20 }).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(CheckpointError)
    expect(refused).toMatchObject({ code: 'TRACE_LINE_INVALID', facts: { line: 3, text: line, why } })
    expect((refused as Error).message).toContain('--skip-bad')
    const { trace, rows } = await readAll(path, { size: 1 << 20, skipBad: true })
    expect(rows.map((row) => row.line)).toEqual([2, 4])
    expect(trace.counts).toMatchObject({ lines: 4, writes: 2, bad: 1 })
    expect(trace.badLines).toEqual([{ line: 3, text: line, why }])
  })

  test('rows above a bad line are handed out before it is reported', async () => {
    const path = await folder.file('after.csv', `${HEAD}\n0,512,1,w\nnonsense\n`)
    const lines: number[] = []
    const read = async (): Promise<void> => {
      for await (const batch of (await openTrace(path)).batches()) lines.push(...batch.lines)
    }
    await expect(read()).rejects.toMatchObject({ facts: { line: 3 } })
    expect(lines).toEqual([2])
  })
})

describe('files that are no trace', () => {
  test('a gzip file that was cut says how far reading came', async () => {
    const text = `${HEAD}\n${Array.from({ length: 200_000 }, (_, i) => `${i * 512},${(i * 7919) % 4096},${i},w`).join('\n')}`
    const whole = gzipped(text)
    const path = await folder.file('cut.csv.gz', whole.subarray(0, whole.length >> 1))
    const refused = await readAll(path).catch((error: unknown) => error as CheckpointError)
    expect(refused).toMatchObject({ code: 'TRACE_UNREADABLE' })
    expect((refused as CheckpointError).facts.textBytes).toBeGreaterThan(0)
    expect((refused as Error).message).toMatch(/after \d+ bytes of text: it is gzip that ends too early/)
  })

  test('damaged gzip data is told from a cut file', async () => {
    const whole = Buffer.from(gzipped(`${HEAD}\n${'0,512,1,w\n'.repeat(100)}`))
    whole.fill(0xff, 20, 30)
    await expect(readAll(await folder.file('flip.csv.gz', whole))).rejects.toMatchObject({
      code: 'TRACE_UNREADABLE',
    })
  })

  test.each([
    ['binary', Buffer.from([0, 1, 2, 3, 0, 255])],
    ['foreign text', 'hostname,disk,type\nweb1,0,Read\n'],
    ['empty', ''],
    ['utf-16', Buffer.from('offset,length,t_us,op\n', 'utf16le')],
    ['one endless line', 'x'.repeat(300_000)],
  ])('%s: TRACE_UNKNOWN_FORMAT names the formats that there are', async (name, content) => {
    const refused = await readAll(await folder.file(`foreign-${name}`, content)).catch(
      (error: unknown) => error as Error,
    )
    expect(refused).toMatchObject({ code: 'TRACE_UNKNOWN_FORMAT' })
    expect((refused as Error).message).toContain(HEAD)
  })

  test('an absent file and a folder are TRACE_UNREADABLE', async () => {
    await expect(openTrace(folder.path('nowhere.csv'))).rejects.toMatchObject({ code: 'TRACE_UNREADABLE' })
    await expect(openTrace(folder.path('.'))).rejects.toMatchObject({ code: 'TRACE_UNREADABLE' })
  })
})

test('a trace reads the same whatever its line ends, packing and chunk borders', async () => {
  const line = fc.record({
    offset: fc.nat(2 ** 40),
    length: fc.nat(1 << 20),
    t: fc.nat(1 << 30),
    op: fc.constantFrom('w', 'z', 't', 'f'),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(line, { minLength: 1, maxLength: 200 }),
      fc.boolean(),
      fc.boolean(),
      fc.nat(3),
      async (lines, crlf, gzip, pad) => {
        // Comment lines move the borders of the 256 KiB chunks through the lines that count.
        const padding = `#${'-'.repeat(60_000)}\n`.repeat(pad * 3)
        const sorted = lines.map((row) => row.t).sort((a, b) => a - b)
        const text = lines
          .map((row, i) => `${row.offset},${row.length},${sorted[i]},${row.op}`)
          .join(crlf ? '\r\n' : '\n')
        const whole = `${HEAD}\n${padding}${text}\n`
        const { trace, rows } = await readAll(await folder.file('any.csv', gzip ? gzipped(whole) : whole))
        const expected = lines.flatMap((row, i) =>
          row.op === 'f' || row.length === 0
            ? []
            : [[row.offset, row.length, 'wzt'.indexOf(row.op), sorted[i]]],
        )
        expect(rows.map((row) => [row.offset, row.length, row.op, row.timeUs])).toEqual(expected)
        expect(trace.counts.lines).toBe(lines.length + 1 + pad * 3)
      },
    ),
    proof('traces read the same in every wrapping', 60, 2000),
  )
})
