/**
 * The player: a recorded incident as a store in memory, with the same positions, times, bits and plans, for a test to assert on.
 * The same file always gives the same store.
 */
import { readFile, stat } from 'node:fs/promises'
import type { LogRecord } from '../../events/types.ts'
import { type Finding, Findings } from '../audit/findings.ts'
import { AuditFold } from '../audit/fold.ts'
import { CheckpointError } from '../errors.ts'
import { MemoryEventLog } from '../log/memory-log.ts'
import { needObject, needPath } from '../store/arguments.ts'
import { Derived } from '../store/derived.ts'
import { openMemoryStore } from '../store/open.ts'
import { cutRecord } from '../store/state.ts'
import type { Store } from '../store/store.ts'
import type { Clock, PointInput } from '../store/types.ts'
import { KEEP_NAMES } from './anonymise.ts'
import { ChosenDisks } from './chosen-disks.ts'
import { manualClock } from './clock.ts'
import { decodeIncident, type IncidentContent, type IncidentInfo, recordsIn } from './incident-file.ts'
import { IncidentWriter } from './incident-writer.ts'
import { type RecordedCommand, type Redecided, recordedCommands, redecideRecord } from './redecide.ts'
import { Shift } from './shift.ts'

export interface PlayOptions {
  /** Of the stores that are played. Default: one that stands at the last event until it is told. */
  readonly clock?: Clock
}

/**
 * Plays a file, or its bytes.
 * @throws CheckpointError INCIDENT_INVALID, FORMAT_TOO_NEW, IO_FAILED
 */
export async function playIncident(
  file: string | URL | Uint8Array,
  options: PlayOptions = {},
): Promise<IncidentPlayer> {
  needObject('the options', options)
  const bytes = file instanceof Uint8Array ? file : await bytesOf(file)
  const content = decodeIncident(bytes)
  return new IncidentPlayer(content, options, await openAt(content, null, options))
}

/** What the file says of itself, without playing it. Errors as for `playIncident`. */
export async function readIncident(file: string | URL | Uint8Array): Promise<IncidentInfo> {
  return decodeIncident(file instanceof Uint8Array ? file : await bytesOf(file)).info
}

async function bytesOf(file: string | URL): Promise<Uint8Array> {
  if (!(file instanceof URL)) needPath('the file', file)
  try {
    // Opening a pipe would wait for its writer, for ever and deaf to Ctrl-C.
    if ((await stat(file)).isFIFO()) throw new Error('it is a pipe, and no file')
    return await readFile(file)
  } catch (cause) {
    throw new CheckpointError(
      'IO_FAILED',
      `cannot read ${String(file)}: ${(cause as Error).message}`,
      {},
      cause,
    )
  }
}

export class IncidentPlayer {
  readonly info: IncidentInfo
  /** The store at the end of the incident. Ask it anything; what is recorded on it stays in memory. */
  readonly store: Store
  readonly #content: IncidentContent
  readonly #options: PlayOptions
  readonly #opened: Store[]

  /** Use `playIncident`. */
  constructor(content: IncidentContent, options: PlayOptions, store: Store) {
    this.info = content.info
    this.store = store
    this.#content = content
    this.#options = options
    this.#opened = [store]
  }

  /**
   * Another store, that stands at this point as if nothing had happened after it: try there what should have been done.
   * A position in the middle of a command's record means its end (R20); one inside a window, that window's end (R29).
   */
  async to(point: PointInput): Promise<Store> {
    const { position } = await this.store.resolvePoint(point, 'at')
    const store = await openAt(this.#content, position, this.#options)
    this.#opened.push(store)
    return store
  }

  /** Every record of the incident, writes too, in order. */
  *records(): Generator<LogRecord> {
    yield* recordsIn(this.#content.entries)
  }

  /** What was commanded, in order; `asked` is what the command must have been. */
  *commands(): Generator<RecordedCommand> {
    for (const { command } of recordedCommands(this.records())) yield command
  }

  /** Decides every command again by today's rules. */
  redecide(): Redecided[] {
    const decided: Redecided[] = []
    for (const { command, before } of recordedCommands(this.records()))
      decided.push(redecideRecord(command, before, !this.info.anonymised))
    return decided
  }

  /** What `verify` finds of the events themselves: each legal in its state, every plan the same when made again (R26, R28). */
  async verify(): Promise<readonly Finding[]> {
    const log = new MemoryEventLog({ entries: [...this.#content.entries], commands: new Map() })
    const scratch = await Derived.open(null)
    const findings = new Findings()
    try {
      const fold = new AuditFold(log, scratch, findings)
      let number = 0
      for (const record of this.records()) await fold.fold(record, number++, true)
      return findings.list(() => [])
    } finally {
      await scratch.close()
      await log.close()
    }
  }

  /** Closes every store that was played. */
  async close(): Promise<void> {
    for (const store of this.#opened) await store.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** A memory store on the incident's log, or on its part up to `last`. */
async function openAt(content: IncidentContent, last: number | null, options: PlayOptions): Promise<Store> {
  const commands = new Map<string, number>()
  const entries = last === null ? [...content.entries] : entriesUpTo(content, last)
  let time = 0
  for (const record of recordsIn(entries)) {
    time = record.lastTime
    if (record.kind === 'events' && record.meta.commandId !== undefined)
      commands.set(record.meta.commandId, record.first)
  }
  const log = new MemoryEventLog({ entries, commands })
  return await openMemoryStore({ log, clock: options.clock ?? manualClock(time), stillRunning: true })
}

/** Stored anew, because the end may lie inside a pack or a record. */
function entriesUpTo(content: IncidentContent, last: number) {
  const writer = new IncidentWriter({
    from: -1,
    referred: new Set(),
    names: KEEP_NAMES,
    shift: new Shift(0),
    disks: new ChosenDisks(null),
  })
  for (const record of recordsIn(content.entries)) {
    if (record.first > last) break
    writer.add(cutRecord(record, last))
  }
  return [...writer.end()]
}
