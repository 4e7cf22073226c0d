/**
 * The catalog's fold of what became of the copies that backups made: forgotten, combined into one, or doubtful because a
 * stretch was told later that had begun before them. Cost: a look at every backup for a stretch that reaches back, nothing else.
 */
import type { CopyEvent, LostStretch, Point } from '../events/types.ts'
import type { CatalogWriter } from './catalog.ts'
import { combinedOf } from './chain.ts'
import type { BackupState, DiskState } from './state.ts'

export function applyCopyEvent(catalog: CatalogWriter, event: CopyEvent, at: Point): void {
  switch (event.type) {
    case 'backup-forgotten': {
      const backup = named(catalog, event.backup)
      catalog.setBackup({ ...backup, copy: { kind: 'forgotten', at, reason: event.reason } })
      break
    }
    case 'backups-combined': {
      const members = event.of.map((id) => named(catalog, id))
      catalog.setBackup(combinedOf(event.backup, members, at))
      break
    }
    default:
      throw new RangeError(`a catalog cannot fold ${JSON.stringify(event satisfies never)}`)
  }
}

/** Every backup of the disk whose point lies behind the stretch's start was made without knowing of it. `disk`: before the event. */
export function doubtBackups(catalog: CatalogWriter, disk: DiskState, stretch: LostStretch): void {
  // Nothing of this disk happened since: the common case of an agent that tells one window after the other.
  if (stretch.from.position >= disk.last.position) return
  for (const backup of [...catalog.backups()]) {
    if (backup.diskNumber !== disk.number || backup.point.position <= stretch.from.position) continue
    if (newestIn(catalog, backup).whole) continue // Nothing of its point can be missing.
    catalog.setBackup({ ...backup, doubt: [...backup.doubt, stretch] })
  }
}

/** The begun backup that gave a combined one its point. */
function newestIn(catalog: CatalogWriter, backup: BackupState): BackupState {
  const newest = backup.of?.at(-1)
  return newest === undefined ? backup : newestIn(catalog, named(catalog, newest))
}

function named(catalog: CatalogWriter, id: string): BackupState {
  const backup = catalog.backup(id)
  if (backup === undefined) throw new RangeError(`a copy of backup "${id}" is named, which was never begun`)
  return backup
}
