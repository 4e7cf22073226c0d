/**
 * The catalog of a snapshot in pages, each stored once under its SHA-256: two snapshots share every page that did not change
 * between them. A list is looked at object by object (its values are immutable), so what did not change is neither encoded
 * nor hashed again: with thousands of disks of which few write, a snapshot costs a few pages.
 */
import { hash } from 'node:crypto'
import { Packr } from 'msgpackr'
import type { CatalogSection } from '../../projections/catalog-codec.ts'
import type { Derived } from './derived.ts'

const packr = new Packr({ useRecords: false })

/** SHA-256 of a page's bytes, as they are stored. */
export type PageName = Uint8Array

const KEY = 'c'
const KEYS_END = 'd'

function keyOf(name: PageName): string {
  return `${KEY}${Buffer.from(name).toString('hex')}`
}

/** A list whose items become plain values when they are stored. */
export interface PagedList extends Pick<CatalogSection, 'page' | 'items'> {
  plain(item: number): unknown
}

interface Page {
  readonly items: readonly unknown[]
  readonly name: PageName
}

/** Stores lists, remembering what it stored last. */
export class PageWriter {
  readonly #derived: Derived
  readonly #last: Page[][] = []

  constructor(derived: Derived) {
    this.#derived = derived
  }

  /** Nothing that was stored before is taken to be there still. */
  forget(): void {
    this.#last.length = 0
  }

  /** Stores one of the lists that make up a catalog, which `place` tells apart. */
  async store(list: PagedList, place: number): Promise<readonly PageName[]> {
    const before = this.#last[place] ?? []
    const pages: Page[] = []
    for (let from = 0; from < list.items.length; from += list.page) {
      const items = list.items.slice(from, from + list.page)
      const known = before[pages.length]
      pages.push(
        known !== undefined && same(known.items, items) && !this.#derived.isLost(keyOf(known.name))
          ? known
          : { items, name: await this.#put(items.map((_, i) => list.plain(from + i))) },
      )
    }
    this.#last[place] = pages
    return pages.map(({ name }) => name)
  }

  async #put(plain: readonly unknown[]): Promise<PageName> {
    const bytes = packr.pack(plain)
    const name = hash('sha256', bytes, 'buffer')
    const key = keyOf(name)
    if (!(await this.#derived.has(key))) await this.#derived.write([[key, bytes]])
    this.#derived.found(key)
    return name
  }
}

function same(before: readonly unknown[], items: readonly unknown[]): boolean {
  return before.length === items.length && items.every((item, i) => item === before[i])
}

/** The list that these pages hold. Throws when one is missing or is not what its name says; then it is dropped. */
export async function readPages(derived: Derived, names: readonly PageName[]): Promise<unknown[]> {
  const pages = await Promise.all(names.map((name) => readPage(derived, keyOf(name))))
  return pages.flat(1)
}

async function readPage(derived: Derived, key: string): Promise<unknown[]> {
  const bytes = await derived.value(key)
  if (bytes !== undefined && keyOf(hash('sha256', bytes, 'buffer')) === key)
    return packr.unpack(bytes) as unknown[]
  if (bytes !== undefined) await derived.write([], [key])
  derived.lost(key)
  throw new Error('a page of the catalog is missing or damaged')
}

/** Pages that are not what their names say. */
export async function damagedPages(derived: Derived): Promise<string[]> {
  const damaged: string[] = []
  for (const key of await derived.keys(KEY, KEYS_END)) {
    const bytes = await derived.value(key)
    if (bytes === undefined || keyOf(hash('sha256', bytes, 'buffer')) !== key) damaged.push(key.slice(1))
  }
  return damaged
}

/** Drops every page that is not among `wanted`. */
export async function collectPages(derived: Derived, wanted: Iterable<PageName>): Promise<void> {
  const keys = new Set([...wanted].map(keyOf))
  const idle = (await derived.keys(KEY, KEYS_END)).filter((key) => !keys.has(key))
  if (idle.length > 0) await derived.write([], idle)
}
