/**
 * What a caller is told: a pure function of the command, its events, and the state just before them.
 *
 * Because nothing else goes in, the same answer can be given again from the log when a command id comes back (R13).
 */
import type { Base, BitmapRef, DomainEvent } from '../../events/types.ts'
import type { Catalog, CatalogReader } from '../../projections/catalog.ts'
import { assert } from '../errors.ts'
import { findBackup } from './backups.ts'
import { type CheckpointDeletion, checkpointDeletion } from './checkpoints.ts'
import { eventsOf } from './split.ts'
import type { Command } from './types.ts'

/** A slice that was dropped to make room (R15), or because retention was lowered. */
export interface DroppedSlice extends BitmapRef {
  readonly slice: number
}

/** How one backup stands after a succeed, fail or cancel: the caller's own, or a member of its group (R14). */
export interface BackupOutcome extends BitmapRef {
  readonly id: string
  readonly state: 'pending' | 'succeeded' | 'failed' | 'cancelled'
  /** The slice that an incremental banked; null otherwise. */
  readonly slice: number | null
  /** After a full: the new one. */
  readonly generation: number
  readonly dropped: readonly DroppedSlice[]
}

export type Answer =
  /** `changed` false: accepted, and all was as wanted already. */
  | { readonly kind: 'done'; readonly changed: boolean }
  | ({ readonly kind: 'bitmap'; readonly generation: number } & BitmapRef)
  | ({
      readonly kind: 'retention'
      readonly generation: number
      readonly dropped: readonly DroppedSlice[]
    } & BitmapRef)
  | ({
      readonly kind: 'banked'
      readonly generation: number
      readonly slice: number
      readonly dropped: readonly DroppedSlice[]
    } & BitmapRef)
  | ({
      readonly kind: 'slice-deleted'
      readonly generation: number
      readonly slice: number
      readonly into: number | null
    } & BitmapRef)
  | ({
      readonly kind: 'begun'
      readonly id: string
      readonly generation: number
      readonly base: Base
      readonly digest: string
      readonly bytes: number
      readonly complete: boolean
    } & BitmapRef)
  /** `members`: every backup whose state changed, the named one first. */
  | ({ readonly kind: 'ended'; readonly members: readonly BackupOutcome[] } & BackupOutcome)
  | {
      readonly kind: 'checkpoint'
      readonly checkpoint: string
      readonly slices: readonly (BitmapRef & { readonly slice: number; readonly generation: number })[]
      readonly dropped: readonly DroppedSlice[]
    }
  | ({ readonly kind: 'checkpoint-deleted'; readonly checkpoint: string } & CheckpointDeletion)

/**
 * The answer to `command`, which came to `events`. `before` is the state just before them, `first` the position of the
 * first of them (in a transaction neither is the record's).
 */
export function answerOf(
  command: Command,
  events: readonly DomainEvent[],
  before: CatalogReader,
  first: number = before.last.position + 1,
): Answer {
  switch (command.type) {
    case 'add-bitmap':
      return { kind: 'bitmap', disk: command.disk, bitmap: command.bitmap, generation: first }
    case 'set-retention':
      return {
        kind: 'retention',
        ...refOf(command),
        generation: generationOf(before, command),
        dropped: droppedIn(events),
      }
    case 'bank': {
      const frozen = events.find((event) => event.type === 'slice-frozen')
      assert(frozen !== undefined, 'a bank froze a slice')
      return {
        kind: 'banked',
        ...refOf(command),
        generation: generationOf(before, command),
        slice: frozen.slice,
        dropped: droppedIn(events),
      }
    }
    case 'delete-slice': {
      const into = events.find((event) => event.type === 'slice-merged')?.into ?? null
      return {
        kind: 'slice-deleted',
        ...refOf(command),
        generation: generationOf(before, command),
        slice: command.slice,
        into,
      }
    }
    case 'begin-backup': {
      const begun = events.find((event) => event.type === 'backup-begun')
      assert(begun !== undefined, 'a begin began')
      const { backup: id, base, digest, bytes, complete } = begun
      return {
        kind: 'begun',
        ...refOf(command),
        id,
        generation: generationOf(before, command),
        base,
        digest,
        bytes,
        complete,
      }
    }
    case 'succeed-backup':
    case 'fail-backup':
    case 'cancel-backup':
      return endedAnswer(command.backup, events, before, first)
    case 'create-checkpoint': {
      const slices = events
        .filter((event) => event.type === 'slice-frozen')
        .map((event) => ({ ...refOf(event), slice: event.slice, generation: generationOf(before, event) }))
      return { kind: 'checkpoint', checkpoint: command.checkpoint, slices, dropped: droppedIn(events) }
    }
    case 'delete-checkpoint':
      return {
        kind: 'checkpoint-deleted',
        checkpoint: command.checkpoint,
        ...checkpointDeletion(before, command.checkpoint),
      }
    default:
      return { kind: 'done', changed: events.length > 0 }
  }
}

