/**
 * Holding a log without opening it: LevelDB's lock is on the file LOCK, so an empty database of our own takes it through a link.
 * For work on the files themselves, which nobody may have open meanwhile.
 */
import { existsSync, mkdirSync, symlinkSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { database, levelFailure } from './level-source.ts'
import { claimHere } from './open-here.ts'
import { inUseHere, storeInUse } from './owner.ts'

/** Returns how to let go. Throws STORE_IN_USE. */
export async function holdLog(
  folder: string,
  ownerFile: string,
  bootId: Uint8Array,
): Promise<() => Promise<void>> {
  const release = claimHere(folder)
  if (release === undefined) throw inUseHere(ownerFile, folder, bootId)
  const scratch = await mkdtemp(join(tmpdir(), 'slicelog-hold-'))
  const done = async () => {
    release()
    await rm(scratch, { recursive: true, force: true })
  }
  // Without the folder there is nothing that anybody could have open.
  if (!existsSync(folder)) return done
  const db = database(join(scratch, 'db'))
  try {
    mkdirSync(join(scratch, 'db'))
    symlinkSync(join(resolve(folder), 'LOCK'), join(scratch, 'db', 'LOCK'))
    await db.open({ createIfMissing: true })
  } catch (error) {
    await done()
    const cause = (error as { cause?: unknown }).cause ?? error
    if ((cause as { code?: unknown }).code === 'LEVEL_LOCKED') throw storeInUse(ownerFile, folder, cause)
    throw levelFailure(cause, { folder })
  }
  return async () => {
    await db.close()
    await done()
  }
}
