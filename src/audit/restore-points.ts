/**
 * Every point in time that a backup of a disk was made of, and whether the copies that are kept can still restore it (R25):
 * by which chain, or since when not and through whose loss. From the recorded backups alone, without bits.
 */
import type { Point } from '../../events/types.ts'
import type { BackupState } from '../../projections/state.ts'
import { breakers, byPoint, type Chain, Chains, doubtOf, isFlawed, isKept } from './chains.ts'

/**
 * `whole`: a chain of kept copies surely gives the disk as it was. `doubtful`: a chain is there, and may lack writes.
 * `broken`: a kept copy is of this point, but what it has to lie on is gone. `gone`: no copy of this point is kept.
 */
export type PointState = 'whole' | 'doubtful' | 'broken' | 'gone'

export interface PointCopy {
  readonly id: string
  readonly bitmap: string
  readonly mode: BackupState['mode']
  readonly kept: boolean
  /** What it was combined from; null for a backup that was begun. */
  readonly of: readonly string[] | null
}

/** The loss that ended the last chain to a point. */
export interface BrokenBy {
  readonly backup: string
  readonly at: Point
  readonly reason: string
}

export interface RestorePoint {
  readonly point: Point
  readonly state: PointState
  readonly copies: readonly PointCopy[]
  /** Ids of the images to lay, oldest first: the fewest there can be, of those the fewest bytes. Empty: there is no chain. */
  readonly chain: readonly string[]
  /** To lay, over the whole chain. */
  readonly bytes: number
  /** Null when there is a chain, or when there never was one. */
  readonly since: BrokenBy | null
  /** In words: why it is not whole; empty when it is. */
  readonly why: string
}

/** `copies`: succeeded backups of one incarnation of a disk. Oldest point first. */
export function restorePoints(copies: readonly BackupState[]): RestorePoint[] {
  const kept = copies.filter(isKept)
  const sound = new Chains(kept.filter((copy) => !isFlawed(copy)))
  const any = new Chains(kept)
  const broken = breakers(copies.filter((copy) => !isFlawed(copy)))
  const brokenAny = breakers(copies)
  return byPoint(copies).map(([position, at]) => {
    const point = at[0]!.point
    const listed = at.map(pointCopy)
    const clean = sound.to(position, 'clean')
    if (clean !== null)
      return { point, copies: listed, state: 'whole', ...shown(clean), since: null, why: '' }
    const chain = sound.to(position, 'any') ?? any.to(position, 'any')
    if (chain !== null) {
      return {
        point,
        copies: listed,
        state: 'doubtful',
        ...shown(chain),
        since: null,
        why: doubtInWords(chain),
      }
    }
    const by = broken.get(position) ?? brokenAny.get(position)
    const since = by === undefined ? null : brokenBy(by)
    const state = at.some(isKept) ? 'broken' : 'gone'
    return { point, copies: listed, state, chain: [], bytes: 0, since, why: lossInWords(at, since) }
  })
}

function pointCopy(copy: BackupState): PointCopy {
  const { id, bitmap, mode, of } = copy
  return { id, bitmap, mode, kept: isKept(copy), of }
}

function shown({ images, bytes }: Chain): { readonly chain: readonly string[]; readonly bytes: number } {
  return { chain: images.map(({ id }) => id), bytes }
}

function brokenBy({ id, copy }: BackupState): BrokenBy | null {
  return copy.kind === 'kept' ? null : { backup: id, at: copy.at, reason: copy.reason }
}

function doubtInWords({ images }: Chain): string {
  const flawed = images.filter(isFlawed).map(({ id }) => `"${id}" took bits that miss something`)
  const last = images.at(-1)
  const doubts = last === undefined ? [] : doubtOf(last)
  const stretches = doubts.map(
    ({ from, to, reason }) =>
      `writes after position ${from.position} may be missing, as was told at position ${to.position} (${reason})`,
  )
  return [...flawed, ...new Set(stretches)].join('; ')
}

function lossInWords(at: readonly BackupState[], since: BrokenBy | null): string {
  const kept = at.filter(isKept)
  if (since === null) {
    return kept.length === 0
      ? 'its copy is forgotten, and no whole copy ever lay under it'
      : 'no whole copy ever lay under it: a full backup was never made, or not of this disk'
  }
  const why = since.reason === '' ? '' : ` (${since.reason})`
  if (at.some(({ id }) => id === since.backup))
    return `its copy is forgotten since position ${since.at.position}${why}`
  const under = `"${since.backup}", which it has to lie on, is forgotten since position ${since.at.position}${why}`
  return kept.length === 0 ? `${under}, and so is its own copy` : under
}

/** What forgetting one copy would do. */
export interface WouldBreak {
  readonly backup: string
  /** Its own point, when no other chain gives it. */
  readonly loses: readonly RestorePoint[]
  /** Later points whose kept copies would be of no use any more. */
  readonly breaks: readonly RestorePoint[]
  /** Copies that an offline merge should make one of first: then only the own point is lost. Oldest first. */
  readonly combine: readonly (readonly string[])[]
}

/** `copies`: as for `restorePoints`; nothing is recorded. */
export function wouldBreak(copies: readonly BackupState[], id: string): WouldBreak {
  const subject = copies.find((copy) => copy.id === id)
  if (subject === undefined || !isKept(subject)) return { backup: id, loses: [], breaks: [], combine: [] }
  const now = restorePoints(copies).filter(hasChain)
  const then = restorePoints(copies.filter((copy) => copy !== subject))
  const left = new Map(then.filter(hasChain).map((point) => [point.point.position, point]))
  // Worse is also broken: from whole to doubtful.
  const lost = now.filter(({ point, state }) => {
    const after = left.get(point.position)
    return after === undefined || (state === 'whole' && after.state !== 'whole')
  })
  const own = (point: RestorePoint) => point.point.position === subject.point.position
  const breaks = lost.filter((point) => !own(point))
  return { backup: id, loses: lost.filter(own), breaks, combine: pairsToCombine(id, breaks) }
}

function hasChain({ chain }: RestorePoint): boolean {
  return chain.length > 0
}

/** The copies that lie right on the subject in the chains that would break: each takes its bytes along when merged with it. */
function pairsToCombine(id: string, breaks: readonly RestorePoint[]): string[][] {
  const above = new Set(breaks.flatMap(({ chain }) => chain[chain.indexOf(id) + 1] ?? []))
  return [...above].map((next) => [id, next])
}
