/**
 * What is stored at one moment, to be looked at while its owner goes on: reads come from a LevelDB snapshot, what is put goes
 * into another database, and what is dropped stays. Cost: a snapshot; values replaced meanwhile keep their space until `close`.
 */
import type { AbstractLevel, AbstractSnapshot } from 'abstract-level'

type Db = AbstractLevel<string, string, Uint8Array>
type Batch = readonly (
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: string }
)[]

/** As much of a database as derived values need. `top` is closed with it; `base` stays open. */
export function viewOf(base: Db, top: Db): Db {
  const view = new DerivedView(base, top)
  return view as unknown as Db
}

class DerivedView {
  readonly #base: Db
  readonly #top: Db
  readonly #snapshot: AbstractSnapshot

  constructor(base: Db, top: Db) {
    this.#base = base
    this.#top = top
    this.#snapshot = base.snapshot()
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    return (await this.#top.get(key)) ?? (await this.#base.get(key, { snapshot: this.#snapshot }))
  }

  async has(key: string): Promise<boolean> {
    return (await this.#top.has(key)) || (await this.#base.has(key, { snapshot: this.#snapshot }))
  }

  keys(range: Parameters<Db['keys']>[0] = {}) {
    return this.#base.keys({ ...range, snapshot: this.#snapshot })
  }

  iterator(range: Parameters<Db['iterator']>[0] = {}) {
    return this.#base.iterator({ ...range, snapshot: this.#snapshot })
  }

  put(key: string, value: Uint8Array): Promise<void> {
    return this.#top.put(key, value)
  }

  del(key: string): Promise<void> {
    return this.#top.del(key)
  }

  batch(operations: Batch): Promise<void> {
    return this.#top.batch([...operations])
  }

  async clear(): Promise<void> {}

  async close(): Promise<void> {
    await this.#snapshot.close()
    await this.#top.close()
  }
}
