/**
 * Which backups hold a write. By R11 a plan covers every write after its base up to its point, so no bits are needed: but for
 * plans that say themselves that they are not complete, and for bytes that the disk no longer had at the backup's point.
 */
import type { Point } from '../../events/types.ts'
import { lowest } from '../../projections/chain.ts'
import type { BackupState, DiskState } from '../../projections/state.ts'
import type { Store } from '../store/store.ts'

/** Ids of backups of the disk, oldest point first. */
export interface Holding {
  /** Succeeded, and the copy is there. */
  readonly in: readonly string[]
  /** They would hold it, and have not ended. */
  readonly pending: readonly string[]
  /** They would have held it, but failed or were cancelled. */
  readonly failed: readonly string[]
  /** They held it, and their copies are reported gone. */
  readonly forgotten: readonly string[]
  /** They may miss it: their plan was not complete, or a stretch was told later (R3, R35). */
  readonly doubtful: readonly string[]
  /** Succeeded, and do not hold it: begun before it, or based on a point after it. */
  readonly not: readonly string[]
}

export interface Touched {
  readonly kind: 'write' | 'window' | 'maybe-written' | 'lost'
  readonly position: number
}

export interface Holders {
  of(touch: Touched): Holding
  pointOf(backup: string): Point
}

export function holdersOf(
  store: Store,
  disk: DiskState,
  range: { readonly offset: number; readonly length: number },
): Holders {
  const backups = store
    .backups({ disk: disk.id })
    .filter(({ diskNumber }) => diskNumber === disk.number)
    .sort((a, b) => a.point.position - b.point.position)
  const byId = new Map(backups.map((backup) => [backup.id, backup]))
  return {
    of(touch) {
      const holding = { in: [], pending: [], failed: [], forgotten: [], doubtful: [], not: [] } as {
        [K in keyof Holding]: string[]
      }
      for (const backup of backups) {
        const where = whereOf(backup, touch, range)
        if (where !== null) holding[where].push(backup.id)
      }
      return holding
    },
    pointOf: (id) => byId.get(id)!.point,
  }
}

/** Null: it neither holds it nor made a copy that could be missed. */
function whereOf(
  backup: BackupState,
  touch: Touched,
  range: { readonly offset: number },
): keyof Holding | null {
  const { phase, copy } = backup
  const holds =
    touch.position <= backup.point.position &&
    (backup.whole || touch.position > lowest(backup)) &&
    range.offset < backup.size
  switch (phase.kind) {
    case 'failed':
    case 'cancelled':
      return holds ? 'failed' : null
    case 'running':
    case 'pending':
    case 'interrupted':
      return holds ? 'pending' : null
    case 'succeeded':
      if (copy.kind === 'forgotten') return holds ? 'forgotten' : null
      if (!holds) return 'not'
      return misses(backup, touch) ? 'doubtful' : 'in'
    default:
      throw new RangeError(`blame met a backup that is ${JSON.stringify(phase satisfies never)}`)
  }
}

function misses(backup: BackupState, touch: Touched): boolean {
  if (backup.whole) return false
  return !backup.complete || backup.doubt.some(({ to }) => to.position === touch.position)
}
