/**
 * A map laid over another one: what a transaction decides is seen by its later commands and by nobody else.
 *
 * Forking costs nothing and writing costs what a Map costs; reading through a fork costs one lookup more. The map below
 * must not change while a fork of it is in use (the store decides synchronously, so it does not).
 * Order of iteration is a Map's: a key keeps its place when set again, and goes to the end when deleted and set anew.
 */
export class OverlayMap<K, V> {
  readonly #below: OverlayMap<K, V> | null
  readonly #own = new Map<K, V>()
  /** Keys of the map below that were deleted here; they stay, so that a key set anew moves to the end. */
  readonly #deleted = new Set<K>()

  constructor(entries: Iterable<readonly [K, V]> = [], below: OverlayMap<K, V> | null = null) {
    this.#below = below
    for (const [key, value] of entries) this.#own.set(key, value)
  }

  fork(): OverlayMap<K, V> {
    return new OverlayMap<K, V>([], this)
  }

  get(key: K): V | undefined {
    const own = this.#own.get(key)
    if (own !== undefined || this.#below === null || this.#own.has(key) || this.#deleted.has(key)) return own
    return this.#below.get(key)
  }

  set(key: K, value: V): void {
    this.#own.set(key, value)
  }

  delete(key: K): void {
    this.#own.delete(key)
    if (this.#below?.get(key) !== undefined) this.#deleted.add(key)
  }

  *entries(): Generator<[K, V]> {
    if (this.#below !== null) {
      for (const [key, value] of this.#below.entries()) {
        if (!this.#deleted.has(key)) yield [key, this.#own.get(key) ?? value]
      }
    }
    for (const [key, value] of this.#own) {
      if (this.#below === null || this.#deleted.has(key) || this.#below.get(key) === undefined)
        yield [key, value]
    }
  }

  *values(): Generator<V> {
    for (const [, value] of this.entries()) yield value
  }
}
