/**
 * By what a served file is known again (R35): what the system says of it, once everything that was written to it is durable together
 * with its times. Costs an fsync and a stat.
 */
import type { BigIntStats } from 'node:fs'
import { type FileHandle, stat } from 'node:fs/promises'
import type { DiskMark } from '../../events/types.ts'
import { thisMachine } from '../store/machine.ts'
import { bootIdBytes } from '../store/open.ts'

/** What a served disk's bytes lie in, as far as it can be known again. */
export interface MarkSource {
  /** Makes everything durable, then looks. Rejects with the system's error. */
  look(): Promise<DiskMark>
  /** In words: what its path leads to by now, where that is not what was opened; null while it is. */
  strayed(): Promise<string | null>
}

/** `major:minor`, as the kernel numbers devices. */
export function deviceNumber(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn)
  return `${major}:${minor}`
}

/** This run of the machine, as a mark names it. */
export function thisBoot(): string {
  return Buffer.from(bootIdBytes(thisMachine.bootId())).toString('hex')
}

export class FileMarks implements MarkSource {
  readonly #path: string
  readonly #file: FileHandle

  constructor(path: string, file: FileHandle) {
    this.#path = path
    this.#file = file
  }

  async look(): Promise<DiskMark> {
    // Not only its bytes: a power cut must not put its times back behind what the mark says.
    await this.#file.sync()
    const { dev, ino, size, mtimeNs, ctimeNs } = await this.#file.stat({ bigint: true })
    return {
      kind: 'file',
      device: deviceNumber(dev),
      inode: String(ino),
      size: Number(size),
      modified: String(mtimeNs),
      changed: String(ctimeNs),
      boot: thisBoot(),
      sectorsWritten: null,
    }
  }

  async strayed(): Promise<string | null> {
    const there = await statOf(this.#path)
    if (there === null) return 'nothing is there any more'
    const own = await this.#file.stat({ bigint: true })
    return there.dev === own.dev && there.ino === own.ino ? null : 'another file is there now'
  }
}

/** Null where nothing is, or nothing that can be looked at. */
export async function statOf(path: string): Promise<BigIntStats | null> {
  return await stat(path, { bigint: true }).catch(() => null)
}
