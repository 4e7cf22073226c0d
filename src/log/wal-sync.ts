/**
 * LevelDB (1.20) closes a full write-ahead file without a sync, so a synced write that follows covers only the new file, and
 * a power cut could keep the later record and lose the earlier one. Before a synced append, whatever was appended unsynced is
 * therefore synced by us, file by file (R30). Cost: one fdatasync for each write-ahead file, and only when there is something unsynced.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { writeAheadFiles } from './aside.ts'

/** What touches the disk, so that a test can watch it. */
export interface SyncHooks {
  readonly synced?: (path: string) => void
}

export class WalSync {
  #known: readonly string[] = []

  constructor(
    readonly folder: string,
    readonly hooks: SyncHooks = {},
  ) {}

  /** Before the synced batch. `unsynced`: whether an earlier append may still be in memory only. */
  async before(unsynced: boolean): Promise<void> {
    const now = await writeAheadFiles(this.folder)
    if (unsynced || now.join() !== this.#known.join()) await this.#sync(now)
    this.#known = now
  }

  /** After it: if a file was begun meanwhile, that file, the one it replaced, and its name in the folder. */
  async after(): Promise<void> {
    const now = await writeAheadFiles(this.folder)
    if (now.join() !== this.#known.join()) await this.#sync(now)
    this.#known = now
  }

  async #sync(names: readonly string[]): Promise<void> {
    for (const name of names) await this.#syncFile(join(this.folder, name), true)
    await this.#syncFile(this.folder, false)
  }

  async #syncFile(path: string, dataOnly: boolean): Promise<void> {
    // A file that is gone went into a table, which LevelDB does sync.
    const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
    if (file === undefined) return
    try {
      await (dataOnly ? file.datasync() : file.sync())
      this.hooks.synced?.(path)
    } finally {
      await file.close()
    }
  }
}
