/**
 * Decides how a backup ends, and its phases before: succeed, fail, cancel, interrupt, resume (R9, R10, R13, R14).
 *
 * The members of a group end together: the last one that is done lets all succeed in one record, the first one that
 * fails takes all with it.
 */
import type { DomainEvent, Extent } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BackupState, BitmapState } from '../../projections/state.ts'
import { assert, CheckpointError } from '../errors.ts'
import { insideDisk } from './disks.ts'
import type { Deciding } from './find.ts'
import { frozenEvent, makeRoom } from './slices.ts'
import type { Command } from './types.ts'

type Of<T extends Command['type']> = Extract<Command, { type: T }>

/** @throws CheckpointError BACKUP_NOT_FOUND */
export function findBackup(state: CatalogReader, id: string): BackupState {
  const backup = state.backup(id)
  if (backup !== undefined) return backup
  throw new CheckpointError(
    'BACKUP_NOT_FOUND',
    `backup "${id}" was never begun; list the backups to see which there are`,
    { backup: id },
  )
}

/** @throws CheckpointError BACKUP_NOT_FOUND, BACKUP_ENDED (R13: an ended backup stays as it ended) */
function findLiving(state: CatalogReader, id: string): BackupState {
  const backup = findBackup(state, id)
  const { phase } = backup
  if (isLiving(backup)) return backup
  const position = 'at' in phase ? phase.at.position : null
  throw new CheckpointError(
    'BACKUP_ENDED',
    `backup "${id}" ${phase.kind} at position ${position} and stays so; begin another one under a new id`,
    {
      backup: id,
      state: phase.kind,
      position,
    },
  )
}

function isLiving({ phase }: BackupState): boolean {
  return phase.kind === 'running' || phase.kind === 'pending' || phase.kind === 'interrupted'
}

/** The living members of the backup's group in order of their begin; itself alone when it has none. */
function livingMembers(state: CatalogReader, backup: BackupState): BackupState[] {
  if (backup.group === null) return [backup]
  return [...state.backups()].filter((member) => member.group === backup.group && isLiving(member))
}

function bitmapOf(state: CatalogReader, backup: BackupState): BitmapState {
  const bitmap = state.disk(backup.disk)?.bitmaps.get(backup.bitmap)
  assert(bitmap !== undefined, `living backup "${backup.id}" holds its bitmap`)
  return bitmap
}

function wrongState(backup: BackupState, text: string): CheckpointError {
  return new CheckpointError('BACKUP_STATE', `backup "${backup.id}" ${text}`, {
    backup: backup.id,
    state: backup.phase.kind,
    group: backup.group,
  })
}

export function succeedBackup({ state }: Deciding, command: Of<'succeed-backup'>): DomainEvent[] {
  const backup = findLiving(state, command.backup)
  if (backup.phase.kind === 'interrupted')
    throw wrongState(backup, 'was interrupted and is not done; resume it or fail it first')
  const waiting = livingMembers(state, backup).filter(
    (member) => member.id !== backup.id && member.phase.kind !== 'pending',
  )
  if (backup.phase.kind === 'pending') {
    throw wrongState(
      backup,
      `is done already and waits for ${waiting.map(({ id }) => `"${id}"`).join(', ')} of its group; succeed those`,
    )
  }
  if (waiting.length > 0) return [{ type: 'backup-pending', backup: backup.id }]
  return livingMembers(state, backup).flatMap((member) => successOf(state, member))
}

/** R9: what becomes of the frozen bits, by mode and retention. Drops come before the slice that needs their room. */
function successOf(state: CatalogReader, backup: BackupState): DomainEvent[] {
  const bitmap = bitmapOf(state, backup)
  const succeeded = (bits: 'banked' | 'forgotten' | 'kept' | 'reset'): DomainEvent => ({
    type: 'backup-succeeded',
    backup: backup.id,
    bits,
  })
  switch (backup.mode) {
    case 'differential':
    case 'copy':
      return [succeeded('kept')]
    case 'full':
      return [
        succeeded('reset'),
        { type: 'bitmap-reset', disk: backup.disk, bitmap: bitmap.name, backup: backup.id },
      ]
    case 'incremental': {
      if (bitmap.retention === 0) return [succeeded('forgotten')]
      // Begin made sure of the room, and a busy bitmap neither gains slices nor loses retention.
      const drops = makeRoom(backup.disk, bitmap, bitmap.retention, 1, backup.forceCycle, 'force-cycle')
      return [
        succeeded('banked'),
        ...drops,
        frozenEvent(backup.disk, bitmap, { kind: 'backup', id: backup.id }),
      ]
    }
  }
}

