/**
 * Space of replaced values, given back to the file system. LevelDB drops them when it merges tables, but not while a reader holds
 * a view from before, and it merges a table at the bottom only with one above it. So what readers stood in the way of is done again
 * once they are gone: two deletions of keys that were never there make a table that reaches over the whole range.
 *
 * Merged tables stay as files while an iterator from before may read them, and LevelDB looks for such files only when it has
 * written a table: it is made to look once those iterators are gone.
 */
import { eventKey, FAR, FARTHER } from './keys.ts'
import type { Database } from './level-source.ts'

export class Reclaimer {
  readonly #db: Database
  #views = 0
  /** How many were ever opened: one that came and went during a merge may have kept its files too. */
  #opened = 0
  #owed: { from: number; to: number } | undefined
  /** A view that is open may keep files of tables that were merged meanwhile. */
  #filesKept = false
  #working: Promise<void> = Promise.resolve()

  constructor(db: Database) {
    this.#db = db
  }

  viewOpened(): void {
    this.#views++
    this.#opened++
  }

  viewReleased(): void {
    this.#views--
    if (this.#views > 0) return
    if (this.#owed !== undefined) this.#working = this.#again().catch(() => undefined)
    else if (this.#filesKept) this.#working = this.#dropFiles().catch(() => undefined)
  }

  async reclaim(from: number, to: number): Promise<void> {
    if (this.#views > 0) {
      const { from: first = from, to: last = to } = this.#owed ?? {}
      this.#owed = { from: Math.min(from, first), to: Math.max(to, last) }
    }
    await this.#merge(eventKey(from), eventKey(to))
  }

  /** Before the database is closed, when no view is open any more. `redo`: what is still owed is done now. */
  async end(redo: boolean): Promise<void> {
    await this.#working
    if (redo) await this.#again().catch(() => undefined)
  }

  async #again(): Promise<void> {
    if (this.#owed === undefined) return
    const { from, to } = this.#owed
    this.#owed = undefined
    const ends = [behind(from), behind(to)]
    await this.#db.batch(ends.map((key) => ({ type: 'del' as const, key })))
    await this.#merge(eventKey(from), behind(to))
  }

  async #merge(from: Uint8Array, to: Uint8Array): Promise<void> {
    const gone = this.#opened - this.#views
    await this.#db.compactRange(from, to)
    if (this.#opened === gone) return // Nobody looked meanwhile.
    if (this.#views > 0) this.#filesKept = true
    else await this.#dropFiles()
  }

  async #dropFiles(): Promise<void> {
    this.#filesKept = false
    await this.#db.compactRange(FAR, FARTHER)
  }
}

/** Sorts right behind the key of a position, and is no key of ours. */
function behind(position: number): Uint8Array {
  return Uint8Array.of(...eventKey(position), 0)
}
