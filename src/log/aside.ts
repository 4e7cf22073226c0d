/**
 * Copies of what LevelDB is about to replay or delete. At open it reads its write-ahead files, drops what is torn or flipped
 * without a word, and deletes them, as it does with tables that its manifest does not name (or no longer, if the manifest was
 * cut). So each is first put into a folder of its own, which goes away again when all is well (R28).
 * Cost: one link a file, a copy where links do not work; a copy of each table that is not named, normally none.
 */
import { existsSync } from 'node:fs'
import { copyFile, link, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { orphanTables } from './manifest.ts'

export interface Aside {
  readonly folder: string
  /** Bytes in the write-ahead files kept: how much of the log's tail may have come from them. */
  readonly bytes: number
  readonly files: readonly string[]
}

let made = 0

/** A name that no other process, and no other call in this one, chooses. Sorts by time. */
function uniqueFolder(parent: string): string {
  made++
  return join(parent, `${new Date().toISOString().replace(/[:.]/g, '-')}-${process.pid}-${made}`)
}

export async function writeAheadFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.filter((name) => name.endsWith('.log')).sort()
}

/** Keeps every non-empty write-ahead file of `folder`, and every table that would go; undefined when there is none. */
export async function keepAside(folder: string, parent: string): Promise<Aside | undefined> {
  const target = uniqueFolder(parent)
  const kept: string[] = []
  let bytes = 0
  for (const name of await writeAheadFiles(folder)) {
    const source = join(folder, name)
    const size = await stat(source).then((found) => found.size, ignoreMissing)
    if (size === undefined || size === 0) continue
    if (kept.length === 0) await mkdir(target, { recursive: true })
    await link(source, join(target, name)).catch(() => copyFile(source, join(target, name)))
    kept.push(name)
    bytes += size
  }
  // Copies: LevelDB may use the number of such a table again, and would write into a link.
  const orphans = orphanTables(folder)
  const named =
    orphans.length === 0 ? [] : (await readdir(folder)).filter((name) => /^(CURRENT|MANIFEST-)/.test(name))
  for (const name of [...orphans, ...named]) {
    if (kept.length === 0) await mkdir(target, { recursive: true })
    await copyFile(join(folder, name), join(target, name))
    kept.push(name)
  }
  return kept.length === 0 ? undefined : { folder: target, bytes, files: kept }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/** All is well: what was kept is not needed. */
export async function discardAside(aside: Aside | undefined): Promise<void> {
  if (aside !== undefined) await rm(aside.folder, { recursive: true, force: true })
}

const REASON_FILE = 'reason'
const CUT_FILE = 'cut-records'

/** Notes that damage was met, so that the folder stays. */
export async function markAside(aside: Aside | undefined, reason: string): Promise<void> {
  if (aside !== undefined) await writeFile(join(aside.folder, REASON_FILE), `${reason}\n`)
}

/** Folders that hold what damage left; the others are of opens that were killed before they knew. */
export async function keptAsides(parent: string): Promise<string[]> {
  const folders = await asides(parent)
  return folders.filter(
    (folder) => existsSync(join(folder, REASON_FILE)) || existsSync(join(folder, CUT_FILE)),
  )
}

/** The log is whole: what opens that were killed had kept is not needed either. */
export async function discardUnmarked(parent: string): Promise<void> {
  const kept = new Set(await keptAsides(parent))
  for (const folder of await asides(parent))
    if (!kept.has(folder)) await rm(folder, { recursive: true, force: true })
}

/** What a repair took out is no sign of damage: it was told in the log, and stays until somebody deletes it. */
export const REPAIR_PREFIX = 'repair-'

async function asides(parent: string): Promise<string[]> {
  const names = await readdir(parent).catch(() => [])
  return names
    .filter((name) => !name.startsWith(REPAIR_PREFIX))
    .sort()
    .map((name) => join(parent, name))
}

/**
 * Writes stored values that are about to be cut off into one file: (position:u64be | length:u32be | value) … .
 * Under its name only when whole and on disk. Returns its path.
 */
export async function keepValues(
  parent: string,
  aside: Aside | undefined,
  entries: readonly { readonly position: number; readonly value: Uint8Array }[],
): Promise<string> {
  const folder = aside?.folder ?? uniqueFolder(parent)
  await mkdir(folder, { recursive: true })
  const parts = entries.flatMap(({ position, value }) => {
    const head = Buffer.alloc(12)
    head.writeBigUInt64BE(BigInt(position))
    head.writeUInt32BE(value.length, 8)
    return [head, value]
  })
  const path = join(folder, CUT_FILE)
  await writeFile(`${path}.part`, Buffer.concat(parts), { flush: true })
  await rename(`${path}.part`, path)
  return path
}
