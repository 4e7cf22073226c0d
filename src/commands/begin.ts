/**
 * Decides the begin of a backup: may it begin, relative to what, and is there room for its slice (R8, R11 to R15).
 *
 * The plan's figures are asked for last, when all else is legal: they are the only part of a begin that costs time.
 */
import type { Base, DomainEvent, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { BitmapState, DiskState } from '../../projections/state.ts'
import { CheckpointError } from '../errors.ts'
import { bitmapFor, type Deciding } from './find.ts'
import { checkName } from './names.ts'
import { namedBase } from './since.ts'
import { makeRoom } from './slices.ts'
import type { BeginBackup } from './types.ts'

/** The base of a backup that has none: a whole disk. */
export const NO_BASE: Base = { kind: 'none', position: -1, time: null }

export function beginBackup(deciding: Deciding, command: BeginBackup): DomainEvent[] {
  const { state, context, at, before } = deciding
  checkName('backup', command.backup)
  const known = state.backup(command.backup)
  if (known !== undefined) {
    throw new CheckpointError(
      'BACKUP_EXISTS',
      `backup "${command.backup}" exists already (${known.phase.kind}) and its id is never used again; choose another id, or leave it out`,
      { backup: command.backup, state: known.phase.kind },
    )
  }
  const { disk, bitmap } = bitmapFor(state, command.disk, command.bitmap, 'begin-backup')
  checkGroup(state, command, at)
  const { named } = command
  const asked = named === undefined ? command.base : namedBase(state, named, disk.id, bitmap.name)
  const base = baseOf(state, disk, bitmap, { mode: command.mode, base: asked })
  if (command.mode === 'incremental' && bitmap.retention > 0) {
    makeRoom(disk.id, bitmap, bitmap.retention, 1, command.forceCycle === true, 'force-cycle')
  }
  const { digest, bytes, complete } = context.plan(command, base, { state, events: [...before], point: at })
  const { backup, mode, forceCycle = false, group, copiedBy } = command
  const begun: DomainEvent = {
    type: 'backup-begun',
    backup,
    disk: disk.id,
    bitmap: bitmap.name,
    mode,
    base,
    forceCycle,
    copiedBy,
    digest,
    bytes,
    complete,
  }
  return [group === undefined ? begun : { ...begun, group }]
}

/** R14: members of a group share one record and one point, so nobody joins a group that began earlier. */
function checkGroup(state: CatalogReader, command: BeginBackup, at: Point): void {
  if (command.group === undefined) return
  checkName('group', command.group)
  for (const member of state.backups()) {
    if (member.group === command.group && member.point.position !== at.position) {
      throw new CheckpointError(
        'BACKUP_EXISTS',
        `group "${command.group}" began at position ${member.point.position} and takes no members later; choose another name for the group`,
        { backup: command.backup, group: command.group, position: member.point.position },
      )
    }
  }
}

/**
 * What the backup is relative to, checked against R11 and R12. Exported for plans that are not begun (R25).
 * @throws CheckpointError SINCE_NOT_ALLOWED, SINCE_REQUIRED (fact `give`), BASE_TOO_LATE, POINT_INVALID
 */
export function baseOf(
  state: CatalogReader,
  disk: DiskState,
  bitmap: BitmapState,
  command: Pick<BeginBackup, 'mode' | 'base'>,
): Base {
  const { mode, base } = command
  const facts = { disk: disk.id, bitmap: bitmap.name, mode }
  if (mode === 'full' || mode === 'copy') {
    if (base === undefined || base.kind === 'none') return NO_BASE
    throw new CheckpointError(
      'SINCE_NOT_ALLOWED',
      `a ${mode} backup copies the whole disk and takes no base; leave \`since\` out, or make it differential`,
      {
        ...facts,
        since: base.kind,
      },
    )
  }
  const { from } = bitmap.active
  if (base === undefined) {
    const give = sinceToGive(bitmap)
    if (give === null) return { kind: 'point', position: from.position, time: from.time }
    throw sinceRequired(disk, bitmap, mode, give)
  }
  if (base.kind === 'none') {
    throw new CheckpointError(
      'SINCE_NOT_ALLOWED',
      `${mode} is relative to a base, and \`none\` is no base; give one, or make the backup full`,
      {
        ...facts,
        since: base.kind,
      },
    )
  }
  if (base.kind === 'active') return { kind: 'active', position: from.position, time: from.time }
  if (!Number.isSafeInteger(base.position) || base.position < -1 || base.position > state.last.position) {
    throw new CheckpointError(
      'POINT_INVALID',
      `position ${base.position} is no point of the log, whose head is ${state.last.position}; give an earlier one`,
      {
        ...facts,
        position: base.position,
        head: state.last.position,
      },
    )
  }
  if (mode === 'incremental' && base.position > from.position && !isImageOf(state, disk, base)) {
    throw new CheckpointError(
      'BASE_TOO_LATE',
      `an incremental backup of bitmap "${bitmap.name}" cannot be relative to position ${base.position}: its slice begins at ${from.position}, ` +
        'so the chain would miss what lies between; leave `since` out, name a succeeded backup, or make it differential',
      { ...facts, position: base.position, activeFrom: from.position, give: sinceToGive(bitmap) },
    )
  }
  return base
}

/** Whether a base names a succeeded backup of this very disk whose copy is kept: then an image with that content exists (R11). */
function isImageOf(state: CatalogReader, disk: DiskState, base: Base): boolean {
  if (base.kind !== 'backup' || base.name === undefined) return false
  const backup = state.backup(base.name)
  return (
    backup?.phase.kind === 'succeeded' && backup.copy.kind === 'kept' && backup.diskNumber === disk.number
  )
}

/**
 * R12: null when α alone continues the chain; otherwise the `since` that does: the last backup, or (with none yet) the
 * slice or the position where the bitmap's collecting began.
 */
function sinceToGive(bitmap: BitmapState): string | null {
  const { active, lastBackup, createdAt, slices } = bitmap
  const anchor = lastBackup?.point ?? createdAt
  const whole = !active.gaps.some(({ kind }) => kind === 'cleared')
  if (active.from.position === anchor.position && whole) return null
  if (lastBackup !== null) return `backup:${lastBackup.id}`
  const slice = slices.find(({ from }) => from.position === anchor.position)
  return slice === undefined ? `@${anchor.position}` : `slice:${slice.number}`
}

function sinceRequired(disk: DiskState, bitmap: BitmapState, mode: string, give: string): CheckpointError {
  const { active, lastBackup, createdAt } = bitmap
  const anchor =
    lastBackup === null ? `its creation at position ${createdAt.position}` : `backup "${lastBackup.id}"`
  const why =
    active.from.position === (lastBackup?.point ?? createdAt).position
      ? `was cleared since ${anchor}`
      : `begins at position ${active.from.position}, not at ${anchor}`
  return new CheckpointError(
    'SINCE_REQUIRED',
    `the active part of bitmap "${bitmap.name}" of disk "${disk.id}" ${why}, so it alone continues no backup; give \`since\`: ${give} ` +
      '(or `active` to take its bits as they are)',
    { disk: disk.id, bitmap: bitmap.name, mode, give, activeFrom: active.from.position },
  )
}
