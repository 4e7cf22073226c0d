/**
 * What a door of this house serves, as the protocol sees it: a name, a size and what can be asked of the bytes.
 * It stands between the wire (handshake, transmission) and what is served (a tracked disk), so that neither knows
 * the other, and tests serve a buffer. Types only: it costs nothing.
 */
import type { Runs } from './runs.ts'

/** How a stretch is to be zeroed: `fua` must be durable when answered, `noHole` must stay allocated. */
export interface ZeroHow {
  readonly fua: boolean
  readonly noHole: boolean
}

/**
 * What one door serves under one name. Offsets and lengths are bytes; every call lies within the size (the caller has
 * checked). Refusals are an `NbdError` with the errno that the client is to see.
 */
export interface NbdExport {
  /** As clients ask for it. */
  readonly name: string
  readonly description: string
  /** In bytes. */
  readonly size: number
  readonly readOnly: boolean
  read(offset: number, length: number): Promise<Uint8Array>
  write(offset: number, data: Uint8Array, fua: boolean): Promise<void>
  writeZeroes(offset: number, length: number, how: ZeroHow): Promise<void>
  trim(offset: number, length: number, fua: boolean): Promise<void>
  /** Everything that was answered before is durable afterwards. */
  flush(): Promise<void>
  cache(offset: number, length: number): Promise<void>
  /**
   * Names of meta contexts for a query: `''` or none asks for all, `base:`, `qemu:` and `qemu:dirty-bitmap:` for those
   * of that namespace, anything else for exactly that name.
   */
  contexts(query?: string): Promise<readonly string[]>
  /** The context of exactly this name, opened at this moment; null when there is none. Asked at SET_META_CONTEXT. */
  context(name: string): Promise<NbdContext | null>
}

/** One run of a context's answer: bytes, and flags whose meaning is the context's. */
export interface NbdDescriptor {
  readonly length: number
  readonly flags: number
}

/** An opened meta context. `base:allocation`: flags HOLE 1, ZERO 2. `qemu:dirty-bitmap:…`: DIRTY 1. */
export interface NbdContext {
  readonly name: string
  /**
   * What holds from `offset` on: at least one run, at most `max`, in order and without a gap, together covering
   * at most `length` bytes, save that the last may reach further, never beyond the disk, and never when `max` is 1
   * (REQ_ONE).
   */
  status(offset: number, length: number, max: number): Promise<Runs>
}

/** What a server serves, by name. */
export interface NbdExports {
  list(): readonly NbdExport[]
  /** `''` finds the only export, or the one that is the default. */
  find(name: string): NbdExport | undefined
}