export function failBackup({ state }: Deciding, command: Of<'fail-backup'>): DomainEvent[] {
  const backup = findLiving(state, command.backup)
  checkReason(command.reason)
  if (command.uncopied !== undefined) checkUncopied(state, backup, command.uncopied)
  return rollBack(state, backup, ({ id }, reason) =>
    id === backup.id && command.uncopied !== undefined
      ? { type: 'backup-failed', backup: id, reason, uncopied: command.uncopied }
      : { type: 'backup-failed', backup: id, reason },
  )(command.reason, 'failed')
}

export function cancelBackup({ state }: Deciding, command: Of<'cancel-backup'>): DomainEvent[] {
  const backup = findLiving(state, command.backup)
  checkReason(command.reason)
  return rollBack(state, backup, ({ id }, reason) => ({ type: 'backup-cancelled', backup: id, reason }))(
    command.reason,
    'was cancelled',
  )
}

/** R14: the named backup first, with the caller's reason; the others of its group with a reason that names it. */
function rollBack(
  state: CatalogReader,
  backup: BackupState,
  event: (member: BackupState, reason: string) => DomainEvent,
) {
  return (reason: string, verb: string): DomainEvent[] => {
    const others = livingMembers(state, backup).filter(({ id }) => id !== backup.id)
    const because = `backup "${backup.id}" of its group ${verb}${reason === '' ? '' : `: ${reason}`}`
    return [event(backup, reason), ...others.map((member) => event(member, because))]
  }
}

function checkReason(reason: string): void {
  if (typeof reason !== 'string') throw new TypeError(`a reason must be a string, not ${typeof reason}`)
}

/**
 * R10's exception is QMP's, and only for bitmaps without slices: there is no slice that the copied part could belong to. What
 * was not frozen stays as it is, whatever is said of it: the fold takes what both have.
 */
function checkUncopied(state: CatalogReader, backup: BackupState, uncopied: readonly Extent[]): void {
  const bitmap = bitmapOf(state, backup)
  if (backup.mode === 'copy') {
    throw wrongState(
      backup,
      'is a copy, which froze no bits that could shrink; fail it without what was not copied',
    )
  }
  if (bitmap.slices.length > 0) {
    throw wrongState(
      backup,
      `runs on bitmap "${bitmap.name}", which has slices, so its bits cannot shrink to what was not copied; fail it without that`,
    )
  }
  const size = state.disk(backup.disk)?.size ?? 0
  uncopied.forEach((extent, index) => {
    if (insideDisk(extent, size)) return
    throw new CheckpointError(
      'RANGE_OUTSIDE_DISK',
      `range ${extent[0]}+${extent[1]} (number ${index}), said not to be copied, is not inside the ${size} bytes of disk "${backup.disk}"; correct it`,
      { backup: backup.id, disk: backup.disk, index, offset: extent[0], length: extent[1], size },
    )
  })
}

export function interruptBackup({ state }: Deciding, command: { readonly backup: string }): DomainEvent[] {
  const backup = findLiving(state, command.backup)
  if (backup.phase.kind !== 'running')
    throw wrongState(backup, `is ${backup.phase.kind}, and only a running one can be interrupted`)
  return [{ type: 'backup-interrupted', backup: backup.id }]
}

export function resumeBackup({ state }: Deciding, command: { readonly backup: string }): DomainEvent[] {
  const backup = findLiving(state, command.backup)
  if (backup.phase.kind !== 'interrupted')
    throw wrongState(
      backup,
      `is ${backup.phase.kind}, and only an interrupted one can be resumed; go on with it`,
    )
  return [{ type: 'backup-resumed', backup: backup.id }]
}
