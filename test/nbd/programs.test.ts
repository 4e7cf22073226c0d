/** Programs that nobody here wrote, against the server: what they see, and that the bytes they move are the bytes. */
import { randomFillSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import { runs } from '../support/property.ts'
import { run } from './programs-support.ts'
import { folder, MemoryExport, MiB, serving } from './support.ts'

/** Odd on purpose: not a multiple of a sector. */
const ODD = 5 * MiB + 1

async function served(...disks: MemoryExport[]) {
  const server = await serving(disks, { tcp: { port: 0 } })
  return {
    server,
    unix: (name: string) => `nbd+unix:///${name}?socket=${server.socket}`,
    tcp: (name: string) => `nbd://127.0.0.1:${server.tcp!.port}/${name}`,
    qemu: (name: string) =>
      `driver=nbd,server.type=unix,server.path=${server.socket},export=${name},x-dirty-bitmap=qemu:dirty-bitmap:a`,
  }
}

function random(name: string, size: number): MemoryExport {
  const disk = new MemoryExport(name, size)
  randomFillSync(disk.bytes)
  return disk
}

describeWithPeers(['nbdinfo', 'nbdcopy'], 'libnbd', () => {
  test('nbdinfo lists every export with its sizes, flags and contexts', async () => {
    const { tcp } = await served(
      new MemoryExport('vda', MiB, false, 'the first disk'),
      new MemoryExport('vdb', ODD, true),
    )
    const list = JSON.parse(await run('nbdinfo', '--list', '--json', tcp('')))
    expect(list).toMatchObject({ protocol: 'newstyle-fixed', TLS: false })
    expect(list.exports[0]).toMatchObject({
      'export-name': 'vda',
      description: 'the first disk',
      'export-size': MiB,
      contexts: ['base:allocation', 'qemu:dirty-bitmap:a', 'qemu:dirty-bitmap:b'],
      is_read_only: false,
      can_multi_conn: true,
      can_df: true,
      can_fua: true,
      can_trim: true,
      can_zero: true,
      can_cache: true,
      can_fast_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
    })
    expect(list.exports[1]).toMatchObject({
      'export-size': ODD,
      is_read_only: true,
      can_trim: false,
      can_zero: false,
    })
  })

  test('nbdinfo describes one export, and fails by name for one that is not there', async () => {
    const { unix } = await served(new MemoryExport('vda', MiB))
    expect(JSON.parse(await run('nbdinfo', '--json', unix('vda'))).exports[0]['export-size']).toBe(MiB)
    expect((await run('nbdinfo', '--size', unix('vda'))).trim()).toBe(String(MiB))
    await expect(run('nbdinfo', unix('nope'))).rejects.toThrow(/export 'nope' not present|No such file/)
    await expect(run('nbdinfo', '--map=qemu:dirty-bitmap:nope', unix('vda'))).rejects.toThrow(
      'does not support metadata context',
    )
  })

  test('nbdinfo reads the dirty map, also over more than one answer', async () => {
    const disk = new MemoryExport('vda', ODD)
    const { unix } = await served(disk)
    for (const granule of [0, 1, 7, Math.floor(ODD / 4096)]) disk.dirty.add(granule)
    const map = JSON.parse(await run('nbdinfo', '--map=qemu:dirty-bitmap:a', '--json', unix('vda')))
    expect(map.map(({ offset, length, type }: Record<string, number>) => [offset, length, type])).toEqual([
      [0, 8192, 1],
      [8192, 20_480, 0],
      [28_672, 4096, 1],
      [32_768, 5 * MiB - 32_768, 0],
      [5 * MiB, 1, 1],
    ])
    const huge = new MemoryExport('vdb', 600 * MiB)
    const stripes = JSON.parse(
      await run('nbdinfo', '--map=qemu:dirty-bitmap:b', '--json', (await served(huge)).unix('vdb')),
    )
    expect(stripes).toHaveLength((600 * MiB) / 4096)
  })

  test('nbdcopy copies a disk out and in, byte for byte, over both doors', async () => {
    const disk = random('vda', ODD)
    const { unix, tcp } = await served(disk, new MemoryExport('vdb', ODD))
    const file = join(folder(), 'copy.raw')
    await run('nbdcopy', tcp('vda'), file)
    expect(readFileSync(file).equals(disk.bytes)).toBe(true)
    randomFillSync(disk.bytes)
    const before = Buffer.from(disk.bytes)
    randomFillSync(disk.bytes)
    writeFileSync(file, before)
    await run('nbdcopy', '--flush', file, unix('vda'))
    expect(disk.bytes.equals(before)).toBe(true)
    expect(disk.calls.at(-1)).toBe('flush')
    expect(disk.outside).toEqual([])
  })
})

describeWithPeers(['qemu-img', 'qemu-io'], 'QEMU', () => {
  test('qemu-img sees the size and the allocation, converts both ways and finds both sides the same', async () => {
    const disk = random('vda', 8 * MiB)
    disk.bytes.fill(0, 2 * MiB, 4 * MiB)
    const target = random('vdb', 8 * MiB)
    const { unix } = await served(disk, target)
    expect(JSON.parse(await run('qemu-img', 'info', '--output=json', unix('vda')))['virtual-size']).toBe(
      8 * MiB,
    )
    const map = JSON.parse(await run('qemu-img', 'map', '--output=json', unix('vda')))
    expect(map).toMatchObject([{ start: 0, length: 8 * MiB, data: true, zero: false }])
    const file = join(folder(), 'copy.raw')
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', unix('vda'), file)
    expect(readFileSync(file).equals(disk.bytes)).toBe(true)
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', file, unix('vdb'))
    expect(target.bytes.equals(disk.bytes)).toBe(true)
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', unix('vda'), unix('vdb'))).toContain(
      'identical',
    )
    target.bytes[77] = target.bytes[77]! ^ 1
    await expect(
      run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', unix('vda'), unix('vdb')),
    ).rejects.toThrow('qemu-img compare')
  })

  test("qemu-img reads a dirty bitmap as QEMU's own: dirty is told as no data", async () => {
    const disk = new MemoryExport('vda', MiB)
    const { qemu } = await served(disk)
    disk.dirty.add(2).add(3)
    const map = JSON.parse(await run('qemu-img', 'map', '--output=json', '--image-opts', qemu('vda')))
    expect(map.map(({ start, length, data }: Record<string, unknown>) => [start, length, data])).toEqual([
      [0, 8192, true],
      [8192, 8192, false],
      [16_384, MiB - 16_384, true],
    ])
  })

  test("qemu-io writes, zeroes, discards, flushes and reads back; its errors are the protocol's", async () => {
    const disk = new MemoryExport('vda', MiB)
    const { unix, server } = await served(disk, new MemoryExport('ro', MiB, true))
    const io = (name: string, ...commands: string[]) =>
      run('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), unix(name))
    await io(
      'vda',
      'write -P 7 1k 3k',
      'write -z 2k 1k',
      'flush',
      'discard 512k 64k',
      'read -P 7 1k 1k',
      'read -P 0 2k 1k',
    )
    expect(disk.bytes.subarray(1024, 2048).equals(Buffer.alloc(1024, 7))).toBe(true)
    expect(
      disk.calls
        .filter((call) => /^(write|zero|trim)/.test(call))
        .map((call) => call.replace(/ (fua|noHole)/g, '')),
    ).toEqual(['write 1024+3072', 'zero 2048+1024', 'trim 524288+65536'])
    await expect(io('ro', 'write 0 512')).rejects.toThrow(/read-only|Permission denied|EACCES/i)
    expect(server.counts().errors).toBe(0)
  })

  test('qemu-img bench keeps many writes in flight, and each is done once', async () => {
    const disk = new MemoryExport('vda', 64 * MiB)
    const { unix } = await served(disk)
    await run(
      'qemu-img',
      'bench',
      '-f',
      'raw',
      '-w',
      '-c',
      String(runs(5000, 100_000)),
      '-d',
      '64',
      '-s',
      '4096',
      '-t',
      'none',
      unix('vda'),
    )
    expect(disk.outside).toEqual([])
    expect(disk.calls.filter((call) => call.startsWith('write'))).toHaveLength(runs(5000, 100_000))
  })
})

describeWithPeers(['fio'], 'fio', () => {
  test('fio writes at random with 32 in flight, and every block verifies', async ({ skip }) => {
    if (!/^\s*nbd$/m.test(await run('fio', '--enghelp'))) skip('this fio has no nbd engine')
    const disk = new MemoryExport('vda', 32 * MiB)
    const { unix } = await served(disk)
    const out = await run(
      'fio',
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${unix('vda')}`,
      '--rw=randwrite',
      '--bs=4k',
      '--iodepth=32',
      `--size=${runs(8, 32)}m`,
      '--verify=crc32c',
      '--do_verify=1',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--output-format=json',
    )
    const { error, write } = JSON.parse(out.slice(out.indexOf('{'))).jobs[0]
    expect([error, write.total_ios]).toEqual([0, runs(8, 32) * 256])
    expect(disk.calls.filter((call) => call.startsWith('read')).length).toBeGreaterThanOrEqual(
      runs(8, 32) * 256,
    )
    expect(disk.outside).toEqual([])
  })
})
