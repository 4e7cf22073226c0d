/**
 * What a store decides by itself, with nobody asking: at open after whatever end there was, and at a clean close.
 *
 * Both are as pure as the commands: facts about the machine come in as arguments, events come out, and the committer
 * writes them like any others (R10, R32, R4).
 */
import type { DomainEvent, Point } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'
import type { DiskState } from '../../projections/state.ts'

export interface RecoveryFacts {
  /** The last owner closed the store. */
  readonly clean: boolean
  /** The machine restarted since (R32): what was only at level `process` may be gone. */
  readonly bootChanged: boolean
  /** Position of the last event known to have survived a power cut; -1 when none is known. */
  readonly syncedPosition: number
  readonly syncedTime?: number | null | undefined
  /** The level that the last owner ran at (R30). At `power` a restart loses nothing. Default `process`. */
  readonly level?: 'process' | 'power' | undefined
}

/** Events at open. Interrupted backups are found after a clean end too: the process that copied is gone either way (R10). */
export function decideRecovery(state: CatalogReader, facts: RecoveryFacts): DomainEvent[] {
  const events: DomainEvent[] = []
  for (const { id, phase, copiedBy } of state.backups()) {
    if (copiedBy === 'store' && phase.kind === 'running')
      events.push({ type: 'backup-interrupted', backup: id })
  }
  if (facts.clean || !facts.bootChanged || facts.level === 'power') return events
  const from: Point = { position: facts.syncedPosition, time: facts.syncedTime ?? null }
  // A power cut may have taken the log's tail along with its evidence, so a disk without events after it counts as written.
  const reason =
    'the machine restarted: writes after the last synced record may have reached the disk and not the log'
  for (const disk of state.disks()) {
    if (disk.recorder !== 'store' || !disk.attached) continue
    events.push({ type: 'stretch-lost', disk: disk.id, from, reason })
  }
  return events
}

/** Events at a clean close: each of `disks` that is attached is detached, and takes its transient bitmaps along (R4). */
export function decideCleanDetach(state: CatalogReader, disks: Iterable<string>): DomainEvent[] {
  const events: DomainEvent[] = []
  for (const id of disks) {
    const disk = state.disk(id)
    if (disk?.attached) events.push(...detachEvents(disk))
  }
  return events
}

export function detachEvents(disk: DiskState): DomainEvent[] {
  const events: DomainEvent[] = []
  for (const { name, persistent, holder } of disk.bitmaps.values()) {
    if (!persistent && holder === null)
      events.push({ type: 'bitmap-removed', disk: disk.id, bitmap: name, because: 'detach' })
  }
  events.push({ type: 'disk-detached', disk: disk.id })
  return events
}
