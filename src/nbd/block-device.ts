/**
 * A block device as a served disk's bytes: its size, and by what it is known again (R35), all from sysfs. Costs a few small reads.
 *
 * Node cannot ask a device for its size, nor the kernel for a device's state; sysfs says both. What tells that somebody else wrote
 * is the kernel's count of sectors written and discarded. Of a partition it leaves out what is written through the whole device, so
 * the mark counts what came to the whole device and to none of the other partitions. It cannot see what goes past the device:
 * writes to what lies below it (the file of a loop device, the members of a RAID), nor any while its counting was switched off.
 */
import type { BigIntStats } from 'node:fs'
import { type FileHandle, readdir, readFile } from 'node:fs/promises'
import type { DiskMark } from '../../events/types.ts'
import { CheckpointError } from '../errors.ts'
import { deviceNumber, type MarkSource, statOf, thisBoot } from './file-mark.ts'

/** Sysfs counts in these, whatever the device's own sectors are. */
const SECTOR = 512
/** Fields of `stat`, from 0: sectors written, sectors discarded (since Linux 4.18). */
const WRITTEN = 6
const DISCARDED = 13
/** Looks at the other partitions until two in a row agree. */
const TRIES = 5

export class BlockDevice implements MarkSource {
  /** In bytes, when it was opened. */
  readonly size: number
  readonly #path: string
  readonly #file: FileHandle
  readonly #device: string
  readonly #sys: string
  readonly #sequence: string

  private constructor(
    at: { readonly path: string; readonly file: FileHandle; readonly device: string; readonly sys: string },
    size: number,
    sequence: string,
  ) {
    this.#path = at.path
    this.#file = at.file
    this.#device = at.device
    this.#sys = at.sys
    this.size = size
    this.#sequence = sequence
  }

  /**
   * `sys`: where sysfs is mounted.
   * @throws CheckpointError SERVED_FILE_INVALID: sysfs does not know it, it is read-only, or it has not the size that sysfs says
   */
  static async of(
    path: string,
    file: FileHandle,
    { rdev }: Pick<BigIntStats, 'rdev'>,
    readOnly: boolean,
    sys = '/sys',
  ): Promise<BlockDevice> {
    const device = deviceNumber(rdev)
    const at = `${sys}/dev/block/${device}`
    const size = await sizeOf(at)
    if (size === null)
      throw invalid(
        path,
        'no-sysfs',
        `${at}/size cannot be read, so nobody knows how large it is; mount sysfs`,
      )
    if (!readOnly && (await word(`${at}/ro`)) !== '0')
      throw invalid(
        path,
        'read-only',
        'it is a read-only block device; make it writable, or serve it with --read-only',
      )
    if (!(await endsAt(file, size)))
      throw invalid(
        path,
        'size-differs',
        `sysfs says ${size} bytes and reading it says otherwise; it may just be changing`,
      )
    return new BlockDevice({ path, file, device, sys }, size, await sequenceOf(at))
  }

  async look(): Promise<DiskMark> {
    // Ours are counted too, once they are out of the cache: equality means that nobody else wrote.
    await this.#file.sync()
    const at = `${this.#sys}/dev/block/${this.#device}`
    return {
      kind: 'block',
      device: this.#device,
      inode: await sequenceOf(at),
      size: (await sizeOf(at)) ?? this.size,
      modified: '0',
      changed: '0',
      boot: thisBoot(),
      sectorsWritten: await sectorsChanged(at),
    }
  }

  async strayed(): Promise<string | null> {
    const there = await statOf(this.#path)
    if (there === null) return 'nothing is there any more'
    if (!there.isBlockDevice() || deviceNumber(there.rdev) !== this.#device)
      return 'another device or file is there now'
    const same = (await sequenceOf(`${this.#sys}/dev/block/${this.#device}`)) === this.#sequence
    return same ? null : 'the device has other contents behind it now (it was detached and attached)'
  }
}

function invalid(path: string, why: string, words: string): CheckpointError {
  return new CheckpointError('SERVED_FILE_INVALID', `"${path}" cannot be served: ${words}`, {
    file: path,
    why,
  })
}

/**
 * Sectors written or discarded through this device, and, where it is a partition, through the whole one past its partitions. Both
 * only ever grow, so equal sums mean that neither did. Null where the kernel does not count, or cannot be read.
 */
async function sectorsChanged(at: string): Promise<number | null> {
  // Not joined by a library: the way up leads from where the link leads.
  const partition = (await word(`${at}/partition`)) !== null
  const whole = partition ? `${at}/..` : at
  if ((await word(`${whole}/queue/iostats`)) !== '1') return null
  if (!partition) return await counted(whole)
  const own = await nameOf(at)
  for (let tries = 0; tries < TRIES; tries++) {
    const before = await othersOf(whole, own)
    const all = await counted(whole)
    if (before === null || all === null) return null
    if ((await othersOf(whole, own)) === before) return all - before
  }
  return null
}

async function nameOf(at: string): Promise<string> {
  return /^DEVNAME=(.*)$/m.exec((await word(`${at}/uevent`)) ?? '')?.[1] ?? ''
}

/** Together: what the other partitions of a device changed. */
async function othersOf(whole: string, own: string): Promise<number | null> {
  let sum = 0
  for (const name of await readdir(whole).catch(() => [])) {
    if (name === own || (await word(`${whole}/${name}/partition`)) === null) continue
    const one = await counted(`${whole}/${name}`)
    if (one === null) return null
    sum += one
  }
  return sum
}

async function counted(at: string): Promise<number | null> {
  const fields = (await word(`${at}/stat`))?.split(/\s+/).map(Number)
  if (fields === undefined) return null
  const sum = (fields[WRITTEN] ?? Number.NaN) + (fields[DISCARDED] ?? 0)
  return Number.isSafeInteger(sum) ? sum : null
}

/** What is behind a device number changes with every attach; of a partition, that of the whole device. */
async function sequenceOf(at: string): Promise<string> {
  const sequence = (await word(`${at}/diskseq`)) ?? (await word(`${at}/../diskseq`)) ?? '0'
  return /^\d+$/.test(sequence) ? sequence : '0'
}

async function sizeOf(at: string): Promise<number | null> {
  const sectors = await word(`${at}/size`)
  return sectors !== null && /^\d+$/.test(sectors) ? Number(sectors) * SECTOR : null
}

async function word(file: string): Promise<string | null> {
  const text = await readFile(file, 'utf8').catch(() => null)
  return text === null ? null : text.trim()
}

/** A byte before the end is there, and none behind it. */
async function endsAt(file: FileHandle, size: number): Promise<boolean> {
  const byte = Buffer.alloc(1)
  const reads = async (at: number) => (await file.read(byte, 0, 1, at)).bytesRead
  return (size === 0 || (await reads(size - 1)) === 1) && (await reads(size)) === 0
}
