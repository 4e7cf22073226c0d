/**
 * The bytes of a served disk: a raw file or a block device, read and written in place, whole or not at all as far as a caller can tell.
 *
 * System calls may do less than they were asked for: every transfer goes on until it is done. Buffered: `sync` makes durable.
 * Zeroes are written only where the file does not read as zeroes already, so a sparse file stays sparse. Costs: a read of what
 * is zeroed, no copy of what is written.
 */
import { constants, read as readAt, readSync, write as writeAt, writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { CheckpointError } from '../errors.ts'
import { Pace } from '../log/pace.ts'
import { BlockDevice } from './block-device.ts'
import { FileMarks, type MarkSource } from './file-mark.ts'

/** What a served disk does with bytes; errors are the system's, with their `code`. */
export interface DiskBytes {
  /** In bytes, as it was when opened. */
  readonly size: number
  /** When anything of it changed last, as found when it was opened: ms since the epoch; null where nobody knows. */
  readonly changedAt: number | null
  /** By what they are known again (R35); left out where nothing is. */
  readonly marks?: MarkSource
  read(offset: number, length: number): Promise<Uint8Array> | Uint8Array
  /** `data` must stay as it is until this is settled. Nothing: it was done at once. */
  write(offset: number, data: Uint8Array): Promise<void> | undefined
  /** `allocate`: also where it reads as zeroes already. */
  zero(offset: number, length: number, allocate: boolean): Promise<void>
  /** What was written survives a power cut afterwards. */
  sync(): Promise<void>
  close(): Promise<void>
}

const ZEROES = Buffer.alloc(256 * 1024)

/** Up to this many bytes a transfer may be made on the main thread, where such are quick: a copy to or from the page cache. */
const QUICK_BYTES_MAX = 64 * 1024

export class RawFile implements DiskBytes {
  readonly size: number
  readonly changedAt: number | null
  readonly marks: MarkSource
  readonly #file: FileHandle
  readonly #reads = new Pace()
  readonly #writes = new Pace()

  private constructor(file: FileHandle, size: number, changedAt: number | null, marks: MarkSource) {
    this.#file = file
    this.size = size
    this.changedAt = changedAt
    this.marks = marks
  }

  /**
   * Opens a file or block device that is there; never makes one. `sys`: where sysfs is mounted.
   * @throws CheckpointError IO_FAILED (it cannot be opened), SERVED_FILE_INVALID (neither of them, or a device that cannot be served)
   */
  static async open(path: string, readOnly: boolean, sys?: string): Promise<RawFile> {
    const file = await openThere(path, readOnly)
    try {
      const info = await file.stat({ bigint: true })
      if (info.isBlockDevice()) {
        const device = await BlockDevice.of(path, file, info, readOnly, sys)
        return new RawFile(file, device.size, null, device)
      }
      if (!info.isFile()) {
        throw new CheckpointError(
          'SERVED_FILE_INVALID',
          `"${path}" is no regular file and no block device, and only those are served; give a raw image or a device`,
          { file: path, why: 'not-a-file' },
        )
      }
      return new RawFile(file, Number(info.size), Number(info.ctimeNs) / 1e6, new FileMarks(path, file))
    } catch (error) {
      await file.close()
      throw error
    }
  }

  read(offset: number, length: number): Promise<Uint8Array> | Uint8Array {
    const into = Buffer.allocUnsafe(length)
    if (length > QUICK_BYTES_MAX || !this.#reads.isQuick) return this.#readInto(into, offset)
    const done = this.#reads.run(() => readSync(this.#file.fd, into, 0, length, offset))
    return done === length ? into : this.#readInto(into, offset, done)
  }

  write(offset: number, data: Uint8Array): Promise<void> | undefined {
    const { length } = data
    if (length > QUICK_BYTES_MAX || !this.#writes.isQuick) return this.#writeFrom(data, offset)
    const done = this.#writes.run(() => writeSync(this.#file.fd, data, 0, length, offset))
    return done === length ? undefined : this.#writeFrom(data, offset, done)
  }

  async zero(offset: number, length: number, allocate: boolean): Promise<void> {
    const there = allocate ? null : Buffer.allocUnsafe(Math.min(length, ZEROES.length))
    for (let done = 0; done < length; ) {
      const zeroes = ZEROES.subarray(0, Math.min(length - done, ZEROES.length))
      if (there === null || !(await this.#isZero(there.subarray(0, zeroes.length), offset + done)))
        await this.write(offset + done, zeroes)
      done += zeroes.length
    }
  }

  async sync(): Promise<void> {
    await this.#file.datasync()
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async #isZero(into: Buffer, offset: number): Promise<boolean> {
    await this.#readInto(into, offset)
    return into.equals(ZEROES.subarray(0, into.length))
  }

  async #readInto(into: Buffer, offset: number, from = 0): Promise<Buffer> {
    for (let done = from; done < into.length; ) {
      const more = await this.#readSome(into, done, offset + done)
      // Never zeroes in place of bytes that somebody took away.
      if (more === 0)
        throw new Error(`the file ends at byte ${offset + done}: it was cut while it was served`)
      done += more
    }
    return into
  }

  async #writeFrom(data: Uint8Array, offset: number, from = 0): Promise<void> {
    for (let done = from; done < data.length; ) done += await this.#writeSome(data, done, offset + done)
  }

  #readSome(into: Buffer, at: number, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      readAt(this.#file.fd, into, at, into.length - at, offset, (error, bytes) =>
        error === null ? resolve(bytes) : reject(error),
      )
    })
  }

  #writeSome(data: Uint8Array, at: number, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      writeAt(this.#file.fd, data, at, data.length - at, offset, (error, bytes) =>
        error === null ? resolve(bytes) : reject(error),
      )
    })
  }
}

async function openThere(path: string, readOnly: boolean): Promise<FileHandle> {
  try {
    // Without waiting for whoever is at the other end of a pipe, should it be one.
    return await open(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK)
  } catch (cause) {
    throw new CheckpointError(
      'IO_FAILED',
      `cannot open "${path}" to serve it (${(cause as Error).message}); put that right, or give another file`,
      { path, code: (cause as NodeJS.ErrnoException).code ?? null },
      cause,
    )
  }
}
