/** A store with a random past, and its events one by one: what the questions of the audit are checked against. */
import { CheckpointError, openMemoryStore, type Store, type WriteRange } from '../../src/index.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { prng } from '../support/property.ts'

const KiB = 1024
export const DISKS = ['a', 'b'] as const
const SIZE = 300 * KiB
const OPS = ['write', 'write', 'write', 'zero', 'discard'] as const

/** Writes, windows, banks, gaps, lost stretches, growth, backups of every mode that end in every way. Refused steps are passed over. */
export async function randomHistory(seed: number, steps: number): Promise<Store> {
  const random = prng(seed)
  const below = (n: number) => Math.floor(random() * n)
  const clock = manualClock(Date.UTC(2026, 0, 1))
  // Half of the histories are long enough for the index of spans and for snapshots.
  const store = await openMemoryStore({ clock, ...(seed % 2 === 0 ? { snapshotEvery: 24 } : {}) })
  let begun = 0
  for (const disk of DISKS) {
    await store.ensureDisk(disk, { size: SIZE })
    await store
      .disk(disk)
      .ensureBitmap('m', { granularity: [512, 4 * KiB, 64 * KiB][below(3)]!, retention: 4 })
  }
  for (let step = 0; step < steps; step++) {
    clock.advance([0, 1, 7, 1000, 60_000][below(5)]!)
    const disk = store.disk(DISKS[below(DISKS.length)]!)
    const bitmap = disk.bitmap('m')
    const range = (): WriteRange => {
      const offset = below(disk.size - 1)
      const length = Math.min(disk.size - offset, 1 + below(random() < 0.1 ? 80 * KiB : 6 * KiB))
      return { offset, length, op: OPS[below(OPS.length)]! }
    }
    const running = store.backups({ disk: disk.id }).filter(({ state }) => state === 'running')
    const points = [
      'start',
      { position: below(store.head.position + 1) },
      ...store.backups({ disk: disk.id, state: 'succeeded' }).map(({ id }) => ({ backup: id })),
    ] as const
    const act = async (): Promise<unknown> => {
      const dice = below(100)
      if (dice < 55) return disk.recordWrites(Array.from({ length: 1 + below(6) }, range))
      if (dice < 58) {
        const { offset, length } = range()
        return disk.recordWindow({
          from: { position: store.head.position },
          extents: [[offset, length]],
          writes: below(4),
        })
      }
      if (dice < 61) return bitmap.bank({ forceCycle: true })
      if (dice < 64) return bitmap.disable()
      if (dice < 69) return bitmap.enable()
      if (dice < 70) return bitmap.clear()
      if (dice < 71) return disk.declareLost('a test')
      if (dice < 73) return disk.resize(disk.size + below(8 * KiB))
      if (dice < 74 && running.length === 0) return bitmap.deleteSlice(below(6))
      const [one] = running
      if (one !== undefined) {
        const backup = store.backup(one.id)
        if (dice < 88) return backup.succeed()
        return dice < 94 ? backup.fail('no space') : backup.cancel()
      }
      const mode = (['full', 'copy', 'incremental', 'incremental', 'differential', 'differential'] as const)[
        below(6)
      ]!
      const since = mode === 'full' || mode === 'copy' ? undefined : points[below(points.length)]!
      return disk.beginBackup({
        bitmap: 'm',
        mode,
        id: `b${++begun}`,
        forceCycle: true,
        ...(since === undefined || random() < 0.4 ? {} : { since }),
      })
    }
    await act().catch((error: unknown) => {
      if (!(error instanceof CheckpointError)) throw error
    })
  }
  return store
}

export interface Logged {
  readonly position: number
  readonly time: number
  readonly type: string
  readonly disk: string | null
  readonly op: string | null
  readonly ranges: readonly (readonly [number, number])[]
  /** How many writes it is. */
  readonly writes: number
  readonly bytes: number
  readonly backup: string | null
}

export function isWrite({ type }: Logged): boolean {
  return type === 'write'
}

export async function allEvents(store: Store): Promise<Logged[]> {
  const all: Logged[] = []
  for await (const { position, time, type, disk, data } of store.log()) {
    const fields = data as {
      op?: string
      offset?: number
      length?: number
      writes?: number
      extents?: readonly (readonly [number, number])[]
      backup?: string
    }
    const ranges: readonly (readonly [number, number])[] =
      type === 'write' ? [[fields.offset!, fields.length!]] : type === 'window' ? fields.extents! : []
    all.push({
      position,
      time,
      type,
      disk,
      op: fields.op ?? null,
      ranges,
      writes: type === 'write' ? 1 : type === 'window' ? fields.writes! : 0,
      bytes: ranges.reduce((sum, [, length]) => sum + length, 0),
      backup: fields.backup ?? null,
    })
  }
  return all
}
