/**
 * Old events become new ones as they are read; what is stored is never rewritten (R34).
 *
 * A chain per event type: step n turns the fields of version n (an array, in the order of the record) into those of
 * version n + 1. The newest version of a type is the length of its chain + 1, so adding a step is all it takes.
 */
import { RecordDamage, RecordTooNew } from './damage.ts'

export type Upcast = (fields: readonly unknown[]) => readonly unknown[]
export type UpcastChains = Readonly<Record<string, readonly Upcast[] | undefined>>

/** Format 1: every type is at version 1. */
export const UPCASTS: UpcastChains = {}

export function upcast(
  type: string,
  version: number,
  fields: readonly unknown[],
  chains: UpcastChains,
): readonly unknown[] {
  const chain = chains[type] ?? []
  const newest = chain.length + 1
  if (version > newest) throw new RecordTooNew(type, version, newest)
  if (version < 1) throw new RecordDamage('format', `${type} has version ${version}`)
  return chain.slice(version - 1).reduce((older, step) => step(older), fields)
}
