/**
 * What may happen: `decide(state, command)` gives the events that follow from a command, or throws the refusal.
 *
 * Pure and synchronous: no clock, no log, no promise, so the same state and command always give the same answer, and a
 * refusal has changed nothing (R21). Rules are in one file per family; this one only finds the family.
 */
import type { DomainEvent } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import { CheckpointError } from '../errors.ts'
import { cancelBackup, failBackup, interruptBackup, resumeBackup, succeedBackup } from './backups.ts'
import { beginBackup } from './begin.ts'
import { addBitmap, clearBitmap, disableBitmap, enableBitmap, mergeBitmaps, removeBitmap } from './bitmaps.ts'
import { createCheckpoint, deleteCheckpoint } from './checkpoints.ts'
import { forgetBackup, recordCombined } from './copies.ts'
import {
  addDisk,
  attachDisk,
  declareLost,
  detachDisk,
  recordWindow,
  removeDisk,
  resizeDisk,
} from './disks.ts'
import type { Deciding } from './find.ts'
import { markDisk } from './marks.ts'
import { bank, deleteSlice, setRetention } from './slices.ts'
import type { Command, DecideContext } from './types.ts'

/**
 * Events of one command, in order, for one record. An empty list: accepted, and nothing changes.
 * @throws CheckpointError the refusal; TypeError or RangeError for arguments of a wrong type.
 */
export function decide(state: CatalogReader, command: Command, context: DecideContext): DomainEvent[] {
  // A begin is the only command that looks at its own point, and it is one event, so its record ends there.
  const at = { position: state.last.position + 1, time: context.time ?? null }
  return decideIn({ state, context, at, before: [] }, command)
}

/** The same inside a transaction, where the record may hold more than this command's events. */
export function decideIn(deciding: Deciding, command: Command): DomainEvent[] {
  switch (command.type) {
    case 'add-disk':
      return addDisk(deciding, command)
    case 'resize-disk':
      return resizeDisk(deciding, command)
    case 'remove-disk':
      return removeDisk(deciding, command)
    case 'attach-disk':
      return attachDisk(deciding, command)
    case 'detach-disk':
      return detachDisk(deciding, command)
    case 'declare-lost':
      return declareLost(deciding, command)
    case 'record-window':
      return recordWindow(deciding, command)
    case 'mark-disk':
      return markDisk(deciding, command)
    case 'add-bitmap':
      return addBitmap(deciding, command)
    case 'remove-bitmap':
      return removeBitmap(deciding, command)
    case 'clear-bitmap':
      return clearBitmap(deciding, command)
    case 'enable-bitmap':
      return enableBitmap(deciding, command)
    case 'disable-bitmap':
      return disableBitmap(deciding, command)
    case 'merge-bitmaps':
      return mergeBitmaps(deciding, command)
    case 'set-retention':
      return setRetention(deciding, command)
    case 'bank':
      return bank(deciding, command)
    case 'delete-slice':
      return deleteSlice(deciding, command)
    case 'begin-backup':
      return beginBackup(deciding, command)
    case 'succeed-backup':
      return succeedBackup(deciding, command)
    case 'fail-backup':
      return failBackup(deciding, command)
    case 'cancel-backup':
      return cancelBackup(deciding, command)
    case 'interrupt-backup':
      return interruptBackup(deciding, command)
    case 'resume-backup':
      return resumeBackup(deciding, command)
    case 'create-checkpoint':
      return createCheckpoint(deciding, command)
    case 'delete-checkpoint':
      return deleteCheckpoint(deciding, command)
    case 'forget-backup':
      return forgetBackup(deciding, command)
    case 'record-combined':
      return recordCombined(deciding, command)
    case 'abort': {
      const text = 'Transaction aborted using Abort action'
      throw new CheckpointError('TRANSACTION_ABORTED', text, {
        qemu: text,
        todo: 'nothing changed; send the other commands without the abort',
      })
    }
    default:
      throw new TypeError(`there is no command ${JSON.stringify(command satisfies never)}`)
  }
}
