/**
 * Programs that copy disks, in and out of a disk that we serve and between it and other servers: the bytes arrive, and the map since
 * the moment before is what the program wrote, neither less (R31) nor more.
 */
import { randomFillSync } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import { runs } from '../support/property.ts'
import { KiB } from './disk-support.ts'
import { dirtyRanges, granulesOf, run } from './programs-support.ts'
import { type ServedFiles, servedFiles } from './served-files-support.ts'

const MiB = 1024 * KiB
const SIZE = 24 * MiB
/** No sector is whole at its end. */
const ODD = SIZE + 513
const PAGE = 4 * KiB
/** Where a sparse disk has data; all of it aligned, so that what a program leaves out is known to the byte. */
const ISLANDS: readonly (readonly [offset: number, length: number])[] = [
  [0, PAGE],
  [MiB, 3 * PAGE],
  [5 * MiB + PAGE, 700 * KiB],
  [SIZE - 2 * PAGE, PAGE],
]

/** A file with data in its islands and holes elsewhere. */
function sparse(path: string, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  const file = openSync(path, 'w')
  ftruncateSync(file, size)
  for (const [offset, length] of ISLANDS) {
    randomFillSync(bytes, offset, length)
    writeSync(file, bytes, offset, length, offset)
  }
  closeSync(file)
  return bytes
}

/** A file of random bytes. */
function dense(path: string, size: number): Buffer {
  const bytes = randomFillSync(Buffer.alloc(size))
  const file = openSync(path, 'w')
  writeSync(file, bytes)
  closeSync(file)
  return bytes
}

/** Pages that were written since the checkpoint, as `[offset, length]` runs: a bitmap of their size sees them. */
async function writtenPages({ uri }: ServedFiles, disk: string): Promise<[number, number][]> {
  return dirtyRanges(uri(disk), 'pages@checkpoint=before')
}

/** Disks with a bitmap each, and a checkpoint that everything comes after. */
async function prepared(size: number, ...disks: string[]): Promise<ServedFiles> {
  const served = await servedFiles(size, disks)
  for (const disk of disks) await served.store.disk(disk).addBitmap('pages', { granularity: PAGE })
  await served.store.createCheckpoint('before')
  return served
}

const whole = (size: number): [number, number][] => [[0, size]]

describeWithPeers(['nbdcopy', 'nbdkit', 'nbdinfo'], 'nbdcopy', () => {
  test.each([0, 1] as const)(
    'R1, R31: a file goes in and out again over door %s, and all of it is in the map',
    async (door) => {
      const all = await prepared(ODD, 'vda')
      const bytes = dense(all.path('in'), ODD)
      await run(
        'nbdcopy',
        '--flush',
        '--request-size=65536',
        '--requests=64',
        all.path('in'),
        all.uri('vda', door),
      )
      expect(all.bytes('vda').equals(bytes)).toBe(true)
      expect(await writtenPages(all, 'vda')).toEqual(whole(ODD))
      await run('nbdcopy', all.uri('vda', door), all.path('out'))
      expect(readFileSync(all.path('out')).equals(bytes)).toBe(true)
    },
  )

  test('R1, R31: holes are zeroed, and zeroes are in the map; told that the disk is zero already it writes the data alone', async () => {
    const all = await prepared(ODD, 'vda', 'vdb', 'vdc')
    const bytes = sparse(all.path('in'), ODD)
    dense(all.file('vda'), ODD)
    await run('nbdcopy', all.path('in'), all.uri('vda'))
    expect(all.bytes('vda').equals(bytes)).toBe(true)
    expect(await writtenPages(all, 'vda')).toEqual(whole(ODD))
    await run('nbdcopy', '--destination-is-zero', all.path('in'), all.uri('vdb'))
    expect(all.bytes('vdb').equals(bytes)).toBe(true)
    expect(await writtenPages(all, 'vdb')).toEqual(ISLANDS)
    // Between two of ours: the source says that all is data, so zero pages are found by looking.
    await run('nbdcopy', '--destination-is-zero', all.uri('vdb'), all.uri('vdc', 1))
    expect(all.bytes('vdc').equals(bytes)).toBe(true)
    expect(await writtenPages(all, 'vdc')).toEqual([...ISLANDS, [SIZE, ODD - SIZE]]) // It looks at whole pages.
    expect(await writtenPages(all, 'vdb')).toEqual(ISLANDS)
  })

  test("R31: through nbdkit's memory and back into another disk, the same bytes", async () => {
    const all = await prepared(ODD, 'vda', 'vdb')
    const bytes = sparse(all.file('vda'), ODD)
    const both = `nbdcopy '${all.uri('vda')}' "$uri" && nbdcopy --destination-is-zero "$uri" '${all.uri('vdb')}'`
    await run('nbdkit', '-U', '-', 'memory', String(ODD), '--run', both)
    expect(all.bytes('vdb').equals(bytes)).toBe(true)
    expect(await writtenPages(all, 'vdb')).toEqual(ISLANDS)
    expect(await writtenPages(all, 'vda')).toEqual([])
  })

  test('R1, R2, R31: nbdkit as a client of ours that cuts every request small, and its zeroes and trims too', async () => {
    const all = await prepared(ODD, 'vda')
    const bytes = dense(all.path('in'), ODD)
    const kit = [
      '-U',
      '-',
      '--filter=blocksize',
      'nbd',
      `uri=${all.uri('vda')}`,
      'maxdata=12k',
      'maxlen=100k',
    ]
    await run('nbdkit', ...kit, '--run', `nbdcopy '${all.path('in')}' "$uri"`)
    expect(all.bytes('vda').equals(bytes)).toBe(true)
    expect(all.served.counts().writes).toBeGreaterThanOrEqual(Math.floor(ODD / (12 * KiB)))
    await all.store.createCheckpoint('second')
    const script =
      'h.zero(300_001, 70_000); h.trim(5_000_000, 9_000_001); h.zero(1, h.get_size() - 1); h.shutdown()'
    await run('nbdkit', ...kit, '--run', `nbdsh -u "$uri" -c '${script}'`)
    bytes.fill(0, 70_000, 370_001)
    bytes.fill(0, ODD - 1)
    const after = all.bytes('vda')
    // What a trim leaves is nobody's promise; ours leaves the bytes.
    expect(after.equals(bytes)).toBe(true)
    const asked: [number, number][] = [
      [70_000, 300_001],
      [9_000_001, 5_000_000],
      [ODD - 1, 1],
    ]
    const dirty = granulesOf(await dirtyRanges(all.uri('vda'), 'pages@checkpoint=second'), PAGE)
    expect(dirty).toEqual(granulesOf(asked, PAGE))
  })
})

