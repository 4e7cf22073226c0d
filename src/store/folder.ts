/**
 * The store's folder: what makes it a store, and of which format (R34). Layout in docs/format.md.
 */
import { randomUUID } from 'node:crypto'
import { link, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CheckpointError } from '../errors.ts'

/** Begins the name of a `store.json` that is not linked into place yet; then the pid of its maker. */
const TEMPORARY = '.store.json.'

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
  /** There while a repair exchanges the log for the repaired one: nothing else may open it then. */
  readonly repairing: string
  /** Of disks that are served, and go on when the log cannot be written (R33). */
  readonly unrecorded: string
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
    repairing: join(root, 'repairing.json'),
    unrecorded: join(root, 'unrecorded'),
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
 * Makes a store in an absent or empty folder. `store.json` is written aside and linked into place, so a folder that has it is
 * whole, and of several processes that make one at once the first makes it and the others find it.
 * @throws CheckpointError NOT_A_STORE when the folder holds something else, IO_FAILED
 */
export async function makeStoreFile(paths: FolderPaths): Promise<StoreFile> {
  const temporary = join(paths.root, `${TEMPORARY}${process.pid}-${randomUUID()}`)
  try {
    await mkdir(paths.root, { recursive: true, mode: 0o750 })
    const store: StoreFile = {
      format: FORMAT,
      id: randomUUID(),
      created: new Date().toISOString(),
      making: true,
    }
    const text = `${JSON.stringify(store, null, 2)}\n`
    await writeFile(temporary, text, { mode: 0o640, flush: true, flag: 'wx' })
    const first = await linkFirst(temporary, paths.storeFile)
    await syncFolder(paths.root)
    await syncFolder(dirname(paths.root))
    if (first) return store
  } catch (cause) {
    throw cannotMake(paths, cause)
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined) // The next one to make a store there removes it.
  }
  return await readStoreFile(paths)
}

/** False when the name is there already. */
async function linkFirst(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw cause
  }
}

/**
 * The log exists now: from here on a missing one is damage, never a fresh start.
 * @throws CheckpointError IO_FAILED
 */
export async function storeIsMade(paths: FolderPaths, { making: _, ...file }: StoreFile): Promise<void> {
  const temporary = `${paths.storeFile}.${process.pid}`
  try {
    await writeFile(temporary, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o640, flush: true })
    await rename(temporary, paths.storeFile)
    // The entries of the log and its head are in this folder too, and their bytes are synced by those who write them.
    await syncFolder(paths.root)
  } catch (cause) {
    throw cannotMake(paths, cause)
  }
}

function cannotMake({ root }: FolderPaths, cause: unknown): CheckpointError {
  return new CheckpointError(
    'IO_FAILED',
    `cannot make a store in ${root}: ${(cause as Error).message}; check the path, its rights and its space`,
    { folder: root },
    cause,
  )
}

/** A new name in a folder survives a power cut once the folder itself was synced. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined)
  // Not every file system lets a folder be opened or synced; those that need it do.
  await folder?.sync().catch(() => undefined)
  await folder?.close()
}

/** True when a store may be made here: nothing there, or only what others have begun or left while making one. */
export async function isVacant(paths: FolderPaths): Promise<boolean> {
  let names: string[]
  try {
    names = await readdir(paths.root)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return true
    throw notFoundOr(paths.root, cause)
  }
  const begun = names.filter((name) => name.startsWith(TEMPORARY))
  if (begun.length !== names.length) return false
  // Whoever lives is still about to link its own.
  for (const name of begun) if (!lives(name)) await rm(join(paths.root, name), { force: true })
  return true
}

function lives(temporary: string): boolean {
  const pid = Number.parseInt(temporary.slice(TEMPORARY.length), 10)
  if (!Number.isSafeInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
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
