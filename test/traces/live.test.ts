/** Traces fresh from the programs that write them, on this machine: what they say now is what is read. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { describeWithPeers, peer } from '../support/peers.ts'
import { readAll } from './support.ts'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'slicelog-live-trace-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function fio(...options: string[]): void {
  execFileSync(peer('fio')!, ['--name=d', '--ioengine=psync', ...options], {
    cwd: folder,
    stdio: 'ignore',
    timeout: 60_000,
  })
}

describeWithPeers(['fio'], 'fio', () => {
  test('R3: its log has the writes at its microseconds, and time passes as it passed', async () => {
    const log = join(folder, 'v3.iolog')
    fio(
      `--filename=${folder}/d.img`,
      '--size=1M',
      '--bs=4k',
      '--rw=write',
      '--number_ios=4',
      '--thinktime=50000',
      `--write_iolog=${log}`,
    )
    const { trace, rows } = await readAll(log)
    expect(trace.format).toBe('fio iolog version 3')
    expect(rows.map((row) => [row.offset, row.length])).toEqual([0, 1, 2, 3].map((n) => [n * 4096, 4096]))
    // It slept 50 ms between two writes: were the times milliseconds, this would be seconds.
    for (let i = 1; i < 4; i++) expect(rows[i]!.timeUs - rows[i - 1]!.timeUs).toBeGreaterThanOrEqual(50_000)
    expect(rows[3]!.timeUs).toBeLessThan(60_000_000)
  })

  test('a log of version 2 means to it what it means here', async () => {
    const old = join(folder, 'v2.iolog')
    const image = join(folder, 'd.img')
    const lines = [
      'add',
      'open',
      'write 0 4096',
      'wait 2000 0',
      'write 65536 8192',
      'write 8192 512',
      'close',
    ]
    writeFileSync(old, `fio version 2 iolog\n${lines.map((line) => `${image} ${line}\n`).join('')}`)
    writeFileSync(image, Buffer.alloc(1 << 20))
    fio(`--read_iolog=${old}`, '--buffer_pattern=0xff')
    const mine = await readAll(old)
    const written = Buffer.alloc(1 << 20)
    for (const row of mine.rows) written.fill(0xff, row.offset, row.offset + row.length)
    expect(readFileSync(image).equals(written)).toBe(true)
    expect(mine.rows.length).toBe(3)
  })
})

describeWithPeers(['nbdkit', 'qemu-io'], "nbdkit's log filter", () => {
  test('R1: a write, a zero and a discard over NBD are in its log as they were asked', async () => {
    const log = join(folder, 'nbdkit.log')
    const driver = `${peer('qemu-io')} -f raw -c "write 4k 64k" -c "write -z 1M 64k" -c "discard 2M 1M" -c "read 0 4k" "$uri"`
    execFileSync(
      peer('nbdkit')!,
      ['-U', '-', '--filter=log', 'memory', '64M', `logfile=${log}`, '--run', driver],
      {
        cwd: folder,
        stdio: 'ignore',
        timeout: 60_000,
      },
    )
    const { trace, rows } = await readAll(log)
    expect(trace.format).toBe('nbdkit log filter')
    expect(rows.map((row) => [row.offset, row.length, row.op])).toEqual([
      [4096, 65536, 0],
      [1 << 20, 65536, 1],
      [2 << 20, 1 << 20, 2],
    ])
    expect(trace.counts).toMatchObject({ reads: 1, bad: 0 })
    // The clock of the trace is this machine's, read as UTC.
    expect(readFileSync(log, 'latin1')).toContain(new Date(rows[0]!.timeUs / 1000).toISOString().slice(0, 10))
  })
})

const ACTION = { queue: 1, issue: 7, complete: 8 } as const
const FLAG = {
  read: 1,
  write: 2,
  flush: 4,
  sync: 8,
  queue: 16,
  issue: 64,
  complete: 128,
  fs: 256,
  discard: 8192,
  fua: 32768,
}

/** One event as the kernel hands it to blktrace (`struct blk_io_trace`, 48 bytes). */
function kernelEvent(sequence: number, sector: number, bytes: number, action: number, flags: number): Buffer {
  const event = Buffer.alloc(48)
  event.writeUInt32LE(0x65617407, 0)
  event.writeUInt32LE(sequence, 4)
  event.writeBigUInt64LE(BigInt(sequence) * 1_000_000n, 8)
  event.writeBigUInt64LE(BigInt(sector), 16)
  event.writeUInt32LE(bytes, 24)
  event.writeUInt32LE(((flags << 16) | action) >>> 0, 28)
  event.writeUInt32LE(697, 32)
  event.writeUInt32LE(8 << 20, 36)
  return event
}

describeWithPeers(['blkparse'], 'blkparse', () => {
  test('R1, R31: what it prints of events in the form of the kernel is read: writes, discards, flushes, FUA', async () => {
    const { queue, issue, complete, fs, write, sync, discard, flush, fua, read } = FLAG
    const events: [number, number, number, number][] = [
      [100, 4096, ACTION.queue, write | sync | queue | fs],
      [100, 4096, ACTION.issue, write | sync | issue | fs],
      [100, 4096, ACTION.complete, write | sync | complete | fs],
      [0, 0, ACTION.queue, flush | write | sync | queue | fs],
      [200, 8192, ACTION.queue, flush | write | fua | sync | queue | fs],
      [2048, 1 << 20, ACTION.queue, discard | write | queue | fs],
      [16, 512, ACTION.queue, read | queue | fs],
    ]
    const bytes = events.map(([sector, size, action, flags], i) =>
      kernelEvent(i + 1, sector, size, action, flags),
    )
    writeFileSync(join(folder, 'sda.blktrace.0'), Buffer.concat(bytes))
    const text = join(folder, 'sda.txt')
    const printed = execFileSync(peer('blkparse')!, ['-i', 'sda'], { cwd: folder, timeout: 60_000 })
    writeFileSync(text, printed)
    const { trace, rows } = await readAll(text)
    expect(trace.format).toBe('blkparse text')
    expect(rows.map((row) => [row.offset, row.length, row.op])).toEqual([
      [100 * 512, 4096, 0],
      [200 * 512, 8192, 0],
      [2048 * 512, 1 << 20, 2],
    ])
    expect(rows.map((row) => row.timeUs - rows[0]!.timeUs)).toEqual([0, 4000, 5000])
    expect(trace.counts).toMatchObject({ reads: 1, flushes: 1, bad: 0 })
  })
})