/**
 * The answers to all commands of a record, from its events: what `decideTransaction` answered when it was decided (R13).
 * `before` is the catalog just before the record (`at(record.first - 1)`); backup ids must be those of the record.
 */
export function answersOf(
  commands: readonly Command[],
  events: readonly DomainEvent[],
  before: Catalog,
): Answer[] {
  const fork = before.fork()
  const first = before.last.position + 1
  const at = { position: before.last.position + events.length, time: null }
  const removals = events.filter((event) => event.type === 'bitmap-removed' && event.because === 'command')
  let done = 0
  const apply = (event: DomainEvent): void => {
    fork.applyEvent(event, first + done, at)
    done += 1
  }
  return commands.map((command) => {
    const { told, own } = eventsOf(command, events.slice(done), fork)
    told.forEach(apply)
    const came = command.type === 'remove-bitmap' ? removals.splice(0, 1) : own
    const answer = answerOf(command, came, fork, first + done)
    own.forEach(apply)
    return answer
  })
}

function refOf({ disk, bitmap }: BitmapRef): BitmapRef {
  return { disk, bitmap }
}

function generationOf(state: CatalogReader, { disk, bitmap }: BitmapRef): number {
  const found = state.disk(disk)?.bitmaps.get(bitmap)
  assert(found !== undefined, 'an answer is about a bitmap that exists')
  return found.generation
}

function droppedIn(events: readonly DomainEvent[]): DroppedSlice[] {
  return events
    .filter((event) => event.type === 'slice-dropped')
    .map((event) => ({ ...refOf(event), slice: event.slice }))
}

function endedAnswer(
  id: string,
  events: readonly DomainEvent[],
  before: CatalogReader,
  first: number,
): Answer {
  const members: BackupOutcome[] = []
  events.forEach((event, index) => {
    switch (event.type) {
      case 'backup-pending':
        members.push(outcome(event.backup, 'pending', before))
        break
      case 'backup-succeeded':
        members.push(success(event.backup, events, index, before, first))
        break
      case 'backup-failed':
        members.push(outcome(event.backup, 'failed', before))
        break
      case 'backup-cancelled':
        members.push(outcome(event.backup, 'cancelled', before))
        break
      default:
        break
    }
  })
  const own = members.find((member) => member.id === id)
  assert(own !== undefined, 'a backup that was ended is among those that ended')
  return { kind: 'ended', ...own, members: [own, ...members.filter((member) => member !== own)] }
}

function outcome(id: string, state: BackupOutcome['state'], before: CatalogReader): BackupOutcome {
  const { disk, bitmap, generation } = findBackup(before, id)
  return { id, disk, bitmap, state, slice: null, generation, dropped: [] }
}

/** What follows a success, up to the next backup's, is its doing: dropped slices, its own slice, or a reset. */
function success(
  id: string,
  events: readonly DomainEvent[],
  index: number,
  before: CatalogReader,
  first: number,
): BackupOutcome {
  const next = events.findIndex((event, place) => place > index && event.type === 'backup-succeeded')
  const own = events.slice(index, next === -1 ? undefined : next)
  const slice = own.find((event) => event.type === 'slice-frozen')?.slice ?? null
  const reset = own.findIndex((event) => event.type === 'bitmap-reset')
  const plain = outcome(id, 'succeeded', before)
  return {
    ...plain,
    slice,
    dropped: droppedIn(own),
    generation: reset === -1 ? plain.generation : first + index + reset,
  }
}
