/**
 * Which commands a record of events can have come from. The log holds what happened, not what was asked; most commands can be
 * read off their events all the same. What cannot is said, with the reason.
 */
import type { DomainEvent, LogRecord, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { disksOf } from '../commands/split.ts'
import type { Command } from '../commands/types.ts'
import { isUncleanStretch } from '../commands/unclean.ts'

type EventsRecord = Extract<LogRecord, { kind: 'events' }>

export type CommandsOf =
  | {
      readonly kind: 'commands'
      readonly commands: readonly Command[]
      /** Disks that an unclean end had left attached, as far as the events show it (R32), and their last event then. */
      readonly unclean: ReadonlyMap<string, Point>
    }
  | { readonly kind: 'unknown'; readonly why: string }

/** What the store does by itself, with nobody asking. */
const OWN: ReadonlySet<string | undefined> = new Set([undefined, 'recover', 'close', 'compact', 'repair'])

/** `before`: the catalog just before the record. */
export function commandsOf(record: EventsRecord, before: CatalogReader): CommandsOf {
  if (OWN.has(record.meta.command))
    return { kind: 'unknown', why: 'the store recorded this by itself: no command asked for it' }
  const reading = new Reading(record, before)
  const commands: Command[] = []
  /** Disks of which a stretch is told, and how many commands were ahead of it. */
  const told: { readonly disk: string; readonly ahead: number }[] = []
  for (const [i, event] of record.events.entries()) {
    const came = reading.cameFrom(event, i)
    if (typeof came === 'string') return { kind: 'unknown', why: came }
    if (came !== null) commands.push(came)
    else if (event.type === 'stretch-lost') told.push({ disk: event.disk, ahead: commands.length })
  }
  for (const { disk, ahead } of told.reverse()) putRemovalWhereItTold(commands, disk, ahead, before)
  const { unclean } = reading
  if (commands.length === 0)
    return { kind: 'unknown', why: 'its events do not say which command they came from' }
  return { kind: 'commands', commands, unclean }
}

/** A removal's event stands at the record's end (R20), but what it told of its disk stands where it was asked for. */
function putRemovalWhereItTold(
  commands: Command[],
  disk: string,
  ahead: number,
  before: CatalogReader,
): void {
  const next = commands[ahead]
  if (next === undefined || disksOf(next, before).has(disk)) return
  const at = commands.findIndex((one) => one.type === 'remove-bitmap' && one.disk === disk)
  if (at > ahead) commands.splice(ahead, 0, ...commands.splice(at, 1))
}

class Reading {
  readonly unclean = new Map<string, Point>()
  readonly #record: EventsRecord
  readonly #before: CatalogReader
  readonly #forced: boolean
  readonly #deletesCheckpoint: boolean
  /** Disks of which the record says what was lost, and groups that it rolls back. */
  readonly #told = new Set<string>()
  readonly #rolledBack = new Set<string>()

  constructor(record: EventsRecord, before: CatalogReader) {
    this.#record = record
    this.#before = before
    const { events } = record
    this.#forced = events.some((event) => event.type === 'slice-dropped' && event.because !== 'deleted')
    this.#deletesCheckpoint = events.some((event) => event.type === 'checkpoint-deleted')
  }

  /** The command; null for an event that another one of the record brought along; or why it cannot be known. */
  cameFrom(event: DomainEvent, index: number): Command | null | string {
    switch (event.type) {
      case 'disk-added':
        return { type: 'add-disk', disk: event.disk, size: event.size }
      case 'disk-resized':
        return { type: 'resize-disk', disk: event.disk, size: event.size }
      case 'disk-removed':
        return { type: 'remove-disk', disk: event.disk }
      case 'disk-attached': {
        const { disk, recorder } = event
        const left = this.#before.disk(disk)
        if (left?.attached === true && !this.unclean.has(disk)) this.unclean.set(disk, left.last)
        return { type: 'attach-disk', disk, recorder, quiet: !this.#told.has(disk) }
      }
      case 'disk-detached':
        return { type: 'detach-disk', disk: event.disk }
      case 'stretch-lost': {
        // Behind a stretch that an unclean end left stands the command that told it; alone it was declared in the same words.
        if (!isUncleanStretch(event) || index === this.#record.events.length - 1)
          return { type: 'declare-lost', disk: event.disk, from: event.from, reason: event.reason }
        this.unclean.set(event.disk, event.from)
        this.#told.add(event.disk)
        return null
      }
      case 'window':
        return {
          type: 'record-window',
          disk: event.disk,
          from: event.from,
          writes: event.writes,
          extents: event.extents,
        }
      case 'maybe-written':
        return 'a recovery told it, and no command does'
      case 'disk-marked':
        return { type: 'mark-disk', disk: event.disk, mark: event.mark }
      case 'bitmap-added': {
        const { disk, bitmap, granularity, retention, persistent } = event
        return {
          type: 'add-bitmap',
          disk,
          bitmap,
          granularity,
          retention,
          persistent,
          disabled: !event.recording,
        }
      }
      case 'bitmap-removed':
        return event.because === 'detach'
          ? null
          : { type: 'remove-bitmap', disk: event.disk, bitmap: event.bitmap }
      case 'bitmap-cleared':
        return { type: 'clear-bitmap', disk: event.disk, bitmap: event.bitmap }
      case 'bitmap-enabled':
        return { type: 'enable-bitmap', disk: event.disk, bitmap: event.bitmap }
      case 'bitmap-disabled':
        return { type: 'disable-bitmap', disk: event.disk, bitmap: event.bitmap }
      case 'bitmap-merged':
        return { type: 'merge-bitmaps', disk: event.disk, bitmap: event.bitmap, sources: event.sources }
      case 'retention-set': {
        const { disk, bitmap, retention } = event
        return { type: 'set-retention', disk, bitmap, retention, forceCycle: this.#forced }
      }
      case 'slice-frozen':
        if (event.cause.kind !== 'bank') return null
        return { type: 'bank', disk: event.disk, bitmap: event.bitmap, forceCycle: this.#forced }
      case 'slice-dropped':
        return event.because === 'deleted' ? this.#deleted(event) : null
      case 'slice-merged':
        return this.#deleted(event)
      case 'slice-reactivated':
        return null
      case 'backup-begun': {
        const { backup, disk, bitmap, mode, forceCycle, group, copiedBy, base } = event
        const given = base.kind === 'none' || base.kind === 'point' ? undefined : base
        return { type: 'begin-backup', backup, disk, bitmap, mode, base: given, forceCycle, group, copiedBy }
      }
      case 'backup-pending':
        return { type: 'succeed-backup', backup: event.backup }
      case 'backup-succeeded':
        // Members of a group that waited come along with the last one.
        return this.#waited(event.backup) ? null : { type: 'succeed-backup', backup: event.backup }
      case 'backup-failed': {
        const { backup, reason, uncopied } = event
        return this.#goesAlong(backup) ? null : { type: 'fail-backup', backup, reason, uncopied }
      }
      case 'backup-cancelled':
        return this.#goesAlong(event.backup)
          ? null
          : { type: 'cancel-backup', backup: event.backup, reason: event.reason }
      case 'backup-interrupted':
        return { type: 'interrupt-backup', backup: event.backup }
      case 'backup-resumed':
        return { type: 'resume-backup', backup: event.backup }
      case 'checkpoint-created': {
        const { bitmaps } = event
        return { type: 'create-checkpoint', checkpoint: event.checkpoint, bitmaps, forceCycle: this.#forced }
      }
      case 'checkpoint-deleted':
        return { type: 'delete-checkpoint', checkpoint: event.checkpoint }
      case 'bitmap-reset':
      case 'clock-stepped':
        return null
      case 'nothing-changed':
        return 'it changed nothing, and what was asked is kept as a hash only'
      case 'backup-forgotten':
        return { type: 'forget-backup', backup: event.backup, reason: event.reason }
      case 'backups-combined':
        return { type: 'record-combined', backup: event.backup, of: event.of }
      case 'log-compacted':
      case 'log-repaired':
      case 'disk-imported':
        return `${event.type} is upkeep of the log, and no command decides it`
      default:
        throw new TypeError(`there is no event ${JSON.stringify(event satisfies never)}`)
    }
  }

  #deleted(event: {
    readonly disk: string
    readonly bitmap: string
    readonly slice: number
  }): Command | null | string {
    if (!this.#deletesCheckpoint)
      return { type: 'delete-slice', disk: event.disk, bitmap: event.bitmap, slice: event.slice }
    if (this.#record.meta.command === 'transaction')
      return 'whether its slices went with their checkpoint or by themselves is not recorded'
    return null
  }

  #waited(backup: string): boolean {
    const pending = this.#record.events.some(
      (event) => event.type === 'backup-pending' && event.backup === backup,
    )
    return pending || this.#before.backup(backup)?.phase.kind === 'pending'
  }

  /** The first of a group to end takes the others with it (R14). */
  #goesAlong(backup: string): boolean {
    const group = this.#before.backup(backup)?.group ?? null
    if (group === null) return false
    if (this.#rolledBack.has(group)) return true
    this.#rolledBack.add(group)
    return false
  }
}
