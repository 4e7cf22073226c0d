/**
 * What an unclean end left unknown about a disk that a caller records, and when it is told: at its attach, its detach, and
 * before that in every record that touches the disk. Told ahead of a point, because a plan or slice that ends there must know
 * of it; told ahead of everything else, because the record moves the disk's last event, where the next process would begin to
 * doubt if this one ended uncleanly too (R32, R35). Cost: nothing without such a disk, else one fold of the command's events.
 */
import type { DomainEvent, Point } from '../../events/types.ts'
import type { Catalog, CatalogReader } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'
import type { Command, DecideContext } from './types.ts'

/** Words of ours, so an anonymised incident keeps them. */
export const UNCLEAN_REASON =
  'unclean end: nobody says what was written between the last event of this disk and its next attach'

type Unclean = Pick<DecideContext, 'unclean' | 'uncleanSince'>

/**
 * The stretch that is unknown up to `at`: since the last event that this process found of the disk when it opened, or since
 * the point that told the part before. Empty when the disk ended well, or all is told.
 */
export function uncleanStretch(disk: DiskState, context: Unclean, at: Point): DomainEvent[] {
  if (!context.unclean.has(disk.id)) return []
  const since = context.uncleanSince?.get(disk.id) ?? disk.last
  const told = disk.lost.findLast(
    ({ reason, to }) => reason === UNCLEAN_REASON && to.position >= since.position,
  )
  const from = told?.to ?? since
  return from.position >= at.position
    ? []
    : [{ type: 'stretch-lost', disk: disk.id, from, reason: UNCLEAN_REASON }]
}

/** Whether an event is such a stretch. Callers may declare one in the same words; nothing but the words tells them apart. */
export function isUncleanStretch(
  event: DomainEvent | undefined,
): event is Extract<DomainEvent, { type: 'stretch-lost' }> {
  return event?.type === 'stretch-lost' && event.reason === UNCLEAN_REASON
}

/** What has to be told before a command is decided, because it takes points of these disks. */
export function toldBefore(
  command: Command,
  state: CatalogReader,
  context: Unclean,
  at: Point,
): DomainEvent[] {
  return toldOf(new Set(disksWithPoint(command)), state, context, at)
}

/**
 * What else has to be told ahead of `own`, the events that a command came to: the stretches of the disks whose last event they
 * move. They change nothing of what was decided. `first`: position of the first of them.
 */
export function toldAhead(
  command: Command,
  own: readonly DomainEvent[],
  state: Catalog,
  context: Unclean,
  { first, at }: { readonly first: number; readonly at: Point },
): DomainEvent[] {
  if (context.unclean.size === 0 || own.length === 0 || tellsItsOwn(command)) return []
  const after = state.fork()
  own.forEach((event, index) => {
    after.applyEvent(event, first + index, at)
  })
  const moved = [...context.unclean].filter(
    (id) => after.disk(id)?.last.position !== state.disk(id)?.last.position,
  )
  return toldOf(moved, state, context, at)
}

/** An attach that says `quiet` vouches for the stretch, so it is never told for it. */
function tellsItsOwn({ type }: Command): boolean {
  return type === 'attach-disk' || type === 'detach-disk'
}

/** The disk of which nothing is unknown any more, because the command vouches for it, told it all, or took it away. */
export function settledBy(command: Command): string | null {
  switch (command.type) {
    case 'attach-disk':
    case 'detach-disk':
    case 'remove-disk':
      return command.disk
    default:
      return null
  }
}

function toldOf(ids: Iterable<string>, state: CatalogReader, context: Unclean, at: Point): DomainEvent[] {
  return [...ids].flatMap((id) => {
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
