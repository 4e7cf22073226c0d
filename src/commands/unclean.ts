/**
 * What an unclean end left unknown about a disk that a caller records, and when it is told: at its attach, its detach, and
 * before that whenever a point of the disk is taken. A plan or slice that ends there must know of it (R32, R35).
 */
import type { DomainEvent, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'
import type { Command, DecideContext } from './types.ts'

const REASON =
  'unclean end: nobody says what was written between the last event of this disk and its next attach'

type Unclean = Pick<DecideContext, 'unclean' | 'uncleanSince'>

/**
 * The stretch that is unknown up to `at`: since the last event that this process found of the disk when it opened, or since
 * the point that told the part before. Empty when the disk ended well, or all is told.
 */
export function uncleanStretch(disk: DiskState, context: Unclean, at: Point): DomainEvent[] {
  if (!context.unclean.has(disk.id)) return []
  const since = context.uncleanSince?.get(disk.id) ?? disk.last
  const told = disk.lost.findLast(({ reason, to }) => reason === REASON && to.position >= since.position)
  const from = told?.to ?? since
  return from.position >= at.position ? [] : [{ type: 'stretch-lost', disk: disk.id, from, reason: REASON }]
}

/** What has to be told in a command's record ahead of its own events, because it takes points of these disks. */
export function toldBefore(
  command: Command,
  state: CatalogReader,
  context: Unclean,
  at: Point,
): DomainEvent[] {
  return [...new Set(disksWithPoint(command))].flatMap((id) => {
    const disk = state.disk(id)
    return disk?.recorder === 'caller' ? uncleanStretch(disk, context, at) : []
  })
}

function disksWithPoint(command: Command): string[] {
  switch (command.type) {
    case 'begin-backup':
    case 'bank':
      return [command.disk]
    case 'create-checkpoint':
      return command.bitmaps.map(({ disk }) => disk)
    default:
      return []
  }
}
