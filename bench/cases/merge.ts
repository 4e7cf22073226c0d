/**
 * `merge`: ten bitmaps of 1 TiB at 64 KiB with about a million bits each, joined. In memory, against a real QEMU that merges
 * ten alike (its QMP round trip on an idle monitor is taken off); and cold, as a plan since the oldest of ten stored slices.
 */

import { DirtyBitmap, openStore } from '../../src/index.ts'
import { QemuDaemon } from '../../test/support/qemu/daemon.ts'
import { type Bench, type Benchmark, medianOf, type Opponent } from '../harness.ts'
import { appendAll, openOurs } from '../ours.ts'
import {
  BITMAP,
  DISK,
  DISK_BYTES,
  GRANULARITY,
  randomBelow,
  randomBits,
  scatteredWrites,
} from '../workload.ts'

const BITMAPS = 10
const BITS = 1_000_000
/** What a real QEMU 7.2 took on the machine on which the target was set. */
const QEMU_DOCUMENTED_MS = 17

async function run(bench: Bench): Promise<void> {
  const bitmaps = Array.from({ length: BITMAPS }, (_, i) => {
    const bitmap = new DirtyBitmap(DISK_BYTES, GRANULARITY)
    bitmap.setColumns(scatteredWrites(BITS, 20 + i))
    return bitmap
  })
  const qemu = await Qemu.start(bench)
  try {
    const opponent: Opponent =
      qemu === undefined
        ? { against: 'QEMU 7.2, 17 ms (documented; none is installed here)', constant: QEMU_DOCUMENTED_MS }
        : { against: `QEMU ${qemu.version}, block-dirty-bitmap-merge`, measure: () => qemu.merge() }
    await bench.compare({
      name: 'merge',
      unit: 'ms',
      better: 'less',
      runs: 15,
      ours: () => {
        const start = performance.now()
        const all = new DirtyBitmap(DISK_BYTES, GRANULARITY)
        all.orAll(bitmaps)
        const { dirtyGranules } = all // QEMU counts too.
        const time = performance.now() - start
        if (dirtyGranules < BITS) throw new Error('the union lost bits')
        return time
      },
      opponents: [opponent],
    })
  } finally {
    await qemu?.stop()
  }
  await cold(bench)
}

/** The plan since the oldest of ten slices, right after an open: slices read, checked against their digests, joined. */
async function cold(bench: Bench): Promise<void> {
  const folder = bench.folder()
  const { store, disk } = await openOurs(folder, {}, BITMAPS)
  for (let i = 0; i < BITMAPS; i++) {
    bench.say(`merge, cold: slice ${i} of ${BITMAPS}`)
    await appendAll(disk, scatteredWrites(BITS, 20 + i))
    await disk.bitmap(BITMAP).bank()
  }
  await store.close()
  await bench.compare({
    name: 'merge',
    unit: 'ms',
    better: 'less',
    runs: 7,
    ours: async () => {
      const opened = await openStore(folder)
      const start = performance.now()
      const plan = await opened.plan({
        disk: DISK,
        bitmap: BITMAP,
        mode: 'differential',
        since: { slice: 0 },
      })
      const time = performance.now() - start
      if (plan.bytes < BITS * GRANULARITY) throw new Error('the plan lost bits')
      await opened.close()
      return time
    },
    opponents: [{ against: 'a limit of 100 ms, cold from the store', constant: 100 }],
  })
}

/** A real qemu-storage-daemon with ten bitmaps over a node of 1 TiB that keeps no data. */
class Qemu {
  readonly #daemon: QemuDaemon
  readonly version: string

  private constructor(daemon: QemuDaemon, version: string) {
    this.#daemon = daemon
    this.version = version
  }

  /** Undefined where QEMU is not installed. All ten record the same writes: its merge costs the same for equal bits. */
  static async start(bench: Bench): Promise<Qemu | undefined> {
    let daemon: QemuDaemon
    try {
      daemon = await QemuDaemon.start('null-co', DISK_BYTES)
    } catch (error) {
      bench.say(`merge: no QEMU here (${(error as Error).message})`)
      return undefined
    }
    const add = (name: string, disabled: boolean) =>
      daemon.qmp.execute('block-dirty-bitmap-add', {
        node: 'drive0',
        name,
        granularity: GRANULARITY,
        disabled,
      })
    for (let i = 0; i < BITMAPS; i++) await add(`b${i}`, false)
    await add('all', true)
    await dirty(bench, daemon)
    return new Qemu(daemon, await daemon.version())
  }

  async merge(): Promise<number> {
    const { qmp } = this.#daemon
    const node = { node: 'drive0' }
    await qmp.execute('block-dirty-bitmap-clear', { ...node, name: 'all' })
    const idle: number[] = []
    for (let i = 0; i < 5; i++) {
      const before = performance.now()
      await qmp.execute('query-version')
      idle.push(performance.now() - before)
    }
    const bitmaps = Array.from({ length: BITMAPS }, (_, i) => `b${i}`)
    const start = performance.now()
    await qmp.execute('block-dirty-bitmap-merge', { ...node, target: 'all', bitmaps })
    return performance.now() - start - medianOf(idle)
  }

  stop(): Promise<void> {
    return this.#daemon.stop()
  }
}

/** A quarter of a million zeroings of four granules: a million bits in the time of a quarter of the requests. */
async function dirty(bench: Bench, daemon: QemuDaemon): Promise<void> {
  const bits = randomBits(30)
  const requests = BITS / 4
  for (let done = 0; done < requests; ) {
    const together: Promise<void>[] = []
    for (let i = 0; i < 64 && done < requests; i++, done++) {
      const offset = randomBelow(bits, DISK_BYTES / GRANULARITY / 4) * 4 * GRANULARITY
      together.push(daemon.nbd.writeZeroes(offset, 4 * GRANULARITY))
    }
    await Promise.all(together)
    if (done % 16_384 === 0) bench.say(`merge: dirtying QEMU's bitmaps, ${done} of ${requests} requests`)
  }
}

export const merge: Benchmark = { name: 'merge', run }
