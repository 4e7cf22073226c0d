/**
 * Events that stand for writes without records of their own: a window that an agent told (R3), and what a power cut may have taken
 * the records of (R30). Every fold takes both alike, so none asks for one of them by its type; they differ in words only.
 */
import type { DomainEvent } from './types.ts'

export type ToldWrites = Extract<DomainEvent, { readonly type: 'window' | 'maybe-written' }>

/** Their types, for filters. */
export const TOLD_WRITES: readonly ToldWrites['type'][] = ['window', 'maybe-written']

export function isToldWrites(event: DomainEvent): event is ToldWrites {
  return event.type === 'window' || event.type === 'maybe-written'
}

/** How many writes it stands for; 0 when nobody knows. */
export function writesTold(event: ToldWrites): number {
  return event.type === 'window' ? event.writes : 0
}
