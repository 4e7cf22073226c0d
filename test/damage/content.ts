/** A digest over what a log says up to a position: equal for equal records, whatever they were packed into. */
import { createHash } from 'node:crypto'
import type { LogRecord } from '../../events/types.ts'
import type { Store } from '../../src/store/store.ts'

/** Throws what reading throws. `short` when the log has fewer than `count` events. */
export async function contentOf(store: Store, count: number): Promise<string> {
  const hash = createHash('sha256')
  let next = 0
  const stop = new AbortController()
  for await (const told of store.follow({ from: { position: 0 }, signal: stop.signal })) {
    if (told.kind === 'caughtUp') break
    if (told.kind !== 'records') continue
    for (const record of told.records) {
      next = record.first + record.count
      if (record.first < count) hash.update(textOf(record))
    }
  }
  stop.abort()
  return next < count ? `short: ${next}` : hash.digest('hex')
}

function textOf(record: LogRecord): string {
  if (record.kind !== 'writes') return JSON.stringify(record)
  const sections = record.sections.map(({ disk, columns }) => [
    disk,
    ...Object.values(columns).map((column: ArrayLike<number> | undefined) =>
      column === undefined ? null : Array.from(column),
    ),
  ])
  return JSON.stringify([record.first, record.time, record.lastTime, sections])
}