describeWithPeers(['qemu-nbd', 'qemu-img', 'nbdcopy', 'nbdinfo'], 'copies with QEMU', () => {
  test('R31: out into a qcow2 behind qemu-nbd, and back into another disk', async () => {
    const all = await prepared(SIZE, 'vda', 'vdb')
    const bytes = sparse(all.file('vda'), SIZE)
    const image = all.path('copy.qcow2')
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, String(SIZE))
    const behind = ['[', 'qemu-nbd', '-f', 'qcow2', image, ']']
    await run('nbdcopy', '--', all.uri('vda'), ...behind)
    await run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', all.uri('vda'), image)
    await run('nbdcopy', '--destination-is-zero', '--', ...behind, all.uri('vdb'))
    expect(all.bytes('vdb').equals(bytes)).toBe(true)
    expect(await writtenPages(all, 'vdb')).toEqual(ISLANDS)
  })

  test('R1, R31: qemu-img converts into qcow2 and back; in what it wrote the comparison finds the byte that is another', async () => {
    const all = await prepared(SIZE, 'vda', 'vdb', 'vdc')
    const bytes = sparse(all.file('vda'), SIZE)
    const image = all.path('copy.qcow2')
    await run('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', all.uri('vda'), image)
    const into = ['convert', '-n', '-m', '16', '-W', '-f', 'qcow2', '-O', 'raw']
    await run('qemu-img', ...into, '--target-is-zero', image, all.uri('vdb'))
    expect(all.bytes('vdb').equals(bytes)).toBe(true)
    const written = granulesOf(await writtenPages(all, 'vdb'), PAGE)
    for (const page of granulesOf(ISLANDS, PAGE)) expect(written).toContain(page)
    expect(written.size * PAGE).toBeLessThan(SIZE / 4)
    dense(all.file('vdc'), SIZE)
    await run('qemu-img', ...into, image, all.uri('vdc', 1))
    expect(all.bytes('vdc').equals(bytes)).toBe(true)
    expect(await writtenPages(all, 'vdc')).toEqual(whole(SIZE))
    const compare = () => run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', image, all.uri('vdc'))
    expect(await compare()).toContain('identical')
    const file = openSync(all.file('vdc'), 'r+')
    writeSync(file, Buffer.from([bytes[SIZE - 1]! ^ 1]), 0, 1, SIZE - 1)
    closeSync(file)
    await expect(compare()).rejects.toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/mismatch at offset/),
    })
  })

  test('R1, R2, R8: after qemu-img bench the map is the blocks that were asked for, and those hold its pattern', async () => {
    const all = await prepared(SIZE, 'vda')
    const [count, block, step, offset] = [runs(300, 1200), 1536, 19_968, 512]
    const flags = ['-w', '--pattern=119', '-d', '32', '--flush-interval=40', '-t', 'none']
    const numbers = { '-c': count, '-s': block, '-S': step, '-o': offset }
    const words = Object.entries(numbers).flatMap(([flag, value]) => [flag, String(value)])
    await run('qemu-img', 'bench', '-q', '-f', 'raw', ...flags, ...words, all.uri('vda'))
    const asked = Array.from({ length: count }, (_, i): [number, number] => [offset + i * step, block])
    expect(granulesOf(await writtenPages(all, 'vda'), PAGE)).toEqual(granulesOf(asked, PAGE))
    const expected = Buffer.alloc(SIZE)
    for (const [at, length] of asked) expected.fill(119, at, at + length)
    expect(all.bytes('vda').equals(expected)).toBe(true)
    expect(all.served.counts().writes).toBe(count)
  })

  test('R1, R21: what only reads records nothing: qemu-img dd at odd blocks, map, measure, compare, nbdcopy', async () => {
    const all = await prepared(SIZE, 'vda')
    const bytes = dense(all.file('vda'), SIZE)
    const { head } = all.store
    await run(
      'qemu-img',
      'dd',
      '-f',
      'raw',
      '-O',
      'raw',
      'bs=513',
      'skip=7',
      'count=3001',
      `if=${all.uri('vda')}`,
      `of=${all.path('part')}`,
    )
    const part = readFileSync(all.path('part')).subarray(0, 2994 * 513)
    expect(part.equals(bytes.subarray(7 * 513, 3001 * 513))).toBe(true)
    await run('qemu-img', 'map', '-f', 'raw', all.uri('vda'))
    expect(
      JSON.parse(
        await run('qemu-img', 'measure', '-f', 'raw', '-O', 'qcow2', '--output=json', all.uri('vda')),
      ).required,
    ).toBeGreaterThan(SIZE)
    await run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'raw', all.uri('vda'), all.file('vda'))
    await run('nbdcopy', all.uri('vda'), 'null:')
    expect(all.store.head).toEqual(head)
  })
})
