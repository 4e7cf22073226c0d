/**
 * Whether the log that LevelDB opened is the one that was closed, killed or cut off (R28): it reaches the head file's head,
 * with that hash, and the stretch that may have come out of write-ahead files has no hole and an unbroken chain.
 *
 * Cost: the tail only, as many bytes as the write-ahead files held, whatever the log's length.
 */
import { EMPTY_HASH, hashesOf } from '../../events/record.ts'
import { CheckpointError } from '../errors.ts'
import { EMPTY_HEAD, sameHash } from './base-log.ts'
import { logDamaged, refusalAt } from './damaged.ts'
import { type EntrySource, headerOf, hole, type StoredEntry } from './entries.ts'
import type { LogHead } from './event-log.ts'
import type { HeadFileContent } from './head-file.ts'

export interface Verdict {
  /** Of the part that is good. */
  readonly head: LogHead
  /** What the log had to reach, or null without a readable head file. */
  readonly required: LogHead | null
  /** Why it is not good, or not good to its end. */
  readonly damage?: CheckpointError
  /** The damage lies after everything that had to survive: it may be cut off. */
  readonly beyondRequired: boolean
}

/** Which head the log must reach: a killed process loses nothing, a machine that restarted only what was not synced. */
export function requiredHead(content: HeadFileContent, bootId: Uint8Array): LogHead | null {
  if (content.kind !== 'good') return null
  const { slot } = content
  return slot.state === 'closed' || sameHash(slot.bootId, bootId) ? slot.acknowledged : slot.synced
}

/** Throws FORMAT_TOO_NEW; damage is part of the verdict. */
export async function checkLog(
  source: EntrySource,
  content: HeadFileContent,
  bootId: Uint8Array,
  walBytes: number,
): Promise<Verdict> {
  if (content.kind === 'too-new') {
    throw new CheckpointError(
      'FORMAT_TOO_NEW',
      `the head file has version ${content.version}; open the store with a newer slicelog`,
      {
        what: 'head file',
        version: content.version,
      },
    )
  }
  const required = requiredHead(content, bootId)
  const last = await source.floor(Number.MAX_SAFE_INTEGER)
  if (last === undefined && content.kind === 'missing')
    return { head: EMPTY_HEAD, required, beyondRequired: false }
  const walk = new TailWalk(required)
  try {
    if (last !== undefined) await walk.run(source, await tailStart(source, last.position, walBytes, required))
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'LOG_DAMAGED') throw error
    return {
      head: walk.head,
      required,
      damage: error,
      beyondRequired: walk.reached && content.kind === 'good',
    }
  }
  const { head } = walk
  if (required === null) {
    return {
      head,
      required,
      damage: logDamaged(`head-file-${content.kind}`, { found: head.next }),
      beyondRequired: false,
    }
  }
  if (walk.reached) return { head, required, beyondRequired: false }
  const problem = head.next < required.next ? 'shorter' : 'head-differs'
  const facts = { position: head.next, expected: required.next, found: head.next }
  return { head, required, damage: logDamaged(problem, facts), beyondRequired: false }
}

/** Where to begin: before the required head, and before anything that fits into `walBytes` at the end. */
async function tailStart(
  source: EntrySource,
  last: number,
  walBytes: number,
  required: LogHead | null,
): Promise<number> {
  let start = last
  let bytes = 0
  scan: for await (const entries of source.entries(0, last, true)) {
    for (const { position, value } of entries) {
      start = position
      bytes += value.length
      if (bytes > walBytes) break scan
    }
  }
  if (required === null || required.next === 0) return start
  const holder = await source.floor(required.next - 1)
  return Math.min(start, holder?.position ?? 0)
}

class TailWalk {
  head: LogHead = EMPTY_HEAD
  /** The required head lies on the chain that was walked. */
  reached: boolean

  constructor(readonly required: LogHead | null) {
    this.reached = required?.next === 0
  }

  async run(source: EntrySource, start: number): Promise<void> {
    const before = start === 0 ? undefined : await source.floor(start - 1)
    if (before !== undefined) {
      const { first, count, hash, lastTime } = headerOf(before)
      this.head = { next: first + count, time: lastTime, hash }
    }
    for await (const entries of source.entries(start, Number.MAX_SAFE_INTEGER, false)) {
      for (const entry of entries) if (entry.position >= start) this.#step(entry)
    }
  }

  #step(entry: StoredEntry): void {
    const header = headerOf(entry)
    if (header.first !== this.head.next) throw hole(this.head.next, header.first)
    // Behind a gap whose hash nobody knows only `log-repaired` vouches for what follows, which verify looks at (R28).
    const unknown = this.head.next > 0 && sameHash(this.head.hash, EMPTY_HASH)
    const steps = unknown
      ? [{ next: header.first + header.count, hash: header.hash }]
      : stepsOf(entry, this.head.next === 0 ? EMPTY_HASH : this.head.hash)
    const end = steps[steps.length - 1]!
    if (!sameHash(end.hash, header.hash)) throw logDamaged('chain', { position: header.first })
    const { required } = this
    if (
      required !== null &&
      steps.some((step) => step.next === required.next && sameHash(step.hash, required.hash))
    ) {
      this.reached = true
    }
    this.head = { next: end.next, time: header.lastTime, hash: end.hash }
  }
}

/** Following the chain through a pack decodes it: a right checksum does not make its content right. */
function stepsOf({ position, value }: StoredEntry, previous: Uint8Array): ReturnType<typeof hashesOf> {
  try {
    return hashesOf(value, previous)
  } catch (error) {
    throw refusalAt(position, error)
  }
}
