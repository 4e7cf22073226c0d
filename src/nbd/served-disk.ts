/**
 * A disk that this process serves: a raw file or block device whose every change is recorded in the store before the file sees it (R31).
 *
 *   write → record (group commit with all that wait) → the file → answered
 *
 * Many requests at once share the committer's batches by themselves. The file's write is the record's `move`, so a point that is
 * taken meanwhile has it on both sides (R8). Costs a record per request, and a sync of file and log per flush; flushes that wait
 * share one. A log that fails ends writing, not reading (R33), unless the disk is to go on without it
 * (without-log.ts). No discard reaches the file: it is recorded, and the bytes stay.
 */

import type { WriteOp } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import type { Core, Move } from '../store/core.ts'
import type { Disk } from '../store/disk.ts'
import { coreOf, type Store } from '../store/store.ts'
import type { WriteRange } from '../store/types.ts'
import { Calls } from './calls.ts'
import { listContexts, openContext } from './contexts.ts'
import { toNbdError } from './errno.ts'
import { NbdError } from './errors.ts'
import type { NbdContext, NbdExport, ZeroHow } from './export.ts'
import { declareIfChanged } from './file-check.ts'
import { Marks } from './marks.ts'
import { type DiskBytes, RawFile } from './raw-file.ts'
import { SharedFlush } from './shared-flush.ts'
import { type OnLogError, recordOrGoOn, syncOrGoOn, WithoutLog } from './without-log.ts'

export interface ServedDiskOptions {
  /** The disk's id in the store. It is added, with the size of the file, where it is not there. */
  readonly disk: string
  /** A raw image, or a block device. */
  readonly file: string
  /** What clients ask for. Default: the disk's id. */
  readonly name?: string
  readonly description?: string
  /** True: nothing is written, and the disk is not attached. Default false. */
  readonly readOnly?: boolean
  /** When the log cannot be written (R33): `stop` fails writes, `continue` goes on unrecorded, where that can be noted. Default `stop`. */
  readonly onLogError?: OnLogError
}

/** What a disk has that clients may change. */
interface Writable {
  readonly without: WithoutLog | null
  readonly marks: Marks | null
  /** Gives the disk back to whoever wants to resize, detach, remove or serve it. Idempotent. */
  readonly letGo: () => void
}

const READ_ONLY: Writable = { without: null, marks: null, letGo: () => undefined }

/** Told that a disk goes on without a log, or why it cannot. */
type Tell = (error: CheckpointError) => void

export class ServedDisk implements NbdExport {
  readonly name: string
  readonly description: string
  readonly readOnly: boolean
  readonly size: number
  readonly #store: Store
  readonly #core: Core
  readonly #disk: Disk
  readonly #bytes: DiskBytes
  readonly #flushes: SharedFlush
  readonly #without: WithoutLog | null
  readonly #marks: Marks | null
  readonly #letGo: () => void
  readonly #calls = new Calls(() => new NbdError('ESHUTDOWN', `export "${this.name}" is going away`))
  #closing: Promise<void> | undefined

