/** A served disk to try rules on: a store in memory and a raw file of its own, or bytes in memory that can be made to fail. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type NbdErrno, NbdError } from '../../src/nbd/errors.ts'
import type { NbdContext, NbdDescriptor } from '../../src/nbd/export.ts'
import type { DiskBytes } from '../../src/nbd/raw-file.ts'

export const KiB = 1024

export interface Folder {
  readonly path: (name: string) => string
  readonly remove: () => void
}

export function folder(): Folder {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-nbd-'))
  return {
    path: (name) => join(root, name),
    remove: () => rmSync(root, { recursive: true, force: true }),
  }
}

/** Bytes in memory that note what was asked of them. */
export class MemoryBytes implements DiskBytes {
  readonly content: Buffer
  readonly calls: string[] = []
  /** Runs before each call; what it throws is what the call fails with. */
  before: (call: string) => unknown = () => undefined
  closed = false
  readonly changedAt = null

  constructor(readonly size: number) {
    this.content = Buffer.alloc(size)
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    await this.#call(`read ${offset}+${length}`)
    return Buffer.from(this.content.subarray(offset, offset + length))
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    await this.#call(`write ${offset}+${data.length}`)
    this.content.set(data, offset)
  }

  async zero(offset: number, length: number, allocate: boolean): Promise<void> {
    await this.#call(`zero ${offset}+${length}${allocate ? ' allocate' : ''}`)
    this.content.fill(0, offset, offset + length)
  }

  async sync(): Promise<void> {
    await this.#call('sync')
  }

  async close(): Promise<void> {
    this.closed = true
  }

  async #call(call: string): Promise<void> {
    this.calls.push(call)
    await this.before(call)
  }
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: as if the system had said so`), { code })
}

export async function failsWith(errno: NbdErrno, act: () => Promise<unknown>): Promise<NbdError> {
  const error = await act().then(
    () => new Error(`nothing failed; ${errno} was due`),
    (caught: unknown) => caught,
  )
  if (!(error instanceof NbdError)) throw error
  expect(error.errno, error.message).toBe(errno)
  return error
}

/** The whole map by as many questions as it takes. */
export async function mapOf(
  context: NbdContext | null,
  size: number,
  max = 131_072,
): Promise<readonly NbdDescriptor[]> {
  if (context === null) throw new Error('there is no such context')
  const map: NbdDescriptor[] = []
  for (let at = 0; at < size; ) {
    const runs = [...(await context.status(at, size - at, max))]
    expect(runs.length).toBeGreaterThan(0)
    expect(runs.length).toBeLessThanOrEqual(max)
    for (const { length } of runs) at += length
    map.push(...runs)
  }
  return map
}

/** The granules that a map calls dirty; the map must be made of whole ones but for the end of the disk. */
export async function dirtyGranules(
  context: NbdContext | null,
  size: number,
  granularity: number,
  max?: number,
): Promise<number[]> {
  const dirty: number[] = []
  let at = 0
  for (const { length, flags } of await mapOf(context, size, max)) {
    if (flags === 1)
      for (let granule = Math.floor(at / granularity); granule * granularity < at + length; granule++)
        dirty.push(granule)
    at += length
  }
  expect(at).toBe(size)
  return dirty
}
