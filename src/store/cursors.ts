/**
 * Cursors: a reader's own place in the log, by name, so that it goes on where it left off (never called a checkpoint).
 *
 * They lie with what is derived from the log and are as cheap as that: one small put a save, not synced. After a power cut a
 * cursor may be older than its last save, and after the loss of the derived folder it is at the start again: a reader may
 * meet an event twice, and never misses one. A compaction leaves a boundary behind each saved position (R29).
 */
import { Packr } from 'msgpackr'
import { checkName } from '../commands/names.ts'
import { CheckpointError } from '../errors.ts'
import { sameHash } from '../log/base-log.ts'
import type { EventLog } from '../log/event-log.ts'
import type { Derived, NamedKind } from './derived.ts'

const packr = new Packr({ useRecords: false })

/** Where a reader is: its name, the last position it is done with (-1: none), and the chain's hash there if a record ends there. */
type Plain = readonly [position: number, hash: Uint8Array | null]

export interface CursorInfo {
  readonly name: string
  /** The last event that its reader is done with; -1 before the first. */
  readonly position: number
}

type Source = Pick<EventLog, 'head' | 'hashAt'>

export class Cursor implements CursorInfo {
  readonly #log: Source
  readonly #derived: Derived
  #position: number
  #saving: Promise<void> = Promise.resolve()

  constructor(
    readonly name: string,
    position: number,
    log: Source,
    derived: Derived,
  ) {
    this.#position = position
    this.#log = log
    this.#derived = derived
  }

  get position(): number {
    return this.#position
  }

  /**
   * Says that everything up to and including `position` was dealt with; an earlier one than before winds back. Saves of one
   * cursor reach the disk in the order of their calls.
   * @throws CheckpointError POINT_NOT_FOUND when the log has no such event, STORE_CLOSED, IO_FAILED; RangeError
   */
  async save(position: number): Promise<void> {
    if (!Number.isSafeInteger(position) || position < -1)
      throw new RangeError(
        `a cursor stands at a position, or at -1 before the first, not at ${String(position)}`,
      )
    const last = this.#log.head.next - 1
    if (position > last)
      throw new CheckpointError(
        'POINT_NOT_FOUND',
        `position ${position} is not in the log yet, whose last is ${last}; save what was read`,
        { position, head: last },
      )
    this.#position = position
    const saved = this.#saving.catch(() => undefined).then(() => this.#put(position))
    this.#saving = saved
    await saved
  }

  async #put(position: number): Promise<void> {
    const hash = (await this.#log.hashAt(position)) ?? null
    await guarded(() => this.#derived.putNamed('k', this.name, packr.pack([position, hash] satisfies Plain)))
  }

  /** Forgets it: the next `store.cursor` of that name begins before the first event. */
  async delete(): Promise<void> {
    this.#position = -1
    await this.#saving.catch(() => undefined)
    await guarded(() => this.#derived.dropNamed('k', this.name))
  }
}

/** The cursor of that name, where it was saved last; a new one stands before the first event. NAME_EMPTY, NAME_TOO_LONG, NAME_INVALID. */
export async function openCursor(name: string, log: Source, derived: Derived): Promise<Cursor> {
  checkName('cursor', name)
  return new Cursor(name, await positionOf(name, log, derived), log, derived)
}

export async function listCursors(log: Source, derived: Derived): Promise<CursorInfo[]> {
  const cursors: CursorInfo[] = []
  for (const name of await guarded(() => derived.names('k')))
    cursors.push({ name, position: await positionOf(name, log, derived) })
  return cursors
}

/** Damaged, of a future that the log lost, or of another history: as if it had not been saved, and reported. */
async function positionOf(name: string, log: Source, derived: Derived): Promise<number> {
  const bytes = await guarded(() => derived.named('k', name))
  if (bytes === undefined || bytes === 'damaged') return -1
  const [position, hash] = packr.unpack(bytes) as Plain
  const now = position < log.head.next ? await log.hashAt(position) : undefined
  const foreign = position >= log.head.next || (hash !== null && now !== undefined && !sameHash(hash, now))
  if (!foreign) return position
  derived.rebuilt.push(`cursor "${name}" was of another history of the log and begins again`)
  await guarded(() => derived.dropNamed('k', name))
  return -1
}

/**
 * What a compaction must not cross (R29): the positions of all saved cursors and projections. No window, and no stored run
 * of windows, may hold both such a position and the next: readers go on there, and check the chain's hash there.
 */
export async function cursorPositions(derived: Derived): Promise<number[]> {
  const positions = new Set<number>()
  const kinds: readonly NamedKind[] = ['k', 'p']
  for (const kind of kinds) {
    for (const name of await derived.names(kind)) {
      const bytes = await derived.named(kind, name)
      // Both kinds begin with the position.
      if (bytes instanceof Uint8Array) positions.add((packr.unpack(bytes) as readonly [number])[0])
    }
  }
  return [...positions].filter((position) => position >= 0).sort((a, b) => a - b)
}

/** LevelDB's words in ours. */
export async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (String((cause as { code?: unknown }).code ?? '').endsWith('_NOT_OPEN'))
      throw new CheckpointError('STORE_CLOSED', 'the store is closed; open it again', {}, cause)
    throw new CheckpointError(
      'IO_FAILED',
      `what is derived from the log could not be read or written (${(cause as Error).message}); free space or check the disk, the log is untouched`,
      {},
      cause,
    )
  }
}
