/**
 * Names out, made-up ones in: the same name becomes the same everywhere, and nothing leads back. Numbers are given in the order
 * of appearance; a hash becomes another under a key that is thrown away. What the rules look at (offsets, sizes, modes, digests
 * of bits) stays as it is.
 */
import { createHmac, randomBytes } from 'node:crypto'
import type { DomainEvent, RecordMeta } from '../../events/types.ts'
import { UNCLEAN_REASON } from '../commands/unclean.ts'

type Namespace =
  | 'disk'
  | 'bitmap'
  | 'backup'
  | 'checkpoint'
  | 'group'
  | 'reason'
  | 'actor'
  | 'id'
  | 'store'
  | 'folder'
  | 'text'

/** Which texts of an event are names, by field. */
const NAMES: Readonly<Record<string, Namespace>> = {
  disk: 'disk',
  bitmap: 'bitmap',
  backup: 'backup',
  of: 'backup',
  checkpoint: 'checkpoint',
  group: 'group',
  reason: 'reason',
  store: 'store',
  kept: 'folder',
}

/** Words of ours, and digests of bits: they name nobody. Any other text is replaced, so that a field to come is safe too. */
const OURS: ReadonlySet<string> = new Set([
  'type',
  'kind',
  'mode',
  'bits',
  'because',
  'recorder',
  'copiedBy',
  'digest',
])

/** Hashes of what was replaced: they would confirm a guess. */
const HASHES: ReadonlySet<string> = new Set(['hash', 'before', 'after', 'own', 'next'])

export interface Renamer {
  event(event: DomainEvent): DomainEvent
  meta(meta: RecordMeta): RecordMeta
}

export const KEEP_NAMES: Renamer = { event: (event) => event, meta: (meta) => meta }

export class Anonymiser implements Renamer {
  readonly #key = randomBytes(32)
  readonly #names = new Map<Namespace, Map<string, string>>()

  event(event: DomainEvent): DomainEvent {
    return this.#fields(event) as DomainEvent
  }

  meta({ command, commandId, argumentsHash, correlationId, causationId, actor }: RecordMeta): RecordMeta {
    return {
      ...(command === undefined ? {} : { command }),
      ...(commandId === undefined ? {} : { commandId: this.#name('id', commandId) }),
      ...(argumentsHash === undefined ? {} : { argumentsHash: this.#hash(argumentsHash) }),
      ...(correlationId === undefined ? {} : { correlationId: this.#name('id', correlationId) }),
      ...(causationId === undefined ? {} : { causationId: this.#name('id', causationId) }),
      ...(actor === undefined ? {} : { actor: this.#name('actor', actor) }),
    }
  }

  #fields(object: object): object {
    return Object.fromEntries(
      Object.entries(object).map(([field, value]: [string, unknown]) => [
        field,
        field === 'base' || field === 'cause' ? this.#reference(value as object) : this.#value(field, value),
      ]),
    )
  }

  #value(field: string, value: unknown): unknown {
    if (typeof value === 'string') return this.#text(field, value)
    if (Array.isArray(value)) return value.map((member) => this.#value(field, member))
    if (value !== null && typeof value === 'object') return this.#fields(value)
    return value
  }

  #text(field: string, text: string): string {
    if (OURS.has(field) || text === '' || text === UNCLEAN_REASON) return text
    if (HASHES.has(field)) return this.#hash(text)
    return this.#name(NAMES[field] ?? 'text', text)
  }

  /** A base (R11) or a slice's cause: what its name or id names depends on its kind. */
  #reference(object: object): object {
    const { kind } = object as { readonly kind?: string }
    return Object.fromEntries(
      Object.entries(object).map(([field, value]: [string, unknown]) => {
        if (typeof value !== 'string' || field === 'kind') return [field, value]
        if (kind === 'backup' || kind === 'checkpoint') return [field, this.#name(kind, value)]
        // A slice's number, or a time: that is moved elsewhere if it is to be.
        return [field, kind === 'slice' || kind === 'time' ? value : this.#name('text', value)]
      }),
    )
  }

  #name(namespace: Namespace, name: string): string {
    let names = this.#names.get(namespace)
    if (names === undefined) {
      names = new Map()
      this.#names.set(namespace, names)
    }
    let made = names.get(name)
    if (made === undefined) {
      made = `${namespace}-${names.size + 1}`
      names.set(name, made)
    }
    return made
  }

  #hash(hex: string): string {
    return createHmac('sha256', this.#key).update(hex).digest('hex')
  }
}
