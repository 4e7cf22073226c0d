/**
 * `nbd-map`: the dirty map of a whole disk of 1 TiB at its worst (0.97 M random granules, 1.8 M runs), read by nbdinfo: from slicelog, and
 * from a real qemu-storage-daemon with the same bits. Each reading is a program of its own, as a backup program's would be.
 */
import { execFile } from 'node:child_process'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DirtyBitmap } from '../../src/index.ts'
import { QemuDaemon } from '../../test/support/qemu/daemon.ts'
import type { Bench, Benchmark, Opponent } from '../harness.ts'
import { installed, type Served, serveOurs } from '../nbd-servers.ts'
import { appendAll, openOurs } from '../ours.ts'
import { BITMAP, type Columns, DISK_BYTES, GRANULARITY, scatteredWrites } from '../workload.ts'

const WRITES = 1_000_000
const SEED = 60
const CONTEXT = `qemu:dirty-bitmap:${BITMAP}`

async function run(bench: Bench): Promise<void> {
  const writes = scatteredWrites(WRITES, SEED)
  const bits = new DirtyBitmap(DISK_BYTES, GRANULARITY)
  bits.setColumns(writes)
  const client = installed('nbdinfo')
  const running: Served[] = []
  try {
    if (client) running.push(await ours(bench, writes))
    const qemu = client ? await theirs(bench, writes, bits.digest()) : null
    if (qemu !== null) running.push(qemu)
    const read = async ({ uri }: Served): Promise<number> => {
      const begin = performance.now()
      const dirty = await dirtyBytes(uri)
      const time = performance.now() - begin
      if (dirty !== bits.dirtyBytes) throw new Error(`the map has ${dirty} bytes, not ${bits.dirtyBytes}`)
      return time
    }
    const against = 'qemu-storage-daemon, the same bits'
    const opponent: Opponent =
      qemu === null ? { against, missing: true } : { against, measure: () => read(qemu) }
    await bench.compare({
      name: 'nbd-map, 1.8 M runs',
      unit: 'ms',
      better: 'less',
      runs: 9,
      ours: client ? () => read(running[0]!) : null,
      opponents: [opponent],
      reach: 'ratio ≥ 1 (estimate 1)',
    })
  } finally {
    for (const served of running) await served.stop()
  }
}

/** The writes are recorded beforehand: how they came is not what is measured. */
async function ours(bench: Bench, writes: Columns): Promise<Served> {
  bench.say('nbd-map: dirtying our bitmap')
  const folder = bench.folder()
  const { store, disk } = await openOurs(join(folder, 'store'))
  await appendAll(disk, writes)
  await store.close()
  const file = join(folder, 'disk.raw')
  writeFileSync(file, '')
  truncateSync(file, DISK_BYTES)
  return await serveOurs(join(folder, 'store'), file, 'process')
}

/** null where QEMU is not installed. It keeps no data, and its digest shows that the bits are the same (R5). */
async function theirs(bench: Bench, writes: Columns, digest: string): Promise<Served | null> {
  if (!installed('qemu-storage-daemon')) return null
  const daemon = await QemuDaemon.start('null-co', DISK_BYTES)
  try {
    const node = { node: 'drive0', name: BITMAP }
    await daemon.qmp.execute('block-dirty-bitmap-add', { ...node, granularity: GRANULARITY })
    for (let done = 0; done < WRITES; ) {
      const together: Promise<void>[] = []
      for (let i = 0; i < 64 && done < WRITES; i++, done++)
        together.push(daemon.nbd.writeZeroes(writes.offsets[done]!, writes.lengths[done]!))
      await Promise.all(together)
      if (done % 65_536 === 0) bench.say(`nbd-map: dirtying QEMU's bitmap, ${done} of ${WRITES} writes`)
    }
    const found = await daemon.digest(BITMAP)
    if (found !== digest) throw new Error(`QEMU's bits have digest ${found}, not ${digest}`)
    await daemon.qmp.execute('block-export-add', {
      type: 'nbd',
      id: 'map',
      name: 'map',
      'node-name': 'drive0',
      writable: true,
      bitmaps: [BITMAP],
    })
    return { uri: daemon.uri('map'), stop: () => daemon.stop() }
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

/** Of the whole disk, as nbdinfo adds them up: `BYTES PERCENT FLAGS NAME`. */
async function dirtyBytes(uri: string): Promise<number> {
  const { stdout } = await promisify(execFile)('nbdinfo', [`--map=${CONTEXT}`, '--totals', uri])
  const line = stdout.split('\n').find((words) => words.endsWith(' dirty'))
  return Number(line?.trim().split(/\s+/)[0])
}

export const nbdMap: Benchmark = { name: 'nbd-map', run }
