/**
 * Drives a store at random through everything a caller may do: writes one by one and in columns on several disks, backups of
 * every mode that end in every way, banks, deletions, checkpoints, transactions, resizes. Deterministic for a given `random`.
 */
import type { BackupMode } from '../../events/types.ts'
import { CheckpointError } from '../../src/errors.ts'
import { KiB, MiB } from '../../src/limits.ts'
import type { Store } from '../../src/store/store.ts'

export type Random = () => number

export const DISKS = ['vm/a', 'vm/b', 'vm/c'] as const
export const BITMAPS = ['daily', 'hourly'] as const
const SIZE = 64 * MiB

export function whole(random: Random, below: number): number {
  return Math.floor(random() * below)
}

export function pick<T>(random: Random, list: readonly T[]): T {
  return list[whole(random, list.length)]!
}

export async function prepare(store: Store): Promise<void> {
  for (const id of DISKS) {
    const size = store.disks().find(({ disk }) => disk === id)?.size ?? SIZE
    const disk = await store.ensureDisk(id, { size, quiet: true })
    for (const [i, name] of BITMAPS.entries()) {
      if (!disk.bitmaps().some(({ bitmap }) => bitmap === name))
        await disk.addBitmap(name, { granularity: i === 0 ? 64 * KiB : 4 * KiB, retention: 4 })
    }
  }
}

export async function write(store: Store, random: Random): Promise<void> {
  const disk = store.disk(pick(random, DISKS))
  const rows = random() < 0.5 ? 1 : 1 + whole(random, 300)
  const offsets = new Float64Array(rows)
  const lengths = new Float64Array(rows)
  for (let i = 0; i < rows; i++) {
    offsets[i] = whole(random, disk.size / 512 - 64) * 512
    lengths[i] = 512 * (1 + whole(random, 64))
  }
  await disk.recordWrites({ offsets, lengths })
}

/** One random command; a refusal is an answer like any other. Returns whether it was accepted. */
export async function command(store: Store, random: Random, id: string): Promise<boolean> {
  try {
    await act(store, random, id)
    return true
  } catch (error) {
    if (
      error instanceof CheckpointError &&
      !['STORE_FAILED', 'OUTCOME_UNKNOWN', 'IO_FAILED', 'LOG_DAMAGED'].includes(error.code)
    )
      return false
    throw error
  }
}

async function act(store: Store, random: Random, id: string): Promise<unknown> {
  const disk = store.disk(pick(random, DISKS))
  const bitmap = disk.bitmap(pick(random, BITMAPS))
  const options = { commandId: id }
  const running = store.backups().filter(({ state }) => state === 'running' || state === 'pending')
  switch (whole(random, 16)) {
    case 0:
    case 1:
    case 2: {
      const mode = pick<BackupMode>(random, [
        'full',
        'incremental',
        'incremental',
        'incremental',
        'differential',
        'copy',
      ])
      const since =
        mode === 'incremental' || mode === 'differential'
          ? pick(random, [
              'active',
              undefined,
              { position: whole(random, Math.max(1, store.head.position)) },
            ] as const)
          : undefined
      return await disk.beginBackup(
        {
          bitmap: bitmap.name,
          mode,
          id: `backup-${id}`,
          forceCycle: random() < 0.8,
          ...(since === undefined ? {} : { since }),
        },
        options,
      )
    }
    case 3:
    case 4:
    case 5:
    case 6: {
      if (running.length === 0) return undefined
      const backup = store.backup(pick(random, running).id)
      if (random() < 0.6) return await backup.succeed(options)
      return random() < 0.5
        ? await backup.fail('no space', options)
        : await backup.cancel('not needed', options)
    }
    case 7:
      return await bitmap.bank({ forceCycle: true, ...options })
    case 8: {
      const { slices } = await bitmap.slices()
      return slices.length === 0 ? undefined : await bitmap.deleteSlice(pick(random, slices).slice, options)
    }
    case 9:
      return await store.createCheckpoint(
        `check-${id}`,
        { bitmaps: [{ disk: disk.id, bitmap: bitmap.name }], forceCycle: true },
        options,
      )
    case 10: {
      const names = [...store.checkpoints()].map(({ name }) => name)
      return names.length === 0 ? undefined : await store.deleteCheckpoint(pick(random, names), options)
    }
    case 11:
      return await pick(random, [
        () => bitmap.clear(options),
        () => bitmap.disable(options),
        () => bitmap.enable(options),
        () => bitmap.enable(options),
      ])()
    case 12: {
      if (random() < 0.5) return await disk.resize(disk.size + (random() < 0.6 ? 1 : -1) * MiB, options)
      const other = disk.bitmap(BITMAPS[bitmap.name === BITMAPS[0] ? 1 : 0])
      return await bitmap.merge([{ disk: disk.id, bitmap: other.name }], options)
    }
    case 13: {
      const done = store.backups({ state: 'succeeded' })
      return done.length < 6
        ? undefined
        : await store.backup(pick(random, done).id).forget({ reason: 'old' }, options)
    }
    case 14: {
      // Neighbours of one disk: a chain often enough; else a refusal, which is no step.
      const done = store.backups({ disk: disk.id, state: 'succeeded' })
      const at = whole(random, Math.max(1, done.length))
      const of = done.slice(at, at + 2).map((backup) => backup.id)
      return of.length < 2 ? undefined : await store.recordCombined(`combined-${id}`, of, options)
    }
    default:
      return await store.transaction(
        [
          { type: 'clear-bitmap', disk: disk.id, bitmap: bitmap.name },
          { type: 'add-bitmap', disk: disk.id, bitmap: `extra-${id}` },
          { type: 'remove-bitmap', disk: disk.id, bitmap: `extra-${id}` },
        ],
        options,
      )
  }
}

/** A store in `folder`'s state after `steps` random steps. */
export async function drive(store: Store, random: Random, steps: number, name: string): Promise<void> {
  await prepare(store)
  for (let i = 0; i < steps; i++) {
    if (random() < 0.55) await write(store, random)
    else await command(store, random, `${name}-${i}`)
  }
}
