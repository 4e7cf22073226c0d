/**
 * A log as it was at one moment, to be read by everything that reads a log, while the live one goes on. What replaces values
 * meanwhile is not seen; it keeps their space until this is closed. Costs a LevelDB snapshot.
 */
import { CheckpointError } from '../errors.ts'
import { BaseLog, type OpenSource } from './base-log.ts'
import type { EventLog, LogHead } from './event-log.ts'
import { commandKey, positionOf } from './keys.ts'
import { type LevelSource, levelFailure, type RawEntries } from './level-source.ts'

/** What an audit asks of a log besides what everybody does. */
export interface AuditedLog extends EventLog {
  /** Every key and value as they are; `from`: the position of a stored value. */
  rawEntries(from?: number): RawEntries
  /** Position of the stored value that holds `position`, or of the last one before it; undefined before the first. */
  startOfValue(position: number): Promise<number | undefined>
}

export class FrozenLog extends BaseLog implements AuditedLog {
  readonly #source: LevelSource

  /** `source` is released with it. */
  constructor(source: LevelSource, head: LogHead, synced: LogHead) {
    super(head, synced)
    this.#source = source
  }

  /** One view for every reader: none of them lets go of it. */
  protected override source(): Promise<OpenSource> {
    const source = this.#source
    return Promise.resolve({
      entries: (from, to, reverse) => source.entries(from, to, reverse),
      floor: (position) => source.floor(position),
      release: async () => undefined,
    })
  }

  rawEntries(from = 0): RawEntries {
    return this.#source.rawEntries(from)
  }

  async startOfValue(position: number): Promise<number | undefined> {
    return (await this.#source.floor(position))?.position
  }

  protected override async indexedPosition(commandId: string): Promise<number | undefined> {
    try {
      const value = await this.#source.get(commandKey(commandId))
      return value && positionOf(value)
    } catch (error) {
      throw levelFailure(error)
    }
  }

  protected override store(): Promise<void> {
    return Promise.reject(onlyRead())
  }

  protected override withValuesStill<T>(work: () => Promise<T>): Promise<T> {
    return work()
  }

  protected override reclaimSome(): Promise<void> {
    return Promise.reject(onlyRead())
  }

  protected override repackSome(): Promise<{ readonly before: number; readonly after: number }> {
    return Promise.reject(onlyRead())
  }

  /** The live log may have been closed meanwhile, and its views with it. */
  protected override async release(): Promise<void> {
    await this.#source.release().catch(() => undefined)
  }
}

function onlyRead(): CheckpointError {
  return new CheckpointError('STORE_CLOSED', 'this log is one moment of another and can only be read')
}
