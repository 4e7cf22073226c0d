/**
 * Which of a record's events came from which command of its transaction: read from the events alone, never decided again.
 *
 * Deciding again would tie an old answer to today's rules; a record is what happened, whatever the rules are now (R13).
 * Each command's events stand together and begin with an event that names its subject, so one look at each event does.
 */
import type { DomainEvent } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { checkpointDeletion } from './checkpoints.ts'
import { sameMark } from './marks.ts'
import type { Command } from './types.ts'
import { isUncleanStretch, UNCLEAN_REASON } from './unclean.ts'

type EventType = DomainEvent['type']

export interface Came {
  /** What an unclean end had left unknown, told ahead of the command's own events (R32). */
  readonly told: readonly DomainEvent[]
  /** What the command came to. Of `remove-bitmap` none: its event stands at the record's end (R20). */
  readonly own: readonly DomainEvent[]
}

/** What came from `command` at the front of `events`. `state` is the catalog just before them. */
export function eventsOf(command: Command, events: readonly DomainEvent[], state: CatalogReader): Came {
  const ahead = toldFirst(command, events, state)
  const own = ahead + lengthOf(command, events.slice(ahead), state)
  // Where nothing of its own follows, they stand ahead of another command's.
  if (own === ahead && command.type !== 'remove-bitmap') return { told: [], own: [] }
  return { told: events.slice(0, ahead), own: events.slice(ahead, own) }
}

/** How many of the first events tell stretches of the command's disks. An attach and a detach count them as their own. */
function toldFirst(command: Command, events: readonly DomainEvent[], state: CatalogReader): number {
  if (command.type === 'attach-disk' || command.type === 'detach-disk') return 0
  // Declared in the same words: then nothing tells them apart, and the first is taken for its own.
  if (command.type === 'declare-lost' && command.reason === UNCLEAN_REASON) return 0
  const disks = disksOf(command, state)
  return run(events, 0, (event) => isUncleanStretch(event) && disks.has(event.disk))
}

/** Disks that a command can touch; `state` is the catalog just before it. */
export function disksOf(command: Command, state: CatalogReader): ReadonlySet<string> {
  if ('disk' in command) return new Set([command.disk])
  switch (command.type) {
    case 'create-checkpoint':
      return new Set(command.bitmaps.map(({ disk }) => disk))
    case 'delete-checkpoint':
      return new Set(state.checkpoint(command.checkpoint)?.bitmaps.map(({ disk }) => disk))
    case 'succeed-backup':
    case 'fail-backup':
    case 'cancel-backup':
    case 'interrupt-backup':
    case 'resume-backup': {
      const members = [...state.backups()].filter(({ id }) => together(state, command.backup, id))
      return new Set(members.map(({ disk }) => disk))
    }
    case 'forget-backup':
    case 'record-combined':
    case 'abort':
      return new Set()
    default:
      throw new TypeError(`there is no command ${JSON.stringify(command satisfies never)}`)
  }
}

