/** What can no longer be relied on when a span of the log is missing, damaged or edited: whatever was collecting through it. */
import type { Catalog } from '../../projections/catalog.ts'
import type { Span } from './findings.ts'

/** `disks`: only these; undefined: the span may have held anything. */
export function doubtOf(catalog: Catalog, span: Span): readonly string[] {
  const doubt: string[] = []
  for (const disk of catalog.disks()) {
    if (disk.addedAt.position >= span.from && disk.addedAt.position <= span.to) doubt.push(`disk ${disk.id}`)
    for (const bitmap of disk.bitmaps.values()) {
      const name = `${disk.id} ${bitmap.name}`
      for (const slice of bitmap.slices) {
        if (slice.from.position < span.to + 1 && slice.to.position >= span.from)
          doubt.push(`slice ${name} ${slice.number}`)
      }
      if (bitmap.active.from.position <= span.to) doubt.push(`bitmap ${name}`)
    }
  }
  for (const backup of catalog.backups()) {
    // A plan since a base depends on what lies between; the record of its begin, and of its end, on the span itself.
    const since = backup.base.kind === 'none' ? backup.point.position : backup.base.position
    if (since <= span.to && backup.point.position >= span.from) doubt.push(`backup ${backup.id}`)
  }
  for (const checkpoint of catalog.checkpoints()) {
    if (checkpoint.point.position >= span.from && checkpoint.point.position <= span.to)
      doubt.push(`checkpoint ${checkpoint.name}`)
  }
  return doubt
}
