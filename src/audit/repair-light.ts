/** Repairs that touch no record: a slot of the head file, what is derived, a store.json that says nothing any more (R28). */
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../errors.ts'
import { HeadFile, readHeadFile } from '../log/head-file.ts'
import { Derived } from '../store/derived.ts'
import { FORMAT, type FolderPaths, readStoreFile } from '../store/folder.ts'
import type { Finding } from './findings.ts'
import { keptName, REPORT } from './repair-kept.ts'

export interface Light {
  readonly words: readonly string[]
  readonly mend: () => Promise<void>
}

/** Damage that touches no record: a slot of the head file beside one that holds, and what is derived. */
export function lightRepair(paths: FolderPaths, findings: readonly Finding[]): Light | undefined {
  const heads = readHeadFile(paths.head)
  const codes = new Set(findings.map(({ code }) => code))
  const slot = codes.delete('HEAD_SLOT_DAMAGED')
  const derived = codes.delete('DERIVED_DAMAGED')
  if (codes.size > 0 || (slot && heads.kind !== 'good')) return undefined
  const words = [
    ...(slot ? ['the damaged slot of the head file is written again from the other one'] : []),
    ...(derived ? ['what is derived from the log is made anew'] : []),
  ]
  const mend = async () => {
    if (slot && heads.kind === 'good') {
      const { bootId, level, acknowledged, synced, state } = heads.slot
      // A new file with two slots, so that nothing of what lay between them is left either.
      const temporary = `${paths.head}.repairing`
      await rm(temporary, { force: true })
      const file = new HeadFile(temporary, bootId, { kind: 'missing' }, level)
      file.write(acknowledged, synced, state)
      file.write(acknowledged, synced, state)
      file.sync()
      file.close()
      await rename(temporary, paths.head)
    }
    if (!derived) return
    const values = await Derived.open(paths.derived)
    await values.dropDerived()
    await values.close()
  }
  return { words, mend }
}

/** A store.json that says nothing any more, beside a log and a head file that are there: it is made again. */
export async function storeFileDamage(
  paths: FolderPaths,
): Promise<{ readonly words: string; readonly mend: () => Promise<void> } | null> {
  try {
    await readStoreFile(paths)
    return null
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'NOT_A_STORE') throw error
    if (!existsSync(paths.log) || !existsSync(paths.head)) throw error
    const text = await readFile(paths.storeFile, 'latin1').catch(() => '')
    const id = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/.exec(text)?.[0]
    const words = `store.json is damaged and is made again, with ${id === undefined ? 'a new id' : 'its id'}`
    const mend = async () => {
      const kept = join(paths.aside, keptName(Date.now()))
      await mkdir(kept, { recursive: true })
      if (existsSync(paths.storeFile)) await copyFile(paths.storeFile, join(kept, 'store.json'))
      await writeFile(join(kept, REPORT), `${JSON.stringify({ also: [words] }, null, 2)}\n`)
      const file = { format: FORMAT, id: id ?? randomUUID(), created: new Date().toISOString() }
      const temporary = `${paths.storeFile}.${process.pid}`
      await writeFile(temporary, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o640, flush: true })
      await rename(temporary, paths.storeFile)
    }
    return { words, mend }
  }
}