function lengthOf(command: Command, events: readonly DomainEvent[], state: CatalogReader): number {
  const first = events[0]
  if (first === undefined) return 0
  switch (command.type) {
    case 'add-disk':
      return one(first.type === 'disk-added' && first.disk === command.disk)
    case 'resize-disk':
      return one(first.type === 'disk-resized' && first.disk === command.disk && first.size === command.size)
    case 'remove-disk':
      return one(first.type === 'disk-removed' && first.disk === command.disk)
    case 'attach-disk': {
      const lost = first.type === 'stretch-lost' && first.disk === command.disk ? 1 : 0
      const attached = events[lost]
      const own =
        attached?.type === 'disk-attached' &&
        attached.disk === command.disk &&
        attached.recorder === command.recorder
      return own ? lost + 1 : 0
    }
    case 'detach-disk': {
      const lost = first.type === 'stretch-lost' && first.disk === command.disk ? 1 : 0
      const removed = run(
        events,
        lost,
        (event) =>
          event.type === 'bitmap-removed' && event.because === 'detach' && event.disk === command.disk,
      )
      const detached = events[lost + removed]
      return detached?.type === 'disk-detached' && detached.disk === command.disk ? lost + removed + 1 : 0
    }
    case 'declare-lost':
      return one(first.type === 'stretch-lost' && first.disk === command.disk)
    case 'record-window':
      return one(first.type === 'window' && first.disk === command.disk)
    case 'mark-disk':
      return one(
        first.type === 'disk-marked' && first.disk === command.disk && sameMark(first.mark, command.mark),
      )
    case 'add-bitmap':
      return one(about(command, first, 'bitmap-added'))
    case 'remove-bitmap':
      return 0 // Its event stands at the record's end (R20).
    case 'clear-bitmap':
      return one(about(command, first, 'bitmap-cleared'))
    case 'enable-bitmap':
      return one(about(command, first, 'bitmap-enabled'))
    case 'disable-bitmap':
      return one(about(command, first, 'bitmap-disabled'))
    case 'merge-bitmaps': {
      const others = command.sources.some(
        ({ disk, bitmap }) => disk !== command.disk || bitmap !== command.bitmap,
      )
      return one(others && about(command, first, 'bitmap-merged'))
    }
    case 'set-retention': {
      if (
        first.type !== 'retention-set' ||
        !about(command, first, 'retention-set') ||
        first.retention !== command.retention
      )
        return 0
      return (
        1 +
        run(
          events,
          1,
          (event) =>
            event.type === 'slice-dropped' &&
            event.because === 'retention' &&
            about(command, event, 'slice-dropped'),
        )
      )
    }
    case 'bank':
      return banked(events, 0)
    case 'delete-slice':
      return one(about(command, first, 'slice-dropped') || about(command, first, 'slice-merged'))
    case 'begin-backup':
      return one(first.type === 'backup-begun' && first.backup === command.backup)
    case 'succeed-backup':
      return succeeded(command.backup, events, state)
    case 'fail-backup':
    case 'cancel-backup': {
      const type = command.type === 'fail-backup' ? 'backup-failed' : 'backup-cancelled'
      return run(events, 0, (event) => event.type === type && together(state, command.backup, event.backup))
    }
    case 'interrupt-backup':
      return one(first.type === 'backup-interrupted' && first.backup === command.backup)
    case 'resume-backup':
      return one(first.type === 'backup-resumed' && first.backup === command.backup)
    case 'create-checkpoint': {
      if (first.type !== 'checkpoint-created' || first.checkpoint !== command.checkpoint) return 0
      return first.bitmaps.reduce((length) => length + banked(events, length), 1)
    }
    case 'delete-checkpoint': {
      if (first.type !== 'checkpoint-deleted' || first.checkpoint !== command.checkpoint) return 0
      return 1 + checkpointDeletion(state, command.checkpoint).merged.length
    }
    case 'forget-backup':
      return one(first.type === 'backup-forgotten' && first.backup === command.backup)
    case 'record-combined':
      return one(first.type === 'backups-combined' && first.backup === command.backup)
    case 'abort':
      return 0
  }
}

const one = (own: boolean): number => (own ? 1 : 0)

function about(
  ref: { readonly disk: string; readonly bitmap: string },
  event: DomainEvent,
  type: EventType,
): boolean {
  return (
    event.type === type &&
    'bitmap' in event &&
    'disk' in event &&
    event.disk === ref.disk &&
    event.bitmap === ref.bitmap
  )
}

/** How many events from `start` on are of the kind asked for. */
function run(events: readonly DomainEvent[], start: number, own: (event: DomainEvent) => boolean): number {
  const end = events.findIndex((event, index) => index >= start && !own(event))
  return (end === -1 ? events.length : end) - start
}

/** Drops that made room, then the slice that got it. */
function banked(events: readonly DomainEvent[], start: number): number {
  const drops = run(
    events,
    start,
    (event) => event.type === 'slice-dropped' && event.because === 'force-cycle',
  )
  return drops + one(events[start + drops]?.type === 'slice-frozen')
}

function together(state: CatalogReader, id: string, other: string): boolean {
  if (id === other) return true
  const group = state.backup(id)?.group ?? null
  return group !== null && state.backup(other)?.group === group
}

function succeeded(id: string, events: readonly DomainEvent[], state: CatalogReader): number {
  if (events[0]?.type === 'backup-pending') return one(events[0].backup === id)
  let length = 0
  for (;;) {
    const event = events[length]
    if (event?.type !== 'backup-succeeded' || !together(state, id, event.backup)) return length
    length += 1
    if (event.bits === 'reset') length += 1
    if (event.bits === 'banked') length += banked(events, length)
  }
}
