/**
 * The store's folder: what makes it a store, and of which format (R34). Layout in docs/format.md.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../errors.ts'

/** The newest format that this version writes and reads. */
export const FORMAT = 1

export interface StoreFile {
  readonly format: number
  readonly id: string
  readonly created: string
  /** Set until the log exists for the first time; after that a missing log is damage. */
  readonly making?: true
}

export interface FolderPaths {
  readonly root: string
  readonly storeFile: string
  readonly log: string
  readonly head: string
  readonly owner: string
  readonly derived: string
  readonly aside: string
}

export function pathsOf(root: string): FolderPaths {
  return {
    root,
    storeFile: join(root, 'store.json'),
    log: join(root, 'log'),
    head: join(root, 'head'),
    owner: join(root, 'owner.json'),
    derived: join(root, 'derived'),
    aside: join(root, 'aside'),
  }
}

/**
 * Reads what the folder says of itself.
 * @throws CheckpointError STORE_NOT_FOUND (no folder, or an empty one), NOT_A_STORE, FORMAT_TOO_NEW
 */
export async function readStoreFile(paths: FolderPaths): Promise<StoreFile> {
  let names: string[]
  try {
    names = await readdir(paths.root)
  } catch (cause) {
    throw notFoundOr(paths.root, cause)
  }
  if (names.length === 0) throw notFound(paths.root)
  if (!names.includes('store.json')) throw notAStore(paths.root, 'it has no store.json')
  return parse(paths.root, await readFile(paths.storeFile, 'utf8'))
}

/**
 * Makes a store in an absent or empty folder. `store.json` is written last and renamed into place, so a folder that has
 * it is whole; what a crash left half made is an empty log that the next attempt takes over.
 * @throws CheckpointError NOT_A_STORE when the folder holds something else, IO_FAILED
 */
export async function makeStoreFile(paths: FolderPaths): Promise<StoreFile> {
  try {
    await mkdir(paths.root, { recursive: true, mode: 0o750 })
    const store: StoreFile = {
      format: FORMAT,
      id: randomUUID(),
      created: new Date().toISOString(),
      making: true,
    }
    const temporary = join(paths.root, `.store.json.${process.pid}`)
    const file = await open(temporary, 'w', 0o640)
    try {
      await file.writeFile(`${JSON.stringify(store, null, 2)}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, paths.storeFile)
    return store
  } catch (cause) {
    throw new CheckpointError(
      'IO_FAILED',
      `cannot make a store in ${paths.root}: ${(cause as Error).message}; check the path, its rights and its space`,
      { folder: paths.root },
      cause,
    )
  }
}

/** True when a store may be made here: nothing there, or only what a crash left while one was being made. */
export async function isVacant(paths: FolderPaths): Promise<boolean> {
  try {
    const info = await stat(paths.root)
    if (!info.isDirectory()) throw notAStore(paths.root, 'it is a file')
    const names = await readdir(paths.root)
    const leftovers = names.filter((name) => name.startsWith('.store.json.'))
    if (leftovers.length !== names.length) return false
    for (const name of leftovers) await rm(join(paths.root, name), { force: true })
    return true
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return true
    throw cause
  }
}

function parse(root: string, text: string): StoreFile {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw notAStore(root, 'its store.json is no JSON', cause)
  }
  const { format, id, created, making } = (parsed ?? {}) as Partial<StoreFile>
  if (typeof format !== 'number' || !Number.isInteger(format) || format < 1 || typeof id !== 'string') {
    throw notAStore(root, 'its store.json names no format')
  }
  if (format > FORMAT) {
    throw new CheckpointError(
      'FORMAT_TOO_NEW',
      `${root} is a store of format ${format}; this version knows up to ${FORMAT}. Upgrade slicelog, nothing was changed`,
      {
        folder: root,
        format,
        known: FORMAT,
      },
    )
  }
  return { format, id, created: String(created), ...(making === true ? { making } : {}) }
}

function notFoundOr(root: string, cause: unknown): CheckpointError {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'ENOENT') return notFound(root)
  if (code === 'ENOTDIR') return notAStore(root, 'it is a file', cause)
  return new CheckpointError('IO_FAILED', `cannot read ${root}: ${message}`, { folder: root }, cause)
}

function notFound(root: string): CheckpointError {
  return new CheckpointError(
    'STORE_NOT_FOUND',
    `there is no store in ${root}; make one with "slicelog --store ${root} init"`,
    { folder: root },
  )
}

function notAStore(root: string, why: string, cause?: unknown): CheckpointError {
  return new CheckpointError(
    'NOT_A_STORE',
    `${root} is not a slicelog store: ${why}; give a store's folder, or an empty one to make a store in`,
    { folder: root, why },
    cause,
  )
}
