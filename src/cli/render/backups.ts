/** Backups as a table, in the order in which they began. */
import type { BackupInfo } from '../../store/types.ts'
import type { Paint } from './paint.ts'
import { type Cell, table } from './table.ts'
import { base, bytes, point } from './text.ts'

export function backupTable(paint: Paint, backups: readonly BackupInfo[]): string {
  return table(
    paint,
    ['backup', 'disk', 'bitmap', 'mode', 'base', 'begun', '>to copy', 'state', 'copy', 'outcome'],
    backups.map((backup) => [
      backup.id,
      backup.disk,
      backup.bitmap,
      backup.of === null ? backup.mode : `${backup.mode}, combined`,
      base(backup.base),
      point(backup.point),
      `${backup.of === null ? '' : paint.unicode ? '≤ ' : '<= '}${bytes(backup.bytes)}`,
      state(paint, backup.phase.kind),
      copy(paint, backup),
      outcome(backup),
    ]),
  )
}

function state({ colors }: Paint, kind: BackupInfo['phase']['kind']): Cell {
  switch (kind) {
    case 'succeeded':
      return { text: kind, color: colors.green }
    case 'failed':
    case 'interrupted':
      return { text: kind, color: colors.red }
    case 'cancelled':
      return { text: kind, color: colors.yellow }
    case 'running':
    case 'pending':
      return { text: kind, color: colors.cyan }
  }
}

function copy({ colors }: Paint, backup: BackupInfo): Cell {
  if (backup.phase.kind !== 'succeeded') return ''
  if (backup.copy.kind === 'kept') return 'kept'
  return { text: 'forgotten', color: colors.yellow }
}

function outcome({ phase, mode, copy, of }: BackupInfo): string {
  if (copy.kind === 'forgotten' && copy.reason !== '') return copy.reason
  if (of !== null) return `of ${of.join(', ')}`
  if (phase.kind === 'failed' || phase.kind === 'cancelled') return phase.reason
  if (phase.kind !== 'succeeded') return ''
  if (phase.slice === null) return mode === 'full' ? 'new generation' : ''
  return `slice ${phase.slice}${phase.dropped.length === 0 ? '' : `, dropped ${phase.dropped.join(', ')}`}`
}
