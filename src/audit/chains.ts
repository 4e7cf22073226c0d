/**
 * Which points the copies at hand can restore, and by which chain: whole copies lie on nothing, any other on an image of a
 * point from its base to its own (R25). Pure: no store, no bits.
 *
 * Points are settled oldest first, each from the copies of that very point, so the cost is one look at every pair of a copy
 * and a point in its reach: a few for increments, all since its base for a differential.
 */
import type { LostStretch } from '../../events/types.ts'
import { flawsOf, lowest } from '../../projections/chain.ts'
import type { BackupState } from '../../projections/state.ts'

/** The images to lay, oldest first, the first on nothing. */
export interface Chain {
  readonly images: readonly BackupState[]
  /** To lay, over all images. */
  readonly bytes: number
}

/** How good a way to a point is: few images, then few bytes. */
interface Way {
  readonly last: BackupState
  readonly below: Way | null
  readonly images: number
  readonly bytes: number
}

/** Only succeeded backups made copies. Another incarnation of a disk is another disk. */
export function copiesOf(backups: Iterable<BackupState>, diskNumber: number): BackupState[] {
  return [...backups].filter(({ phase, diskNumber: own }) => phase.kind === 'succeeded' && own === diskNumber)
}

export function isKept({ copy }: BackupState): boolean {
  return copy.kind === 'kept'
}

/** It misses something that no copy on top makes good: α's bits were taken as they were, or a stretch fell between two backups. */
export function isFlawed(copy: BackupState): boolean {
  if (copy.of === null && copy.whole) return false
  return !copy.complete || flawsOf(copy).length > 0
}

/** Why an image of its point may lack writes, although a later copy would bring them. */
export function doubtOf(copy: BackupState): readonly LostStretch[] {
  return copy.of === null && copy.whole ? [] : copy.doubt
}

/** Everything that `copies` can restore. */
export class Chains {
  readonly #best = new Map<number, Way>()
  readonly #clean = new Map<number, Way>()

  constructor(copies: readonly BackupState[]) {
    const positions: number[] = []
    for (const [position, at] of byPoint(copies)) {
      const ways = at.flatMap((copy) => this.#wayOver(copy, positions) ?? [])
      const best = bestOf(ways)
      if (best === undefined) continue
      this.#best.set(position, best)
      positions.push(position)
      const clean = bestOf(ways.filter(({ last }) => doubtOf(last).length === 0))
      if (clean !== undefined) this.#clean.set(position, clean)
    }
  }

  /** The chain of fewest images to a point, of those the one of fewest bytes. `clean`: that surely gives its content. */
  to(position: number, kind: 'any' | 'clean'): Chain | null {
    const way = (kind === 'clean' ? this.#clean : this.#best).get(position)
    return way === undefined ? null : { images: imagesOf(way), bytes: way.bytes }
  }

  #wayOver(copy: BackupState, positions: readonly number[]): Way | null {
    if (copy.whole) return { last: copy, below: null, images: 1, bytes: copy.bytes }
    let below: Way | undefined
    for (let i = firstAtLeast(positions, lowest(copy)); i < positions.length; i++) {
      const way = this.#best.get(positions[i]!)!
      if (below === undefined || isBetter(way, below)) below = way
    }
    if (below === undefined) return null
    return { last: copy, below, images: below.images + 1, bytes: below.bytes + copy.bytes }
  }
}

function isBetter(a: Way, b: Way): boolean {
  return a.images < b.images || (a.images === b.images && a.bytes < b.bytes)
}

function bestOf(ways: readonly Way[]): Way | undefined {
  return ways.reduce<Way | undefined>(
    (best, way) => (best === undefined || isBetter(way, best) ? way : best),
    undefined,
  )
}

function imagesOf(way: Way): BackupState[] {
  const images: BackupState[] = []
  for (let at: Way | null = way; at !== null; at = at.below) images.push(at.last)
  return images.reverse()
}

/**
 * For each point the forgotten copy that broke the last chain to it: had that one been kept, the chain would have lasted longest
 * of all there ever were. A point without an entry either has a chain, or never had one.
 *
 * It is the way whose first loss comes latest: one more pass over the same pairs, with the losses instead of the lengths.
 */
export function breakers(copies: readonly BackupState[]): ReadonlyMap<number, BackupState> {
  const lasted = new Map<number, { readonly until: number; readonly by: BackupState | null }>()
  const positions: number[] = []
  for (const [position, at] of byPoint(copies)) {
    let best: { until: number; by: BackupState | null } | undefined
    for (const copy of at) {
      const own = copy.copy.kind === 'forgotten' ? copy.copy.at.position : Number.POSITIVE_INFINITY
      let under = copy.whole ? { until: Number.POSITIVE_INFINITY, by: null as BackupState | null } : undefined
      for (let i = firstAtLeast(positions, lowest(copy)); !copy.whole && i < positions.length; i++) {
        const below = lasted.get(positions[i]!)!
        if (under === undefined || below.until > under.until) under = below
      }
      if (under === undefined) continue
      const whole = own < under.until ? { until: own, by: copy } : under
      if (best === undefined || whole.until > best.until) best = whole
    }
    if (best === undefined) continue
    lasted.set(position, best)
    positions.push(position)
  }
  const broken = [...lasted].flatMap(([position, { by }]) => (by === null ? [] : [[position, by] as const]))
  return new Map(broken)
}

/** Copies by the position of their point, oldest point first. */
export function byPoint(copies: readonly BackupState[]): [position: number, copies: BackupState[]][] {
  const points = new Map<number, BackupState[]>()
  for (const copy of copies) {
    const at = points.get(copy.point.position)
    if (at === undefined) points.set(copy.point.position, [copy])
    else at.push(copy)
  }
  return [...points].sort(([a], [b]) => a - b)
}

function firstAtLeast(ascending: readonly number[], least: number): number {
  let low = 0
  let high = ascending.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (ascending[middle]! < least) low = middle + 1
    else high = middle
  }
  return low
}
