/**
 * Space of replaced values, given back to the file system. LevelDB drops them when it merges tables, but not while a reader holds
 * a view from before, and it merges a table at the bottom only with one above it. So what readers stood in the way of is done again
 * once they are gone: two deletions of keys that were never there make a table that reaches over the whole range.
 */
import { eventKey } from './keys.ts'
import type { Database } from './level-source.ts'

export class Reclaimer {
  readonly #db: Database
  #views = 0
  #owed: { from: number; to: number } | undefined
  #working: Promise<void> = Promise.resolve()

  constructor(db: Database) {
    this.#db = db
  }

  viewOpened(): void {
    this.#views++
  }

  viewReleased(): void {
    this.#views--
    if (this.#views === 0 && this.#owed !== undefined) this.#working = this.#again().catch(() => undefined)
  }

  async reclaim(from: number, to: number): Promise<void> {
    if (this.#views > 0) {
      const { from: first = from, to: last = to } = this.#owed ?? {}
      this.#owed = { from: Math.min(from, first), to: Math.max(to, last) }
    }
    await this.#db.compactRange(eventKey(from), eventKey(to))
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
    await this.#db.compactRange(eventKey(from), behind(to))
  }
}

/** Sorts right behind the key of a position, and is no key of ours. */
function behind(position: number): Uint8Array {
  return Uint8Array.of(...eventKey(position), 0)
}
