/**
 * What could be copied now to make good for copies that are gone, each as a request ready to be made and with its size by dry
 * run (R25): increments onto the newest point that can be restored, a full, and what was deleted, made again.
 *
 * The bits of a deleted backup may still be there, in slices or in the log; its bytes are not. So everything here copies the
 * disk as it is now, and gives one more point: now. Cost: one dry run each.
 */
import type { Point } from '../../events/types.ts'
import type { BackupState } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { formatPoint } from '../store/points.ts'
import type { Store } from '../store/store.ts'
import type { Plan, PlanRequest, PlanSource } from '../store/types.ts'
import { commandLine } from './command-line.ts'
import type { RestorePoint } from './restore-points.ts'

/** The store that is asked, and its folder as command lines name it. */
export interface Asked {
  readonly store: Store
  readonly folder: string | null
}

/** A backup to be made now. */
export interface Repair {
  /** `increment`: what changed since the newest restorable point. `recreate`: since the base of a deleted one. */
  readonly kind: 'increment' | 'full' | 'recreate'
  /** The forgotten backup that it stands in for. */
  readonly of: string | null
  readonly request: PlanRequest
  /** Begins it. Then copy its extents, and `backup succeed`. */
  readonly command: string
  /** To copy now. */
  readonly bytes: number
  readonly base: Plan['base']
  /** Where its bits come from: slices that are retained, α, stretches of the log. */
  readonly merges: readonly PlanSource[]
  /** The point that it is laid on, and the chain to there; null and empty when it lies on nothing. */
  readonly liesOn: Point | null
  readonly chain: readonly string[]
}

/** What stands in the way of an offer: the bitmap is busy, or its retention is full. */
export interface Hindrance {
  readonly bitmap: string
  readonly code: string
  readonly message: string
}

export interface Offers {
  readonly offers: readonly Repair[]
  readonly hindered: readonly Hindrance[]
}

/** The increments that continue from `onto`, one for each bitmap named, and a full; the smallest first. */
export async function repairsNow(
  asked: Asked,
  disk: string,
  bitmaps: readonly string[],
  onto: RestorePoint | null,
): Promise<Offers> {
  const offers: Repair[] = []
  const hindered: Hindrance[] = []
  for (const bitmap of bitmaps) {
    const info = asked.store.bitmap(disk, bitmap)
    if (info.busy) {
      hindered.push({
        bitmap,
        code: 'BITMAP_BUSY',
        message: 'a backup runs on it; wait for that one, or cancel it',
      })
      continue
    }
    if (onto !== null) {
      const made = await increment(asked, disk, bitmap, onto)
      if ('offer' in made) offers.push(made.offer)
      if (made.hindrance !== null) hindered.push(made.hindrance)
    }
    // A full would forget every slice; a copy is as good to lie on, and leaves them. Without any point yet there is nothing to spare.
    offers.push(await repair(asked, 'full', { disk, bitmap, mode: onto === null ? 'full' : 'copy' }, null))
  }
  offers.sort((a, b) => a.bytes - b.bytes)
  // Every full is as large as every other, so one is enough.
  const full = offers.find(({ kind }) => kind === 'full')
  return { offers: offers.filter((offer) => offer.kind !== 'full' || offer === full), hindered }
}

/** Incremental, so that the next one continues from it; where retention is full, differential, which needs no room. */
async function increment(
  asked: Asked,
  disk: string,
  bitmap: string,
  onto: RestorePoint,
): Promise<{ readonly offer: Repair; readonly hindrance: Hindrance | null }> {
  const since = sinceOf(onto)
  try {
    const offer = await repair(asked, 'increment', { disk, bitmap, mode: 'incremental', since }, onto)
    return { offer, hindrance: null }
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'RETENTION_FULL') throw error
    const offer = await repair(asked, 'increment', { disk, bitmap, mode: 'differential', since }, onto)
    return { offer, hindrance: { bitmap, code: error.code, message: error.message } }
  }
}

/** A kept copy of the point gives it its name; R11 wants that of an increment whose base lies after its slice's begin. */
function sinceOf(onto: RestorePoint): { readonly backup: string } {
  return { backup: onto.chain.at(-1)! }
}

/**
 * What a forgotten backup held, made again since its base: its point becomes now. Null when its bitmap is gone or busy, or
 * when nothing is left that it could be laid on.
 */
export async function recreation(
  asked: Asked,
  lost: BackupState,
  points: readonly RestorePoint[],
): Promise<Repair | null> {
  const { disk, bitmap, base } = lost
  const info = asked.store.bitmaps(disk).find((held) => held.bitmap === bitmap)
  if (info === undefined || info.busy) return null
  if (base.kind === 'none')
    return await repair(asked, 'recreate', { disk, bitmap, mode: 'copy' }, null, lost.id)
  const onto = points.findLast(({ point, state }) => state === 'whole' && point.position >= base.position)
  if (onto === undefined) return null
  const since = base.position < 0 ? 'start' : { position: base.position }
  return await repair(asked, 'recreate', { disk, bitmap, mode: 'differential', since }, onto, lost.id)
}

async function repair(
  { store, folder }: Asked,
  kind: Repair['kind'],
  request: PlanRequest,
  onto: RestorePoint | null,
  of: string | null = null,
): Promise<Repair> {
  const plan = await store.plan(request)
  return {
    kind,
    of,
    request,
    command: beginCommand(folder, request),
    bytes: plan.bytes,
    base: plan.base,
    merges: plan.merges,
    liesOn: onto?.point ?? null,
    chain: onto?.chain ?? [],
  }
}

export function beginCommand(folder: string | null, { disk, bitmap, mode, since }: PlanRequest): string {
  const base = since === undefined ? [] : ['--since', formatPoint(since)]
  return commandLine(folder, ['backup', 'begin', disk, bitmap, '--mode', mode, ...base])
}
