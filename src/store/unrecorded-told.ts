/**
 * What a disk that went on without a log (R33) has lost, told by the next open of its store: since the log's end then, or since
 * ever where that end is not in this log any more (repaired, or another history), or the mark cannot be read (R35).
 */
import type { DomainEvent, Point } from '../../events/types.ts'
import { sameHash } from '../log/base-log.ts'
import type { Core } from './core.ts'
import { START } from './points.ts'
import type { FoundMark } from './unrecorded.ts'

/** Events for disks that are there still, in the order of their marks. */
export async function unrecordedStretches(
  core: Pick<Core, 'catalog' | 'log'>,
  marks: readonly FoundMark[],
): Promise<readonly DomainEvent[]> {
  const events: DomainEvent[] = []
  for (const mark of marks) {
    // A repair may have given the disk another number.
    const id = mark.id ?? core.catalog.diskByNumber(mark.number)?.id
    if (id === undefined || core.catalog.disk(id) === undefined) continue
    events.push({ type: 'stretch-lost', disk: id, from: await beginOf(core, mark), reason: reasonOf(mark) })
  }
  return events
}

async function beginOf(
  { catalog, log }: Pick<Core, 'catalog' | 'log'>,
  { sector }: FoundMark,
): Promise<Point> {
  if (sector === null) return START
  const position = sector.head.next - 1
  // A power cut took the log's tail, and what it held is lost by itself (R32).
  if (position > catalog.last.position) return catalog.last
  // Folded into a window since: then nothing says what it was, and the position counts.
  const hash = await log.hashAt(position).catch(() => null)
  const same = hash === undefined || (hash !== null && sameHash(hash, sector.head.hash))
  return same ? { position, time: sector.head.time } : START
}

function reasonOf({ sector }: FoundMark): string {
  if (sector === null)
    return 'the mark that says whether the disk was written to without a log cannot be read'
  return `the log could not be written (${sector.why}), and the disk was written to without it from ${new Date(sector.since).toISOString()} on`
}
