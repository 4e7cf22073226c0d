/**
 * A served disk whose guest must not stop when the log does (R33, `continue`): what cannot be recorded any more is written all the
 * same, once a mark that says so is durable. Everything since then is lost to the log (R35): maps cover the whole disk, and the
 * next open of the store tells the stretch. Where the mark cannot be made durable the disk stops, as others do.
 *
 * Costs a file of 4 KiB while the disk is served, and nothing per write until the log fails.
 */
import { CheckpointError, messageOf } from '../errors.ts'
import type { Move } from '../store/core.ts'
import { pathsOf } from '../store/folder.ts'
import { coreOf, type Store } from '../store/store.ts'
import { UnrecordedMark } from '../store/unrecorded.ts'

/** What clients see when the log cannot be written: writes that fail, or nothing. */
export type OnLogError = 'stop' | 'continue'

/** Causes of causes that are looked at. */
const DEPTH = 8

export class WithoutLog {
  readonly #store: Store
  readonly #disk: string
  readonly #mark: Pick<UnrecordedMark, 'set' | 'close'>
  readonly #tell: (error: CheckpointError) => void
  #begun: Promise<void> | undefined
  #going = false

  /** `tell`: that it goes on without a log, or why it cannot. Must not throw. */
  constructor(
    store: Store,
    disk: string,
    mark: Pick<UnrecordedMark, 'set' | 'close'>,
    tell: (error: CheckpointError) => void,
  ) {
    this.#store = store
    this.#disk = disk
    this.#mark = mark
    this.#tell = tell
  }

  /** @throws CheckpointError IO_FAILED when there can be no mark; TypeError for a store in memory. */
  static async prepare(
    store: Store,
    disk: string,
    tell: (error: CheckpointError) => void,
  ): Promise<WithoutLog> {
    if (store.folder === null)
      throw new TypeError('onLogError "continue" needs a store in a folder: that is where it is noted')
    const { number } = coreOf(store).catalog.disk(disk)!
    const folder = pathsOf(store.folder).unrecorded
    try {
      const mark = await UnrecordedMark.prepare(folder, number, disk, coreOf(store).log.head)
      return new WithoutLog(store, disk, mark, tell)
    } catch (cause) {
      throw new CheckpointError(
        'IO_FAILED',
        `cannot prepare ${folder} for disk "${disk}" to go on without a log (${messageOf(cause)}); put that right, or serve it with "stop"`,
        { path: folder, disk },
        cause,
      )
    }
  }

  /** Nothing is recorded any more. */
  get going(): boolean {
    return this.#going
  }

  /** Bytes may change unrecorded once it resolves. It rejects with `failure` when that is none of the log's, or cannot be noted. */
  async goOn(failure: unknown): Promise<void> {
    if (!ofLog(failure)) throw failure
    this.#begun ??= this.#begin(failure)
    try {
      await this.#begun
    } catch {
      throw failure
    }
  }

  async #begin(failure: CheckpointError): Promise<void> {
    const core = coreOf(this.#store)
    const { next, time, hash } = core.log.head
    const why = innermost(failure)
    try {
      await this.#mark.set({ next, time, hash }, core.clock.now, why)
    } catch (cause) {
      this.#tell(
        new CheckpointError(
          'IO_FAILED',
          `the log cannot be written (${why}), and that disk "${this.#disk}" goes on without it cannot be noted either (${messageOf(cause)}), so its writes fail; free space or change the disk, then serve it again`,
          { disk: this.#disk },
          cause,
        ),
      )
      throw cause
    }
    const { number } = core.catalog.disk(this.#disk)!
    const reason = `the log cannot be written (${why}), and the disk is written to without it`
    core.unrecorded.set(number, { from: { position: next - 1, time }, reason })
    this.#going = true
    this.#tell(
      new CheckpointError(
        'WRITES_UNRECORDED',
        `the log cannot be written (${why}): disk "${this.#disk}" goes on, and none of its writes is recorded any more; free space or change the disk, then serve it again, which tells the stretch as lost`,
        { disk: this.#disk, position: next - 1 },
        failure,
      ),
    )
  }

  end(): Promise<void> {
    return this.#mark.close()
  }
}

/** Log first (R31): `record` records and then moves; where there is no log any more, the bytes alone. */
export async function recordOrGoOn(
  without: WithoutLog,
  record: (move: Move) => Promise<void>,
  move: Move,
): Promise<void> {
  if (!without.going) {
    let recorded = false
    try {
      await record(() => {
        recorded = true
        return move()
      })
      return
    } catch (failure) {
      if (recorded) throw failure
      await without.goOn(failure)
    }
  }
  await move()
}

/** The log's half of a flush. */
export async function syncOrGoOn(store: Store, without: WithoutLog | null): Promise<void> {
  if (without?.going === true) return
  try {
    await store.sync()
  } catch (failure) {
    if (without === null) throw failure
    await without.goOn(failure)
  }
}

function ofLog(failure: unknown): failure is CheckpointError {
  return (
    failure instanceof CheckpointError &&
    (failure.code === 'STORE_FAILED' || failure.code === 'OUTCOME_UNKNOWN')
  )
}

function innermost(failure: unknown): string {
  let found = failure
  for (let depth = 0; depth < DEPTH && found instanceof Error && found.cause instanceof Error; depth++)
    found = found.cause
  return messageOf(found)
}
