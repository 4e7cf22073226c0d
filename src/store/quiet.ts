/** Which disks an event makes a quiet point for: a write in flight there must land on both sides (R8). */
import type { DomainEvent } from '../../events/types.ts'
import type { CatalogReader } from '../../projections/catalog.ts'

export function quietDisks(events: readonly DomainEvent[], catalog: CatalogReader): readonly string[] {
  const disks = new Set<string>()
  for (const event of events) {
    switch (event.type) {
      case 'backup-begun':
      case 'slice-frozen':
      case 'bitmap-added':
      case 'bitmap-cleared':
      case 'bitmap-enabled':
      case 'bitmap-disabled':
      case 'disk-resized':
        disks.add(event.disk)
        break
      case 'checkpoint-created':
        // Any disk may be asked about since a checkpoint.
        for (const disk of catalog.disks()) disks.add(disk.id)
        break
      default:
        break
    }
  }
  return [...disks]
}