  private constructor(
    store: Store,
    disk: Disk,
    bytes: DiskBytes,
    options: Omit<ServedDiskOptions, 'file'>,
    { without, marks, letGo }: Writable,
  ) {
    this.name = options.name ?? options.disk
    this.description = options.description ?? `slicelog disk ${options.disk}`
    this.readOnly = options.readOnly === true
    this.size = bytes.size
    this.#store = store
    this.#core = coreOf(store)
    this.#disk = disk
    this.#bytes = bytes
    this.#without = without
    this.#marks = marks
    this.#letGo = letGo
    this.#flushes = new SharedFlush(async () => {
      await Promise.all([bytes.sync(), syncOrGoOn(store, without)])
      marks?.flushed()
    })
  }

  /**
   * Opens the file and attaches the disk, which from then on only this process writes (R32). What is found to have changed since
   * it was served last is lost (R35).
   * @throws CheckpointError DISK_SERVED, IO_FAILED, SERVED_FILE_INVALID, DISK_SIZE_MISMATCH (R35), SIZE_INVALID, and what a command may throw
   */
  static async open(store: Store, options: ServedDiskOptions, tell?: Tell): Promise<ServedDisk> {
    const bytes = await RawFile.open(options.file, options.readOnly === true)
    try {
      return await ServedDisk.over(store, bytes, options, tell)
    } catch (error) {
      await bytes.close()
      throw error
    }
  }

  /** The same over bytes that are open already; `file` names them where they do not fit. */
  static async over(
    store: Store,
    bytes: DiskBytes,
    options: ServedDiskOptions,
    tell: Tell = () => undefined,
  ): Promise<ServedDisk> {
    const held = store.disks().find(({ disk }) => disk === options.disk)
    if (held !== undefined && held.size !== bytes.size) throw sizeDiffers(options, held.size, bytes.size)
    if (options.readOnly === true) {
      await declareIfChanged(store, options.disk, bytes)
      const { disk: id } = options
      const disk = held === undefined ? await store.addDisk(id, { size: bytes.size }) : store.disk(id)
      return new ServedDisk(store, disk, bytes, options, READ_ONLY)
    }
    const letGo = coreOf(store).served.add(options.disk)
    let disk: Disk | null = null
    try {
      await declareIfChanged(store, options.disk, bytes)
      disk = await store.ensureDisk(options.disk, { size: bytes.size, recorder: 'store' })
      const marks = bytes.marks === undefined ? null : new Marks(store, disk.id, bytes.marks, tell)
      await marks?.begin()
      const goesOn = options.onLogError === 'continue'
      const without = goesOn ? await WithoutLog.prepare(store, disk.id, tell) : null
      return new ServedDisk(store, disk, bytes, options, { without, marks, letGo })
    } catch (error) {
      letGo() // First: what is served is not detached.
      await disk?.detach()
      throw error
    }
  }

  /** The disk's id in the store. */
  get disk(): string {
    return this.#disk.id
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#run(() => this.#bytes.read(offset, length))
  }

  write(offset: number, data: Uint8Array, fua: boolean): Promise<void> {
    return this.#change('write', offset, data.length, fua, () => this.#bytes.write(offset, data))
  }

  writeZeroes(offset: number, length: number, how: ZeroHow): Promise<void> {
    return this.#change('zero', offset, length, how.fua, () => this.#bytes.zero(offset, length, how.noHole))
  }

  trim(offset: number, length: number, fua: boolean): Promise<void> {
    return this.#change('discard', offset, length, fua, () => undefined)
  }

  flush(): Promise<void> {
    return this.#run(() => (this.readOnly ? undefined : this.#flushes.run()))
  }

  /** The system's cache is warmed by its own read-ahead; a hint that is not taken is legal. */
  cache(): Promise<void> {
    return this.#run(() => undefined)
  }

  contexts(query?: string): Promise<readonly string[]> {
    return this.#run(() => listContexts(this.#store, this.#disk.id, query))
  }

  context(name: string): Promise<NbdContext | null> {
    return this.#run(() => openContext(this.#store, this.#disk.id, this.size, name))
  }

  /**
   * Takes nothing more, waits for what is under way, makes all of it durable and detaches the disk. Idempotent. With a store
   * that failed the file is made durable and closed all the same; what failed was told to who wrote.
   */
  close(): Promise<void> {
    this.#closing ??= this.#end()
    return this.#closing
  }

  async #end(): Promise<void> {
    await this.#calls.end(null)
    try {
      if (!this.readOnly) {
        await this.#bytes.sync()
        await this.#marks?.end()
        this.#letGo()
        await this.#detach()
      }
    } finally {
      this.#letGo()
      await this.#bytes.close()
      await this.#without?.end()
    }
  }

  async #detach(): Promise<void> {
    try {
      await this.#disk.detach()
    } catch (error) {
      // A store that failed or closed says so to its owner; a disk that was removed just now needs no detach.
      const codes = ['STORE_FAILED', 'STORE_CLOSED', 'DISK_NOT_FOUND']
      if (!(error instanceof CheckpointError && codes.includes(error.code))) throw error
    }
  }

  /** Log first (R31, R33); a change whose bytes fail afterwards keeps its bits. */
  #change(op: WriteOp, offset: number, length: number, fua: boolean, move: Move): Promise<void> {
    return this.#run(async () => {
      if (this.readOnly) throw new NbdError('EPERM', `export "${this.name}" is served read-only`)
      if (length > 0) await this.#record({ offset, length, op }, move)
      if (fua) await this.#flushes.run()
    })
  }

  async #record(range: WriteRange, move: Move): Promise<void> {
    const record = (moving: Move) => this.#core.recordServed(this.#disk.id, range, moving)
    this.#marks?.changing()
    try {
      await (this.#without === null ? record(move) : recordOrGoOn(this.#without, record, move))
    } finally {
      this.#marks?.changed()
    }
  }

  async #run<T>(work: () => T | Promise<T>): Promise<T> {
    try {
      return await this.#calls.run(work)
    } catch (error) {
      throw toNbdError(error)
    }
  }
}

function sizeDiffers(options: ServedDiskOptions, size: number, found: number): CheckpointError {
  return new CheckpointError(
    'DISK_SIZE_MISMATCH',
    `"${options.file}" has ${found} bytes and disk "${options.disk}" has ${size} in the store; give the right file, or resize the disk if it changed`,
    { disk: options.disk, size, wanted: found, file: options.file },
  )
}
