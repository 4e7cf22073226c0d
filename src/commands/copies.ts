/**
 * Decides what the keeper of the copies reports: one is gone, or several were combined offline into one (R19, R25).
 *
 * These are facts about files that the store never sees, so they touch no bits, no slice and no point. Forgetting is not
 * refused because it breaks a chain: what is gone is gone. `coverage` says beforehand what it would break.
 */
import type { DomainEvent } from '../../events/types.ts'
import { objectionToCombining } from '../../projections/chain.ts'
import type { BackupState } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'
import { findBackup } from './backups.ts'
import type { Deciding } from './find.ts'
import { checkName } from './names.ts'
import type { Command } from './types.ts'

type Of<T extends Command['type']> = Extract<Command, { type: T }>

/** One that is forgotten already stays so, with its first reason: a keeper that reports twice changes nothing. */
export function forgetBackup({ state }: Deciding, command: Of<'forget-backup'>): DomainEvent[] {
  const { backup: id, reason = '' } = command
  if (typeof reason !== 'string') throw new TypeError(`a reason must be a string, not ${typeof reason}`)
  const backup = findBackup(state, id)
  checkMadeCopy(backup)
  if (backup.copy.kind === 'forgotten') return []
  return [{ type: 'backup-forgotten', backup: id, reason }]
}

/** @throws CheckpointError BACKUP_STATE: only a succeeded backup made a copy that can be lost. */
export function checkMadeCopy({ id, phase }: Pick<BackupState, 'id' | 'phase'>): void {
  switch (phase.kind) {
    case 'succeeded':
      return
    case 'running':
    case 'pending':
    case 'interrupted':
      throw new CheckpointError(
        'BACKUP_STATE',
        `backup "${id}" is ${phase.kind} and has no copy yet; cancel it if its copy is not wanted any more`,
        { backup: id, state: phase.kind },
      )
    case 'failed':
    case 'cancelled':
      throw new CheckpointError(
        'BACKUP_STATE',
        `backup "${id}" ${phase.kind === 'failed' ? 'failed' : 'was cancelled'} at position ${phase.at.position} and made no copy; there is nothing to forget`,
        { backup: id, state: phase.kind },
      )
  }
}

/** @throws CheckpointError BACKUP_EXISTS, BACKUP_NOT_FOUND, BACKUP_CHAIN, and a name's refusals */
export function recordCombined({ state }: Deciding, command: Of<'record-combined'>): DomainEvent[] {
  const { backup: id, of } = command
  checkName('backup', id)
  if (!Array.isArray(of)) throw new TypeError('what was combined must be a list of backup ids, oldest first')
  if (of.length > limits.combinedBackupsMax)
    throw new RangeError(`at most ${limits.combinedBackupsMax} copies are combined at once, not ${of.length}`)
  const known = state.backup(id)
  if (known !== undefined) {
    throw new CheckpointError(
      'BACKUP_EXISTS',
      `backup "${id}" exists already (${known.phase.kind}) and its id is never used again; choose another id`,
      { backup: id, state: known.phase.kind },
    )
  }
  const members = of.map((member: string) => findBackup(state, member))
  const why = objectionToCombining(members)
  if (why !== null) {
    throw new CheckpointError(
      'BACKUP_CHAIN',
      `"${id}" cannot be a combination of these: ${why}; name kept copies, oldest first, each laid on the one before`,
      { backup: id, of: [...of], why },
    )
  }
  return [{ type: 'backups-combined', backup: id, of: [...of] }]
}
