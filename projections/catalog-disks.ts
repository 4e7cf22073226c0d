/** The catalog's fold of disk events: sizes, attachments, lost stretches, windows, marks. Each costs one copy of the disk's object. */
import type { DiskEvent, Point } from '../events/types.ts'
import { lostStretch } from './bitmap-state.ts'
import type { CatalogWriter } from './catalog.ts'
import { doubtBackups } from './catalog-copies.ts'
import type { DiskState } from './state.ts'

export function applyDiskEvent(catalog: CatalogWriter, event: DiskEvent, position: number, at: Point): void {
  if (event.type === 'disk-added') {
    catalog.setDisk(newDisk(event.disk, event.size, position, at))
    return
  }
  const disk = catalog.disk(event.disk)
  if (disk === undefined)
    throw new RangeError(
      `event ${event.type} at ${position} names disk "${event.disk}", which does not exist`,
    )
  switch (event.type) {
    case 'disk-resized': {
      const resizes = [...disk.resizes, { at, before: disk.size, after: event.size }]
      catalog.setDisk({ ...disk, size: event.size, resizes, last: at })
      break
    }
    case 'disk-removed':
      catalog.forgetDisk(disk)
      break
    case 'disk-attached':
      catalog.setDisk({ ...disk, attached: true, recorder: event.recorder, last: at })
      break
    case 'disk-detached':
      catalog.setDisk({ ...disk, attached: false, last: at })
      break
    case 'stretch-lost':
      catalog.setDisk(withLost(disk, event.from, event.reason, at))
      doubtBackups(catalog, disk, { from: event.from, to: at, reason: event.reason })
      break
    case 'window':
      doubtBackups(catalog, disk, { from: event.from, to: at, reason: 'a window told afterwards' })
      catalog.setDisk(withWindow(disk, event.from, at))
      break
    case 'maybe-written':
      doubtBackups(catalog, disk, {
        from: event.from,
        to: at,
        reason: 'writes that a power cut took the records of',
      })
      catalog.setDisk(withWindow(disk, event.from, at))
      break
    case 'disk-marked':
      catalog.setDisk({ ...disk, mark: { at, mark: event.mark }, last: at })
      break
    default:
      throw new RangeError(`a catalog cannot fold ${JSON.stringify(event satisfies never)}`)
  }
}

/** A disk nobody attached yet counts as recorded by its caller: the recorder an unclean end costs most (R32). */
function newDisk(id: string, size: number, number: number, at: Point): DiskState {
  return {
    id,
    number,
    size,
    addedAt: at,
    recorder: 'caller',
    attached: false,
    last: at,
    wrote: null,
    mark: null,
    resizes: [],
    lost: [],
    windows: [],
    bitmaps: new Map(),
  }
}

function withWindow(disk: DiskState, from: Point, at: Point): DiskState {
  return { ...disk, windows: [...disk.windows, { from, at }], last: at, wrote: at }
}

function withLost(disk: DiskState, from: Point, reason: string, at: Point): DiskState {
  const stretch = { from, to: at, reason }
  const bitmaps = new Map([...disk.bitmaps].map(([name, bitmap]) => [name, lostStretch(bitmap, stretch)]))
  return { ...disk, lost: [...disk.lost, stretch], bitmaps, last: at }
}
